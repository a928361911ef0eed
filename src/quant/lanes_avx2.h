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
typedef struct ld {
    __m256d v[4];
} ld;
typedef struct lh {
    __m256i a, b;
} lh;

static inline lf lf_set(float x) { return (lf){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline lf lf_load(const float *x) { return (lf){_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
static inline void lf_store(float *x, lf a) {
    _mm256_storeu_ps(x, a.a);
    _mm256_storeu_ps(x + 8, a.b);
}
static inline lf lf_add(lf a, lf b) { return (lf){_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b)}; }
static inline lf lf_sub(lf a, lf b) { return (lf){_mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b)}; }
static inline lf lf_mul(lf a, lf b) { return (lf){_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)}; }
static inline lf lf_fma(lf a, lf b, lf c) {
    return (lf){_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)};
}
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
    return (li){_mm256_cvtepu16_epi32(_mm256_cvtps_ph(a.a, _MM_FROUND_TO_NEAREST_INT)),
                _mm256_cvtepu16_epi32(_mm256_cvtps_ph(a.b, _MM_FROUND_TO_NEAREST_INT))};
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

static inline lh lh_set(uint16_t x) {
    return (lh){_mm256_set1_epi16((short)x), _mm256_set1_epi16((short)x)};
}
static inline lh lh_load(const uint8_t *x) {
    return (lh){_mm256_loadu_si256((const __m256i *)x),
                _mm256_loadu_si256((const __m256i *)(x + 32))};
}
static inline void lh_store(uint16_t *x, lh a) {
    _mm256_storeu_si256((__m256i *)x, a.a);
    _mm256_storeu_si256((__m256i *)(x + 16), a.b);
}
static inline lh lh_and(lh a, lh b) {
    return (lh){_mm256_and_si256(a.a, b.a), _mm256_and_si256(a.b, b.b)};
}
static inline lh lh_min(lh a, lh b) {
    return (lh){_mm256_min_epu16(a.a, b.a), _mm256_min_epu16(a.b, b.b)};
}
static inline lh lh_max(lh a, lh b) {
    return (lh){_mm256_max_epu16(a.a, b.a), _mm256_max_epu16(a.b, b.b)};
}
static inline lh lh_max_signed(lh a, lh b) {
    return (lh){_mm256_max_epi16(a.a, b.a), _mm256_max_epi16(a.b, b.b)};
}
static inline lh lh_count_below(lh count, lh a, lh b) {
    return (lh){_mm256_sub_epi16(count.a, _mm256_cmpgt_epi16(b.a, a.a)),
                _mm256_sub_epi16(count.b, _mm256_cmpgt_epi16(b.b, a.b))};
}

static inline void li_store8_four(uint8_t *out, li a, li b, li c, li d) {
    li_store8(out, a);
    li_store8(out + 16, b);
    li_store8(out + 32, c);
    li_store8(out + 48, d);
}

static inline ld ld_zero(void) {
    const __m256d zero = _mm256_setzero_pd();
    return (ld){{zero, zero, zero, zero}};
}
static inline ld ld_add_floats(ld a, lf b) {
    a.v[0] = _mm256_add_pd(a.v[0], _mm256_cvtps_pd(_mm256_castps256_ps128(b.a)));
    a.v[1] = _mm256_add_pd(a.v[1], _mm256_cvtps_pd(_mm256_extractf128_ps(b.a, 1)));
    a.v[2] = _mm256_add_pd(a.v[2], _mm256_cvtps_pd(_mm256_castps256_ps128(b.b)));
    a.v[3] = _mm256_add_pd(a.v[3], _mm256_cvtps_pd(_mm256_extractf128_ps(b.b, 1)));
    return a;
}
static inline void ld_store(double *x, ld a) {
    for (int i = 0; i < 4; i++) _mm256_storeu_pd(x + 4 * i, a.v[i]);
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
