// Sixteen lanes in two AVX2 registers (lanes_plain.h says what each does).
#ifndef QN_QUANT_LANES_AVX2_H
#define QN_QUANT_LANES_AVX2_H

#ifdef __AVX2__ // else lanes_plain.h is used

#define QN_LANES

#include <immintrin.h>
#include <stdint.h>

typedef struct lf {
    __m256 a, b;
} lf;
typedef struct li {
    __m256i a, b;
} li;

static inline lf lf_set(float x) { return (lf){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline lf lf_load(const float *x) { return (lf){_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
static inline void lf_store(float *x, lf a) {
    _mm256_storeu_ps(x, a.a);
    _mm256_storeu_ps(x + 8, a.b);
}
static inline lf lf_add(lf a, lf b) { return (lf){_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b)}; }
static inline lf lf_sub(lf a, lf b) { return (lf){_mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b)}; }
static inline lf lf_mul(lf a, lf b) { return (lf){_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)}; }
static inline lf lf_min(lf a, lf b) { return (lf){_mm256_min_ps(a.a, b.a), _mm256_min_ps(a.b, b.b)}; }
static inline lf lf_max(lf a, lf b) { return (lf){_mm256_max_ps(a.a, b.a), _mm256_max_ps(a.b, b.b)}; }
static inline lf lf_abs(lf a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (lf){_mm256_andnot_ps(sign, a.a), _mm256_andnot_ps(sign, a.b)};
}
static inline lf lf_pick_below(lf a, lf b, lf yes, lf no) {
    return (lf){_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ)),
                _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ))};
}
static inline li li_count_below(li count, lf a, lf b) {
    __m256i p = _mm256_castps_si256(_mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ));
    __m256i q = _mm256_castps_si256(_mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ));
    return (li){_mm256_sub_epi32(count.a, p), _mm256_sub_epi32(count.b, q)};
}

static inline li li_set(uint32_t x) {
    return (li){_mm256_set1_epi32((int)x), _mm256_set1_epi32((int)x)};
}
static inline li li_add(li a, li b) {
    return (li){_mm256_add_epi32(a.a, b.a), _mm256_add_epi32(a.b, b.b)};
}
static inline li li_and(li a, li b) {
    return (li){_mm256_and_si256(a.a, b.a), _mm256_and_si256(a.b, b.b)};
}
static inline li li_or(li a, li b) {
    return (li){_mm256_or_si256(a.a, b.a), _mm256_or_si256(a.b, b.b)};
}
static inline li li_shr(li a, int n) {
    return (li){_mm256_srli_epi32(a.a, n), _mm256_srli_epi32(a.b, n)};
}
static inline li li_bits(lf a) {
    return (li){_mm256_castps_si256(a.a), _mm256_castps_si256(a.b)};
}
static inline lf lf_bits(li a) {
    return (lf){_mm256_castsi256_ps(a.a), _mm256_castsi256_ps(a.b)};
}
static inline void li_store(uint32_t *x, li a) {
    _mm256_storeu_si256((__m256i *)x, a.a);
    _mm256_storeu_si256((__m256i *)(x + 8), a.b);
}

static inline li li_f16(lf a) {
    const int nearest = _MM_FROUND_TO_NEAREST_INT;
    return (li){_mm256_cvtepu16_epi32(_mm256_cvtps_ph(a.a, nearest)),
                _mm256_cvtepu16_epi32(_mm256_cvtps_ph(a.b, nearest))};
}

static inline __m256i low_halves(li a) { // 16 values of 16 bits, in order
    const __m256i mask = _mm256_set1_epi32(0xFFFF);
    __m256i p = _mm256_packus_epi32(_mm256_and_si256(a.a, mask), _mm256_and_si256(a.b, mask));
    return _mm256_permute4x64_epi64(p, 0xD8);
}
static inline lf lf_f16(li a) {
    __m256i h = low_halves(a);
    return (lf){_mm256_cvtph_ps(_mm256_castsi256_si128(h)),
                _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1))};
}
static inline void li_store16(uint8_t *out, li a) {
    _mm256_storeu_si256((__m256i *)out, low_halves(a));
}
static inline void li_store8(uint8_t *out, li a) {
    __m256i h = _mm256_and_si256(low_halves(a), _mm256_set1_epi16(0xFF));
    __m256i p = _mm256_permute4x64_epi64(_mm256_packus_epi16(h, h), 0xD8);
    _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(p));
}

static inline lf lf_load_bf16(const uint8_t *x) {
    __m256i p = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)x));
    __m256i q = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(x + 16)));
    return (lf){_mm256_castsi256_ps(_mm256_slli_epi32(p, 16)),
                _mm256_castsi256_ps(_mm256_slli_epi32(q, 16))};
}
static inline lf lf_load_f16(const uint8_t *x) {
    return (lf){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x)),
                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + 16)))};
}

#endif // __AVX2__
#endif
