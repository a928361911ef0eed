// Converting any readable checkpoint to a plain one that every loader accepts.
#ifndef QN_QUANT_CONVERT_H
#define QN_QUANT_CONVERT_H

#include <jansson.h>

#include "quern.h"

typedef enum qn_convert_dtype { QN_TO_F32, QN_TO_BF16, QN_TO_F16 } qn_convert_dtype;

typedef struct qn_convert_options {
    qn_convert_dtype dtype;
    uint64_t shard_bytes; // 0: 5 GB
    bool overwrite, saturate, keep_extra;
    bool as_is; // also a source whose codes were read wrongly
    int n_threads;
    qn_progress_fn progress;
    void *user;
} qn_convert_options;

// Dequantizes what is quantized and rounds every float tensor once to dtype (A_log and the gated
// norm of hybrid families stay float32 where they are stored so); tensors in the family's order,
// side files carried over, quantization configs dropped. The result is read back and proven with the
// second decoder before it gets its name. *report is quern-report.json's document (json_decref).
bool qn_convert(const char *model, const char *out, const qn_convert_options *o, json_t **report,
                qn_err *err);

#endif
