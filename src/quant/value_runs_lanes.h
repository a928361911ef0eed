// The bodies of value_runs.h, included by one file per instruction set. Eight lanes of float, or of
// double for sums: lane i takes values i, i + 8, …, lanes are joined in order, then the short end.
#ifndef QN_QUANT_VALUE_RUNS_LANES_H
#define QN_QUANT_VALUE_RUNS_LANES_H

#include <math.h>
#include <string.h>

#include "quant/value_runs.h"

typedef float lane_f __attribute__((vector_size(32), aligned(4)));
typedef int32_t lane_i __attribute__((vector_size(32), aligned(4)));
typedef int16_t lane_h __attribute__((vector_size(16), aligned(2)));
typedef float half_f __attribute__((vector_size(16), aligned(4)));
typedef double half_d __attribute__((vector_size(32), aligned(8)));
typedef struct lane_d { // eight doubles in two registers
    half_d lo, hi;
} lane_d;

static inline double joined(const lane_d *v) {
    double s = 0;
    for (int i = 0; i < 4; i++) s += v->lo[i];
    for (int i = 0; i < 4; i++) s += v->hi[i];
    return s;
}

static inline lane_d widened(const lane_f *x) {
    half_f half[2];
    memcpy(half, x, sizeof half);
    return (lane_d){__builtin_convertvector(half[0], half_d),
                    __builtin_convertvector(half[1], half_d)};
}

static inline uint64_t counted(const lane_i *v) { // lanes hold −1 for each hit
    int64_t s = 0;
    for (int i = 0; i < 8; i++) s -= (*v)[i];
    return (uint64_t)s;
}

static bool lanes_finite(const float *x, size_t n) {
    lane_f probe = {0};
    float rest = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        lane_f v;
        memcpy(&v, x + i, sizeof v);
        probe += v * 0; // inf and nan become nan
    }
    for (; i < n; i++) rest += x[i] * 0;
    for (int k = 0; k < 8; k++) rest += probe[k];
    return rest == 0;
}

// ---- statistics ----

typedef struct first_pass {
    lane_f min, max;
    lane_d sum;
    lane_i zero, subnormal, vanishing, overflow;
} first_pass;

static inline void first_take(first_pass *p, const lane_f *x) {
    const lane_i magnitude = {0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF,
                              0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF};
    lane_f v = *x, a = (lane_f)((lane_i)v & magnitude);
    lane_i zero = a == 0, lower = v < p->min, higher = v > p->max;
    p->min = (lane_f)(((lane_i)v & lower) | ((lane_i)p->min & ~lower));
    p->max = (lane_f)(((lane_i)v & higher) | ((lane_i)p->max & ~higher));
    lane_d wide = widened(&v);
    p->sum.lo += wide.lo;
    p->sum.hi += wide.hi;
    p->zero += zero;
    p->subnormal += (a < 0x1p-14f) & ~zero;
    p->vanishing += (a <= 0x1p-25f) & ~zero;
    p->overflow += a >= 65520.0f;
}

static inline void moments(half_d *m2, half_d *m3, half_d *m4, half_d d) {
    half_d d2 = d * d;
    *m2 += d2;
    *m3 += d2 * d;
    *m4 += d2 * d2;
}

static inline void second_take(lane_d *m2, lane_d *m3, lane_d *m4, const lane_f *x, double mean) {
    lane_d wide = widened(x);
    moments(&m2->lo, &m3->lo, &m4->lo, wide.lo - mean);
    moments(&m2->hi, &m3->hi, &m4->hi, wide.hi - mean);
}

// The last, partial lane: whole lanes are taken before it, the rest one value at a time.
static void lanes_stats(const float *x, size_t n, qn_run_stats *out) {
    first_pass p;
    memset(&p, 0, sizeof p);
    for (int i = 0; i < 8; i++) p.min[i] = p.max[i] = x[0];
    size_t whole = n / 8 * 8;
    double sum = 0, m2 = 0, m3 = 0, m4 = 0;
    for (size_t i = 0; i < whole; i += 8) {
        lane_f v;
        memcpy(&v, x + i, sizeof v);
        first_take(&p, &v);
    }
    *out = (qn_run_stats){.min = x[0], .max = x[0]};
    for (size_t i = whole; i < n; i++) {
        float a = fabsf(x[i]);
        sum += x[i];
        out->min = x[i] < out->min ? x[i] : out->min;
        out->max = x[i] > out->max ? x[i] : out->max;
        out->n_zero += a == 0;
        out->n_subnormal += a > 0 && a < 0x1p-14f;
        out->n_vanishing += a > 0 && a <= 0x1p-25f;
        out->n_overflow += a >= 65520.0f;
    }
    for (int i = 0; i < 8; i++) {
        out->min = p.min[i] < out->min ? p.min[i] : out->min;
        out->max = p.max[i] > out->max ? p.max[i] : out->max;
    }
    out->mean = (joined(&p.sum) + sum) / (double)n;
    lane_d v2, v3, v4;
    memset(&v2, 0, sizeof v2);
    memset(&v3, 0, sizeof v3);
    memset(&v4, 0, sizeof v4);
    for (size_t i = 0; i < whole; i += 8) {
        lane_f v;
        memcpy(&v, x + i, sizeof v);
        second_take(&v2, &v3, &v4, &v, out->mean);
    }
    for (size_t i = whole; i < n; i++) {
        double d = x[i] - out->mean, d2 = d * d;
        m2 += d2;
        m3 += d2 * d;
        m4 += d2 * d2;
    }
    out->m2 = joined(&v2) + m2;
    out->m3 = joined(&v3) + m3;
    out->m4 = joined(&v4) + m4;
    out->n_zero += counted(&p.zero);
    out->n_subnormal += counted(&p.subnormal);
    out->n_vanishing += counted(&p.vanishing);
    out->n_overflow += counted(&p.overflow);
}

// ---- rounding ----

// bf16: add half a unit, ties to even, cut.
static inline lane_i round_bf16(lane_f x) {
    lane_i u = (lane_i)x;
    return (u + 0x7FFF + ((u >> 16) & 1)) & (lane_i)(~(lane_i){0} << 16);
}

// f16: as bits of the float that a reader will see. Normal numbers keep 10 fraction bits; below 2^-14
// the unit is 2^-24, which is what adding and taking away 0.5 rounds to.
static inline lane_i round_f16(lane_f a) {
    lane_i u = (lane_i)a, normal = (u + 0xFFF + ((u >> 13) & 1)) & (lane_i)(~(lane_i){0} << 13);
    lane_f tiny = (a + 0.5f) - 0.5f;
    lane_i small = a < 0x1p-14f;
    return (normal & ~small) | ((lane_i)tiny & small);
}

// Bits of f16 for a float that is an f16 number and not negative.
static inline lane_i bits_f16(lane_f a) {
    lane_i small = a < 0x1p-14f, normal = ((lane_i)a >> 13) - (112 << 10);
    lane_i tiny = (lane_i)(a + 0.5f) - 0x3F000000;
    return (normal & ~small) | (tiny & small);
}

typedef struct lane_error {
    lane_f max_abs;
    lane_d abs_sum;
    lane_i not_close, overflow;
} lane_error;

static inline void take_error(lane_error *e, lane_f exact, lane_f stored, lane_f magnitude) {
    const lane_i mask = {0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF,
                         0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF};
    lane_f d = (lane_f)((lane_i)(stored - exact) & mask);
    lane_i finite = d <= 3.4e38f, more = (d > e->max_abs) & finite;
    e->max_abs = (lane_f)(((lane_i)d & more) | ((lane_i)e->max_abs & ~more));
    lane_f counted_error = (lane_f)((lane_i)d & finite);
    lane_d wide = widened(&counted_error);
    e->abs_sum.lo += wide.lo;
    e->abs_sum.hi += wide.hi;
    e->not_close += ~(d <= 1e-3f + 1e-3f * magnitude);
}

static inline void round_lane(qn_run_dtype dtype, const float *x, bool saturate, uint8_t *out,
                              lane_error *e) {
    lane_f v;
    memcpy(&v, x, sizeof v);
    const lane_i sign_bit = (lane_i){1, 1, 1, 1, 1, 1, 1, 1} << 31;
    lane_i sign = (lane_i)v & sign_bit;
    lane_f a = (lane_f)((lane_i)v & ~sign_bit);
    if (dtype == QN_RUN_F32) {
        memcpy(out, x, sizeof v);
        return;
    }
    if (dtype == QN_RUN_BF16) {
        lane_i r = round_bf16(v);
        take_error(e, v, (lane_f)r, a);
        lane_h h = __builtin_convertvector(r >> 16, lane_h);
        memcpy(out, &h, sizeof h);
        return;
    }
    lane_f r = (lane_f)round_f16(a);
    lane_i over = r >= 65536.0f;
    e->overflow += over;
    lane_f limit = saturate ? (lane_f){65504, 65504, 65504, 65504, 65504, 65504, 65504, 65504}
                            : (lane_f){65536, 65536, 65536, 65536, 65536, 65536, 65536, 65536};
    r = (lane_f)(((lane_i)limit & over) | ((lane_i)r & ~over));
    take_error(e, a, r, a);
    lane_h h = __builtin_convertvector(bits_f16(r) | (sign >> 16), lane_h);
    memcpy(out, &h, sizeof h);
}

static void lanes_round(qn_run_dtype dtype, const float *x, size_t n, bool saturate, uint8_t *out,
                        qn_run_error *error) {
    lane_error e;
    memset(&e, 0, sizeof e);
    size_t width = dtype == QN_RUN_F32 ? 4 : 2, whole = n / 8 * 8;
    for (size_t i = 0; i < whole; i += 8) round_lane(dtype, x + i, saturate, out + i * width, &e);
    if (whole < n) { // zeros round to themselves and add nothing
        float rest[8] = {0};
        uint8_t bytes[32];
        memcpy(rest, x + whole, (n - whole) * sizeof *x);
        round_lane(dtype, rest, saturate, bytes, &e);
        memcpy(out + whole * width, bytes, (n - whole) * width);
    }
    for (int i = 0; i < 8; i++)
        if (e.max_abs[i] > error->max_abs) error->max_abs = e.max_abs[i];
    error->abs_sum += joined(&e.abs_sum);
    error->n_not_close += counted(&e.not_close);
    error->n_overflow += counted(&e.overflow);
}

#endif
