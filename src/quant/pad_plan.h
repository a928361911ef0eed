// What padding does to one size of a model and to the tensors that have it.
#ifndef QN_QUANT_PAD_PLAN_H
#define QN_QUANT_PAD_PLAN_H

#include "quant/pad.h"
#include "quant/source_model.h"

typedef struct qn_pad_size { // one of intermediate_size, moe_…, shared_expert_…
    const char *key;         // in the config
    size_t from, to;         // to == from: untouched
    qn_pad_layout layout;
} qn_pad_size;

typedef enum qn_pad_axis {
    QN_PAD_NONE,
    QN_PAD_ROWS,       // gate, up: [I, H]
    QN_PAD_COLS,       // down: [H, I]
    QN_PAD_FUSED_ROWS, // experts.gate_up_proj [E, 2 I, H]: gate and up each
    QN_PAD_FUSED_COLS, // experts.down_proj [E, H, I]
} qn_pad_axis;

// Which axis of an expected tensor is padded, and by which size of sizes[3] (dense, MoE, shared).
qn_pad_axis qn_pad_axis_of(const qn_expected *e, const qn_pad_size sizes[3],
                           const qn_pad_size **size);
// The old unit at a new place, or SIZE_MAX for a zero.
size_t qn_pad_source(const qn_pad_size *s, size_t place);

typedef struct qn_pad_matrix { // a quantized matrix and what becomes of it
    const qn_weight *w;
    qn_pad_axis axis;
    const qn_pad_size *size;
    size_t group; // inputs per scale by tensors and label; 0: one scale for all, however many
} qn_pad_matrix;

// Adds the padded tensors of one quantized (GPTQ or AWQ) matrix to the rewrite, in the order of the
// file. The tensors' user data is the caller's to free, one by one with free.
bool qn_pad_quantized(qn_rewrite *r, const qn_ckpt *c, const qn_pad_matrix *m, qn_err *err);

// Proof on the written folder (see pad.h).
typedef struct qn_pad_subject {
    const qn_source_model *source;
    const qn_pad_size *sizes;
    size_t n_quantized, n_padded; // matrices
    bool forward;                 // run the models whatever memory that takes
    int n_threads;
    qn_progress_fn progress;
    void *user;
} qn_pad_subject;
bool qn_pad_prove(void *subject, const char *dir, json_t *report, qn_err *err);

// Whether a model of these weights can be run in the memory that pad may take: its largest weight as
// float and 256 MB.
bool qn_pad_forward_fits(const qn_weight *list, size_t n, size_t vocab);
// Both models on a text. False: the logits differ more than they may, or the written one cannot be
// run. *result: {tokens, logits_bit_equal, max_abs_difference, max_relative_difference}, or a line
// that says why there is nothing to compare.
bool qn_pad_forward(const qn_pad_subject *s, const char *dir, json_t **result, qn_err *err);

#endif
