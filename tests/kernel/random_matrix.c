// Random matrices of every format.
#include "kernel/random_matrix.h"

#include <stdio.h>
#include <string.h>

#include "base/f16.h"
#include "base/mem.h"
#include "base/rng.h"

float *random_floats(size_t n, uint64_t seed) {
    float *x = QN_NEW_ARRAY(float, n);
    for (size_t i = 0; i < n; i++) x[i] = (float)qn_rng_normal(seed, 1, i);
    return x;
}

static float round_scale(const random_spec *s, float x) {
    if (s->scale_bits == 32) return x;
    return s->scale_is_bf16 ? qn_bf16_to_f32(qn_f32_to_bf16(x)) : qn_f16_to_f32(qn_f32_to_f16(x));
}

// One row in packed order: codes or 16-bit values, and the floats they mean.
typedef struct row {
    float *f32, *scales;
    uint16_t *h16;
    uint8_t *codes, *zeros;
} row;

static void plain_row(const random_spec *s, row *r, uint64_t at) {
    for (size_t k = 0; k < s->cols; k++) {
        float x = 0.1f * (float)qn_rng_normal(s->seed, 2, at + k);
        if (s->adversarial && k % 7 == 0) x *= k % 2 ? 1e-41f : 1e18f;
        r->h16[k] = s->format == QN_FORMAT_F16 ? qn_f32_to_f16(x) : qn_f32_to_bf16(x);
        if (s->format == QN_FORMAT_F16 && (r->h16[k] & 0x7C00) == 0x7C00) r->h16[k] = 1;
        r->f32[k] = s->format == QN_FORMAT_F32   ? x
                    : s->format == QN_FORMAT_F16 ? qn_f16_to_f32(r->h16[k])
                                                 : qn_bf16_to_f32(r->h16[k]);
    }
}

static uint8_t random_code(const random_spec *s, uint64_t u) {
    int top = s->format == QN_FORMAT_Q4 ? 15 : s->format == QN_FORMAT_Q8 ? 255 : 0x7E;
    if (s->adversarial && u % 3) return (uint8_t)(u % 2 ? s->format == QN_FORMAT_F8 : top);
    top |= s->format == QN_FORMAT_F8 ? 255 : 0;
    uint8_t c = (uint8_t)((u >> 8) & (unsigned)top);
    return s->format == QN_FORMAT_F8 && (c & 0x7F) == 0x7F ? 0x7E : c;
}

static void coded_row(const random_spec *s, row *r, uint64_t at) {
    size_t n_groups = (s->cols + s->group - 1) / s->group;
    int top = s->format == QN_FORMAT_Q4 ? 15 : 255;
    for (size_t g = 0; g < n_groups; g++) {
        float scale = (float)qn_rng_normal(s->seed, 3, at + g) * 0.01f;
        if (s->adversarial) scale *= g % 3 == 0 ? 1e-5f : g % 3 == 1 ? 1e4f : 0;
        r->scales[g] = round_scale(s, scale);
        uint64_t u = qn_rng_u64(s->seed, 4, at + g);
        int middle = s->format == QN_FORMAT_Q4 ? 8 : 128;
        int zero = (int)(u & (unsigned)top);
        if (s->adversarial) zero = u % 2 ? 0 : top;
        if (!s->zeros) zero = middle;
        r->zeros[g] = (uint8_t)zero;
        for (size_t k = g * s->group; k < s->cols && k < (g + 1) * s->group; k++) {
            r->codes[k] = random_code(s, qn_rng_u64(s->seed, 5, at + k));
            r->f32[k] = s->format == QN_FORMAT_F8
                            ? r->scales[g] * qn_f8e4m3_to_f32(r->codes[k])
                            : r->scales[g] * (float)(r->codes[k] - zero);
        }
    }
}

static int32_t *shuffle(size_t n, uint64_t seed) {
    int32_t *p = QN_NEW_ARRAY(int32_t, n);
    for (size_t i = 0; i < n; i++) p[i] = (int32_t)i;
    for (size_t i = n; i > 1; i--) {
        size_t j = qn_rng_u64(seed, 6, i) % i;
        int32_t t = p[i - 1];
        p[i - 1] = p[j];
        p[j] = t;
    }
    return p;
}

void random_mat_make(random_mat *r, const random_spec *s) {
    qn_err err = {0};
    bool coded = s->format >= QN_FORMAT_Q8;
    size_t n_groups = coded ? (s->cols + s->group - 1) / s->group : 1;
    int32_t *perm = s->perm ? shuffle(s->cols, s->seed) : NULL;
    qn_mat_spec spec = {s->format, s->rows, s->cols, coded ? s->group : 0, s->zeros, s->scale_bits,
                        s->scale_is_bf16, perm, "random"};
    *r = (random_mat){.values = QN_NEW_ARRAY(float, s->rows * s->cols)};
    if (!qn_mat_init(&r->mat, &spec, &err)) fprintf(stderr, "%s\n", err.text);
    row one = {QN_NEW_ARRAY(float, s->cols), QN_NEW_ARRAY(float, n_groups),
               QN_NEW_ARRAY(uint16_t, s->cols), QN_NEW_ARRAY(uint8_t, s->cols),
               QN_NEW_ARRAY(uint8_t, n_groups)};
    for (size_t i = 0; i < s->rows; i++) {
        (coded ? coded_row : plain_row)(s, &one, i * s->cols);
        qn_rows rows = {.row0 = i, .n = 1, .f32 = s->format == QN_FORMAT_F32 ? one.f32 : NULL};
        if (s->format == QN_FORMAT_F16 || s->format == QN_FORMAT_BF16) rows.h16 = one.h16;
        if (coded) {
            rows.codes = one.codes;
            rows.scales = one.scales;
            rows.zeros = one.zeros;
        }
        qn_mat_put(&r->mat, &rows);
        for (size_t k = 0; k < s->cols; k++)
            r->values[i * s->cols + (size_t)(perm ? perm[k] : (int32_t)k)] = one.f32[k];
    }
    if (s->bias) {
        r->bias = random_floats(s->rows, s->seed + 9);
        qn_mat_set_bias(&r->mat, r->bias, &err);
    }
    qn_free(one.f32);
    qn_free(one.scales);
    qn_free(one.h16);
    qn_free(one.codes);
    qn_free(one.zeros);
    qn_free(perm);
}

void random_mat_free(random_mat *r) {
    qn_mat_done(&r->mat);
    qn_free(r->values);
    qn_free(r->bias);
}

const char *random_spec_text(const random_spec *s) {
    static char text[160];
    static const char *const names[] = {"f32", "bf16", "f16", "q8", "q4", "f8"};
    snprintf(text, sizeof text, "%s [%zu,%zu] group %zu%s%s%s%s scales %d%s seed %llu",
             names[s->format], s->rows, s->cols, s->group, s->zeros ? " zeros" : "",
             s->perm ? " perm" : "", s->bias ? " bias" : "", s->adversarial ? " adversarial" : "",
             s->scale_bits, s->scale_is_bf16 ? "b" : "", (unsigned long long)s->seed);
    return text;
}

random_spec random_spec_at(size_t i, size_t rows, size_t cols) {
    static const struct {
        qn_format_id format;
        size_t group;
        bool zeros, perm, adversarial;
        int scale_bits;
        bool bf16;
    } kinds[N_RANDOM_SPECS] = {
        {QN_FORMAT_F32, 0, false, false, false, 0, false},
        {QN_FORMAT_F32, 0, false, false, true, 0, false},
        {QN_FORMAT_BF16, 0, false, false, false, 0, false},
        {QN_FORMAT_BF16, 0, false, false, true, 0, false},
        {QN_FORMAT_F16, 0, false, false, true, 0, false},
        {QN_FORMAT_Q8, 128, false, false, false, 16, false},
        {QN_FORMAT_Q8, 32, true, false, true, 32, false},
        {QN_FORMAT_Q8, 1 << 20, false, false, true, 32, false},
        {QN_FORMAT_Q8, 20, true, true, false, 16, true},
        {QN_FORMAT_Q4, 128, false, false, false, 16, false},
        {QN_FORMAT_Q4, 32, true, true, false, 16, true},
        {QN_FORMAT_Q4, 64, true, false, true, 32, false},
        {QN_FORMAT_Q4, 12, true, false, false, 16, false},
        {QN_FORMAT_F8, 128, false, false, false, 32, false},
        {QN_FORMAT_F8, 1 << 20, false, false, true, 16, true},
        {QN_FORMAT_F8, 24, false, true, false, 32, false},
    };
    size_t group = kinds[i].group < cols ? kinds[i].group : cols;
    return (random_spec){kinds[i].format, rows, cols, group, kinds[i].zeros, kinds[i].perm,
                         i % 2 == 0, kinds[i].adversarial, kinds[i].scale_bits, kinds[i].bf16,
                         100 + i};
}
