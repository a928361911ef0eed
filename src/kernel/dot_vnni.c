// Integer dots for AVX-512 VNNI: VPDPBUSD multiplies unsigned weight codes by signed activations
// and adds four products to an int32, exactly. The zero's share starts the sum.
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#include <string.h>

#include "kernel/blocks.h"

INLINE __m512 scales16(const qn_tile *t, size_t at) {
    if (t->scale_type == QN_SCALE_F32) return _mm512_loadu_ps((const float *)t->w_scale + at);
    const char *from = (const char *)t->w_scale + 2 * at;
    __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)from);
    if (t->scale_type == QN_SCALE_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

// -zero * sum of the row's group, for 16 outputs.
INLINE __m512i start(const qn_tile *t, size_t row, size_t panel, size_t g, int shift) {
    int32_t sum = t->x_sum[row * t->n_groups + g];
    if (!t->w_zero) return _mm512_set1_epi32((int32_t)(0 - ((uint32_t)sum << shift)));
    const uint8_t *zero = t->w_zero + (panel * t->n_groups + g) * 16;
    __m512i z = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)zero));
    return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_mullo_epi32(z, _mm512_set1_epi32(sum)));
}

INLINE void add_group(const qn_tile *t, size_t row, size_t panel, size_t g, __m512i dot,
                      __m512 scale) {
    __m512 s = _mm512_mul_ps(scale, _mm512_set1_ps(t->x_scale[row * t->n_groups + g]));
    float *to = acc_at(t, row, panel);
    _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), s, _mm512_loadu_ps(to)));
}

INLINE __m512i broadcast4(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

INLINE void q8_block(const qn_tile *t, size_t row, size_t panel, const int R, const int P) {
    for (size_t g = 0; g < t->n_groups; g++) {
        __m512i acc[12][4];
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int p = 0; p < P; p++)
                acc[r][p] = start(t, row + (size_t)r, panel + (size_t)p, g, 7);
        const int8_t *x = codes_row(t, row) + g * t->k;
        for (size_t k = 0; k < t->k; k += 4) {
            __m512i w[4];
            UNROLL for (int p = 0; p < P; p++)
                w[p] = _mm512_loadu_si512(w_panel(t, panel + (size_t)p) + (g * t->k + k) * 16);
            UNROLL for (int r = 0; r < R; r++) {
                __m512i b = broadcast4(x + (size_t)r * t->ldx + k);
                UNROLL for (int p = 0; p < P; p++)
                    acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], w[p], b);
            }
        }
        UNROLL for (int p = 0; p < P; p++) {
            __m512 scale = scales16(t, ((panel + (size_t)p) * t->n_groups + g) * 16);
            UNROLL for (int r = 0; r < R; r++)
                add_group(t, row + (size_t)r, panel + (size_t)p, g, acc[r][p], scale);
        }
    }
}

INLINE void q4_block(const qn_tile *t, size_t row, size_t panel, const int R, const int P) {
    const __m512i low = _mm512_set1_epi8(15);
    for (size_t g = 0; g < t->n_groups; g++) {
        __m512i acc[12][4];
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int p = 0; p < P; p++)
                acc[r][p] = start(t, row + (size_t)r, panel + (size_t)p, g, 3);
        const int8_t *x = codes_row(t, row) + g * t->k;
        for (size_t k = 0; k < t->k; k += 8) {
            __m512i a[4], b[4];
            UNROLL for (int p = 0; p < P; p++) {
                __m512i two =
                    _mm512_loadu_si512(w_panel(t, panel + (size_t)p) + (g * t->k + k) * 8);
                a[p] = _mm512_and_si512(two, low);
                b[p] = _mm512_and_si512(_mm512_srli_epi16(two, 4), low);
            }
            UNROLL for (int r = 0; r < R; r++) {
                __m512i xa = broadcast4(x + (size_t)r * t->ldx + k);
                UNROLL for (int p = 0; p < P; p++)
                    acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], a[p], xa);
            }
            UNROLL for (int r = 0; r < R; r++) {
                __m512i xb = broadcast4(x + (size_t)r * t->ldx + k + 4);
                UNROLL for (int p = 0; p < P; p++)
                    acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], b[p], xb);
            }
        }
        UNROLL for (int p = 0; p < P; p++) {
            __m512 scale = scales16(t, ((panel + (size_t)p) * t->n_groups + g) * 16);
            UNROLL for (int r = 0; r < R; r++)
                add_group(t, row + (size_t)r, panel + (size_t)p, g, acc[r][p], scale);
        }
    }
}

INLINE void q8_rows(const qn_tile *t, size_t row, size_t panel, size_t rows, const int P) {
    switch (rows) {
    case 1: q8_block(t, row, panel, 1, P); break;
    case 2: q8_block(t, row, panel, 2, P); break;
    case 3: q8_block(t, row, panel, 3, P); break;
    case 4: q8_block(t, row, panel, 4, P); break;
    case 5: q8_block(t, row, panel, 5, P); break;
    case 6: q8_block(t, row, panel, 6, P); break;
    case 7: q8_block(t, row, panel, 7, P); break;
    case 8: q8_block(t, row, panel, 8, P); break;
    case 9: q8_block(t, row, panel, 9, P); break;
    case 10: q8_block(t, row, panel, 10, P); break;
    case 11: q8_block(t, row, panel, 11, P); break;
    default: q8_block(t, row, panel, 12, P); break;
    }
}

INLINE void q4_rows(const qn_tile *t, size_t row, size_t panel, size_t rows, const int P) {
    switch (rows) {
    case 1: q4_block(t, row, panel, 1, P); break;
    case 2: q4_block(t, row, panel, 2, P); break;
    case 3: q4_block(t, row, panel, 3, P); break;
    case 4: q4_block(t, row, panel, 4, P); break;
    case 5: q4_block(t, row, panel, 5, P); break;
    case 6: q4_block(t, row, panel, 6, P); break;
    case 7: q4_block(t, row, panel, 7, P); break;
    case 8: q4_block(t, row, panel, 8, P); break;
    case 9: q4_block(t, row, panel, 9, P); break;
    case 10: q4_block(t, row, panel, 10, P); break;
    case 11: q4_block(t, row, panel, 11, P); break;
    default: q4_block(t, row, panel, 12, P); break;
    }
}

static void q8_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 4) {
        if (rows == 1) q8_block(t, row, panel, 1, 4);
        else if (rows == 2) q8_block(t, row, panel, 2, 4);
        else if (rows == 3) q8_block(t, row, panel, 3, 4);
        else q8_block(t, row, panel, 4, 4);
    } else if (panels == 2) {
        q8_rows(t, row, panel, rows, 2);
    } else {
        q8_rows(t, row, panel, rows, 1);
    }
}

static void q4_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 4) {
        if (rows == 1) q4_block(t, row, panel, 1, 4);
        else if (rows == 2) q4_block(t, row, panel, 2, 4);
        else if (rows == 3) q4_block(t, row, panel, 3, 4);
        else q4_block(t, row, panel, 4, 4);
    } else if (panels == 2) {
        q4_rows(t, row, panel, rows, 2);
    } else {
        q4_rows(t, row, panel, rows, 1);
    }
}

static void dot_q8(const qn_tile *t) { walk(t, q8_run, 4, 4, 12, 2); }
static void dot_q4(const qn_tile *t) { walk(t, q4_run, 4, 4, 12, 2); }

static uint64_t peak_int8(size_t turns) {
    volatile int seed = 3;
    __m512i a[16], f = _mm512_set1_epi8((char)seed);
    UNROLL for (int j = 0; j < 16; j++) a[j] = _mm512_set1_epi32(seed + j);
    for (size_t i = 0; i < turns; i++)
        UNROLL for (int j = 0; j < 16; j++) a[j] = _mm512_dpbusd_epi32(a[j], f, f);
    UNROLL for (int j = 0; j < 16; j++) seed = _mm512_cvtsi512_si32(a[j]);
    return turns * 16 * 128;
}

void qn_table_vnni(qn_table *t) {
    t->dot_q8 = dot_q8;
    t->dot_q4 = dot_q4;
    t->peak_int8 = peak_int8;
}
#else
typedef int nothing_here; // another architecture
#endif
