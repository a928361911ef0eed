// Finding the scale of a group again. See lattice.h; the counting argument is in docs/numerics.md.
#include "quant/lattice.h"

#include <math.h>
#include <stdlib.h>

#include "base/f16.h"

static float round_to(qn_dtype d, float x) {
    if (d == QN_DT_F16) return qn_f16_to_f32(qn_f32_to_f16(x));
    if (d == QN_DT_BF16) return qn_bf16_to_f32(qn_f32_to_bf16(x));
    return x;
}

float qn_lattice_value(const qn_lattice_rule *r, float scale, int k) {
    float x = (float)k * scale;
    if (r->through_f16) x = round_to(QN_DT_F16, x);
    return round_to(r->stored, x);
}

bool qn_lattice_code(const qn_lattice_rule *r, float scale, float v, int *k) {
    float q = v / scale;
    if (!(fabsf(q) <= 512)) return false;
    int near = (int)lrintf(q);
    // Rounding moves a value by at most a sixteenth of the scale in f16, but by half of it in bf16,
    // so the neighbours may be meant where the file is coarse.
    for (int step = 0; step < 3; step++) {
        int c = near + (step == 1 ? 1 : step == 2 ? -1 : 0);
        if (c >= r->k_min && c <= r->k_max && qn_lattice_value(r, scale, c) == v) {
            *k = c;
            return true;
        }
        if (r->stored != QN_DT_BF16) return false;
    }
    return false;
}

bool qn_lattice_stands(const qn_lattice_rule *r, float scale, const float *v, size_t n) {
    int k;
    for (size_t i = 0; i < n; i++)
        if (!qn_lattice_code(r, scale, v[i], &k)) return false;
    return true;
}

// ---- what rounds to a value ----

// The number next to x > 0 in a format, in double: neighbours of the largest may be infinite.
static double neighbour(qn_dtype d, float x, int step) {
    if (d == QN_DT_F32) return (double)qn_f32_from_bits(qn_f32_bits(x) + (uint32_t)step);
    if (d == QN_DT_BF16) return (double)qn_bf16_to_f32((uint16_t)(qn_f32_to_bf16(x) + step));
    return (double)qn_f16_to_f32((uint16_t)(qn_f32_to_f16(x) + step));
}

typedef struct span {
    double lo, hi;
} span;

// Everything that may round to x > 0; a little too wide rather than too narrow, as what is found is
// tried exactly afterwards.
static span before_rounding(const qn_lattice_rule *r, float x) {
    double v = (double)x, up = neighbour(r->stored, x, 1), down = neighbour(r->stored, x, -1);
    span s = {(v + down) / 2, isfinite(up) ? (v + up) / 2 : v + (v - down) / 2};
    if (r->through_f16) {
        s.lo -= s.lo * 0x1p-11 + 0x1p-25;
        s.hi += s.hi * 0x1p-11 + 0x1p-25;
    }
    if (s.lo < v * 0x1p-3) s.lo = v * 0x1p-3; // the smallest subnormal: not down to nothing
    return s;
}

double qn_lattice_chance(const qn_lattice_rule *r, float scale, float v) {
    if (v == 0) return 1;
    span s = before_rounding(r, fabsf(v));
    double width = (s.hi - s.lo) / (double)scale;
    return width < 1 ? width : 1;
}

// ---- the search ----

// Codes −129 … 129 make so many different values at most; a group with more is no lattice.
enum { DISTINCT = 259, TABLE = 1024 };
#define WIDER (1 + 0x1p-40) // a product with an inverse must not shut out what a quotient lets in

typedef struct search {
    const qn_lattice_rule *r;
    size_t n; // different values but 0
    float v[DISTINCT], top; // top: the largest by magnitude, with its sign
    span top_span, spans[DISTINCT]; // spans are computed when first needed
    double inverse_lo, inverse_hi;  // of top_span's ends, a little wide
    size_t n_spans;
    qn_lattice_fit *fit;
} search;

// Repeated values need no second look; low-bit groups have many. False: too many different ones.
static bool gather(search *s, const float *v, size_t n) {
    uint16_t table[TABLE] = {0};
    s->n = s->n_spans = 0;
    s->top = 0;
    s->fit->constant = true;
    for (size_t i = 0; i < n; i++) {
        s->fit->constant &= v[i] == v[0];
        if (v[i] == 0) continue;
        uint32_t at = (qn_f32_bits(v[i]) * 2654435761u) >> 22;
        while (table[at] && s->v[table[at] - 1] != v[i]) at = (at + 1) % TABLE;
        if (table[at]) continue;
        if (s->n == DISTINCT) return false;
        s->v[s->n++] = v[i];
        table[at] = (uint16_t)s->n;
        if (fabsf(v[i]) > fabsf(s->top)) s->top = v[i];
    }
    return true;
}

static void span_upto(search *s, size_t n) {
    for (; s->n_spans < n; s->n_spans++)
        s->spans[s->n_spans] = before_rounding(s->r, fabsf(s->v[s->n_spans]));
}

enum { FIRST = 6 };

// In bf16 only small values, of a few scales, say much about it: some of them go to the front.
static void small_first(search *s) {
    size_t n = s->n < FIRST ? s->n : FIRST;
    for (size_t i = 0; i < n; i++) {
        size_t least = i;
        for (size_t k = i + 1; k < s->n; k++)
            if (fabsf(s->v[k]) < fabsf(s->v[least])) least = k;
        float v = s->v[i];
        s->v[i] = s->v[least];
        s->v[least] = v;
    }
}

// One pass over the values: each leaves one integer (the interval of scales is cut to those that
// agree), several (nothing learned yet) or none (false).
static bool narrow(search *s, span *scale, bool *open) {
    double inverse_lo = WIDER / scale->lo, inverse_hi = 1 / (WIDER * scale->hi);
    *open = false;
    for (size_t i = 0; i < s->n; i++) {
        span_upto(s, i + 1);
        int limit = s->v[i] < 0 ? -s->r->k_min : s->r->k_max;
        double from = s->spans[i].lo * inverse_hi, to = s->spans[i].hi * inverse_lo;
        if (from > limit) return false;
        int least = (int)from, most = to < limit ? (int)to : limit;
        least += least < from || least < 1;
        if (least > most) return false;
        if (least < most) {
            *open = true;
            continue;
        }
        double lo = s->spans[i].lo / least, hi = s->spans[i].hi / least;
        if (lo > scale->lo) scale->lo = lo, inverse_lo = WIDER / lo;
        if (hi < scale->hi) scale->hi = hi, inverse_hi = 1 / (WIDER * hi);
        if (scale->lo > scale->hi) return false;
    }
    return true;
}

// Integers with a common divisor are those of a larger scale; a group of many values whose codes
// share one does not happen, unless the larger scale is no number of its format.
static bool primitive(const search *s, float scale) {
    int gcd = 0;
    for (size_t i = 0; i < s->n && gcd != 1; i++) {
        int a = 0;
        qn_lattice_code(s->r, scale, s->v[i], &a);
        for (a = abs(a); a;) {
            int rest = gcd % a;
            gcd = a;
            a = rest;
        }
    }
    return gcd <= 1;
}

static void keep(search *s, float scale) {
    qn_lattice_fit *f = s->fit;
    for (size_t i = 0; i < f->n; i++)
        if (f->scales[i] == scale) return;
    if (f->n == QN_MAX_STANDING)
        f->more = true;
    else
        f->scales[f->n++] = scale;
}

static bool try_scale(search *s, float scale) {
    if (!(scale > 0) || !isfinite(scale) || !qn_lattice_stands(s->r, scale, s->v, s->n))
        return false;
    keep(s, scale);
    return true;
}

// Numbers of the scale's format, counted.
static uint32_t number_of(qn_dtype d, float scale) {
    if (d == QN_DT_F16) return qn_f32_to_f16(scale);
    return d == QN_DT_BF16 ? qn_f32_bits(scale) >> 16 : qn_f32_bits(scale);
}

static float scale_of(qn_dtype d, uint32_t number) {
    if (d == QN_DT_F16) return qn_f16_to_f32((uint16_t)number);
    return qn_f32_from_bits(d == QN_DT_BF16 ? number << 16 : number);
}

// The first and the last that stand, and the middle.
static void keep_outermost(search *s, uint32_t a, uint32_t b) {
    qn_dtype d = s->r->scale;
    while (a < b && !try_scale(s, scale_of(d, a))) a++;
    while (b > a && !try_scale(s, scale_of(d, b))) b--;
    try_scale(s, scale_of(d, a + (b - a) / 2));
    if (b - a > 2) s->fit->more = true;
}

// The scales of an interval. Where there are many, sixteen spread over it stand for all: codes are the
// same throughout, so the outermost bound the error.
static void keep_between(search *s, span scale) {
    enum { FEW = 40, SPREAD = 16, CLOSE = 4 };
    qn_dtype d = s->r->scale;
    uint32_t a = number_of(d, round_to(d, (float)scale.lo));
    uint32_t b = number_of(d, round_to(d, (float)scale.hi)), count = b - a + 1;
    if (s->r->outermost && count > CLOSE && count <= FEW) {
        keep_outermost(s, a, b);
        return;
    }
    uint32_t stride = count > FEW ? count / (SPREAD - 1) : 1;
    if (count > FEW) s->fit->more = true;
    for (uint64_t u = a; u <= b; u += stride) try_scale(s, scale_of(d, (uint32_t)u));
    try_scale(s, scale_of(d, b));
}

// Nearly all integers for the largest value fall at the first few others: without a division.
static bool hopeless(search *s, int k) {
    size_t n = s->n < FIRST ? s->n : FIRST;
    for (size_t i = 0; i < n; i++) {
        int limit = s->v[i] < 0 ? -s->r->k_min : s->r->k_max;
        double from = s->spans[i].lo * s->inverse_hi * k, to = s->spans[i].hi * s->inverse_lo * k;
        int most = to < limit ? (int)to : limit;
        if (from > most || most < 1) return true;
    }
    return false;
}

static void try_code(search *s, int k) {
    if (hopeless(s, k)) return;
    span scale = {s->top_span.lo / k, s->top_span.hi / k};
    bool open = true;
    for (int pass = 0; open && pass < 4; pass++) {
        span before = scale;
        if (!narrow(s, &scale, &open)) return;
        if (before.lo == scale.lo && before.hi == scale.hi) break;
    }
    keep_between(s, scale);
}

// Multiples of what stands are no finding of their own, as long as something better stands. (Eight-bit
// codes reach too far to be multiples, but when by chance all are even, half of them stands too, and
// neither is proven.)
static void drop_multiples(search *s) {
    qn_lattice_fit *f = s->fit;
    size_t n = 0;
    bool good[QN_MAX_STANDING];
    for (size_t i = 0; i < f->n; i++) n += good[i] = primitive(s, f->scales[i]);
    if (n == 0) return;
    n = 0;
    for (size_t i = 0; i < f->n; i++)
        if (good[i]) f->scales[n++] = f->scales[i];
    f->n = n;
}

void qn_lattice_find(const qn_lattice_rule *r, const float *v, size_t n, qn_lattice_fit *fit) {
    search s;
    s.r = r;
    s.fit = fit;
    fit->n = 0;
    fit->more = fit->blank = false;
    if (!gather(&s, v, n)) return;
    fit->blank = s.n == 0;
    if (fit->blank) return;
    s.top_span = before_rounding(r, fabsf(s.top));
    s.inverse_lo = WIDER / s.top_span.lo;
    s.inverse_hi = 1 / (WIDER * s.top_span.hi);
    if (r->stored == QN_DT_BF16) small_first(&s);
    span_upto(&s, s.n < FIRST ? s.n : FIRST);
    int last = s.top < 0 ? -r->k_min : r->k_max;
    // The likeliest first, as not all can be kept: of few bits small ones, of eight the largest.
    for (int k = 1; k <= last; k++) try_code(&s, last > 64 ? last + 1 - k : k);
    if (n >= 16 && !fit->constant && last <= 64) drop_multiples(&s);
}

size_t qn_lattice_prefix(const qn_lattice_rule *r, const float *v, size_t max) {
    qn_lattice_fit fit;
    size_t good = 0, step = 8;
    // Doubling, then halving: a prefix of an explained run is explained.
    while (good < max) {
        size_t next = good + step < max ? good + step : max;
        qn_lattice_find(r, v, next, &fit);
        if (fit.n == 0 && !fit.blank) break;
        good = next;
        step *= 2;
    }
    for (step = good + step < max ? step : max - good; step > 0; step /= 2) {
        if (good + step > max) continue;
        qn_lattice_find(r, v, good + step, &fit);
        if (fit.n > 0 || fit.blank) good += step;
    }
    return good;
}
