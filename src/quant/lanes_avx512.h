// Sixteen lanes in one AVX-512 register (lanes_plain.h says what each does).
#ifndef QN_QUANT_LANES_AVX512_H
#define QN_QUANT_LANES_AVX512_H

#ifdef __AVX512BW__ // else lanes_plain.h is used

#define QN_LANES

#include <immintrin.h>
#include <stdint.h>

typedef __m512 lf;
typedef __m512i li;
typedef __m512i lh;
typedef struct ld {
    __m512d a, b;
} ld;

static inline lf lf_set(float x) { return _mm512_set1_ps(x); }
static inline lf lf_load(const float *x) { return _mm512_loadu_ps(x); }
static inline void lf_store(float *x, lf a) { _mm512_storeu_ps(x, a); }
static inline lf lf_add(lf a, lf b) { return _mm512_add_ps(a, b); }
static inline lf lf_sub(lf a, lf b) { return _mm512_sub_ps(a, b); }
static inline lf lf_mul(lf a, lf b) { return _mm512_mul_ps(a, b); }
static inline lf lf_fma(lf a, lf b, lf c) { return _mm512_fmadd_ps(a, b, c); }
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

static inline lh lh_set(uint16_t x) { return _mm512_set1_epi16((short)x); }
static inline lh lh_load(const uint8_t *x) { return _mm512_loadu_si512(x); }
static inline void lh_store(uint16_t *x, lh a) { _mm512_storeu_si512(x, a); }
static inline lh lh_and(lh a, lh b) { return _mm512_and_si512(a, b); }
static inline lh lh_min(lh a, lh b) { return _mm512_min_epu16(a, b); }
static inline lh lh_max(lh a, lh b) { return _mm512_max_epu16(a, b); }
static inline lh lh_max_signed(lh a, lh b) { return _mm512_max_epi16(a, b); }
static inline lh lh_count_below(lh count, lh a, lh b) {
    return _mm512_mask_add_epi16(count, _mm512_cmplt_epu16_mask(a, b), count,
                                 _mm512_set1_epi16(1));
}

static inline void li_store8_four(uint8_t *out, li a, li b, li c, li d) {
    const __m512i byte = _mm512_set1_epi32(0xFF); // packing interleaves lanes of 128 bits
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i ab = _mm512_packus_epi32(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte));
    __m512i cd = _mm512_packus_epi32(_mm512_and_si512(c, byte), _mm512_and_si512(d, byte));
    _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(ab, cd)));
}

static inline ld ld_zero(void) { return (ld){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
static inline ld ld_add_floats(ld a, lf b) {
    __m256 high = _mm512_extractf32x8_ps(b, 1);
    return (ld){_mm512_add_pd(a.a, _mm512_cvtps_pd(_mm512_castps512_ps256(b))),
                _mm512_add_pd(a.b, _mm512_cvtps_pd(high))};
}
static inline void ld_store(double *x, ld a) {
    _mm512_storeu_pd(x, a.a);
    _mm512_storeu_pd(x + 8, a.b);
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
