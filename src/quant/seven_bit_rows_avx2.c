// seven_bit_rows.h for AVX2: products of bytes are added in pairs to 16 bits, then to 32.
#include "quant/seven_bit_rows.h"

#ifdef __AVX2__

#include <immintrin.h>
#include <string.h>

// Adds, to each 32-bit lane, the products of its four bytes: codes (unsigned) by vector (signed).
static inline __m256i add_products(__m256i sum, __m256i codes, __m256i v) {
    __m256i pairs = _mm256_maddubs_epi16(codes, v);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline __m256i bytes_at(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

static inline int32_t joined(__m256i a) {
    int32_t v[8], s = 0;
    _mm256_storeu_si256((__m256i *)v, a);
    for (int i = 0; i < 8; i++) s += v[i];
    return s;
}

static void forth(const qn_seven_bit_rows *s, size_t row, int32_t v_sum) {
    for (size_t r = row; r < row + QN_SEVEN_ROWS; r += 2) {
        const uint8_t *a = s->codes + r * s->pitch, *b = a + s->pitch;
        __m256i sa = _mm256_setzero_si256(), sb = sa;
        for (size_t c = 0; c < s->pitch; c += 32) {
            __m256i v = bytes_at(s->v + c);
            sa = add_products(sa, bytes_at(a + c), v);
            sb = add_products(sb, bytes_at(b + c), v);
        }
        s->y[r] = s->scales[r] * (float)(joined(sa) - QN_SEVEN_ZERO * v_sum);
        s->y[r + 1] = s->scales[r + 1] * (float)(joined(sb) - QN_SEVEN_ZERO * v_sum);
    }
}

static inline void add_four(__m256i sum[4], const uint8_t *q, size_t pitch, __m256i t) {
    __m256i a = bytes_at(q), b = bytes_at(q + pitch), c = bytes_at(q + 2 * pitch),
            d = bytes_at(q + 3 * pitch);
    __m256i ab = _mm256_unpacklo_epi8(a, b), cd = _mm256_unpacklo_epi8(c, d);
    sum[0] = add_products(sum[0], _mm256_unpacklo_epi16(ab, cd), t);
    sum[1] = add_products(sum[1], _mm256_unpackhi_epi16(ab, cd), t);
    ab = _mm256_unpackhi_epi8(a, b), cd = _mm256_unpackhi_epi8(c, d);
    sum[2] = add_products(sum[2], _mm256_unpacklo_epi16(ab, cd), t);
    sum[3] = add_products(sum[3], _mm256_unpackhi_epi16(ab, cd), t);
}

static void back(const qn_seven_bit_rows *s, size_t row, const qn_seven_back *b) {
    const uint8_t *q = s->codes + row * s->pitch;
    const __m256 unit = _mm256_set1_ps(b->unit);
    __m256i t[4], start = _mm256_set1_epi32(-QN_SEVEN_ZERO * b->sum);
    for (int k = 0; k < 4; k++) {
        int32_t four;
        memcpy(&four, b->t + 4 * k, 4);
        t[k] = _mm256_set1_epi32(four);
    }
    for (size_t c = 0; c < s->pitch; c += 32) {
        __m256i sum[4] = {start, start, start, start};
        for (size_t k = 0; k < 4; k++) add_four(sum, q + 4 * k * s->pitch + c, s->pitch, t[k]);
        for (size_t j = 0; j < 4; j++) {
            float *z = s->z + c + 8 * j;
            __m256 more = _mm256_mul_ps(unit, _mm256_cvtepi32_ps(sum[j]));
            _mm256_storeu_ps(z, _mm256_add_ps(_mm256_loadu_ps(z), more));
        }
    }
}

void qn_seven_bit_rows_avx2(const qn_seven_bit_rows *s) {
    int32_t v_sum = seven_sum(s->v, s->pitch);
    for (size_t g = 0; g < s->n_groups; g++) {
        size_t row = g * QN_SEVEN_ROWS;
        qn_seven_back b;
        forth(s, row, v_sum);
        seven_back(s->y + row, s->scales + row, &b);
        back(s, row, &b);
    }
    seven_unscramble(s->z, s->pitch, 2);
}

#else

void qn_seven_bit_rows_avx2(const qn_seven_bit_rows *s) { qn_seven_bit_rows_plain(s); }

#endif
