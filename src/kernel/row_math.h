// Row operations written once. Each leaf file (rows_scalar.c, rows_avx2.c, …) compiles these bodies
// with its own instruction set; the compiler vectorises them, and since every operation is written
// out (fmaf where a fused one is meant, none contracted, none reassociated) the bits are the same
// everywhere. Sums run in 16 lanes, lane = index mod 16, joined by halving: 8, 4, 2, 1.
#ifndef QN_KERNEL_ROW_MATH_H
#define QN_KERNEL_ROW_MATH_H

#include <math.h>

#include "base/f16.h"
#include "kernel/table.h"

#define LANES 16
#define ROUNDER 12582912.0f // 1.5 * 2^23: adding it rounds to an integer in the low bits

static inline float join_add(float *l) {
    for (size_t s = LANES / 2; s; s /= 2)
        for (size_t i = 0; i < s; i++) l[i] += l[i + s];
    return l[0];
}

static inline float join_max(float *l) {
    for (size_t s = LANES / 2; s; s /= 2)
        for (size_t i = 0; i < s; i++) l[i] = l[i + s] > l[i] ? l[i + s] : l[i];
    return l[0];
}

// exp: x = n ln2 + r, |r| <= ln2 / 2, a degree-6 polynomial for exp(r) (minimax, own fit), times
// 2^n in two steps so that n = 128 works. Below -87.3 it is 0: no subnormal results.
static inline float exp_one(float x) {
    float c = x > 89.0f ? 89.0f : x < -88.0f ? -88.0f : x;
    float t = fmaf(c, 1.44269504f, ROUNDER), n = t - ROUNDER;
    float r = fmaf(n, -0.693145752f, c);
    r = fmaf(n, -1.42860677e-06f, r);
    float p = fmaf(0.00139517046f, r, 0.00836959016f);
    p = fmaf(p, r, 0.0416661873f);
    p = fmaf(p, r, 0.166665137f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p * r, r, r) + 1.0f;
    int32_t e = (int32_t)(qn_f32_bits(t) - qn_f32_bits(ROUNDER)), half = e >> 1;
    p *= qn_f32_from_bits((uint32_t)(half + 127) << 23);
    p *= qn_f32_from_bits((uint32_t)(e - half + 127) << 23);
    p = x < -87.3f ? 0.0f : p;
    return x > 88.7228317f ? INFINITY : p;
}

static inline float sigmoid_one(float x) { return 1.0f / (1.0f + exp_one(-x)); }

// log(1 + z) for z in [0, 1]: 2 atanh(s), s = z / (2 + z) <= 1/3, by its series.
static inline float log1p_one(float z) {
    float s = z / (2.0f + z), s2 = s * s;
    float p = fmaf(s2, 1.0f / 15, 1.0f / 13);
    p = fmaf(p, s2, 1.0f / 11);
    p = fmaf(p, s2, 1.0f / 9);
    p = fmaf(p, s2, 1.0f / 7);
    p = fmaf(p, s2, 1.0f / 5);
    p = fmaf(p, s2, 1.0f / 3);
    return 2.0f * fmaf(s * s2, p, s);
}

// erf: x p(x^2) for |x| <= 1, else 1 - exp(-x^2) r(1 / (1 + |x| / 2)); own minimax fits.
static inline float erf_one(float x) {
    float a = x < 0 ? -x : x, x2 = x * x;
    float p = fmaf(7.88912294e-05f, x2, -0.000802084222f);
    p = fmaf(p, x2, 0.00518953567f);
    p = fmaf(p, x2, -0.0268544443f);
    p = fmaf(p, x2, 0.112836003f);
    p = fmaf(p, x2, -0.37612626f);
    p = fmaf(p, x2, 1.12837911f);
    float t = 1.0f / fmaf(a, 0.5f, 1.0f);
    float q = fmaf(0.00665167533f, t, -0.254084051f);
    q = fmaf(q, t, 0.670542598f);
    q = fmaf(q, t, -0.0906532705f);
    q = fmaf(q, t, 0.408164948f);
    q = fmaf(q, t, 0.257079512f);
    q = fmaf(q, t, 0.00207361812f);
    float big = 1.0f - exp_one(-x2) * q;
    big = a > 4.2f ? 1.0f : big;
    big = x < 0 ? -big : big;
    return a > 1.0f ? big : x * p;
}

static inline float bf16_round_one(float x) {
    uint32_t u = qn_f32_bits(x);
    uint32_t r = (u + 0x7FFFu + (u >> 16 & 1)) & 0xFFFF0000u;
    r = (u & 0x7FFFFFFFu) > 0x7F800000u ? (u | 0x400000u) & 0xFFFF0000u : r;
    return qn_f32_from_bits(r);
}

static inline void round_bf16_row(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = bf16_round_one(x[i]);
}

// Symmetric int8: scale = max|x| / 127, code = nearest even of x * (127 / max|x|). A group whose
// maximum is below 2^-100 counts as zero; one with inf or NaN gets a NaN scale, which then reaches
// the outputs instead of being lost in the rounding.
static inline void quantize_s8_row(const float *x, size_t n, size_t n_pad, int8_t *codes,
                                   float *scale, int32_t *sum) {
    uint32_t top = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t a = qn_f32_bits(x[i]) & 0x7FFFFFFFu;
        top = a > top ? a : top;
    }
    bool finite = top < 0x7F800000u, zero = top < 0x0D800000u;
    float amax = qn_f32_from_bits(top), inv = finite && !zero ? 127.0f / amax : 0.0f;
    int32_t total = 0;
    for (size_t i = 0; i < n; i++) {
        float t = (finite ? x[i] : 0.0f) * inv + ROUNDER;
        int32_t c = (int32_t)(qn_f32_bits(t) - qn_f32_bits(ROUNDER));
        codes[i] = (int8_t)c;
        total += c;
    }
    for (size_t i = n; i < n_pad; i++) codes[i] = 0;
    *scale = !finite ? NAN : zero ? 0.0f : amax / 127.0f;
    *sum = total;
}

static inline float dot_lanes_row(const float *x, const float *y, size_t n) {
    float l[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) l[j] = fmaf(x[i + j], y[i + j], l[j]);
    for (size_t j = 0; i + j < n; j++) l[j] = fmaf(x[i + j], y[i + j], l[j]);
    return join_add(l);
}

static inline void rmsnorm_row(const float *x, const float *w, float eps, float *y, size_t n) {
    float r = 1.0f / sqrtf(dot_lanes_row(x, x, n) / (float)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = x[i] * r * w[i];
}

static inline void layernorm_row(const float *x, const float *w, const float *b, float eps,
                                 float *y, size_t n) {
    float l[LANES] = {0}, v[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) l[j] += x[i + j];
    for (size_t j = 0; i + j < n; j++) l[j] += x[i + j];
    float mean = join_add(l) / (float)n;
    for (i = 0; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            v[j] = fmaf(x[i + j] - mean, x[i + j] - mean, v[j]);
    for (size_t j = 0; i + j < n; j++) v[j] = fmaf(x[i + j] - mean, x[i + j] - mean, v[j]);
    float r = 1.0f / sqrtf(join_add(v) / (float)n + eps);
    for (i = 0; i < n; i++) y[i] = fmaf((x[i] - mean) * r, w[i], b[i]);
}

static inline void rope_row(float *x, const float *cos_sin, size_t n_freq) {
    const float *c = cos_sin, *s = cos_sin + n_freq;
    for (size_t i = 0; i < n_freq; i++) {
        float a = x[i], b = x[i + n_freq];
        x[i] = fmaf(a, c[i], -(b * s[i]));
        x[i + n_freq] = fmaf(b, c[i], a * s[i]);
    }
}

static inline void silu_mul_row(const float *gate, const float *up, float *y, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = gate[i] / (1.0f + exp_one(-gate[i])) * up[i];
}

static inline void add_row(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

static inline void sigmoid_mul_row(float *x, const float *g, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= sigmoid_one(g[i]);
}

// x/2 (1 + tanh u) = x sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3).
static inline void gelu_tanh_row(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float v = x[i], u = 1.59576912f * fmaf(0.044715f * v * v, v, v);
        x[i] = v / (1.0f + exp_one(-u));
    }
}

static inline void gelu_erf_row(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = 0.5f * x[i] * (1.0f + erf_one(x[i] * 0.707106781f));
}

static inline void scale_row(float *x, float factor, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}

static inline void add_scaled_row(float *acc, const float *x, const float *f, size_t n) {
    for (size_t i = 0; i < n; i++) acc[i] = fmaf(x[i], f[i], acc[i]);
}

static inline void softmax_row(float *x, size_t n) {
    float l[LANES], top = -INFINITY;
    for (size_t j = 0; j < LANES; j++) l[j] = -INFINITY;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) l[j] = x[i + j] > l[j] ? x[i + j] : l[j];
    for (size_t j = 0; i + j < n; j++) l[j] = x[i + j] > l[j] ? x[i + j] : l[j];
    top = join_max(l);
    for (i = 0; i < n; i++) x[i] = exp_one(x[i] - top);
    for (size_t j = 0; j < LANES; j++) l[j] = 0;
    for (i = 0; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) l[j] += x[i + j];
    for (size_t j = 0; i + j < n; j++) l[j] += x[i + j];
    scale_row(x, 1.0f / join_add(l), n);
}

// Milakov & Gimelshein 2018: the running maximum moves, earlier sums are rescaled.
static inline float softmax_step_row(qn_softmax_step *a) {
    float l[LANES], sums[LANES] = {0}, *s = a->s;
    for (size_t i = 0; i < a->n; i++) s[i] *= a->scale;
    for (size_t i = 0; i < a->from; i++) s[i] = -INFINITY;
    for (size_t i = a->to; i < a->n; i++) s[i] = -INFINITY;
    for (size_t j = 0; j < LANES; j++) l[j] = -INFINITY;
    for (size_t i = 0; i < a->n; i += LANES)
        for (size_t j = 0; j < LANES; j++) l[j] = s[i + j] > l[j] ? s[i + j] : l[j];
    float top = join_max(l), max = top > a->max ? top : a->max;
    for (size_t i = 0; i < a->n; i++) s[i] = exp_one(s[i] - max);
    if (a->round_bf16) round_bf16_row(s, s, a->n);
    for (size_t i = 0; i < a->n; i += LANES)
        for (size_t j = 0; j < LANES; j++) sums[j] += s[i + j];
    float carry = exp_one(a->max - max);
    a->sum = fmaf(a->sum, carry, join_add(sums));
    a->max = max;
    return carry;
}

// Decay, read, delta, write, read in two passes over the state: with a = S^T k and b = S^T q of the
// old state, delta = beta (v - decay a), out = decay b + delta (k.q), S = decay S + k delta^T.
static inline void delta_columns(const qn_delta_slice *d) {
    float a[QN_DELTA_COLUMNS] = {0}, b[QN_DELTA_COLUMNS] = {0};
    for (size_t i = 0; i < d->dk; i++) {
        const float *s = d->state + i * d->dv;
        for (size_t j = 0; j < d->n; j++) {
            a[j] = fmaf(d->k[i], s[j], a[j]);
            b[j] = fmaf(d->q[i], s[j], b[j]);
        }
    }
    for (size_t j = 0; j < d->n; j++) {
        a[j] = d->beta * fmaf(-d->decay, a[j], d->v[j]);
        d->out[j] = fmaf(a[j], d->kq, d->decay * b[j]);
    }
    for (size_t i = 0; i < d->dk; i++) {
        float *s = d->state + i * d->dv;
        for (size_t j = 0; j < d->n; j++) s[j] = fmaf(d->k[i], a[j], d->decay * s[j]);
    }
}

// Four streams, as many as keep the memory busy from one core.
static inline uint64_t read_streams(const void *p, size_t n) {
    uint64_t sum[LANES] = {0};
    const uint64_t *at = p;
    size_t quarter = n / 4 / sizeof *at;
    for (size_t i = 0; i < quarter; i += LANES)
        for (size_t s = 0; s < 4; s++)
            for (size_t j = 0; j < LANES; j++) sum[j] += at[s * quarter + i + j];
    uint64_t all = 0;
    for (size_t j = 0; j < LANES; j++) all += sum[j];
    return all;
}

static inline void fill_rows(qn_table *t) {
    t->round_bf16 = round_bf16_row;
    t->quantize_s8 = quantize_s8_row;
    t->rmsnorm = rmsnorm_row;
    t->layernorm = layernorm_row;
    t->rope = rope_row;
    t->silu_mul = silu_mul_row;
    t->add = add_row;
    t->sigmoid_mul = sigmoid_mul_row;
    t->gelu_tanh = gelu_tanh_row;
    t->gelu_erf = gelu_erf_row;
    t->softmax = softmax_row;
    t->softmax_step = softmax_step_row;
    t->scale = scale_row;
    t->add_scaled = add_scaled_row;
    t->dot_lanes = dot_lanes_row;
    t->delta = delta_columns;
    t->read = read_streams;
}

#endif
