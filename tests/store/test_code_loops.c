// The loops over codes and half floats: every build of them against one field, one number at a time.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/f16.h"
#include "base/rng.h"
#include "store/code_loops.h"

static const qn_code_loops *builds[3];
static size_t n_builds;

static int find_builds(void **state) {
    (void)state;
    builds[n_builds++] = &qn_code_loops_plain;
    if (qn_cpu_found(QN_ISA_AVX2)) builds[n_builds++] = &qn_code_loops_avx2;
    if (qn_cpu_found(QN_ISA_AVX512)) builds[n_builds++] = &qn_code_loops_avx512;
    return 0;
}

static uint8_t *random_bytes(size_t n) {
    uint8_t *p = malloc(n);
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)qn_rng_u64(7, 1, i);
    return p;
}

// Rows row0 … of a matrix whose words lie in a row, or a matrix row apart; the bytes end where the
// matrix ends, so that a read beyond it shows under a sanitizer.
static void check_unpack(int bits, size_t rows, size_t cols, bool apart, size_t row0) {
    size_t words = (cols * (size_t)bits + 31) / 32, n = rows - row0;
    uint8_t *data = random_bytes(4 * words * rows), *out = malloc(n * cols + 1);
    qn_bitrows b = {data, apart ? 4 : 4 * words, apart ? 4 * rows : 4, words, cols, bits};
    for (size_t i = 0; i < n_builds; i++) {
        out[n * cols] = 77;
        builds[i]->unpack(&b, row0, n, out);
        for (size_t r = 0; r < n; r++)
            for (size_t c = 0; c < cols; c++)
                if (out[r * cols + c] !=
                    qn_field(data + (row0 + r) * b.row_stride, b.word_stride, c, bits))
                    fail_msg("%d bits, %zu x %zu: [%zu, %zu] differs in build %zu", bits, rows,
                             cols, row0 + r, c, i);
        assert_int_equal(out[n * cols], 77);
    }
    free(data);
    free(out);
}

static void fields_of_every_width(void **state) {
    (void)state;
    static const size_t widths[] = {1, 5, 31, 63, 64, 65, 128, 200, 257, 512};
    for (int bits = 1; bits <= 8; bits++)
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
            for (int apart = 0; apart < 2; apart++) {
                check_unpack(bits, 1, widths[i], apart, 0);
                check_unpack(bits, 37, widths[i], apart, 0);
                check_unpack(bits, 48, widths[i], apart, 16);
            }
}

static void codes_times_scale(void **state) {
    (void)state;
    uint8_t *codes = random_bytes(1000);
    float out[1000];
    for (size_t i = 0; i < n_builds; i++)
        for (size_t n = 0; n < 1000; n = 3 * n + 1) {
            builds[i]->scale(codes, n, 0.0123f, 128, out);
            for (size_t k = 0; k < n; k++) {
                float expected = 0.0123f * (float)(codes[k] - 128);
                assert_memory_equal(&out[k], &expected, sizeof expected);
            }
        }
    free(codes);
}

static void ranges_only_widen(void **state) {
    (void)state;
    uint8_t codes[300];
    for (size_t i = 0; i < n_builds; i++)
        for (size_t at = 0; at < 300; at += 13) {
            uint8_t lo = 255, hi = 0;
            memset(codes, 100, sizeof codes);
            builds[i]->range(codes, 0, &lo, &hi);
            assert_true(lo == 255 && hi == 0);
            codes[at] = 3;
            codes[299 - at] = 250;
            builds[i]->range(codes, 300, &lo, &hi);
            assert_true(lo == 3 && hi == 250);
            builds[i]->range(codes + at, 1, &lo, &hi);
            assert_true(lo == 3 && hi == 250);
        }
}

// All bit patterns, NaNs with their bits.
static void half_floats(void **state) {
    (void)state;
    uint16_t *all = malloc(65536 * sizeof *all);
    float *out = malloc(65536 * sizeof *out);
    for (size_t i = 0; i < 65536; i++) all[i] = (uint16_t)i;
    for (size_t b = 0; b < n_builds; b++)
        for (size_t from = 0; from < 9; from++) {
            builds[b]->widen_f16((const uint8_t *)(all + from), 65536 - from, out);
            for (size_t i = from; i < 65536; i++)
                assert_int_equal(qn_f32_bits(out[i - from]), qn_f32_bits(qn_f16_to_f32(all[i])));
            builds[b]->widen_bf16((const uint8_t *)(all + from), 65536 - from, out);
            for (size_t i = from; i < 65536; i++)
                assert_int_equal(qn_f32_bits(out[i - from]), (uint32_t)i << 16);
        }
    free(all);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_of_every_width),
        cmocka_unit_test(codes_times_scale),
        cmocka_unit_test(ranges_only_widen),
        cmocka_unit_test(half_floats),
    };
    return cmocka_run_group_tests(tests, find_builds, NULL);
}
