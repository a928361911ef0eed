// One tensor's entry in quern-report.json: figures of what was produced and of what storing it cost;
// and the same over all tensors, for the report's summary.
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
    double norm, norm_tolerance; // negative: not computed; the tolerance is relative
    bool unchanged;              // dtype and bits are the source's
} qn_tensor_figures;

json_t *qn_tensor_entry(const qn_out_tensor *t, const qn_tensor_figures *f);
// "gptq 8-bit g128", "fp8-block 8-bit 128x128" or "BF16".
char *qn_stored_as(const qn_weight *w);
// Inputs per scale: what the label means where the only group could be a whole or a short one; -1:
// all inputs, whatever their number.
int64_t qn_group_meant(const qn_weight *w);
// Code and scale range of a quantized weight, threaded. seen: the codes' range where decoding has told
// it; NULL: they are read here.
bool qn_measure_codes(qn_pool *pool, const qn_weight *w, const qn_codes_seen *seen,
                      qn_code_range *out, qn_err *err);

// Over all tensors. {0} is empty.
typedef struct qn_report_totals {
    size_t tensors, quantized, unchanged, produced, matrices;
    qn_diff rounding;
    uint64_t n_not_close, n_overflow;
    qn_code_range codes;
    bool any_codes; // some scheme has them: fp8 has not
    double norm_min, norm_max;
} qn_report_totals;
void qn_totals_add(qn_report_totals *sum, const qn_out_tensor *t, const qn_tensor_figures *f);
void qn_totals_to_json(const qn_report_totals *sum, json_t *summary);

#endif
