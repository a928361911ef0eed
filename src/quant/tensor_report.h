// One tensor's entry in quern-report.json: figures of what was produced and of what storing it cost.
#ifndef QN_QUANT_TENSOR_REPORT_H
#define QN_QUANT_TENSOR_REPORT_H

#include "quant/rewrite.h"

typedef struct qn_code_range { // over all groups of a quantized source; {0} with n 0: none
    uint64_t n_scales;
    double scale_min, scale_max, scale_sum;
    int code_min, code_max;
} qn_code_range;

typedef struct qn_tensor_figures {
    qn_stats exact;    // what was produced
    qn_diff rounding;  // stored against exact
    uint64_t n_not_close; // |stored − exact| > 1e-3 + 1e-3 |exact| (numpy's allclose)
    uint64_t n_overflow;  // finite values that f16 cannot hold
    qn_code_range codes;
    double norm, norm_tolerance; // negative: not computed
} qn_tensor_figures;

json_t *qn_tensor_entry(const qn_out_tensor *t, const qn_tensor_figures *f);
// "gptq int8 g128" or "BF16".
char *qn_stored_as(const qn_weight *w);
// Code and scale range of a quantized weight, threaded.
bool qn_measure_codes(qn_pool *pool, const qn_weight *w, qn_code_range *out, qn_err *err);

#endif
