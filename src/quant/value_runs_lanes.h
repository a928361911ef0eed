// The bodies of value_runs.h over the sixteen lanes of a lanes_*.h, which the including file chose:
// lane i takes values i, i + 16, …; lanes are joined in order, then the short end.
#ifndef QN_QUANT_VALUE_RUNS_LANES_H
#define QN_QUANT_VALUE_RUNS_LANES_H

#include <math.h>
#include <string.h>

#include "base/f16.h"
#include "quant/value_runs.h"
#ifndef QN_LANES
#include "quant/lanes_plain.h"
#endif

static inline double lf_joined(lf a) {
    float v[16];
    double s = 0;
    lf_store(v, a);
    for (int i = 0; i < 16; i++) s += (double)v[i];
    return s;
}

static inline uint64_t li_joined(li a) {
    uint32_t v[16];
    uint64_t s = 0;
    li_store(v, a);
    for (int i = 0; i < 16; i++) s += v[i];
    return s;
}

static bool lanes_finite(const float *x, size_t n) {
    lf probe = lf_set(0);
    float rest = 0;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) // inf and nan become nan
        probe = lf_add(probe, lf_mul(lf_load(x + i), lf_set(0)));
    for (; i < n; i++) rest += x[i] * 0;
    return rest == 0 && lf_joined(probe) == 0;
}

enum { AHEAD = 8192 }; // bytes

static void lanes_widen(qn_run_dtype dtype, const uint8_t *x, size_t n, float *out) {
    size_t i = 0;
    if (dtype == QN_RUN_F32) {
        memcpy(out, x, n * sizeof *out);
        return;
    }
    bool bf16 = dtype == QN_RUN_BF16;
    for (; i + 32 <= n; i += 32) {
        __builtin_prefetch(x + 2 * i + AHEAD); // the next rows arrive while these are looked at
        for (size_t k = i; k < i + 32; k += 16)
            lf_store(out + k, bf16 ? lf_load_bf16(x + 2 * k) : lf_load_f16(x + 2 * k));
    }
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, x + 2 * i, 2);
        out[i] = bf16 ? qn_bf16_to_f32(h) : qn_f16_to_f32(h);
    }
}

// ---- statistics ----

// Powers are summed around a pivot near the mean, so float keeps what a weight file's digits carry.
typedef struct run_sums {
    float pivot, min, max, least; // least: smallest magnitude
    double s1, s2, s3, s4;
    uint64_t n_small; // magnitude below 2^-14, zeros included
} run_sums;

// The mean of some values, not at equal distances: those would be of one column.
static float run_pivot(const float *x, size_t n) {
    enum { SOME = 32 };
    double s = 0;
    size_t part = n / SOME;
    for (size_t k = 0; k < SOME; k++)
        s += (double)(part ? x[k * part + k * 11 % part] : x[k * n / SOME]);
    return (float)(s / SOME);
}

// Float sums are kept short: eight vectors, then four of those, then double.
enum { PIECE = 128, PATCH = 4 * PIECE };

typedef struct power_sums {
    lf s1, s2, s3, s4;
} power_sums;

static inline void add_sums(power_sums *to, const power_sums *from) {
    to->s1 = lf_add(to->s1, from->s1), to->s2 = lf_add(to->s2, from->s2);
    to->s3 = lf_add(to->s3, from->s3), to->s4 = lf_add(to->s4, from->s4);
}

static inline power_sums no_sums(void) {
    return (power_sums){lf_set(0), lf_set(0), lf_set(0), lf_set(0)};
}

// Sums of one patch; whole is a multiple of 16.
static void sum_patch(const float *x, size_t whole, run_sums *s) {
    const lf pivot = lf_set(s->pivot), limit = lf_set(0x1p-14f);
    lf min = lf_set(x[0]), max = min, least = lf_set(INFINITY);
    li small = li_set(0);
    power_sums all = no_sums();
    for (size_t at = 0; at < whole; at += PIECE) {
        power_sums p = no_sums();
        size_t end = whole - at < PIECE ? whole : at + PIECE;
        for (size_t i = at; i < end; i += 16) {
            lf v = lf_load(x + i), a = lf_abs(v), d = lf_sub(v, pivot), d2 = lf_mul(d, d);
            min = lf_min(v, min), max = lf_max(v, max), least = lf_min(a, least);
            small = li_count_below(small, a, limit);
            p.s1 = lf_add(p.s1, d), p.s2 = lf_add(p.s2, d2);
            p.s3 = lf_add(p.s3, lf_mul(d2, d)), p.s4 = lf_add(p.s4, lf_mul(d2, d2));
        }
        add_sums(&all, &p);
    }
    float lo[16], hi[16], near[16];
    lf_store(lo, min), lf_store(hi, max), lf_store(near, least);
    for (int i = 0; i < 16; i++) {
        s->min = lo[i] < s->min ? lo[i] : s->min;
        s->max = hi[i] > s->max ? hi[i] : s->max;
        s->least = near[i] < s->least ? near[i] : s->least;
    }
    s->s1 += lf_joined(all.s1), s->s2 += lf_joined(all.s2);
    s->s3 += lf_joined(all.s3), s->s4 += lf_joined(all.s4);
    s->n_small += li_joined(small);
}

static void sum_lanes(const float *x, size_t whole, run_sums *s) {
    for (size_t i = 0; i < whole; i += PATCH)
        sum_patch(x + i, whole - i < PATCH ? whole - i : PATCH, s);
}

static void sum_rest(const float *x, size_t n, run_sums *s) {
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        double d = (double)x[i] - (double)s->pivot, d2 = d * d;
        s->min = x[i] < s->min ? x[i] : s->min;
        s->max = x[i] > s->max ? x[i] : s->max;
        s->least = a < s->least ? a : s->least;
        s->n_small += a < 0x1p-14f;
        s->s1 += d, s->s2 += d2, s->s3 += d2 * d, s->s4 += d2 * d2;
    }
}

static void count_tiny(const float *x, size_t n, qn_run_stats *out) {
    const lf any = lf_set(0x1p-149f), seen = lf_set(0x1.000002p-25f);
    li zero = li_set(0), tiny = li_set(0);
    size_t whole = n / 16 * 16;
    for (size_t i = 0; i < whole; i += 16) {
        lf a = lf_abs(lf_load(x + i));
        zero = li_count_below(zero, a, any);
        tiny = li_count_below(tiny, a, seen);
    }
    out->n_zero = li_joined(zero);
    out->n_vanishing = li_joined(tiny) - out->n_zero;
    for (size_t i = whole; i < n; i++) {
        out->n_zero += x[i] == 0;
        out->n_vanishing += x[i] != 0 && fabsf(x[i]) <= 0x1p-25f;
    }
}

static void count_rare(const float *x, size_t n, const run_sums *s, qn_run_stats *out) {
    out->n_zero = out->n_vanishing = out->n_overflow = 0;
    if (s->least <= 0x1p-25f) count_tiny(x, n, out);
    if (fmaxf(-s->min, s->max) >= 65520.0f)
        for (size_t i = 0; i < n; i++) out->n_overflow += fabsf(x[i]) >= 65520.0f;
    out->n_subnormal = s->n_small - out->n_zero;
}

static bool lanes_stats(const float *x, size_t n, qn_run_stats *out) {
    size_t whole = n / 16 * 16;
    run_sums s = {.pivot = run_pivot(x, n), .min = x[0], .max = x[0], .least = INFINITY};
    sum_lanes(x, whole, &s);
    sum_rest(x + whole, n - whole, &s);
    if (!isfinite(s.s1) && !lanes_finite(x, n)) return false;
    double count = (double)n, d = s.s1 / count;
    float reach = fmaxf(s.max - s.pivot, s.pivot - s.min);
    if (n < 64 || !(reach < 1e9f && reach > 1e-8f) || !(d * d * count <= 0.8 * s.s2)) {
        qn_run_stats_careful(x, n, out);
        return true;
    }
    out->min = s.min, out->max = s.max;
    out->mean = (double)s.pivot + d;
    out->m2 = s.s2 - count * d * d;
    out->m3 = s.s3 - 3 * d * s.s2 + 2 * count * d * d * d;
    out->m4 = s.s4 - 4 * d * s.s3 + 6 * d * d * s.s2 - 3 * count * d * d * d * d;
    count_rare(x, n, &s, out);
    return true;
}

// ---- rounding ----

// bf16, in the upper half: add half a unit, ties to even, cut.
static inline li round_bf16(lf x) {
    li u = li_bits(x), even = li_and(li_shr(u, 16), li_set(1));
    return li_and(li_add(li_add(u, li_set(0x7FFF)), even), li_set(0xFFFF0000));
}

typedef struct lane_error {
    lf max_abs, abs_sum;
    li not_close, overflow;
} lane_error;

static inline void take_error(lane_error *e, lf exact, lf stored, lf magnitude) {
    lf d = lf_abs(lf_sub(stored, exact));
    lf close = lf_add(lf_set(1e-3f), lf_mul(lf_set(1e-3f), magnitude));
    e->not_close = li_count_below(e->not_close, close, d);
    d = lf_pick_below(d, lf_set(3.4e38f), d, lf_set(0)); // an overflow is counted, not measured
    e->max_abs = lf_max(d, e->max_abs);
    e->abs_sum = lf_add(e->abs_sum, d);
}

static inline void round_lanes(qn_run_dtype dtype, const float *x, bool saturate, uint8_t *out,
                               lane_error *e) {
    lf v = lf_load(x), a = lf_abs(v);
    if (dtype == QN_RUN_BF16) {
        li r = round_bf16(v);
        take_error(e, v, lf_bits(r), a);
        li_store16(out, li_shr(r, 16));
        return;
    }
    const lf most = lf_set(65504.0f);
    e->overflow = li_count_below(e->overflow, lf_set(0x1.ffdffep15f), a); // 65520 rounds up to inf
    lf kept = saturate ? lf_max(lf_min(v, most), lf_sub(lf_set(0), most)) : v;
    li h = li_f16(kept);
    take_error(e, v, lf_f16(h), a);
    li_store16(out, h);
}

static void lanes_round(qn_run_dtype dtype, const float *x, size_t n, bool saturate, uint8_t *out,
                        qn_run_error *error) {
    lane_error e = {lf_set(0), lf_set(0), li_set(0), li_set(0)};
    size_t whole = n / 16 * 16;
    if (dtype == QN_RUN_F32) {
        memcpy(out, x, n * sizeof *x);
        return;
    }
    for (size_t i = 0; i < whole; i += 16) round_lanes(dtype, x + i, saturate, out + 2 * i, &e);
    if (whole < n) { // zeros round to themselves and add nothing
        float rest[16] = {0};
        uint8_t bytes[32];
        memcpy(rest, x + whole, (n - whole) * sizeof *x);
        round_lanes(dtype, rest, saturate, bytes, &e);
        memcpy(out + whole * 2, bytes, (n - whole) * 2);
    }
    float max[16];
    lf_store(max, e.max_abs);
    for (int i = 0; i < 16; i++)
        if (max[i] > error->max_abs) error->max_abs = max[i];
    error->abs_sum += lf_joined(e.abs_sum);
    error->n_not_close += li_joined(e.not_close);
    error->n_overflow += li_joined(e.overflow);
}

// ---- the operator norm ----

static float lanes_seven_bits(const float *x, size_t n, uint8_t *out) {
    lf top = lf_set(0);
    float most[16], max = 0;
    size_t whole = n / 16 * 16;
    for (size_t i = 0; i < whole; i += 16) top = lf_max(lf_abs(lf_load(x + i)), top);
    lf_store(most, top);
    for (int i = 0; i < 16; i++) max = most[i] > max ? most[i] : max;
    for (size_t i = whole; i < n; i++) max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    if (!(max > 1e-30f)) {
        memset(out, 64, n);
        return 0;
    }
    // Adding 1.5 · 2^23 leaves the rounded integer in the low bits.
    const float factor = 63 / max, magic = 0x1.8p23f + 64;
    const lf by = lf_set(factor), plus = lf_set(magic);
    for (size_t i = 0; i < whole; i += 16)
        li_store8(out + i, li_bits(lf_add(lf_mul(lf_load(x + i), by), plus)));
    for (size_t i = whole; i < n; i++) out[i] = (uint8_t)qn_f32_bits(x[i] * factor + magic);
    return max / 63;
}

static inline double dot_run(const float *a, const float *b, size_t n) {
    lf s = lf_set(0), t = s;
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        s = lf_add(s, lf_mul(lf_load(a + i), lf_load(b + i)));
        t = lf_add(t, lf_mul(lf_load(a + i + 16), lf_load(b + i + 16)));
    }
    double sum = lf_joined(lf_add(s, t));
    for (; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static double lanes_dot(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i += QN_RUN)
        sum += dot_run(a + i, b + i, n - i < QN_RUN ? n - i : QN_RUN);
    return sum;
}

static void lanes_rows_times(const float *w, size_t n, size_t cols, const float *x, float *y,
                             float *z) {
    for (size_t r = 0; r < n; r++) y[r] = (float)lanes_dot(w + r * cols, x, cols);
    size_t r = 0;
    for (; r + 4 <= n; r += 4) {
        const float *a = w + r * cols, *b = a + cols, *c = b + cols, *d = c + cols;
        const lf ya = lf_set(y[r]), yb = lf_set(y[r + 1]), yc = lf_set(y[r + 2]),
                 yd = lf_set(y[r + 3]);
        size_t i = 0;
        for (; i + 16 <= cols; i += 16) {
            lf s = lf_add(lf_mul(lf_load(a + i), ya), lf_mul(lf_load(b + i), yb));
            lf t = lf_add(lf_mul(lf_load(c + i), yc), lf_mul(lf_load(d + i), yd));
            lf_store(z + i, lf_add(lf_load(z + i), lf_add(s, t)));
        }
        for (; i < cols; i++)
            z[i] += (a[i] * y[r] + b[i] * y[r + 1]) + (c[i] * y[r + 2] + d[i] * y[r + 3]);
    }
    for (; r < n; r++)
        for (size_t i = 0; i < cols; i++) z[i] += w[r * cols + i] * y[r];
}

#endif
