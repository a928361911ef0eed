// 16- and 8-bit floats to and from float, exactly; rounding to nearest, ties to even, subnormals
// kept. bf16: 8 exponent bits; f16: IEEE 754 binary16; f8e4m3: "fn" (bias 7, no inf, NaN 0x7F and
// 0xFF, max 448); f8e5m2: bias 15, inf and NaN as in IEEE.
#ifndef QN_BASE_F16_H
#define QN_BASE_F16_H

#include <stdint.h>
#include <string.h>

static inline float qn_f32_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint32_t qn_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float qn_bf16_to_f32(uint16_t h) { return qn_f32_from_bits((uint32_t)h << 16); }

static inline uint16_t qn_f32_to_bf16(float f) {
    uint32_t u = qn_f32_bits(f);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(u >> 16 | 0x40); // NaN stays NaN
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1)) >> 16);
}

static inline float qn_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 1023u;
    if (e == 31) return qn_f32_from_bits(sign | 0x7F800000u | m << 13);
    if (e) return qn_f32_from_bits(sign | (e + 112) << 23 | m << 13);
    if (!m) return qn_f32_from_bits(sign);
    int shift = __builtin_clz(m) - 21; // subnormal: bring the leading bit to position 10
    m = m << shift & 1023u;
    return qn_f32_from_bits(sign | (uint32_t)(113 - shift) << 23 | m << 13);
}

static inline uint16_t qn_f32_to_f16(float f) {
    uint32_t u = qn_f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7FFFFFFFu;
    if (a > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (a >> 13 & 0x1FFu));
    if (a >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); // rounds to 65536 or more
    if (a >= 0x38800000u)                                    // normal
        return (uint16_t)(sign | ((a - 0x38000000u + 0xFFFu + (a >> 13 & 1)) >> 13));
    if (a < 0x33000000u) return (uint16_t)sign; // at most half the smallest subnormal
    uint32_t e = a >> 23, m = (a & 0x7FFFFFu) | 0x800000u, shift = 126 - e;
    uint32_t half = 1u << (shift - 1), rest = m & ((1u << shift) - 1), q = m >> shift;
    if (rest > half || (rest == half && (q & 1))) q++;
    return (uint16_t)(sign | q);
}

static inline float qn_f8e4m3_to_f32(uint8_t b) {
    uint32_t sign = (uint32_t)(b & 0x80u) << 24, e = b >> 3 & 15u, m = b & 7u;
    if ((b & 0x7F) == 0x7F) return qn_f32_from_bits(sign | 0x7FC00000u);
    if (e) return qn_f32_from_bits(sign | (e + 120) << 23 | m << 20);
    float f = (float)m * 0x1p-9f;
    return qn_f32_from_bits(sign | qn_f32_bits(f));
}

static inline float qn_f8e5m2_to_f32(uint8_t b) { return qn_f16_to_f32((uint16_t)(b << 8)); }

#endif
