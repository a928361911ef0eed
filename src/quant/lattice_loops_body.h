// The bodies of lattice_loops.h: straight loops without branches, which the compiler turns into vector
// code for whatever the including file is compiled for. Runs of RUN values, so that a scale that does
// not stand is left early. `how` is a constant wherever these are inlined.
#ifndef QN_QUANT_LATTICE_LOOPS_BODY_H
#define QN_QUANT_LATTICE_LOOPS_BODY_H

#include <math.h>
#include <string.h>

#include "base/f16.h"
#include "quant/lattice_loops.h"

// Left to itself the compiler stops at so many copies, and what is not inlined is not vector code.
#define ALWAYS inline __attribute__((always_inline))

enum { RUN = 64 };
#define FAR 512.0f // no integer of interest is that far from 0

// What a product goes through before it is in the file.
typedef enum rounding { AS_IS, TO_F16, TO_BF16, TO_F16_TO_BF16 } rounding;

static inline rounding rounding_of(const qn_lattice_rule *r) {
    if (r->stored == QN_DT_BF16) return r->through_f16 ? TO_F16_TO_BF16 : TO_BF16;
    return r->stored == QN_DT_F16 || r->through_f16 ? TO_F16 : AS_IS;
}

// To the nearest integer, ties to even, of what is below 2^22.
static inline float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

// f16 and back; not for NaN.
static inline float over_f16(float x) {
    uint32_t u = qn_f32_bits(x), sign = u & 0x80000000u, a = u & 0x7FFFFFFFu;
    uint32_t normal = (a + 0xFFFu + (a >> 13 & 1)) & ~0x1FFFu;
    // Beside a half a float's last place is f16's smallest subnormal.
    uint32_t tiny = qn_f32_bits((qn_f32_from_bits(a) + 0.5f) - 0.5f);
    uint32_t r = a < 0x38800000u ? tiny : normal;
    r = a >= 0x477FF000u ? 0x7F800000u : r;
    return qn_f32_from_bits(r | sign);
}

static inline float over_bf16(float x) {
    uint32_t u = qn_f32_bits(x);
    return qn_f32_from_bits((u + 0x7FFFu + (u >> 16 & 1)) & 0xFFFF0000u);
}

static ALWAYS float rounded(rounding how, float x) {
    if (how == TO_F16 || how == TO_F16_TO_BF16) x = over_f16(x);
    return how == TO_BF16 || how == TO_F16_TO_BF16 ? over_bf16(x) : x;
}

static inline float quotient(float v, float scale) {
    float q = v / scale;
    q = q > FAR ? FAR : q;
    return nearest(q < -FAR ? -FAR : q);
}

// ---- codes ----

typedef struct range {
    float scale, least, most;
} range;

static ALWAYS int fits(rounding how, const range *r, float k, float v) {
    return (rounded(how, k * r->scale) == v) & (k >= r->least) & (k <= r->most);
}

// bf16 moves a value by as much as half a scale, so the neighbours are tried too, one more first.
static ALWAYS float code_of(rounding how, const range *r, float v, int *found) {
    float k = quotient(v, r->scale);
    int here = fits(how, r, k, v);
    *found = here;
    if (how != TO_BF16 && how != TO_F16_TO_BF16) return k;
    int up = fits(how, r, k + 1, v), down = fits(how, r, k - 1, v);
    *found = here | up | down;
    float beside = up ? k + 1 : k - 1;
    return here ? k : beside;
}

static ALWAYS bool run_codes(rounding how, const range *r, const float *v, size_t n,
                             int32_t *codes) {
    int lost = 0;
    for (size_t i = 0; i < n; i++) {
        int found;
        float k = code_of(how, r, v[i], &found);
        if (codes) codes[i] = (int32_t)k;
        lost |= !found;
    }
    return !lost;
}

static ALWAYS bool runs_codes(rounding how, const range *r, const float *v, size_t n,
                              int32_t *codes) {
    for (; n >= RUN; n -= RUN, v += RUN) {
        if (!run_codes(how, r, v, RUN, codes)) return false;
        if (codes) codes += RUN;
    }
    return run_codes(how, r, v, n, codes);
}

static ALWAYS bool any_codes(const qn_lattice_rule *r, float scale, const float *v, size_t n,
                             int32_t *codes) {
    const range c = {scale, (float)r->k_min, (float)r->k_max};
    switch (rounding_of(r)) {
    case TO_F16: return runs_codes(TO_F16, &c, v, n, codes);
    case TO_BF16: return runs_codes(TO_BF16, &c, v, n, codes);
    case TO_F16_TO_BF16: return runs_codes(TO_F16_TO_BF16, &c, v, n, codes);
    default: return runs_codes(AS_IS, &c, v, n, codes);
    }
}

static bool loop_codes(const qn_lattice_rule *r, float scale, const float *v, size_t n,
                       int32_t *codes) {
    return any_codes(r, scale, v, n, codes);
}

static bool loop_stands(const qn_lattice_rule *r, float scale, const float *v, size_t n) {
    return any_codes(r, scale, v, n, NULL);
}

static ALWAYS bool run_doubled(rounding how, const range *r, const float *v, const int32_t *codes,
                               size_t n) {
    int twice = 0;
    for (size_t i = 0; i < n; i++) {
        float k = (float)codes[i];
        twice |= fits(how, r, k + 1, v[i]) | fits(how, r, k - 1, v[i]);
    }
    return twice;
}

static bool loop_doubled(const qn_lattice_rule *r, float scale, const float *v, const int32_t *codes,
                         size_t n) {
    const range c = {scale, (float)r->k_min, (float)r->k_max};
    switch (rounding_of(r)) {
    case TO_F16: return run_doubled(TO_F16, &c, v, codes, n);
    case TO_BF16: return run_doubled(TO_BF16, &c, v, codes, n);
    case TO_F16_TO_BF16: return run_doubled(TO_F16_TO_BF16, &c, v, codes, n);
    default: return run_doubled(AS_IS, &c, v, codes, n);
    }
}

// ---- which integers the largest value may be ----

static void loop_may(const qn_lattice_probe *probes, size_t n, uint8_t *may) {
    int32_t left[QN_PROBED];
    for (int k = 0; k < QN_PROBED; k++) left[k] = 1;
    for (size_t i = 0; i < n; i++) {
        float lo = probes[i].lo, hi = probes[i].hi, limit = probes[i].limit;
        for (int k = 0; k < QN_PROBED; k++) {
            float to = hi * (float)k;
            int most = (int)(to < limit ? to : limit);
            left[k] &= (lo * (float)k <= (float)most) & (most >= 1);
        }
    }
    for (int k = 0; k < QN_PROBED; k++) may[k] = (uint8_t)left[k];
}

// Half way to a value's neighbours in the stored format, from its bits; in f16 subnormals lie 2^-24
// apart. The largest value's neighbour is taken to be float's.
static ALWAYS void run_spans(qn_dtype stored, double wider, const float *v, size_t n, double *lo,
                             double *hi) {
    uint32_t step = stored == QN_DT_F32 ? 1 : stored == QN_DT_BF16 ? 1u << 16 : 1u << 13;
    double least = wider > 0 ? 0x1p-25 : 0, apart = stored == QN_DT_F16 ? 0x1p-24 : 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t u = qn_f32_bits(v[i]) & 0x7FFFFFFFu, above = u + step;
        above = above > 0x7F7FFFFFu ? 0x7F7FFFFFu : above;
        double a = (double)qn_f32_from_bits(u), up = (double)qn_f32_from_bits(above);
        double down = (double)qn_f32_from_bits(u - step);
        double far_up = up - a, far_down = a - down;
        far_up = far_up > apart ? far_up : apart;
        far_down = far_down > apart ? far_down : apart;
        double from = a - far_down / 2, to = a + far_up / 2;
        from -= from * wider + least;
        hi[i] = to + (to * wider + least);
        lo[i] = from > a * 0x1p-3 ? from : a * 0x1p-3; // the smallest: not down to nothing
    }
}

static void loop_spans(const qn_lattice_rule *r, const float *v, size_t n, double *lo, double *hi,
                       float *limit) {
    float below = (float)-r->k_min, above = (float)r->k_max;
    double wider = r->through_f16 ? 0x1p-11 : 0;
    if (r->stored == QN_DT_F16)
        run_spans(QN_DT_F16, wider, v, n, lo, hi);
    else if (r->stored == QN_DT_BF16)
        run_spans(QN_DT_BF16, wider, v, n, lo, hi);
    else
        run_spans(QN_DT_F32, wider, v, n, lo, hi);
    for (size_t i = 0; limit && i < n; i++) limit[i] = v[i] < 0 ? below : above;
}

// Magnitudes are compared as the integers that their bits are.
static float loop_largest(const float *v, size_t n, bool *constant) {
    uint32_t top = 0, differs = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t a = qn_f32_bits(v[i]) & 0x7FFFFFFFu;
        top = a > top ? a : top;
        differs |= v[i] != v[0];
    }
    *constant = !differs;
    return qn_f32_from_bits(top);
}

// ---- breaking again ----

// sign, zero and shift as they are used; half: 128 for a view, else 0.
typedef struct breaking {
    float scale, sign, zero, half, shift;
} breaking;

static ALWAYS float wrong_code(const breaking *b, float c) {
    float stored = b->sign * c + b->zero;
    float read = stored + (stored < 0 ? b->half : -b->half) - b->shift;
    return b->sign * read;
}

// Whether the right code nearest to each value, plus step, makes what was read and what was written;
// where another step did, lost is 0 already. How many are lost still.
static ALWAYS uint32_t run_makes(rounding how, rounding last, breaking b, float step,
                                 const float *broken, const float *right, size_t n,
                                 uint32_t *lost) {
    uint32_t any = 0;
    for (size_t i = 0; i < n; i++) {
        float c = quotient(right[i], b.scale) + step;
        float read = rounded(how, wrong_code(&b, c) * b.scale), written = rounded(last, c * b.scale);
        lost[i] &= (uint32_t)(read != broken[i]) | (uint32_t)(written != right[i]);
        any |= lost[i];
    }
    return any;
}

// Where the stored format is coarser than the scale, a neighbour may be meant.
static ALWAYS bool runs_breaks(rounding how, rounding last, const breaking *b, const float *broken,
                               const float *right, size_t n) {
    static const float steps[] = {0, 1, -1};
    uint32_t lost[RUN], any = 0;
    for (size_t at = 0; !any && at < n; at += RUN) {
        size_t some = n - at < RUN ? n - at : RUN;
        for (size_t i = 0; i < RUN; i++) lost[i] = any = 1;
        for (int k = 0; any && k < 3; k++)
            any = run_makes(how, last, *b, steps[k], broken + at, right + at, some, lost);
    }
    return !any;
}

static ALWAYS bool breaks_as(rounding how, const breaking *b, qn_dtype stored, const float *broken,
                             const float *right, size_t n) {
    if (stored == QN_DT_F16) return runs_breaks(how, TO_F16, b, broken, right, n);
    if (stored == QN_DT_BF16) return runs_breaks(how, TO_BF16, b, broken, right, n);
    return runs_breaks(how, AS_IS, b, broken, right, n);
}

static bool loop_breaks(const qn_lattice_rule *r, float scale, const qn_lattice_mistake *m,
                        qn_dtype stored, const float *broken, const float *right, size_t n) {
    const breaking b = {scale, (float)m->sign, (float)m->zero, m->view ? 128.0f : 0.0f,
                        m->view ? 0.0f : (float)m->shift};
    switch (rounding_of(r)) {
    case TO_F16: return breaks_as(TO_F16, &b, stored, broken, right, n);
    case TO_BF16: return breaks_as(TO_BF16, &b, stored, broken, right, n);
    case TO_F16_TO_BF16: return breaks_as(TO_F16_TO_BF16, &b, stored, broken, right, n);
    default: return breaks_as(AS_IS, &b, stored, broken, right, n);
    }
}

#define QN_LATTICE_LOOPS                                                                           \
    { loop_codes, loop_stands, loop_doubled, loop_may, loop_spans, loop_largest, loop_breaks }

#endif
