// What a model computes for one prompt, written as safetensors: the tensors of `quern dump`.
#ifndef QN_QUANT_DUMP_H
#define QN_QUANT_DUMP_H

#include "quern.h"

typedef struct qn_dump_options {
    const int32_t *tokens;
    size_t n_tokens;
    bool hidden, mtp;       // hidden.0 … hidden.L, hidden.final; mtp.logits
    const qn_image *images; // in the order of their placeholders
    size_t n_images;
    qn_progress_fn progress;
    void *user;
} qn_dump_options;

// tokens I32[T] (placeholders of images expanded), logits F32[T,V], and what else is asked for.
// The engine should have no prefix cache: every position is computed. Logits go straight to the
// file, the rest is held until they are through. path appears when it is complete.
bool qn_dump_write(const qn_model *m, qn_engine *e, const char *path, const qn_dump_options *o,
                   qn_err *err);

#endif
