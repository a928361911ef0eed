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

// ---- neighbours in the scale's format ----

static float next_scale(qn_dtype d, float s, int step) {
    if (d == QN_DT_F32) return qn_f32_from_bits(qn_f32_bits(s) + (uint32_t)step);
    if (d == QN_DT_BF16) return qn_bf16_to_f32((uint16_t)(qn_f32_to_bf16(s) + step));
    return qn_f16_to_f32((uint16_t)(qn_f32_to_f16(s) + step));
}

typedef struct search {
    const qn_lattice_rule *r;
    const float *v;
    size_t n;
    float top; // the largest value by magnitude, with its sign
    qn_lattice_fit *fit;
} search;

static void keep(search *s, float scale) {
    qn_lattice_fit *f = s->fit;
    for (size_t i = 0; i < f->n; i++)
        if (f->scales[i] == scale) return;
    if (f->n == QN_MAX_STANDING)
        f->more = true;
    else
        f->scales[f->n++] = scale;
}

// How far from an integer v / s may lie, relatively: the roundings of v and of the top value, from
// which s is guessed.
static float slack(const qn_lattice_rule *r) {
    float e = r->stored == QN_DT_BF16 ? 0x1p-7f : r->stored == QN_DT_F16 ? 0x1p-10f : 0x1p-22f;
    return r->through_f16 ? e + 0x1p-10f : e;
}

// A quick look at the first values with the unrounded scale: nearly every wrong integer for the top
// value fails here, without any rounding to 16 bits.
static bool plausible(const search *s, int k) {
    float inverse = (float)k / s->top, relative = slack(s->r) * 1.01f;
    bool coarse = s->r->stored == QN_DT_F16 || s->r->through_f16;
    float absolute = 1e-4f + (coarse ? 0x1p-24f * inverse : 0); // subnormal f16 numbers
    size_t n = s->n < 24 ? s->n : 24;
    for (size_t i = 0; i < n; i++) {
        float q = s->v[i] * inverse, off = fabsf(q - rintf(q));
        if (off > fabsf(q) * relative + absolute) return false;
    }
    return true;
}

// Integers with a common divisor are those of a larger scale, found before; a group of many values
// whose codes share one does not happen.
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

// Scales on one side of the first guess that still give the top value, nearest first.
static void try_side(search *s, int k, float scale, int step) {
    for (int i = 0; i < 4096; i++) {
        if (!(scale > 0) || !isfinite(scale) || qn_lattice_value(s->r, scale, k) != s->top) return;
        if (qn_lattice_stands(s->r, scale, s->v, s->n) &&
            (s->fit->constant || s->n < 16 || primitive(s, scale)))
            keep(s, scale);
        scale = next_scale(s->r->scale, scale, step);
    }
}

static void try_code(search *s, int k) {
    if (!plausible(s, k)) return;
    float guess = round_to(s->r->scale, s->top / (float)k);
    if (!(guess > 0)) return;
    // The guess itself may just miss while a neighbour hits: start one step to each side too.
    float up = next_scale(s->r->scale, guess, 1);
    float down = next_scale(s->r->scale, guess, -1);
    if (qn_lattice_value(s->r, guess, k) == s->top) {
        try_side(s, k, guess, 1);
        try_side(s, k, down, -1);
    } else {
        try_side(s, k, up, 1);
        try_side(s, k, down, -1);
    }
}

void qn_lattice_find(const qn_lattice_rule *r, const float *v, size_t n, qn_lattice_fit *fit) {
    search s = {r, v, n, 0, fit};
    fit->n = 0;
    fit->more = false;
    fit->constant = true;
    for (size_t i = 0; i < n; i++) {
        if (fabsf(v[i]) > fabsf(s.top)) s.top = v[i];
        fit->constant &= v[i] == v[0];
    }
    fit->blank = s.top == 0;
    if (fit->blank) return;
    int sign = s.top < 0 ? -1 : 1, last = sign < 0 ? -r->k_min : r->k_max;
    for (int k = 1; k <= last; k++) try_code(&s, sign * k);
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
