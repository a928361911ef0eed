// The inner loops of the search for scales: every build gives what the definitions in lattice.c give,
// and the search finds the same scales with each of them.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/f16.h"
#include "base/rng.h"
#include "quant/lattice_loops.h"

enum { N = 150, ROUNDS = 60 }; // N: whole runs and an end

static const qn_lattice_loops *builds[3];
static size_t n_builds;

static const qn_lattice_rule rules[] = {
    {QN_DT_F16, false, QN_DT_F16, -128, 127, false}, {QN_DT_F16, false, QN_DT_F32, -129, 129, false},
    {QN_DT_BF16, false, QN_DT_F16, -128, 128, false}, {QN_DT_BF16, true, QN_DT_F16, -127, 128, false},
    {QN_DT_BF16, false, QN_DT_BF16, -17, 17, false},  {QN_DT_F32, false, QN_DT_F32, -128, 127, false},
};
enum { N_RULES = sizeof rules / sizeof *rules };

static float random_scale(const qn_lattice_rule *r, uint64_t round) {
    float s = expf(-14 * (float)qn_rng_uniform(3, 1, round)); // subnormal f16 numbers among them
    if (r->scale == QN_DT_F16) return qn_f16_to_f32(qn_f32_to_f16(s));
    return r->scale == QN_DT_BF16 ? qn_bf16_to_f32(qn_f32_to_bf16(s)) : s;
}

static void make(const qn_lattice_rule *r, float scale, uint64_t round, float *v) {
    uint64_t span = (uint64_t)(r->k_max - r->k_min + 1);
    for (size_t i = 0; i < N; i++)
        v[i] = qn_lattice_value(r, scale, r->k_min + (int)(qn_rng_u64(5, round, i) % span));
}

static void codes_are_those_of_the_definition(void **state) {
    (void)state;
    float v[N];
    int32_t codes[N], alone;
    for (size_t k = 0; k < N_RULES * ROUNDS; k++) {
        const qn_lattice_rule *r = &rules[k % N_RULES];
        float scale = random_scale(r, k), other = scale * 1.003f;
        make(r, scale, k, v);
        for (size_t b = 0; b < n_builds; b++) {
            if (!builds[b]->codes(r, scale, v, N, codes)) fail_msg("round %zu: does not stand", k);
            assert_true(builds[b]->stands(r, scale, v, N));
            for (size_t i = 0; i < N; i++) {
                assert_true(qn_lattice_code(r, scale, v[i], &alone));
                assert_int_equal(codes[i], alone);
            }
            bool all = true; // a scale beside it stands only if each value says so
            for (size_t i = 0; i < N; i++) all &= qn_lattice_code(r, other, v[i], &alone);
            assert_int_equal(builds[b]->stands(r, other, v, N), all);
            float kept = v[N - 1];
            v[N - 1] = kept * 1.5f + 0.4f * scale; // the last one is looked at, too
            bool last = qn_lattice_code(r, scale, v[N - 1], &alone);
            assert_int_equal(builds[b]->stands(r, scale, v, N), last);
            v[N - 1] = kept;
        }
    }
}

static void builds_agree(void **state) {
    (void)state;
    float v[N];
    int32_t codes[N];
    for (size_t k = 0; k < N_RULES * ROUNDS; k++) {
        const qn_lattice_rule *r = &rules[k % N_RULES];
        float scale = random_scale(r, k);
        make(r, scale, k, v);
        builds[0]->codes(r, scale, v, N, codes);
        double lo[2][N], hi[2][N];
        float limit[2][N];
        bool constant[2];
        for (size_t i = 0; i < N; i++)
            if (v[i] == 0) v[i] = scale;
        for (size_t b = 0; b < n_builds; b++) {
            size_t at = b > 0;
            builds[b]->spans(r, v, N, lo[at], hi[at], limit[at]);
            assert_memory_equal(lo[0], lo[at], sizeof lo[0]);
            assert_memory_equal(hi[0], hi[at], sizeof hi[0]);
            assert_memory_equal(limit[0], limit[at], sizeof limit[0]);
            for (size_t i = 0; i < N; i++) // what rounds to it is around it
                assert_true(lo[at][i] <= fabs((double)v[i]) && fabs((double)v[i]) <= hi[at][i]);
            assert_true(builds[b]->largest(v, N, &constant[at]) ==
                        builds[0]->largest(v, N, &constant[0]));
            assert_int_equal(constant[0], constant[at]);
            assert_int_equal(builds[0]->doubled(r, scale, v, codes, N),
                             builds[b]->doubled(r, scale, v, codes, N));
        }
    }
}

static void what_broke_breaks_again(void **state) {
    (void)state;
    float v[N], right[N];
    for (size_t k = 0; k < 4 * ROUNDS; k++) {
        const qn_lattice_rule *r = &rules[k % 4];
        qn_dtype stored = k % 8 < 4 ? r->stored : QN_DT_F32;
        float scale = random_scale(r, k);
        const qn_lattice_mistake m = {true, k % 3 ? 1 : -1, 0, 0};
        qn_lattice_rule plain = {stored, false, r->scale, -128, 127, false};
        for (size_t i = 0; i < N; i++) {
            int c = (int)(qn_rng_u64(6, k, i) % 255) - 127, q = m.sign * c;
            v[i] = qn_lattice_value(r, scale, m.sign * (q < 0 ? q + 128 : q - 128));
            right[i] = qn_lattice_value(&plain, scale, c);
        }
        for (size_t b = 0; b < n_builds; b++) {
            if (!builds[b]->breaks(r, scale, &m, stored, v, right, N)) fail_msg("round %zu", k);
            float kept = right[N - 1];
            right[N - 1] += 40 * scale;
            assert_false(builds[b]->breaks(r, scale, &m, stored, v, right, N));
            right[N - 1] = kept;
        }
    }
}

// Probes must never speak against the integer that the largest value really is.
static void probes_spare_the_right_one(void **state) {
    (void)state;
    float v[N];
    for (size_t k = 0; k < N_RULES * ROUNDS; k++) {
        const qn_lattice_rule *r = &rules[k % N_RULES];
        float scale = random_scale(r, k);
        make(r, scale, k, v);
        qn_lattice_fit fit[3];
        static const qn_isa levels[] = {QN_ISA_AMX, QN_ISA_AVX2, QN_ISA_SCALAR};
        for (int i = 0; i < 3; i++) {
            qn_cpu_cap(levels[i]);
            qn_lattice_find(r, v, N, &fit[i]);
            bool found = fit[i].more;
            for (size_t s = 0; s < fit[i].n; s++) found |= fit[i].scales[s] == scale;
            if (!found) fail_msg("round %zu: %g is not found", k, (double)scale);
            assert_true(qn_lattice_explains(r, v, N));
            assert_int_equal(fit[i].n, fit[0].n);
            assert_memory_equal(fit[i].scales, fit[0].scales, fit[0].n * sizeof(float));
        }
        qn_cpu_cap(QN_ISA_AMX);
    }
}

static int set_up(void **state) {
    (void)state;
    builds[n_builds++] = &qn_lattice_loops_plain;
    if (qn_cpu_found(QN_ISA_AVX2)) builds[n_builds++] = &qn_lattice_loops_avx2;
    if (qn_cpu_found(QN_ISA_AVX512)) builds[n_builds++] = &qn_lattice_loops_avx512;
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_those_of_the_definition),
        cmocka_unit_test(builds_agree),
        cmocka_unit_test(what_broke_breaks_again),
        cmocka_unit_test(probes_spare_the_right_one),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
