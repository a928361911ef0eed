// Integer dots for AVX-512 VNNI: VPDPBUSD multiplies unsigned weight codes by signed activations
// and adds four products to an int32, exactly. The zero's share starts the sum.
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#include <string.h>

#include "kernel/register_blocks.h"

INLINE __m512 scales16(const qn_tile *t, size_t at) {
    if (t->scale_type == QN_SCALE_F32) return _mm512_loadu_ps((const float *)t->w_scale + at);
    const char *from = (const char *)t->w_scale + 2 * at;
    __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)from);
    if (t->scale_type == QN_SCALE_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

// -zero * sum of a row's group, for 16 outputs.
INLINE __m512i start(const qn_tile *t, size_t panel, size_t g, int32_t sum, const bool zeros,
                     const int shift) {
    if (!zeros) return _mm512_set1_epi32((int32_t)(0 - ((uint32_t)sum << shift)));
    const uint8_t *zero = t->w_zero + (panel * t->n_groups + g) * 16;
    __m512i z = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)zero));
    return _mm512_mullo_epi32(z, _mm512_set1_epi32(-sum));
}

INLINE __m512i broadcast4(const char *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

// A block for q8 (bits 8) or q4 (bits 4), group by group.
INLINE void block(const qn_tile *t, size_t row, size_t panel, const int R, const int P,
                  const int bits, const bool zeros) {
    const __m512i low = _mm512_set1_epi8(15);
    streams ws = streams_of(w_panel(t, panel), t->ldw);
    streams x = streams_of(codes_row(t, row), t->ldx);
    for (size_t g = 0; g < t->n_groups; g++) {
        __m512i acc[6][4];
        UNROLL for (int r = 0; r < R; r++) {
            int32_t sum = t->x_sum[(row + (size_t)r) * t->n_groups + g];
            UNROLL for (int p = 0; p < P; p++)
                acc[r][p] = start(t, panel + (size_t)p, g, sum, zeros, bits - 1);
        }
        for (size_t k = 0; k < t->k; k += bits == 8 ? 4 : 8) {
            __m512i a[4], b[4];
            UNROLL for (int p = 0; p < P; p++) {
                a[p] = _mm512_loadu_si512(stream(&ws, p));
                if (bits == 8) continue;
                b[p] = _mm512_and_si512(_mm512_srli_epi16(a[p], 4), low);
                a[p] = _mm512_and_si512(a[p], low);
            }
            UNROLL for (int r = 0; r < R; r++) {
                __m512i xa = broadcast4(stream(&x, r));
                UNROLL for (int p = 0; p < P; p++)
                    acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], a[p], xa);
                if (bits == 8) continue;
                __m512i xb = broadcast4(stream(&x, r) + 4);
                UNROLL for (int p = 0; p < P; p++)
                    acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], b[p], xb);
            }
            advance(&x, bits == 8 ? 4 : 8);
            advance(&ws, 64);
        }
        UNROLL for (int p = 0; p < P; p++) {
            __m512 scale = scales16(t, ((panel + (size_t)p) * t->n_groups + g) * 16);
            UNROLL for (int r = 0; r < R; r++) {
                float sa = t->x_scale[(row + (size_t)r) * t->n_groups + g];
                __m512 s = _mm512_mul_ps(scale, _mm512_set1_ps(sa));
                float *to = acc_at(t, row + (size_t)r, panel + (size_t)p);
                __m512 sum = _mm512_cvtepi32_ps(acc[r][p]);
                _mm512_storeu_ps(to, _mm512_fmadd_ps(sum, s, _mm512_loadu_ps(to)));
            }
        }
    }
}

INLINE void rows_by(const qn_tile *t, size_t row, size_t panel, size_t rows, const int P,
                    const int bits, const bool zeros) {
    switch (rows) {
    case 1: block(t, row, panel, 1, P, bits, zeros); break;
    case 2: block(t, row, panel, 2, P, bits, zeros); break;
    case 3: block(t, row, panel, 3, P, bits, zeros); break;
    case 4: block(t, row, panel, 4, P, bits, zeros); break;
    case 5: block(t, row, panel, 5, P, bits, zeros); break;
    default: block(t, row, panel, 6, P, bits, zeros); break;
    }
}

static void q8_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 4) rows_by(t, row, panel, rows, 4, 8, false);
    else if (panels == 2) rows_by(t, row, panel, rows, 2, 8, false);
    else rows_by(t, row, panel, rows, 1, 8, false);
}

static void q8_zeros_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 4) rows_by(t, row, panel, rows, 4, 8, true);
    else if (panels == 2) rows_by(t, row, panel, rows, 2, 8, true);
    else rows_by(t, row, panel, rows, 1, 8, true);
}

static void q4_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 4) rows_by(t, row, panel, rows, 4, 4, false);
    else if (panels == 2) rows_by(t, row, panel, rows, 2, 4, false);
    else rows_by(t, row, panel, rows, 1, 4, false);
}

static void q4_zeros_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 4) rows_by(t, row, panel, rows, 4, 4, true);
    else if (panels == 2) rows_by(t, row, panel, rows, 2, 4, true);
    else rows_by(t, row, panel, rows, 1, 4, true);
}

static const widths blocks = {6, 4, 6, 4, true};

static void dot_q8(const qn_tile *t) { walk(t, t->w_zero ? q8_zeros_run : q8_run, blocks); }
static void dot_q4(const qn_tile *t) { walk(t, t->w_zero ? q4_zeros_run : q4_run, blocks); }

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
