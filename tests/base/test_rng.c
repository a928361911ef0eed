// Random numbers that depend on (seed, stream, counter) alone: the same for ever, and random.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "base/rng.h"

// A user's --seed must give the same text in every later version: these may never change.
static void values_never_change(void **state) {
    (void)state;
    assert_true(qn_rng_u64(0, 0, 0) == 0xE9FE9EA554CBCA8Eu);
    assert_true(qn_rng_u64(42, 7, 123456789) == 0x716D82695CA2E06Bu);
    assert_true(qn_rng_u64(UINT64_MAX, UINT64_MAX, UINT64_MAX) == 0x182C8AD906CE69B5u);
}

static void uniform_is_uniform(void **state) {
    (void)state;
    enum { N = 400000, CELLS = 64 };
    unsigned cell[CELLS] = {0};
    double sum = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = qn_rng_uniform(1, 2, i);
        assert_true(u >= 0 && u < 1);
        cell[(int)(u * CELLS)]++;
        sum += u;
    }
    assert_true(fabs(sum / N - 0.5) < 0.002);
    double chi = 0, expected = (double)N / CELLS;
    for (int i = 0; i < CELLS; i++) chi += pow(cell[i] - expected, 2) / expected;
    assert_true(chi > 30 && chi < 110); // 63 degrees of freedom: 63 ± 4 · 11
}

static void normal_has_its_moments(void **state) {
    (void)state;
    enum { N = 200000 };
    double m1 = 0, m2 = 0, m4 = 0;
    for (uint64_t i = 0; i < N; i++) {
        double x = qn_rng_normal(3, 4, i);
        assert_true(isfinite(x));
        m1 += x, m2 += x * x, m4 += x * x * x * x;
    }
    assert_true(fabs(m1 / N) < 0.01);
    assert_true(fabs(m2 / N - 1) < 0.02);
    assert_true(fabs(m4 / N - 3) < 0.15);
}

// Neighbouring seeds, streams and counters share about half of their bits.
static void neighbours_are_unrelated(void **state) {
    (void)state;
    int seeds = 0, streams = 0, counters = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t x = qn_rng_u64(i, 5, 9);
        seeds += __builtin_popcountll(x ^ qn_rng_u64(i + 1, 5, 9));
        streams += __builtin_popcountll(x ^ qn_rng_u64(i, 6, 9));
        counters += __builtin_popcountll(x ^ qn_rng_u64(i, 5, 10));
    }
    assert_in_range(seeds, 31000, 33000);
    assert_in_range(streams, 31000, 33000);
    assert_in_range(counters, 31000, 33000);
}

static void system_seeds_differ(void **state) {
    (void)state;
    assert_true(qn_rng_system() != qn_rng_system());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_never_change),      cmocka_unit_test(uniform_is_uniform),
        cmocka_unit_test(normal_has_its_moments),   cmocka_unit_test(neighbours_are_unrelated),
        cmocka_unit_test(system_seeds_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
