// The canonical arithmetic of every weight format, as plain C (docs/numerics.md). Every faster leaf
// is compared with this file bit for bit.
#include <math.h>
#include <string.h>

#include "base/f16.h"
#include "kernel/table.h"

#define W 16 // outputs of a panel

// One chain per output in input order.
static void dot_f32(const qn_tile *t) {
    for (size_t r = 0; r < t->m; r++)
        for (size_t p = 0; p < t->n_panels; p++) {
            const float *x = (const float *)t->x + r * t->ldx;
            const float *w = (const float *)((const char *)t->w + p * t->ldw);
            float *acc = t->acc + r * t->ldacc + p * W;
            for (size_t k = 0; k < t->k; k++)
                for (size_t o = 0; o < W; o++) acc[o] = fmaf(x[k], w[k * W + o], acc[o]);
        }
}

// TDPBF16PS's order: for every 32 inputs a chain over the even and one over the odd inputs, both
// from zero; their sum is added to the output.
static void dot_bf16(const qn_tile *t) {
    for (size_t r = 0; r < t->m; r++)
        for (size_t p = 0; p < t->n_panels; p++) {
            const float *x = (const float *)t->x + r * t->ldx;
            const uint16_t *w = (const uint16_t *)((const char *)t->w + p * t->ldw);
            float *acc = t->acc + r * t->ldacc + p * W;
            for (size_t k0 = 0; k0 < t->k; k0 += 32) {
                size_t end = k0 + 32 < t->k ? k0 + 32 : t->k;
                float even[W] = {0}, odd[W] = {0};
                for (size_t k = k0; k < end; k += 2)
                    for (size_t o = 0; o < W; o++) {
                        const uint16_t *pair = w + k * W + 2 * o;
                        even[o] = fmaf(x[k], qn_bf16_to_f32(pair[0]), even[o]);
                        odd[o] = fmaf(x[k + 1], qn_bf16_to_f32(pair[1]), odd[o]);
                    }
                for (size_t o = 0; o < W; o++) acc[o] += even[o] + odd[o];
            }
        }
}

static float scale_at(const qn_tile *t, size_t i) {
    const uint16_t *h = t->w_scale;
    if (t->scale_type == QN_SCALE_F32) return ((const float *)t->w_scale)[i];
    return t->scale_type == QN_SCALE_BF16 ? qn_bf16_to_f32(h[i]) : qn_f16_to_f32(h[i]);
}

// What a group's exact integer sum becomes: acc = fma(float(dot - zero * sum), sw * sa, acc).
// Sums run in unsigned arithmetic; the final value fits (groups are at most 65536 inputs).
static void add_group(const qn_tile *t, size_t row, size_t panel, size_t g, const uint32_t *dot,
                      uint32_t middle) {
    float *acc = t->acc + row * t->ldacc + panel * W;
    float sa = t->x_scale[row * t->n_groups + g];
    uint32_t sum = (uint32_t)t->x_sum[row * t->n_groups + g];
    size_t at = (panel * t->n_groups + g) * W;
    for (size_t o = 0; o < W; o++) {
        uint32_t zero = t->w_zero ? t->w_zero[at + o] : middle;
        int32_t v = (int32_t)(dot[o] - zero * sum);
        acc[o] = fmaf((float)v, scale_at(t, at + o) * sa, acc[o]);
    }
}

static void dot_q8(const qn_tile *t) {
    for (size_t r = 0; r < t->m; r++)
        for (size_t p = 0; p < t->n_panels; p++)
            for (size_t g = 0; g < t->n_groups; g++) {
                const int8_t *x = (const int8_t *)t->x + r * t->ldx + g * t->k;
                const uint8_t *w = (const uint8_t *)t->w + p * t->ldw + g * t->k * W;
                uint32_t dot[W] = {0};
                for (size_t k = 0; k < t->k; k += 4)
                    for (size_t o = 0; o < W; o++)
                        for (size_t j = 0; j < 4; j++)
                            dot[o] += (uint32_t)(w[k * W + o * 4 + j] * x[k + j]);
                add_group(t, r, p, g, dot, 128);
            }
}

static void dot_q4(const qn_tile *t) {
    for (size_t r = 0; r < t->m; r++)
        for (size_t p = 0; p < t->n_panels; p++)
            for (size_t g = 0; g < t->n_groups; g++) {
                const int8_t *x = (const int8_t *)t->x + r * t->ldx + g * t->k;
                const uint8_t *w = (const uint8_t *)t->w + p * t->ldw + g * t->k * (W / 2);
                uint32_t dot[W] = {0};
                for (size_t k = 0; k < t->k; k += 8)
                    for (size_t o = 0; o < W; o++)
                        for (size_t j = 0; j < 4; j++) {
                            int two = w[k * (W / 2) + o * 4 + j];
                            dot[o] += (uint32_t)((two & 15) * x[k + j] +
                                                 (two >> 4) * x[k + 4 + j]);
                        }
                add_group(t, r, p, g, dot, 8);
            }
}

static void unpack_bf16(const qn_unpack *u) {
    const uint16_t *w = u->w;
    for (size_t k = 0; k < u->n; k++)
        for (size_t o = 0; o < W; o++)
            u->out[k * W + o] = qn_bf16_to_f32(w[(k / 2) * 2 * W + o * 2 + k % 2]);
}

static void unpack_f16(const qn_unpack *u) {
    const uint16_t *w = u->w;
    for (size_t i = 0; i < u->n * W; i++) u->out[i] = qn_f16_to_f32(w[i]);
}

static void unpack_q8(const qn_unpack *u) {
    const uint8_t *w = u->w;
    for (size_t k = 0; k < u->n; k++)
        for (size_t o = 0; o < W; o++)
            u->out[k * W + o] =
                u->scale[o] * (float)(w[k / 4 * 4 * W + o * 4 + k % 4] - u->zero[o]);
}

static void unpack_q4(const qn_unpack *u) {
    const uint8_t *w = u->w;
    for (size_t k = 0; k < u->n; k++)
        for (size_t o = 0; o < W; o++) {
            int two = w[k / 8 * 4 * W + o * 4 + k % 4];
            int code = k % 8 < 4 ? two & 15 : two >> 4;
            u->out[k * W + o] = u->scale[o] * (float)(code - u->zero[o]);
        }
}

static void unpack_f8(const qn_unpack *u) {
    const uint8_t *w = u->w;
    for (size_t k = 0; k < u->n; k++)
        for (size_t o = 0; o < W; o++)
            u->out[k * W + o] = u->scale[o] * qn_f8e4m3_to_f32(w[k / 2 * 2 * W + o * 2 + k % 2]);
}

// Every e4m3 number is a bf16 number.
static void f8_to_bf16(const uint8_t *w, size_t n, uint16_t *out) {
    for (size_t i = 0; i < n; i++) out[i] = (uint16_t)(qn_f32_bits(qn_f8e4m3_to_f32(w[i])) >> 16);
}

// ---- peaks ----

static uint64_t peak_f32(size_t turns) {
    volatile float seed = 1;
    float a[8], f = seed;
    for (size_t j = 0; j < 8; j++) a[j] = f + (float)j;
    for (size_t i = 0; i < turns; i++)
        for (size_t j = 0; j < 8; j++) a[j] = fmaf(a[j], f, f);
    for (size_t j = 0; j < 8; j++) seed = a[j];
    return turns * 8 * 2;
}

static uint64_t peak_int8(size_t turns) {
    volatile int seed = 3;
    int a[8], f = seed;
    for (size_t j = 0; j < 8; j++) a[j] = f + (int)j;
    for (size_t i = 0; i < turns; i++)
        for (size_t j = 0; j < 8; j++) a[j] += (int8_t)a[j] * (int8_t)(f + (int)i);
    for (size_t j = 0; j < 8; j++) seed = a[j];
    return turns * 8 * 2;
}

void qn_table_scalar(qn_table *t) {
    t->dot_f32 = dot_f32;
    t->dot_bf16 = dot_bf16;
    t->dot_q8 = dot_q8;
    t->dot_q4 = dot_q4;
    t->unpack_bf16 = unpack_bf16;
    t->unpack_f16 = unpack_f16;
    t->unpack_q8 = unpack_q8;
    t->unpack_q4 = unpack_q4;
    t->unpack_f8 = unpack_f8;
    t->f8_to_bf16 = f8_to_bf16;
    t->peak_f32 = peak_f32;
    t->peak_int8 = peak_int8;
    qn_rows_scalar(t);
}
