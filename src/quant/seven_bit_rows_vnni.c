// seven_bit_rows.h for AVX-512 VNNI: one instruction adds four products of bytes to 32 bits.
#include "quant/seven_bit_rows.h"

#ifdef __AVX512VNNI__

#include <immintrin.h>
#include <string.h>

static inline __m512i bytes_at(const void *p) { return _mm512_loadu_si512(p); }

static void forth(const qn_seven_bit_rows *s, size_t row, int32_t v_sum) {
    for (size_t r = row; r < row + QN_SEVEN_ROWS; r += 4) {
        const uint8_t *q = s->codes + r * s->pitch;
        __m512i sum[4];
        for (int k = 0; k < 4; k++) sum[k] = _mm512_setzero_si512();
        for (size_t c = 0; c < s->pitch; c += 64) {
            __m512i v = bytes_at(s->v + c);
            for (size_t k = 0; k < 4; k++)
                sum[k] = _mm512_dpbusd_epi32(sum[k], bytes_at(q + k * s->pitch + c), v);
        }
        for (size_t k = 0; k < 4; k++) {
            int32_t exact = _mm512_reduce_add_epi32(sum[k]) - QN_SEVEN_ZERO * v_sum;
            s->y[r + k] = s->scales[r + k] * (float)exact;
        }
    }
}

static inline void add_four(__m512i sum[4], const uint8_t *q, size_t pitch, __m512i t) {
    __m512i a = bytes_at(q), b = bytes_at(q + pitch), c = bytes_at(q + 2 * pitch),
            d = bytes_at(q + 3 * pitch);
    __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
    sum[0] = _mm512_dpbusd_epi32(sum[0], _mm512_unpacklo_epi16(ab, cd), t);
    sum[1] = _mm512_dpbusd_epi32(sum[1], _mm512_unpackhi_epi16(ab, cd), t);
    ab = _mm512_unpackhi_epi8(a, b), cd = _mm512_unpackhi_epi8(c, d);
    sum[2] = _mm512_dpbusd_epi32(sum[2], _mm512_unpacklo_epi16(ab, cd), t);
    sum[3] = _mm512_dpbusd_epi32(sum[3], _mm512_unpackhi_epi16(ab, cd), t);
}

static void back(const qn_seven_bit_rows *s, size_t row, const qn_seven_back *b) {
    const uint8_t *q = s->codes + row * s->pitch;
    const __m512 unit = _mm512_set1_ps(b->unit);
    __m512i t[4], start = _mm512_set1_epi32(-QN_SEVEN_ZERO * b->sum);
    for (int k = 0; k < 4; k++) {
        int32_t four;
        memcpy(&four, b->t + 4 * k, 4);
        t[k] = _mm512_set1_epi32(four);
    }
    for (size_t c = 0; c < s->pitch; c += 64) {
        __m512i sum[4] = {start, start, start, start};
        for (size_t k = 0; k < 4; k++) add_four(sum, q + 4 * k * s->pitch + c, s->pitch, t[k]);
        for (size_t j = 0; j < 4; j++) {
            float *z = s->z + c + 16 * j;
            __m512 more = _mm512_mul_ps(unit, _mm512_cvtepi32_ps(sum[j]));
            _mm512_storeu_ps(z, _mm512_add_ps(_mm512_loadu_ps(z), more));
        }
    }
}

void qn_seven_bit_rows_vnni(const qn_seven_bit_rows *s) {
    int32_t v_sum = seven_sum(s->v, s->pitch);
    for (size_t g = 0; g < s->n_groups; g++) {
        size_t row = g * QN_SEVEN_ROWS;
        qn_seven_back b;
        forth(s, row, v_sum);
        seven_back(s->y + row, s->scales + row, &b);
        back(s, row, &b);
    }
    seven_unscramble(s->z, s->pitch, 4);
}

#else

void qn_seven_bit_rows_vnni(const qn_seven_bit_rows *s) { qn_seven_bit_rows_plain(s); }

#endif
