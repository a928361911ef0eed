// Figures about numbers: statistics of one tensor, differences between two. Everything is summed in
// double, block by block in order, so a figure does not depend on the thread count.
#ifndef QN_QUANT_MEASURE_H
#define QN_QUANT_MEASURE_H

#include <jansson.h>

#include "base/pool.h"
#include "quant/value_runs.h"
#include "quern.h"

// Of the finite values; counts say how many were not. {0} is empty.
typedef struct qn_stats {
    uint64_t n, n_nonfinite, first_nonfinite; // first: element index, meaningful if n_nonfinite
    uint64_t n_zero;
    uint64_t n_subnormal, n_vanishing, n_overflow; // as f16: below 2^-14, rounded to 0, infinite
    double min, max;
    double mean, m2, m3, m4; // running central moments (Pébay 2008): m2 = sum (x - mean)^2 …
} qn_stats;
void qn_stats_add(qn_stats *s, const float *x, size_t n); // appends: indices continue
// The same of n bf16 or f16 values as they are stored; the same bits as of the widened values.
void qn_stats_add_stored(qn_stats *s, qn_run_dtype dtype, const uint8_t *x, size_t n);
void qn_stats_merge(qn_stats *s, const qn_stats *next);   // next follows s in element order
double qn_stats_std(const qn_stats *s);      // population standard deviation
double qn_stats_kurtosis(const qn_stats *s); // m4 n / m2^2; 3 for a Gaussian, 0 when undefined

// Whether f16 loses more of it than a few small values: a thousandth becomes 0, or a tenth loses
// digits.
bool qn_stats_fade_as_f16(const qn_stats *s);

// a against b (b is the reference). {0} is empty.
typedef struct qn_diff {
    uint64_t n, n_skipped; // skipped: either value not finite
    double dot, aa, bb, ee, abs_sum, max_abs, max_rel;
    uint64_t first, at_max; // first differing element (bits; meaningful if any_differs), worst one
    bool any_differs;
} qn_diff;
void qn_diff_add(qn_diff *d, const float *a, const float *b, size_t n);
void qn_diff_merge(qn_diff *d, const qn_diff *next);
double qn_diff_cosine(const qn_diff *d);  // 1 when both are all zero, 0 when one is
double qn_diff_mse(const qn_diff *d);
double qn_diff_rel_rms(const qn_diff *d); // ‖a − b‖ / ‖b‖; inf when only b is zero

// Logits: log-softmax in double over n values, in place into out.
void qn_log_softmax(const float *logits, size_t n, double *out);
double qn_kl(const double *log_p, const double *log_q, size_t n); // KL(p ‖ q)
// How many of a's k largest are among b's k largest, as a share (ties: lower index first).
double qn_topk_agreement(const float *a, const float *b, size_t n, size_t k);

// Mean, median, percentile and standard error of the mean of a sample (sorted in place).
typedef struct qn_summary {
    size_t n;
    double mean, std_error, median, p99, max;
} qn_summary;
void qn_summarize(double *x, size_t n, qn_summary *out);

// Adds min, max, mean, std, nonfinite to a JSON object.
void qn_stats_to_json(const qn_stats *s, json_t *object);

#endif
