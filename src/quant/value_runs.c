// The loops over runs of values, compiled plainly; the careful statistics; the choice between builds.
#include "quant/lanes_plain.h"
#include "quant/value_runs_lanes.h"

#include "base/cpu.h"

const qn_value_runs qn_value_runs_plain = {
    lanes_finite, lanes_widen,      lanes_stats,
    lanes_round,  lanes_seven_bits, lanes_stats_stored, lanes_seven_bits_stored,
    lanes_dot,    lanes_rows_times,
};

const qn_value_runs *qn_value_runs_best(void) {
    if (qn_cpu_has(QN_ISA_AVX512)) return &qn_value_runs_avx512;
    return qn_cpu_has(QN_ISA_AVX2) ? &qn_value_runs_avx2 : &qn_value_runs_plain;
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
