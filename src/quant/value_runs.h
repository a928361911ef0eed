// The inner loops over long runs of values: statistics of a run, and rounding a run to its stored
// dtype with the error that costs. Written over 8 lanes with fixed sums and no fused operations, and
// compiled twice (plainly and for AVX2), so both give the same bits.
#ifndef QN_QUANT_VALUE_RUNS_H
#define QN_QUANT_VALUE_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QN_RUN = 4096 }; // values of one run at most

// Of n finite values: extremes, zeros, mean, central moments sum (x − mean)^k, and how many have a
// magnitude below f16's normal numbers, half its smallest, and beyond its largest.
typedef struct qn_run_stats {
    float min, max;
    double mean, m2, m3, m4;
    uint64_t n_zero, n_subnormal, n_vanishing, n_overflow;
} qn_run_stats;

typedef struct qn_run_error { // stored against exact
    float max_abs;
    double abs_sum;
    uint64_t n_not_close, n_overflow; // |error| > 1e-3 + 1e-3 |exact|; beyond f16
} qn_run_error;

typedef enum qn_run_dtype { QN_RUN_F32, QN_RUN_BF16, QN_RUN_F16 } qn_run_dtype;

typedef struct qn_value_runs {
    bool (*finite)(const float *x, size_t n);
    void (*stats)(const float *x, size_t n, qn_run_stats *out);
    // Rounds finite values to nearest even into out (2 or 4 bytes each); adds to *error.
    void (*round)(qn_run_dtype dtype, const float *x, size_t n, bool saturate, uint8_t *out,
                  qn_run_error *error);
} qn_value_runs;

extern const qn_value_runs qn_value_runs_plain, qn_value_runs_avx2;
const qn_value_runs *qn_value_runs_best(void);

#endif
