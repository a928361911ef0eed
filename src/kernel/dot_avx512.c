// Dots for AVX-512F: a panel of 16 outputs is one register. Order of every sum as in dot_scalar.c.
// Integer dots without VNNI stay with AVX2.
#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>

#include "kernel/register_blocks.h"

INLINE void f32_block(const qn_tile *t, size_t row, size_t panel, const int R, const int P) {
    __m512 acc[6][4];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int p = 0; p < P; p++)
            acc[r][p] = _mm512_loadu_ps(acc_at(t, row + (size_t)r, panel + (size_t)p));
    streams x = streams_of(x_row(t, row), t->ldx * sizeof(float));
    streams ws = streams_of(w_panel(t, panel), t->ldw);
    for (size_t k = 0; k < t->k; k++) {
        __m512 w[4];
        UNROLL for (int p = 0; p < P; p++) w[p] = _mm512_loadu_ps(stream(&ws, p));
        UNROLL for (int r = 0; r < R; r++) {
            __m512 b = _mm512_set1_ps(float_at(stream(&x, r)));
            UNROLL for (int p = 0; p < P; p++) acc[r][p] = _mm512_fmadd_ps(b, w[p], acc[r][p]);
        }
        advance(&x, sizeof(float));
        advance(&ws, 64);
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int p = 0; p < P; p++)
            _mm512_storeu_ps(acc_at(t, row + (size_t)r, panel + (size_t)p), acc[r][p]);
}

INLINE void f32_rows(const qn_tile *t, size_t row, size_t panel, size_t rows, const int P) {
    switch (rows) {
    case 1: f32_block(t, row, panel, 1, P); break;
    case 2: f32_block(t, row, panel, 2, P); break;
    case 3: f32_block(t, row, panel, 3, P); break;
    case 4: f32_block(t, row, panel, 4, P); break;
    case 5: f32_block(t, row, panel, 5, P); break;
    default: f32_block(t, row, panel, 6, P); break;
    }
}

static void f32_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 4) f32_rows(t, row, panel, rows, 4);
    else if (panels == 2) f32_rows(t, row, panel, rows, 2);
    else f32_rows(t, row, panel, rows, 1);
}

static void dot_f32(const qn_tile *t) { walk(t, f32_run, (widths){6, 4, 6, 4, true}); }

INLINE void bf16_block(const qn_tile *t, size_t row, size_t panel, const int R, const int P) {
    const __m512i high = _mm512_set1_epi32((int)0xFFFF0000u);
    streams x = streams_of(x_row(t, row), t->ldx * sizeof(float));
    streams ws = streams_of(w_panel(t, panel), t->ldw);
    for (size_t k0 = 0; k0 < t->k; k0 += 32) {
        size_t pairs = (t->k - k0 < 32 ? t->k - k0 : 32) / 2;
        __m512 even[6][4], odd[6][4];
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int p = 0; p < P; p++) even[r][p] = odd[r][p] = _mm512_setzero_ps();
        for (size_t i = 0; i < pairs; i++) {
            __m512 we[4], wo[4];
            UNROLL for (int p = 0; p < P; p++) {
                __m512i w = _mm512_loadu_si512(stream(&ws, p));
                we[p] = _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
                wo[p] = _mm512_castsi512_ps(_mm512_and_si512(w, high));
            }
            UNROLL for (int r = 0; r < R; r++) {
                __m512 xe = _mm512_set1_ps(float_at(stream(&x, r)));
                __m512 xo = _mm512_set1_ps(float_at(stream(&x, r) + 4));
                UNROLL for (int p = 0; p < P; p++) {
                    even[r][p] = _mm512_fmadd_ps(xe, we[p], even[r][p]);
                    odd[r][p] = _mm512_fmadd_ps(xo, wo[p], odd[r][p]);
                }
            }
            advance(&x, 2 * sizeof(float));
            advance(&ws, 64);
        }
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int p = 0; p < P; p++) {
                float *to = acc_at(t, row + (size_t)r, panel + (size_t)p);
                __m512 sum = _mm512_add_ps(even[r][p], odd[r][p]);
                _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), sum));
            }
    }
}

INLINE void bf16_rows(const qn_tile *t, size_t row, size_t panel, size_t rows, const int P) {
    switch (rows) {
    case 1: bf16_block(t, row, panel, 1, P); break;
    case 2: bf16_block(t, row, panel, 2, P); break;
    case 3: bf16_block(t, row, panel, 3, P); break;
    case 4: bf16_block(t, row, panel, 4, P); break;
    case 5: bf16_block(t, row, panel, 5, P); break;
    default: bf16_block(t, row, panel, 6, P); break;
    }
}

static void bf16_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 4) {
        if (rows == 1) bf16_block(t, row, panel, 1, 4);
        else bf16_block(t, row, panel, 2, 4);
    } else if (panels == 2) {
        bf16_rows(t, row, panel, rows, 2);
    } else {
        bf16_rows(t, row, panel, rows, 1);
    }
}

static void dot_bf16(const qn_tile *t) { walk(t, bf16_run, (widths){2, 4, 6, 2, true}); }

static uint64_t peak_f32(size_t turns) {
    volatile float seed = 1;
    __m512 a[16], f = _mm512_set1_ps(seed);
    UNROLL for (int j = 0; j < 16; j++) a[j] = _mm512_add_ps(f, _mm512_set1_ps((float)j));
    for (size_t i = 0; i < turns; i++)
        UNROLL for (int j = 0; j < 16; j++) a[j] = _mm512_fmadd_ps(a[j], f, f);
    UNROLL for (int j = 0; j < 16; j++) seed = _mm512_cvtss_f32(a[j]);
    return turns * 16 * 32;
}

void qn_table_avx512(qn_table *t) {
    t->dot_f32 = dot_f32;
    t->dot_bf16 = dot_bf16;
    t->peak_f32 = peak_f32;
    qn_rows_avx512(t);
}
#else
typedef int nothing_here; // another architecture
#endif
