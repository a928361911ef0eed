// What a quantization config says: the label on the box. quern looks into the box (the tensors) and
// compares; the label decides only where the tensors leave a choice.
#ifndef QN_STORE_LABEL_H
#define QN_STORE_LABEL_H

#include <jansson.h>

#include "quern.h"

// What is said about one module. 0 and -1 mean: nothing is said.
typedef struct qn_label_entry {
    int bits;
    int64_t group;      // -1: one group for all inputs (so "nothing" is 0)
    bool group_zero;    // it says 0, which is no size
    int sym, desc_act;  // -1, 0, 1
    size_t block[2];    // rows, columns of an fp8 block
    const char *skip;   // the pattern that says it is not quantized; NULL: none does
} qn_label_entry;

typedef struct qn_label_rule qn_label_rule;

typedef struct qn_label { // {0} (no method) says nothing
    const char *file;   // whose label: "config.json", …; borrowed
    json_t *json;       // owned; the strings below live in it
    const char *method; // "gptq", "awq", "fp8", "compressed-tensors", "auto-round"
    const char *format; // checkpoint_format, format or version: "gptq_v2", "gemm", …; or NULL
    qn_label_entry all;
    qn_label_rule *rules; // what differs for some modules, first match wins
    size_t n_rules;
} qn_label;

// Reads a quantization config, all spellings. A method or format quern does not know is
// QN_UNSUPPORTED, a malformed value QN_INPUT; what was read before stays. Release it either way.
bool qn_label_read(qn_label *l, const json_t *config, const char *file, qn_err *err);
bool qn_label_parse(qn_label *l, const char *text, size_t n, const char *file, qn_err *err);
void qn_label_done(qn_label *l);

// What it says about one module ("model.layers.0.mlp.up_proj").
qn_label_entry qn_label_for(const qn_label *l, const char *module);
// Whether it says, for all one can know, that this linear layer is quantized.
bool qn_label_wants(const qn_label *l, const char *module);

#endif
