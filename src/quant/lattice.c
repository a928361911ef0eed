// Finding the scale of a group again. See lattice.h; the counting argument is in docs/numerics.md.
#include "quant/lattice.h"

#include <math.h>
#include <stdlib.h>

#include "base/f16.h"
#include "quant/lattice_loops.h"

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

bool qn_lattice_codes(const qn_lattice_rule *r, float scale, const float *v, size_t n,
                      int32_t *codes) {
    return qn_lattice_loops_best()->codes(r, scale, v, n, codes);
}

bool qn_lattice_stands(const qn_lattice_rule *r, float scale, const float *v, size_t n) {
    return qn_lattice_loops_best()->stands(r, scale, v, n);
}

// ---- what rounds to a value ----

typedef struct span {
    double lo, hi;
} span;

// Everything that may round to x; a little too wide rather than too narrow, as what is found is tried
// exactly afterwards.
static span before_rounding(const qn_lattice_rule *r, float x) {
    span s;
    qn_lattice_loops_plain.spans(r, &x, 1, &s.lo, &s.hi, NULL);
    return s;
}

double qn_lattice_chance(const qn_lattice_rule *r, float scale, float v) {
    if (v == 0) return 1;
    span s = before_rounding(r, v);
    double width = (s.hi - s.lo) / (double)scale;
    return width < 1 ? width : 1;
}

// ---- the search ----

// Codes −129 … 129 make so many different values at most; a group with more is no lattice. Groups of
// up to ALL values are taken as they are, unless many of the first are repeated (few bits, pruned).
enum { DISTINCT = 259, TABLE = 1024, ALL = 512, LOOKED_AT = 32, FRESH = 24 };

typedef struct search {
    const qn_lattice_rule *r;
    const qn_lattice_loops *loops;
    size_t n;            // values, none of them 0
    float v[ALL], top;   // top: the largest by magnitude, with its sign
    span top_span;
    double lo[ALL], hi[ALL]; // what rounds to each value, and what its integer may be at most;
    float limit[ALL];        // computed when first needed
    size_t n_spans;
    uint8_t may[QN_PROBED]; // integers of the top that some values leave
    bool any;               // one scale will do
    qn_lattice_fit *fit;
} search;

// The different values but 0. False: too many.
static bool gather_different(search *s, const float *v, size_t n) {
    uint16_t table[TABLE] = {0};
    s->n = 0;
    for (size_t i = 0; i < n; i++) {
        if (v[i] == 0) continue;
        uint32_t at = (qn_f32_bits(v[i]) * 2654435761u) >> 22;
        while (table[at] && s->v[table[at] - 1] != v[i]) at = (at + 1) % TABLE;
        if (table[at]) continue;
        if (s->n == DISTINCT) return false;
        s->v[s->n++] = v[i];
        table[at] = (uint16_t)s->n;
    }
    return true;
}

static bool mostly_fresh(search *s, const float *v, size_t n) {
    return n <= LOOKED_AT || (gather_different(s, v, LOOKED_AT) && s->n >= FRESH);
}

// A zero says nothing: the top stands in for it.
static bool gather(search *s, const float *v, size_t n) {
    float top = s->loops->largest(v, n, &s->fit->constant);
    size_t first = 0;
    s->n_spans = 0;
    s->fit->blank = top == 0;
    if (s->fit->blank) return false;
    while (fabsf(v[first]) != top) first++;
    s->top = v[first];
    if (n > ALL || !mostly_fresh(s, v, n)) return gather_different(s, v, n);
    for (size_t i = 0; i < n; i++) s->v[i] = v[i] == 0 ? s->top : v[i];
    s->n = n;
    return true;
}

static int limit_of(const search *s, float v) { return v < 0 ? -s->r->k_min : s->r->k_max; }

static void span_upto(search *s, size_t n) {
    size_t i = s->n_spans;
    if (n > i) s->loops->spans(s->r, s->v + i, n - i, s->lo + i, s->hi + i, s->limit + i);
    if (n > i) s->n_spans = n;
}

static void swap(search *s, size_t a, size_t b) {
    float v = s->v[a];
    s->v[a] = s->v[b];
    s->v[b] = v;
}

enum { FIRST = 6 };

// In bf16 only small values, of a few scales, say much about it: they go to the front, the more the
// smaller. How many there are.
static size_t small_first(search *s) {
    float below = fabsf(s->top) / 2;
    size_t n = 0, least = s->n < FIRST ? s->n : FIRST;
    for (size_t i = 0; i < s->n; i++)
        if (fabsf(s->v[i]) < below) swap(s, n++, i);
    for (size_t from = n, i = n; i < least; i++, from = i) {
        for (size_t k = i + 1; k < s->n; k++)
            if (fabsf(s->v[k]) < fabsf(s->v[from])) from = k;
        swap(s, i, from);
    }
    return n < least ? least : n < QN_MAX_PROBES ? n : QN_MAX_PROBES;
}

// Nearly all integers for the largest value fall at a few others. In float, with room for its
// rounding: what is found is tried exactly afterwards.
static void probe(search *s) {
    qn_lattice_probe probes[QN_MAX_PROBES];
    size_t n = s->n < FIRST ? s->n : FIRST;
    if (s->r->stored == QN_DT_BF16) n = small_first(s);
    span_upto(s, n);
    for (size_t i = 0; i < n; i++) {
        double lo = s->lo[i] / s->top_span.hi, hi = s->hi[i] / s->top_span.lo;
        probes[i] = (qn_lattice_probe){(float)(lo * (1 - 0x1p-20)), (float)(hi * (1 + 0x1p-20)),
                                       s->limit[i]};
    }
    s->loops->may(probes, n, s->may);
}

#define WIDER (1 + 0x1p-40) // a product with an inverse must not shut out what a quotient lets in

// One pass over the values: each leaves one integer (the interval of scales is cut to those that
// agree), several (nothing learned yet) or none (false).
static bool narrow(const search *s, span *scale, bool *open) {
    double inverse_lo = WIDER / scale->lo, inverse_hi = 1 / (WIDER * scale->hi);
    *open = false;
    for (size_t i = 0; i < s->n; i++) {
        int limit = (int)s->limit[i];
        double from = s->lo[i] * inverse_hi, to = s->hi[i] * inverse_lo;
        if (from > limit) return false;
        int least = (int)from, most = to < limit ? (int)to : limit;
        least += least < from || least < 1;
        if (least > most) return false;
        if (least < most) {
            *open = true;
            continue;
        }
        double lo = s->lo[i] / least, hi = s->hi[i] / least;
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

// Nothing that is still found would be kept.
static bool enough(const search *s) {
    return (s->any && s->fit->n > 0) || (s->fit->n == QN_MAX_STANDING && s->fit->more);
}

static bool try_scale(search *s, float scale) {
    if (!(scale > 0) || !isfinite(scale) || !s->loops->stands(s->r, scale, s->v, s->n))
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
    for (uint64_t u = a; u <= b && !enough(s); u += stride) try_scale(s, scale_of(d, (uint32_t)u));
    if (enough(s)) return;
    try_scale(s, scale_of(d, b));
}

// The few scales that f16's or f32's digits leave are tried as they are.
static bool few_between(const search *s, span scale) {
    qn_dtype d = s->r->scale;
    return number_of(d, round_to(d, (float)scale.hi)) - number_of(d, round_to(d, (float)scale.lo)) < 4;
}

static void try_code(search *s, int k) {
    span scale = {s->top_span.lo / k, s->top_span.hi / k};
    bool open = !few_between(s, scale);
    if (open) span_upto(s, s->n);
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

static void find(const qn_lattice_rule *r, const float *v, size_t n, bool any,
                 qn_lattice_fit *fit) {
    search s;
    s.r = r;
    s.loops = qn_lattice_loops_best();
    s.any = any;
    s.fit = fit;
    fit->n = 0;
    fit->more = false;
    if (!gather(&s, v, n)) return;
    s.top_span = before_rounding(r, s.top);
    probe(&s);
    int last = limit_of(&s, s.top);
    // The likeliest first, as not all can be kept: of few bits small ones, of eight the largest.
    for (int i = 1; i <= last && !enough(&s); i++) {
        int k = last > 64 ? last + 1 - i : i;
        if (s.may[k]) try_code(&s, k);
    }
    if (!any && n >= 16 && !fit->constant && last <= 64) drop_multiples(&s);
}

void qn_lattice_find(const qn_lattice_rule *r, const float *v, size_t n, qn_lattice_fit *fit) {
    find(r, v, n, false, fit);
}

bool qn_lattice_explains(const qn_lattice_rule *r, const float *v, size_t n) {
    qn_lattice_fit fit;
    find(r, v, n, true, &fit);
    return fit.n > 0 || fit.blank;
}

size_t qn_lattice_prefix(const qn_lattice_rule *r, const float *v, size_t max) {
    size_t good = 0, bad = max + 1;
    // Doubling, then halving: a prefix of an explained run is explained.
    for (size_t step = 8; good < max && bad > max; step *= 2) {
        size_t next = good + step < max ? good + step : max;
        *(qn_lattice_explains(r, v, next) ? &good : &bad) = next;
    }
    while (bad - good > 1 && good < max) {
        size_t middle = good + (bad - good) / 2;
        *(qn_lattice_explains(r, v, middle) ? &good : &bad) = middle;
    }
    return good;
}
