// Padding intermediate_size so that tensor parallelism can split it in whole groups.
#ifndef QN_QUANT_PAD_H
#define QN_QUANT_PAD_H

#include <jansson.h>

#include "quern.h"

typedef enum qn_pad_layout {
    QN_PAD_TAIL,       // zeros behind the real units; simple to undo, groups stay as they were
    QN_PAD_INTERLEAVE, // zeros spread among the first units, as official Qwen2-72B checkpoints do:
                       // old unit k < n_zeros goes to 2k, a zero to 2k + 1, the rest follow (with
                       // more zeros than units: old unit k to floor(k * new / old))
} qn_pad_layout;

typedef struct qn_pad_options {
    int tp;                // devices
    size_t group_size;     // 0: the checkpoint's, or 128 for a float one; must be a multiple of
                           // the groups that a quantized down_proj is stored in
    qn_pad_layout layout;
    uint64_t shard_bytes;
    bool overwrite;
    bool as_is; // also a source whose codes were read wrongly
    bool forward; // prove by whole passes even where that takes more memory than the rest
    int n_threads;
    qn_progress_fn progress;
    void *user;
} qn_pad_options;

// gate and up rows, down columns (experts and shared experts too) up to the next multiple of
// group * tp; config updated. Float checkpoints get zeros; GPTQ and AWQ ones codes equal to the zero
// point with scale 1, tail only. When every size divides already, a plain copy and a note. The result
// is read back: every byte that is not padded a copy, every real value equal and in its place, every
// padded one zero, no padded scale zero, and every MLP's output on a random input unchanged (bit for
// bit with tail layout, within rounding with interleave). All streamed, so a 72B model needs no more
// memory than a small one. Where both models, one after the other, fit the same memory (the largest
// tensor as float and 256 MB) or `forward` asks for it, they are run on a text too, and their logits
// compared: independent_check.forward.
bool qn_pad(const char *model, const char *out, const qn_pad_options *o, json_t **report,
            qn_err *err);

#endif
