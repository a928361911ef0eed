// Sixteen lanes in one AVX-512 register (lanes_plain.h says what each does).
#ifndef QN_QUANT_LANES_AVX512_H
#define QN_QUANT_LANES_AVX512_H

#ifdef __AVX512BW__ // else lanes_plain.h is used

#define QN_LANES

#include <immintrin.h>
#include <stdint.h>

typedef __m512 lf;
typedef __m512i li;

static inline lf lf_set(float x) { return _mm512_set1_ps(x); }
static inline lf lf_load(const float *x) { return _mm512_loadu_ps(x); }
static inline void lf_store(float *x, lf a) { _mm512_storeu_ps(x, a); }
static inline lf lf_add(lf a, lf b) { return _mm512_add_ps(a, b); }
static inline lf lf_sub(lf a, lf b) { return _mm512_sub_ps(a, b); }
static inline lf lf_mul(lf a, lf b) { return _mm512_mul_ps(a, b); }
static inline lf lf_min(lf a, lf b) { return _mm512_min_ps(a, b); }
static inline lf lf_max(lf a, lf b) { return _mm512_max_ps(a, b); }
static inline lf lf_abs(lf a) { return _mm512_abs_ps(a); }
static inline lf lf_pick_below(lf a, lf b, lf yes, lf no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
static inline li li_count_below(li count, lf a, lf b) {
    return _mm512_mask_add_epi32(count, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), count,
                                 _mm512_set1_epi32(1));
}

static inline li li_set(uint32_t x) { return _mm512_set1_epi32((int)x); }
static inline li li_add(li a, li b) { return _mm512_add_epi32(a, b); }
static inline li li_and(li a, li b) { return _mm512_and_si512(a, b); }
static inline li li_or(li a, li b) { return _mm512_or_si512(a, b); }
static inline li li_shr(li a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
static inline li li_bits(lf a) { return _mm512_castps_si512(a); }
static inline lf lf_bits(li a) { return _mm512_castsi512_ps(a); }
static inline void li_store(uint32_t *x, li a) { _mm512_storeu_si512(x, a); }
static inline li li_f16(lf a) {
    return _mm512_cvtepu16_epi32(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline lf lf_f16(li a) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)); }
static inline void li_store16(uint8_t *out, li a) {
    _mm256_storeu_si256((__m256i *)out, _mm512_cvtepi32_epi16(a));
}
static inline void li_store8(uint8_t *out, li a) {
    _mm_storeu_si128((__m128i *)out, _mm512_cvtepi32_epi8(a));
}

static inline lf lf_load_bf16(const uint8_t *x) {
    __m512i p = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x));
    return _mm512_castsi512_ps(_mm512_slli_epi32(p, 16));
}
static inline lf lf_load_f16(const uint8_t *x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x));
}

#endif // __AVX512BW__
#endif
