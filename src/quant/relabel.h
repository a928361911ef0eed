// label-mismatch: a quantized checkpoint whose config misdescribes its tensors.
#ifndef QN_QUANT_RELABEL_H
#define QN_QUANT_RELABEL_H

#include "quant/source_model.h"

typedef struct qn_relabel_options {
    uint64_t shard_bytes;
    bool overwrite;
    int n_threads;
    qn_progress_fn progress;
    void *user;
} qn_relabel_options;

// Copies every tensor and writes a quantization config (in config.json and in the side file that
// had one) that says what the tensors are. QN_INPUT when it does so already. The result is opened
// again and must have no label errors.
bool qn_relabel(qn_source_model *m, const char *out, const qn_relabel_options *o, json_t *notes,
                json_t **report, qn_err *err);

// A copy of the quantization config, corrected likewise. The caller's; NULL when there is none.
json_t *qn_relabel_corrected(const qn_source_model *m);

#endif
