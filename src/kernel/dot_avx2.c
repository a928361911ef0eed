// Dots and unpacking for AVX2 with FMA and F16C. A panel of 16 outputs is two registers ("halves").
// Order of every sum as in dot_scalar.c.
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#include <string.h>

#include "kernel/register_blocks.h"

// ---- f32 ----

INLINE void f32_block(const qn_tile *t, size_t row, size_t panel, const int R, const int P) {
    __m256 acc[6][8];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int h = 0; h < 2 * P; h++)
            acc[r][h] = _mm256_loadu_ps(acc_at(t, row + (size_t)r, panel) + 8 * h);
    streams x = streams_of(x_row(t, row), t->ldx * sizeof(float));
    streams ws = streams_of(w_panel(t, panel), t->ldw);
    for (size_t k = 0; k < t->k; k++) {
        __m256 w[8];
        UNROLL for (int h = 0; h < 2 * P; h++)
            w[h] = _mm256_loadu_ps((const float *)(const void *)stream(&ws, h / 2) + h % 2 * 8);
        UNROLL for (int r = 0; r < R; r++) {
            __m256 b = _mm256_set1_ps(float_at(stream(&x, r)));
            UNROLL for (int h = 0; h < 2 * P; h++) acc[r][h] = _mm256_fmadd_ps(b, w[h], acc[r][h]);
        }
        advance(&x, sizeof(float));
        advance(&ws, 64);
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int h = 0; h < 2 * P; h++)
            _mm256_storeu_ps(acc_at(t, row + (size_t)r, panel) + 8 * h, acc[r][h]);
}

static void f32_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 4) {
        f32_block(t, row, panel, 1, 4);
        return;
    }
    switch (rows) {
    case 1: f32_block(t, row, panel, 1, 1); break;
    case 2: f32_block(t, row, panel, 2, 1); break;
    case 3: f32_block(t, row, panel, 3, 1); break;
    case 4: f32_block(t, row, panel, 4, 1); break;
    case 5: f32_block(t, row, panel, 5, 1); break;
    default: f32_block(t, row, panel, 6, 1); break;
    }
}

static void dot_f32(const qn_tile *t) { walk(t, f32_run, (widths){1, 4, 6, 1, false}); }

// ---- bf16 ----

INLINE void bf16_block(const qn_tile *t, size_t row, size_t panel, const int R, const int H,
                       int half) {
    const __m256i high = _mm256_set1_epi32((int)0xFFFF0000u);
    streams x = streams_of(x_row(t, row), t->ldx * sizeof(float));
    streams ws = streams_of(w_panel(t, panel) + half * 32, t->ldw);
    for (size_t k0 = 0; k0 < t->k; k0 += 32) {
        size_t pairs = (t->k - k0 < 32 ? t->k - k0 : 32) / 2;
        __m256 even[6][4], odd[6][4];
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int h = 0; h < H; h++) even[r][h] = odd[r][h] = _mm256_setzero_ps();
        for (size_t i = 0; i < pairs; i++) {
            __m256 we[4], wo[4];
            UNROLL for (int h = 0; h < H; h++) {
                const char *at = stream(&ws, h / 2) + h % 2 * 32;
                __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)at);
                we[h] = _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
                wo[h] = _mm256_castsi256_ps(_mm256_and_si256(w, high));
            }
            UNROLL for (int r = 0; r < R; r++) {
                __m256 xe = _mm256_set1_ps(float_at(stream(&x, r)));
                __m256 xo = _mm256_set1_ps(float_at(stream(&x, r) + 4));
                UNROLL for (int h = 0; h < H; h++) {
                    even[r][h] = _mm256_fmadd_ps(xe, we[h], even[r][h]);
                    odd[r][h] = _mm256_fmadd_ps(xo, wo[h], odd[r][h]);
                }
            }
            advance(&x, 2 * sizeof(float));
            advance(&ws, 64);
        }
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int h = 0; h < H; h++) {
                float *to = acc_at(t, row + (size_t)r, panel) + (half + h) * 8;
                __m256 sum = _mm256_add_ps(even[r][h], odd[r][h]);
                _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), sum));
            }
    }
}

static void bf16_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 2) {
        bf16_block(t, row, panel, 1, 4, 0);
        return;
    }
    for (int half = 0; half < 2; half++) switch (rows) {
        case 1: bf16_block(t, row, panel, 1, 1, half); break;
        case 2: bf16_block(t, row, panel, 2, 1, half); break;
        case 3: bf16_block(t, row, panel, 3, 1, half); break;
        case 4: bf16_block(t, row, panel, 4, 1, half); break;
        case 5: bf16_block(t, row, panel, 5, 1, half); break;
        default: bf16_block(t, row, panel, 6, 1, half); break;
        }
}

static void dot_bf16(const qn_tile *t) { walk(t, bf16_run, (widths){1, 2, 6, 1, false}); }

// ---- q8, q4 ----

INLINE __m256 scales8(const qn_tile *t, size_t at) {
    if (t->scale_type == QN_SCALE_F32) return _mm256_loadu_ps((const float *)t->w_scale + at);
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)t->w_scale + at));
    if (t->scale_type == QN_SCALE_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

// acc = fma(float(dot - (zero - done) * sum), sw * sa, acc) for 8 outputs; done is the zero that
// the codes were shifted by already.
INLINE void add_group(const qn_tile *t, size_t row, size_t panel, int half, size_t g, __m256i dot,
                      int middle, int done) {
    size_t at = (panel * t->n_groups + g) * 16 + (size_t)half * 8;
    size_t i = row * t->n_groups + g;
    __m256i zero = _mm256_set1_epi32(middle);
    if (t->w_zero) {
        const __m128i *from = (const __m128i *)(const void *)(t->w_zero + at);
        zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from));
    }
    if (t->w_zero || middle != done) {
        zero = _mm256_sub_epi32(zero, _mm256_set1_epi32(done));
        dot = _mm256_sub_epi32(dot, _mm256_mullo_epi32(zero, _mm256_set1_epi32(t->x_sum[i])));
    }
    __m256 s = _mm256_mul_ps(scales8(t, at), _mm256_set1_ps(t->x_scale[i]));
    float *to = acc_at(t, row, panel) + half * 8;
    _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), s, _mm256_loadu_ps(to)));
}

INLINE __m256i broadcast4(const char *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

// Codes minus 128 are signed bytes w. VPMADDUBSW wants one unsigned factor: |w| (at most 128) times
// x with w's sign (x is at least -127, so it has a negative). 2 * 128 * 127 fits 16 bits: exact.
INLINE void q8_block(const qn_tile *t, size_t row, size_t panel, const int R, const int H) {
    const __m256i flip = _mm256_set1_epi8((char)0x80), ones = _mm256_set1_epi16(1);
    streams x = streams_of(codes_row(t, row), t->ldx);
    streams ws = streams_of(w_panel(t, panel), t->ldw);
    for (size_t g = 0; g < t->n_groups; g++) {
        __m256i acc[4][4];
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int h = 0; h < H; h++) acc[r][h] = _mm256_setzero_si256();
        for (size_t k = 0; k < t->k; k += 4) {
            __m256i w[4], size[4];
            UNROLL for (int h = 0; h < H; h++) {
                const char *at = stream(&ws, h / 2) + h % 2 * 32;
                w[h] = _mm256_loadu_si256((const __m256i *)(const void *)at);
                w[h] = _mm256_xor_si256(w[h], flip);
                size[h] = _mm256_abs_epi8(w[h]);
            }
            UNROLL for (int r = 0; r < R; r++) {
                __m256i b = broadcast4(stream(&x, r));
                UNROLL for (int h = 0; h < H; h++) {
                    __m256i p = _mm256_maddubs_epi16(size[h], _mm256_sign_epi8(b, w[h]));
                    acc[r][h] = _mm256_add_epi32(acc[r][h], _mm256_madd_epi16(p, ones));
                }
            }
            advance(&x, 4);
            advance(&ws, 64);
        }
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int h = 0; h < H; h++)
                add_group(t, row + (size_t)r, panel + (size_t)h / 2, h % 2, g, acc[r][h], 128, 128);
    }
}

static void q8_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    if (panels == 2) {
        q8_block(t, row, panel, 1, 4);
        return;
    }
    switch (rows) {
    case 1: q8_block(t, row, panel, 1, 2); break;
    case 2: q8_block(t, row, panel, 2, 2); break;
    case 3: q8_block(t, row, panel, 3, 2); break;
    default: q8_block(t, row, panel, 4, 2); break;
    }
}

static void dot_q8(const qn_tile *t) { walk(t, q8_run, (widths){1, 2, 4, 1, false}); }

// Codes are at most 15, so four pairs of products (8 * 15 * 127) fit 16 bits before widening.
INLINE void q4_block(const qn_tile *t, size_t row, size_t panel, const int R, int half) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    streams x = streams_of(codes_row(t, row), t->ldx);
    const char *w = w_panel(t, panel) + half * 32;
    for (size_t g = 0; g < t->n_groups; g++) {
        __m256i acc[4];
        UNROLL for (int r = 0; r < R; r++) acc[r] = _mm256_setzero_si256();
        for (size_t k0 = 0; k0 < t->k; k0 += 32) {
            size_t end = k0 + 32 < t->k ? k0 + 32 : t->k;
            __m256i sum[4];
            UNROLL for (int r = 0; r < R; r++) sum[r] = _mm256_setzero_si256();
            for (size_t k = k0; k < end; k += 8) {
                __m256i two = _mm256_loadu_si256((const __m256i *)(const void *)w);
                __m256i a = _mm256_and_si256(two, low);
                __m256i b = _mm256_and_si256(_mm256_srli_epi16(two, 4), low);
                UNROLL for (int r = 0; r < R; r++) {
                    const char *xr = stream(&x, r);
                    sum[r] = _mm256_add_epi16(sum[r], _mm256_maddubs_epi16(a, broadcast4(xr)));
                    sum[r] = _mm256_add_epi16(sum[r], _mm256_maddubs_epi16(b, broadcast4(xr + 4)));
                }
                advance(&x, 8);
                w += 64;
            }
            UNROLL for (int r = 0; r < R; r++)
                acc[r] = _mm256_add_epi32(acc[r], _mm256_madd_epi16(sum[r], ones));
        }
        UNROLL for (int r = 0; r < R; r++)
            add_group(t, row + (size_t)r, panel, half, g, acc[r], 8, 0);
    }
}

static void q4_run(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels) {
    (void)panels;
    for (int half = 0; half < 2; half++) switch (rows) {
        case 1: q4_block(t, row, panel, 1, half); break;
        case 2: q4_block(t, row, panel, 2, half); break;
        case 3: q4_block(t, row, panel, 3, half); break;
        default: q4_block(t, row, panel, 4, half); break;
        }
}

static void dot_q4(const qn_tile *t) { walk(t, q4_run, (widths){1, 1, 4, 1, false}); }

// ---- unpacking ----

static void unpack_bf16(const qn_unpack *u) {
    const __m256i high = _mm256_set1_epi32((int)0xFFFF0000u);
    for (size_t k = 0; k < u->n; k += 2)
        for (size_t h = 0; h < 2; h++) {
            const char *at = (const char *)u->w + k * 32 + h * 32;
            __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)at);
            float *to = u->out + k * 16 + h * 8;
            _mm256_storeu_ps(to, _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)));
            _mm256_storeu_ps(to + 16, _mm256_castsi256_ps(_mm256_and_si256(w, high)));
        }
}

static void unpack_f16(const qn_unpack *u) {
    const uint16_t *w = u->w;
    for (size_t i = 0; i < u->n * 16; i += 8)
        _mm256_storeu_ps(u->out + i, _mm256_cvtph_ps(_mm_loadu_si128(
                                         (const __m128i *)(const void *)(w + i))));
}

// Byte j of each 32-bit lane, as scale * (code - zero).
INLINE __m256 decode(__m256i w, int j, __m256i mask, __m256i zero, __m256 scale) {
    __m256i code = _mm256_and_si256(_mm256_srli_epi32(w, 8 * j), mask);
    return _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_sub_epi32(code, zero)));
}

static void unpack_q8(const qn_unpack *u) {
    const __m256i mask = _mm256_set1_epi32(255);
    for (size_t h = 0; h < 2; h++) {
        __m256i zero = _mm256_loadu_si256((const __m256i *)(const void *)(u->zero + 8 * h));
        __m256 scale = _mm256_loadu_ps(u->scale + 8 * h);
        for (size_t k = 0; k < u->n; k += 4) {
            const char *at = (const char *)u->w + k * 16 + h * 32;
            __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)at);
            UNROLL for (int j = 0; j < 4; j++)
                _mm256_storeu_ps(u->out + (k + (size_t)j) * 16 + h * 8,
                                 decode(w, j, mask, zero, scale));
        }
    }
}

static void unpack_q4(const qn_unpack *u) {
    const __m256i mask = _mm256_set1_epi32(15);
    for (size_t h = 0; h < 2; h++) {
        __m256i zero = _mm256_loadu_si256((const __m256i *)(const void *)(u->zero + 8 * h));
        __m256 scale = _mm256_loadu_ps(u->scale + 8 * h);
        for (size_t k = 0; k < u->n; k += 8) {
            const char *at = (const char *)u->w + k * 8 + h * 32;
            __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)at);
            __m256i high = _mm256_srli_epi32(w, 4);
            UNROLL for (int j = 0; j < 4; j++) {
                float *to = u->out + (k + (size_t)j) * 16 + h * 8;
                _mm256_storeu_ps(to, decode(w, j, mask, zero, scale));
                _mm256_storeu_ps(to + 64, decode(high, j, mask, zero, scale));
            }
        }
    }
}

// e4m3 to bf16 in 16-bit lanes: a normal number's exponent and mantissa move up by 4 and the bias
// by 120; the eight subnormals come from a table; 0x7F is NaN.
INLINE __m256i bf16_of_f8(__m256i c) {
    const __m256i table_low = _mm256_setr_epi8(
        0, 0, (char)0x80, (char)0xC0, 0, 0x20, 0x40, 0x60, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, (char)0x80, (char)0xC0, 0, 0x20, 0x40, 0x60, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i table_high = _mm256_setr_epi8(
        0, 0x3B, 0x3B, 0x3B, 0x3C, 0x3C, 0x3C, 0x3C, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0x3B, 0x3B, 0x3B, 0x3C, 0x3C, 0x3C, 0x3C, 0, 0, 0, 0, 0, 0, 0, 0);
    __m256i size = _mm256_and_si256(c, _mm256_set1_epi16(0x7F));
    __m256i sign = _mm256_slli_epi16(_mm256_and_si256(c, _mm256_set1_epi16(0x80)), 8);
    __m256i normal = _mm256_add_epi16(_mm256_slli_epi16(size, 4), _mm256_set1_epi16(120 << 7));
    __m256i at = _mm256_or_si256(size, _mm256_set1_epi16((short)0x8000)); // high bytes give 0
    __m256i small = _mm256_or_si256(
        _mm256_shuffle_epi8(table_low, at),
        _mm256_slli_epi16(_mm256_shuffle_epi8(table_high, at), 8));
    __m256i is_small = _mm256_cmpgt_epi16(_mm256_set1_epi16(8), size);
    __m256i is_nan = _mm256_cmpeq_epi16(size, _mm256_set1_epi16(0x7F));
    __m256i out = _mm256_blendv_epi8(normal, small, is_small);
    out = _mm256_blendv_epi8(out, _mm256_set1_epi16(0x7FC0), is_nan);
    return _mm256_or_si256(out, sign);
}

static void f8_to_bf16(const uint8_t *w, size_t n, uint16_t *out) {
    for (size_t i = 0; i < n; i += 16) {
        __m256i c = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(w + i)));
        _mm256_storeu_si256((__m256i *)(void *)(out + i), bf16_of_f8(c));
    }
}

static void unpack_f8(const qn_unpack *u) {
    const uint8_t *w = u->w;
    const __m256i high = _mm256_set1_epi32((int)0xFFFF0000u);
    for (size_t k = 0; k < u->n; k += 2)
        for (size_t h = 0; h < 2; h++) {
            const __m128i *at = (const __m128i *)(const void *)(w + k * 16 + h * 16);
            __m256i b = bf16_of_f8(_mm256_cvtepu8_epi16(_mm_loadu_si128(at)));
            __m256 scale = _mm256_loadu_ps(u->scale + 8 * h);
            __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(b, 16));
            __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(b, high));
            float *to = u->out + k * 16 + h * 8;
            _mm256_storeu_ps(to, _mm256_mul_ps(scale, even));
            _mm256_storeu_ps(to + 16, _mm256_mul_ps(scale, odd));
        }
}

// ---- peaks ----

static uint64_t peak_f32(size_t turns) {
    volatile float seed = 1;
    __m256 a[12], f = _mm256_set1_ps(seed);
    UNROLL for (int j = 0; j < 12; j++) a[j] = _mm256_add_ps(f, _mm256_set1_ps((float)j));
    for (size_t i = 0; i < turns; i++)
        UNROLL for (int j = 0; j < 12; j++) a[j] = _mm256_fmadd_ps(a[j], f, f);
    UNROLL for (int j = 0; j < 12; j++) seed = _mm256_cvtss_f32(a[j]);
    return turns * 12 * 16;
}

static uint64_t peak_int8(size_t turns) {
    volatile int seed = 3;
    __m256i a[8], f = _mm256_set1_epi8((char)seed), ones = _mm256_set1_epi16(1);
    UNROLL for (int j = 0; j < 8; j++) a[j] = _mm256_set1_epi8((char)(seed + j));
    for (size_t i = 0; i < turns; i++)
        UNROLL for (int j = 0; j < 8; j++) {
            __m256i p = _mm256_maddubs_epi16(_mm256_xor_si256(a[j], f), f);
            a[j] = _mm256_add_epi32(a[j], _mm256_madd_epi16(p, ones));
        }
    UNROLL for (int j = 0; j < 8; j++) seed = _mm256_extract_epi32(a[j], 0);
    return turns * 8 * 64;
}

void qn_table_avx2(qn_table *t) {
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
    qn_rows_avx2(t);
}
#else
typedef int nothing_here; // another architecture
#endif
