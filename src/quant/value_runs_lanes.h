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

// What is called with constants is to be compiled for them.
#define ALWAYS inline __attribute__((always_inline))

static inline double lf_joined(lf a) {
    float v[16];
    double s = 0;
    lf_store(v, a);
    for (int i = 0; i < 16; i++) s += (double)v[i];
    return s;
}

static inline double ld_joined(ld a) {
    double v[16], s = 0;
    ld_store(v, a);
    for (int i = 0; i < 16; i++) s += v[i];
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

// ---- statistics ----

// Powers are summed around a pivot near the mean, so float keeps what a weight file's digits carry.
typedef struct run_sums {
    float pivot, min, max, least; // least: smallest magnitude
    double s1, s2, s3, s4;
    uint64_t n_small; // magnitude below 2^-14, zeros included
} run_sums;

// A run as it is stored, read as floats.
typedef struct run_values {
    qn_run_dtype dtype;
    const uint8_t *x;
} run_values;

static inline lf lf_load_as(run_values r, size_t i) {
    if (r.dtype == QN_RUN_BF16) return lf_load_bf16(r.x + 2 * i);
    if (r.dtype == QN_RUN_F16) return lf_load_f16(r.x + 2 * i);
    return lf_load((const float *)(const void *)r.x + i);
}

static inline uint16_t half_at(const uint8_t *x, size_t i) {
    uint16_t h;
    memcpy(&h, x + 2 * i, 2);
    return h;
}

static inline float half_value(qn_run_dtype dtype, uint16_t h) {
    return dtype == QN_RUN_BF16 ? qn_bf16_to_f32(h) : qn_f16_to_f32(h);
}

static inline float value_as(run_values r, size_t i) {
    if (r.dtype == QN_RUN_F32) return ((const float *)(const void *)r.x)[i];
    return half_value(r.dtype, half_at(r.x, i));
}

// The mean of some values, not at equal distances: those would be of one column.
static inline float run_pivot(run_values r, size_t n) {
    enum { SOME = 32 };
    double s = 0;
    size_t part = n / SOME;
    for (size_t k = 0; k < SOME; k++)
        s += (double)value_as(r, part ? k * part + (k * 11 % SOME) * part / SOME : k * n / SOME);
    return (float)(s / SOME);
}

// Float sums are kept short: eight vectors, then eight of those, then double.
enum { PIECE = 128, PATCH = 8 * PIECE };

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

static inline void add_powers(power_sums *p, lf v, lf pivot) {
    lf d = lf_sub(v, pivot), d2 = lf_mul(d, d);
    p->s1 = lf_add(p->s1, d), p->s2 = lf_add(p->s2, d2);
    p->s3 = lf_fma(d2, d, p->s3), p->s4 = lf_fma(d2, d2, p->s4);
}

// Of 16-bit floats as they are stored, beside the sums. Sign and magnitude: magnitudes are ordered as
// integers are, in either dtype. A run has too few values for the 16-bit counters to overflow.
typedef struct half_lanes {
    lh limit; // of what counts as small
    lh top_signed, top, least, small; // as int16_t, as uint16_t, without the sign
} half_lanes;

static inline void look_at_halves(half_lanes *k, const uint8_t *x) {
    lh h = lh_load(x), m = lh_and(h, lh_set(0x7FFF));
    __builtin_prefetch(x + AHEAD); // what comes next arrives meanwhile
    k->top_signed = lh_max_signed(k->top_signed, h);
    k->top = lh_max(k->top, h);
    k->least = lh_min(k->least, m);
    k->small = lh_count_below(k->small, m, k->limit);
}

// Values from … to - 1, a multiple of 16 and a patch at most. halves: gets the extremes of every whole
// 32 of them; NULL for float.
static ALWAYS power_sums patch_powers(run_values r, size_t from, size_t to, lf pivot,
                                      half_lanes *halves) {
    half_lanes k; // of its own, so that it can lie in registers
    if (halves) k = *halves;
    power_sums all = no_sums();
    for (size_t at = from, end; at < to; at = end) {
        power_sums p = no_sums();
        size_t i = at;
        end = to - at < PIECE ? to : at + PIECE;
        for (; i + 32 <= end; i += 32) {
            if (halves) look_at_halves(&k, r.x + 2 * i);
            add_powers(&p, lf_load_as(r, i), pivot);
            add_powers(&p, lf_load_as(r, i + 16), pivot);
        }
        if (i < end) add_powers(&p, lf_load_as(r, i), pivot);
        add_sums(&all, &p);
    }
    if (halves) *halves = k;
    return all;
}

static ALWAYS void sum_powers(run_values r, size_t whole, run_sums *s, half_lanes *halves) {
    const lf pivot = lf_set(s->pivot);
    ld s1 = ld_zero(), s2 = s1, s3 = s1, s4 = s1;
    for (size_t at = 0; at < whole; at += PATCH) {
        power_sums p = patch_powers(r, at, whole - at < PATCH ? whole : at + PATCH, pivot, halves);
        s1 = ld_add_floats(s1, p.s1), s2 = ld_add_floats(s2, p.s2);
        s3 = ld_add_floats(s3, p.s3), s4 = ld_add_floats(s4, p.s4);
    }
    s->s1 = ld_joined(s1), s->s2 = ld_joined(s2), s->s3 = ld_joined(s3), s->s4 = ld_joined(s4);
}

static inline void add_rest(run_values r, size_t from, size_t n, run_sums *s) {
    for (size_t i = from; i < n; i++) {
        double d = (double)value_as(r, i) - (double)s->pivot, d2 = d * d;
        s->s1 += d, s->s2 += d2, s->s3 += d2 * d, s->s4 += d2 * d2;
    }
}

static void float_extremes(const float *x, size_t n, run_sums *s) {
    const lf limit = lf_set(0x1p-14f);
    lf min = lf_set(x[0]), max = min, least = lf_set(INFINITY);
    li small = li_set(0);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        lf v = lf_load(x + i), a = lf_abs(v);
        min = lf_min(v, min), max = lf_max(v, max), least = lf_min(a, least);
        small = li_count_below(small, a, limit);
    }
    float lo[16], hi[16], near[16];
    lf_store(lo, min), lf_store(hi, max), lf_store(near, least);
    *s = (run_sums){.min = lo[0], .max = hi[0], .least = near[0], .n_small = li_joined(small)};
    for (int k = 1; k < 16; k++) {
        s->min = fminf(s->min, lo[k]);
        s->max = fmaxf(s->max, hi[k]);
        s->least = fminf(s->least, near[k]);
    }
    for (; i < n; i++) {
        float a = fabsf(x[i]);
        s->min = fminf(s->min, x[i]);
        s->max = fmaxf(s->max, x[i]);
        s->least = fminf(s->least, a);
        s->n_small += a < 0x1p-14f;
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

// Moments from sums around the pivot; false where float sums are not good enough for that.
static bool take_moments(const run_sums *s, size_t n, qn_run_stats *out) {
    double count = (double)n, d = s->s1 / count;
    float reach = fmaxf(s->max - s->pivot, s->pivot - s->min);
    if (n < 64 || !(reach < 1e9f && reach > 1e-8f) || !(d * d * count <= 0.8 * s->s2)) return false;
    out->min = s->min + 0.0f, out->max = s->max + 0.0f; // no −0
    out->mean = (double)s->pivot + d;
    out->m2 = s->s2 - count * d * d;
    out->m3 = s->s3 - 3 * d * s->s2 + 2 * count * d * d * d;
    out->m4 = s->s4 - 4 * d * s->s3 + 6 * d * d * s->s2 - 3 * count * d * d * d * d;
    return true;
}

static bool lanes_stats(const float *x, size_t n, qn_run_stats *out) {
    const run_values r = {QN_RUN_F32, (const uint8_t *)x};
    size_t whole = n / 16 * 16;
    run_sums s;
    float_extremes(x, n, &s);
    s.pivot = run_pivot(r, n);
    sum_powers(r, whole, &s, NULL);
    add_rest(r, whole, n, &s);
    if (!isfinite(s.s1) && !lanes_finite(x, n)) return false;
    if (!take_moments(&s, n, out)) {
        qn_run_stats_careful(x, n, out);
        return true;
    }
    count_rare(x, n, &s, out);
    return true;
}

// ---- statistics of 16-bit floats as they are stored ----

typedef struct half_extremes { // joined
    uint16_t top_signed, top, least;
    uint64_t n_small;
} half_extremes;

typedef struct half_limits { // of magnitudes: inf; 2^-14; half of 2^-24 and above; 65520 and above
    uint16_t infinite, normal, seen, overflow;
} half_limits;

static inline half_limits limits_of(qn_run_dtype dtype) {
    return dtype == QN_RUN_BF16 ? (half_limits){0x7F80, 0x3880, 0x3301, 0x4780}
                                : (half_limits){0x7C00, 0x0400, 0x0001, 0x7C00};
}

static inline void take_halves(half_extremes *e, uint16_t top_signed, uint16_t top, uint16_t least) {
    e->top_signed = (int16_t)top_signed > (int16_t)e->top_signed ? top_signed : e->top_signed;
    e->top = top > e->top ? top : e->top;
    e->least = least < e->least ? least : e->least;
}

// Not inline: the compiler would keep what is stored here on the stack all along.
static __attribute__((noinline)) half_extremes join_halves(lh top_signed, lh top, lh least,
                                                           lh small) {
    uint16_t a[32], b[32], c[32], d[32];
    half_extremes e = {0x8000, 0, 0x7FFF, 0};
    lh_store(a, top_signed), lh_store(b, top), lh_store(c, least), lh_store(d, small);
    for (int i = 0; i < 32; i++) {
        take_halves(&e, a[i], b[i], c[i]);
        e.n_small += d[i];
    }
    return e;
}

// sum_powers and add_rest, and the extremes.
static inline half_extremes sum_halves(run_values r, size_t n, uint16_t limit, run_sums *s) {
    half_lanes k = {lh_set(limit), lh_set(0x8000), lh_set(0), lh_set(0x7FFF), lh_set(0)};
    size_t whole = n / 16 * 16;
    sum_powers(r, whole, s, &k);
    add_rest(r, whole, n, s);
    half_extremes e = join_halves(k.top_signed, k.top, k.least, k.small);
    for (size_t i = n / 32 * 32; i < n; i++) {
        uint16_t h = half_at(r.x, i), m = h & 0x7FFF;
        take_halves(&e, h, h, m);
        e.n_small += m < limit;
    }
    return e;
}

static __attribute__((noinline)) uint64_t lh_joined(lh a) {
    uint16_t v[32];
    uint64_t s = 0;
    lh_store(v, a);
    for (int i = 0; i < 32; i++) s += v[i];
    return s;
}

static void count_tiny_halves(const uint8_t *x, size_t n, uint16_t limit, qn_run_stats *out) {
    const lh magnitude = lh_set(0x7FFF), one = lh_set(1), seen = lh_set(limit);
    lh zero = lh_set(0), tiny = zero;
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        lh m = lh_and(lh_load(x + 2 * i), magnitude);
        zero = lh_count_below(zero, m, one);
        tiny = lh_count_below(tiny, m, seen);
    }
    out->n_zero = lh_joined(zero);
    out->n_vanishing = lh_joined(tiny) - out->n_zero;
    for (; i < n; i++) {
        uint16_t m = half_at(x, i) & 0x7FFF;
        out->n_zero += m == 0;
        out->n_vanishing += m > 0 && m < limit;
    }
}

static inline void count_rare_halves(run_values r, size_t n, const half_extremes *e, half_limits l,
                                     qn_run_stats *out) {
    uint16_t most = e->top >= 0x8000 ? e->top & 0x7FFF : 0;
    if (e->top_signed < 0x8000 && e->top_signed > most) most = e->top_signed;
    out->n_zero = out->n_vanishing = out->n_overflow = 0;
    if (e->least < l.seen) count_tiny_halves(r.x, n, l.seen, out);
    for (size_t i = 0; most >= l.overflow && i < n; i++)
        out->n_overflow += (half_at(r.x, i) & 0x7FFF) >= l.overflow;
    out->n_subnormal = e->n_small - out->n_zero;
}

static inline void float_again(run_values r, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) out[i] = value_as(r, i);
}

static inline bool half_stats(run_values r, size_t n, qn_run_stats *out) {
    const half_limits l = limits_of(r.dtype);
    run_sums s = {.pivot = run_pivot(r, n)};
    half_extremes e = sum_halves(r, n, l.normal, &s);
    bool positive = e.top_signed < 0x8000, negative = e.top >= 0x8000;
    if ((positive && e.top_signed >= l.infinite) || (negative && (e.top & 0x7FFF) >= l.infinite))
        return false;
    s.min = half_value(r.dtype, negative ? e.top : e.least);
    s.max = half_value(r.dtype, positive ? e.top_signed : e.least | 0x8000);
    if (!take_moments(&s, n, out)) {
        float x[QN_RUN];
        float_again(r, n, x);
        qn_run_stats_careful(x, n, out);
        return true;
    }
    count_rare_halves(r, n, &e, l, out);
    return true;
}

static bool lanes_stats_stored(qn_run_dtype dtype, const uint8_t *x, size_t n, qn_run_stats *out) {
    if (dtype == QN_RUN_BF16) return half_stats((run_values){QN_RUN_BF16, x}, n, out);
    return half_stats((run_values){QN_RUN_F16, x}, n, out);
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

static inline float seven_bit_codes(run_values r, size_t n, float max, uint8_t *out) {
    if (!(max > 1e-30f)) {
        memset(out, 64, n);
        return 0;
    }
    // Adding 1.5 · 2^23 leaves the rounded integer in the low bits.
    const float factor = 63 / max, magic = 0x1.8p23f + 64;
    const lf by = lf_set(factor), plus = lf_set(magic);
    size_t i = 0;
    for (; i + 64 <= n; i += 64)
        li_store8_four(out + i, li_bits(lf_fma(lf_load_as(r, i), by, plus)),
                       li_bits(lf_fma(lf_load_as(r, i + 16), by, plus)),
                       li_bits(lf_fma(lf_load_as(r, i + 32), by, plus)),
                       li_bits(lf_fma(lf_load_as(r, i + 48), by, plus)));
    for (; i < n; i++) out[i] = (uint8_t)qn_f32_bits(fmaf(value_as(r, i), factor, magic));
    return max / 63;
}

static float lanes_seven_bits(const float *x, size_t n, uint8_t *out) {
    lf p = lf_set(0), q = p, s = p, t = p;
    float most[16], max = 0;
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        p = lf_max(lf_abs(lf_load(x + i)), p), q = lf_max(lf_abs(lf_load(x + i + 16)), q);
        s = lf_max(lf_abs(lf_load(x + i + 32)), s), t = lf_max(lf_abs(lf_load(x + i + 48)), t);
    }
    lf_store(most, lf_max(lf_max(p, q), lf_max(s, t)));
    for (int k = 0; k < 16; k++) max = most[k] > max ? most[k] : max;
    for (; i < n; i++) max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    return seven_bit_codes((run_values){QN_RUN_F32, (const uint8_t *)x}, n, max, out);
}

static float lanes_seven_bits_stored(qn_run_dtype dtype, const uint8_t *x, size_t n,
                                     uint8_t *out) {
    const lh magnitude = lh_set(0x7FFF);
    lh p = lh_set(0), q = p;
    uint16_t most[32], max = 0;
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        p = lh_max(p, lh_and(lh_load(x + 2 * i), magnitude));
        q = lh_max(q, lh_and(lh_load(x + 2 * i + 64), magnitude));
    }
    lh_store(most, lh_max(p, q));
    for (int k = 0; k < 32; k++) max = most[k] > max ? most[k] : max;
    for (; i < n; i++) max = (half_at(x, i) & 0x7FFF) > max ? half_at(x, i) & 0x7FFF : max;
    float top = half_value(dtype, max);
    return dtype == QN_RUN_BF16 ? seven_bit_codes((run_values){QN_RUN_BF16, x}, n, top, out)
                                : seven_bit_codes((run_values){QN_RUN_F16, x}, n, top, out);
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

#define LANES_RUNS                                                                                 \
    {                                                                                              \
        lanes_finite, lanes_stats, lanes_round, lanes_seven_bits, lanes_stats_stored,              \
            lanes_seven_bits_stored, lanes_dot, lanes_rows_times                                   \
    }

#endif
