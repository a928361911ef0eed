// Sixteen lanes, written plainly: what lanes_avx2.h and lanes_avx512.h must equal bit for bit.
#ifndef QN_QUANT_LANES_PLAIN_H
#define QN_QUANT_LANES_PLAIN_H
#define QN_LANES

#include <math.h>
#include <string.h>

#include "base/f16.h"

typedef struct lf { // floats
    float v[16];
} lf;
typedef struct li { // 32-bit integers
    uint32_t v[16];
} li;

typedef struct ld { // doubles
    double v[16];
} ld;
typedef struct lh { // 16-bit integers, twice as many
    uint16_t v[32];
} lh;

#define LANE_BY_LANE(type, expression)                                                             \
    do {                                                                                           \
        type r;                                                                                    \
        for (int i = 0; i < 16; i++) r.v[i] = (expression);                                        \
        return r;                                                                                  \
    } while (0)

static inline lf lf_set(float x) { LANE_BY_LANE(lf, x); }
static inline lf lf_load(const float *x) { LANE_BY_LANE(lf, x[i]); }
static inline void lf_store(float *x, lf a) { memcpy(x, a.v, sizeof a.v); }
static inline lf lf_add(lf a, lf b) { LANE_BY_LANE(lf, a.v[i] + b.v[i]); }
static inline lf lf_sub(lf a, lf b) { LANE_BY_LANE(lf, a.v[i] - b.v[i]); }
static inline lf lf_mul(lf a, lf b) { LANE_BY_LANE(lf, a.v[i] * b.v[i]); }
static inline lf lf_fma(lf a, lf b, lf c) { LANE_BY_LANE(lf, fmaf(a.v[i], b.v[i], c.v[i])); }
static inline lf lf_min(lf a, lf b) { LANE_BY_LANE(lf, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
static inline lf lf_max(lf a, lf b) { LANE_BY_LANE(lf, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
static inline lf lf_abs(lf a) { LANE_BY_LANE(lf, fabsf(a.v[i])); }
// a < b ? yes : no
static inline lf lf_pick_below(lf a, lf b, lf yes, lf no) {
    LANE_BY_LANE(lf, a.v[i] < b.v[i] ? yes.v[i] : no.v[i]);
}
// count + (a < b)
static inline li li_count_below(li count, lf a, lf b) {
    LANE_BY_LANE(li, count.v[i] + (a.v[i] < b.v[i]));
}

static inline li li_set(uint32_t x) { LANE_BY_LANE(li, x); }
static inline li li_add(li a, li b) { LANE_BY_LANE(li, a.v[i] + b.v[i]); }
static inline li li_and(li a, li b) { LANE_BY_LANE(li, a.v[i] & b.v[i]); }
static inline li li_or(li a, li b) { LANE_BY_LANE(li, a.v[i] | b.v[i]); }
static inline li li_shr(li a, int n) { LANE_BY_LANE(li, a.v[i] >> n); }
static inline li li_bits(lf a) { LANE_BY_LANE(li, qn_f32_bits(a.v[i])); }
static inline lf lf_bits(li a) { LANE_BY_LANE(lf, qn_f32_from_bits(a.v[i])); }
static inline void li_store(uint32_t *x, li a) { memcpy(x, a.v, sizeof a.v); }

// Rounded to nearest even as f16, in the low 16 bits.
static inline li li_f16(lf a) { LANE_BY_LANE(li, qn_f32_to_f16(a.v[i])); }
static inline lf lf_f16(li a) { LANE_BY_LANE(lf, qn_f16_to_f32((uint16_t)a.v[i])); }

// The low 16 or 8 bits of each lane.
static inline void li_store16(uint8_t *out, li a) {
    for (int i = 0; i < 16; i++) {
        uint16_t h = (uint16_t)a.v[i];
        memcpy(out + 2 * i, &h, 2);
    }
}
static inline void li_store8(uint8_t *out, li a) {
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)a.v[i];
}

static inline lh lh_set(uint16_t x) {
    lh r;
    for (int i = 0; i < 32; i++) r.v[i] = x;
    return r;
}
static inline lh lh_load(const uint8_t *x) {
    lh r;
    memcpy(r.v, x, sizeof r.v);
    return r;
}
static inline void lh_store(uint16_t *x, lh a) { memcpy(x, a.v, sizeof a.v); }
static inline lh lh_and(lh a, lh b) {
    for (int i = 0; i < 32; i++) a.v[i] &= b.v[i];
    return a;
}
static inline lh lh_min(lh a, lh b) {
    for (int i = 0; i < 32; i++) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}
static inline lh lh_max(lh a, lh b) {
    for (int i = 0; i < 32; i++) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}
static inline lh lh_max_signed(lh a, lh b) {
    for (int i = 0; i < 32; i++) a.v[i] = (int16_t)a.v[i] > (int16_t)b.v[i] ? a.v[i] : b.v[i];
    return a;
}
// count + (a < b), both below 2^15
static inline lh lh_count_below(lh count, lh a, lh b) {
    for (int i = 0; i < 32; i++) count.v[i] = (uint16_t)(count.v[i] + (a.v[i] < b.v[i]));
    return count;
}

// The low 8 bits of 64 lanes in order.
static inline void li_store8_four(uint8_t *out, li a, li b, li c, li d) {
    li_store8(out, a);
    li_store8(out + 16, b);
    li_store8(out + 32, c);
    li_store8(out + 48, d);
}

static inline ld ld_zero(void) { return (ld){{0}}; }
static inline ld ld_add_floats(ld a, lf b) {
    for (int i = 0; i < 16; i++) a.v[i] += (double)b.v[i];
    return a;
}
static inline void ld_store(double *x, ld a) { memcpy(x, a.v, sizeof a.v); }

static inline lf lf_load_bf16(const uint8_t *x) {
    uint16_t h[16];
    memcpy(h, x, sizeof h);
    LANE_BY_LANE(lf, qn_bf16_to_f32(h[i]));
}
static inline lf lf_load_f16(const uint8_t *x) {
    uint16_t h[16];
    memcpy(h, x, sizeof h);
    LANE_BY_LANE(lf, qn_f16_to_f32(h[i]));
}

#endif
