// The inner loops over long runs of values: statistics, rounding to a stored dtype with the
// error that costs, and the products behind the operator norm. Written once over 16 lanes, with no
// operation fused but where it says so, and compiled plainly, for AVX2 and for AVX-512: all give the
// same bits.
#ifndef QN_QUANT_VALUE_RUNS_H
#define QN_QUANT_VALUE_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QN_RUN = 16384 }; // values of one run at most

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
    // False, and nothing written, when a value is not finite. n is 1 … QN_RUN.
    bool (*stats)(const float *x, size_t n, qn_run_stats *out);
    // Rounds finite values to nearest even into out (2 or 4 bytes each); adds to *error.
    void (*round)(qn_run_dtype dtype, const float *x, size_t n, bool saturate, uint8_t *out,
                  qn_run_error *error);
    // Finite values as 64 + round(x / scale) in 1 … 127; returns scale, largest magnitude / 63.
    float (*seven_bits)(const float *x, size_t n, uint8_t *out);
    // Both of bf16 or f16 values as they are stored: the same bits as of the widened run.
    bool (*stats_stored)(qn_run_dtype dtype, const uint8_t *x, size_t n, qn_run_stats *out);
    float (*seven_bits_stored)(qn_run_dtype dtype, const uint8_t *x, size_t n, uint8_t *out);
    double (*dot)(const float *a, const float *b, size_t n); // float sums by runs, double over runs
    // For rows w [n][cols]: y = w x, z += w^T y.
    void (*rows_times)(const float *w, size_t n, size_t cols, const float *x, float *y, float *z);
} qn_value_runs;

extern const qn_value_runs qn_value_runs_plain, qn_value_runs_avx2, qn_value_runs_avx512;
const qn_value_runs *qn_value_runs_best(void);

// bf16 or f16 values as floats.
void qn_run_widen(qn_run_dtype dtype, const uint8_t *x, size_t n, float *out);

// Statistics in double, two plain passes: for short runs, and for values whose fourth powers leave
// the range of float or sit on a large offset. Finite values only.
void qn_run_stats_careful(const float *x, size_t n, qn_run_stats *out);

#endif
