// The loops over runs of values, compiled plainly; the careful statistics; the choice between builds.
#include "quant/lanes_plain.h"
#include "quant/value_runs_lanes.h"

#include "base/cpu.h"
#include "store/code_loops.h"

const qn_value_runs qn_value_runs_plain = LANES_RUNS;

const qn_value_runs *qn_value_runs_best(void) {
    if (qn_cpu_has(QN_ISA_AVX512)) return &qn_value_runs_avx512;
    return qn_cpu_has(QN_ISA_AVX2) ? &qn_value_runs_avx2 : &qn_value_runs_plain;
}

void qn_run_widen(qn_run_dtype dtype, const uint8_t *x, size_t n, float *out) {
    const qn_code_loops *loops = qn_code_loops_best();
    (dtype == QN_RUN_BF16 ? loops->widen_bf16 : loops->widen_f16)(x, n, out);
}

void qn_run_stats_careful(const float *x, size_t n, qn_run_stats *out) {
    double sum = 0;
    *out = (qn_run_stats){.min = x[0], .max = x[0]};
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        sum += (double)x[i];
        out->min = x[i] < out->min ? x[i] : out->min;
        out->max = x[i] > out->max ? x[i] : out->max;
        out->n_zero += a == 0;
        out->n_subnormal += a > 0 && a < 0x1p-14f;
        out->n_vanishing += a > 0 && a <= 0x1p-25f;
        out->n_overflow += a >= 65520.0f;
    }
    out->min += 0.0f, out->max += 0.0f; // no −0
    out->mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - out->mean, d2 = d * d;
        out->m2 += d2;
        out->m3 += d2 * d;
        out->m4 += d2 * d2;
    }
}
