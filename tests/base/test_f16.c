// The small floats against their definitions: a value is sign * mantissa * 2^exponent, rounding
// picks the nearest, the even one of two. All 65536 codes, all midpoints, and random floats.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdbool.h>

#include "base/f16.h"
#include "base/rng.h"

typedef struct kind {
    int exponent_bits, mantissa_bits;
} kind;
static const kind F16 = {5, 10}, BF16 = {8, 7}, E5M2 = {5, 2};

// The value of a code by IEEE 754's rule.
static double value_of(kind k, uint32_t code) {
    int bias = (1 << (k.exponent_bits - 1)) - 1;
    uint32_t mask = (1u << k.mantissa_bits) - 1, m = code & mask;
    int e = (int)(code >> k.mantissa_bits & ((1u << k.exponent_bits) - 1));
    double sign = code >> (k.exponent_bits + k.mantissa_bits) & 1 ? -1.0 : 1.0;
    if (e == (1 << k.exponent_bits) - 1) return m ? NAN : sign * INFINITY;
    if (e == 0) return sign * ldexp(m, 1 - bias - k.mantissa_bits);
    return sign * ldexp(m + mask + 1, e - bias - k.mantissa_bits);
}

// Rounds as IEEE 754 says, in double arithmetic, to the code of a kind.
static uint32_t code_of(kind k, float f) {
    int bias = (1 << (k.exponent_bits - 1)) - 1, top = (1 << k.exponent_bits) - 1;
    uint32_t sign = signbit(f) ? 1u << (k.exponent_bits + k.mantissa_bits) : 0;
    double a = fabs((double)f);
    if (a == 0) return sign;
    if (isinf(f)) return sign | (uint32_t)top << k.mantissa_bits;
    int e = ilogb(a) < 1 - bias ? 1 - bias : ilogb(a);
    double units = nearbyint(ldexp(a, k.mantissa_bits - e)); // to even by the default mode
    uint32_t code = (uint32_t)(e + bias - 1) << k.mantissa_bits;
    code += (uint32_t)units; // the hidden bit, if set, raises the exponent field by one
    uint32_t infinity = (uint32_t)top << k.mantissa_bits;
    return sign | (code < infinity ? code : infinity);
}

static void assert_same(float got, double expected, uint32_t code) {
    bool same = (double)got == expected && !signbit(got) == !signbit(expected);
    if (isnan(expected) ? !isnan(got) : !same)
        fail_msg("code %#x gives %a, expected %a", code, (double)got, expected);
}

static void every_code_has_its_value(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 65536; c++) {
        assert_same(qn_f16_to_f32((uint16_t)c), value_of(F16, c), c);
        assert_same(qn_bf16_to_f32((uint16_t)c), value_of(BF16, c), c);
    }
    for (uint32_t c = 0; c < 256; c++) {
        assert_same(qn_f8e5m2_to_f32((uint8_t)c), value_of(E5M2, c), c);
        // e4m3fn: IEEE's rule with bias 7, but the top exponent is an ordinary one and only
        // all-ones is NaN.
        uint32_t e = c >> 3 & 15, m = c & 7;
        double v = e ? ldexp(m + 8, (int)e - 10) : ldexp(m, -9);
        if ((c & 127) == 127) v = NAN;
        assert_same(qn_f8e4m3_to_f32((uint8_t)c), c & 128 ? -v : v, c);
    }
    assert_true(qn_f8e4m3_to_f32(0x7E) == 448.0f);
}

static void every_code_survives_the_round_trip(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 65536; c++) {
        float h = qn_f16_to_f32((uint16_t)c), b = qn_bf16_to_f32((uint16_t)c);
        if (isnan(h))
            assert_true(isnan(qn_f16_to_f32(qn_f32_to_f16(h))));
        else
            assert_int_equal(qn_f32_to_f16(h), c);
        if (isnan(b))
            assert_true(isnan(qn_bf16_to_f32(qn_f32_to_bf16(b))));
        else
            assert_int_equal(qn_f32_to_bf16(b), c);
    }
}

static void rounds_like_the_definition(float f) {
    if (isnan(f)) {
        assert_true(isnan(qn_f16_to_f32(qn_f32_to_f16(f))));
        assert_true(isnan(qn_bf16_to_f32(qn_f32_to_bf16(f))));
        return;
    }
    if (qn_f32_to_f16(f) != code_of(F16, f))
        fail_msg("f16 of %a is %#x, expected %#x", (double)f, qn_f32_to_f16(f), code_of(F16, f));
    if (qn_f32_to_bf16(f) != code_of(BF16, f))
        fail_msg("bf16 of %a is %#x, expected %#x", (double)f, qn_f32_to_bf16(f), code_of(BF16, f));
}

// Halfway between neighbours, and a hair to either side.
static void midpoints_round_to_even(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 0x7F80; c++) {
        float pairs[2] = {qn_bf16_to_f32((uint16_t)c), 0};
        pairs[1] = c < 0x7C00 ? qn_f16_to_f32((uint16_t)c) : 0;
        float next[2] = {qn_bf16_to_f32((uint16_t)(c + 1)), 0};
        next[1] = c < 0x7BFF ? qn_f16_to_f32((uint16_t)(c + 1)) : 65536.0f;
        for (int i = 0; i < 2; i++) {
            float mid = (float)(((double)pairs[i] + (double)next[i]) / 2);
            rounds_like_the_definition(mid);
            rounds_like_the_definition(-mid);
            rounds_like_the_definition(nextafterf(mid, INFINITY));
            rounds_like_the_definition(nextafterf(mid, 0));
        }
    }
}

static void random_floats_round_like_the_definition(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 2000000; i++)
        rounds_like_the_definition(qn_f32_from_bits((uint32_t)qn_rng_u64(1, 2, i)));
    // Dense where f16 has its subnormals and its end.
    for (uint64_t i = 0; i < 500000; i++) {
        float u = (float)qn_rng_uniform(3, 4, i);
        rounds_like_the_definition(u * 0x1p-13f);
        rounds_like_the_definition(65000 + u * 1000);
    }
}

static void nan_is_quiet_and_keeps_its_sign(void **state) {
    (void)state;
    float signalling = qn_f32_from_bits(0xFF800001u); // payload in the bits that are cut off
    assert_int_equal(qn_f32_to_bf16(signalling) & 0xFFC0, 0xFFC0);
    assert_int_equal(qn_f32_to_f16(signalling) & 0xFE00, 0xFE00);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_value),
        cmocka_unit_test(every_code_survives_the_round_trip),
        cmocka_unit_test(midpoints_round_to_even),
        cmocka_unit_test(random_floats_round_like_the_definition),
        cmocka_unit_test(nan_is_quiet_and_keeps_its_sign),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
