// Statistics and differences against closed forms and against themselves in other block splits.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/f16.h"
#include "base/rng.h"
#include "quant/measure.h"
#include "quant/value_runs.h"

static void near(double a, double b, double tolerance) {
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g is not %.17g", a, b);
}

static void stats_of_known_numbers(void **state) {
    (void)state;
    const float x[] = {1, 2, 3, 4, NAN, 0, INFINITY};
    qn_stats s = {0};
    qn_stats_add(&s, x, 7);
    assert_int_equal(s.n_nonfinite, 2);
    assert_int_equal(s.first_nonfinite, 4);
    assert_int_equal(s.n_zero, 1);
    near(s.mean, 2, 1e-15);
    near(qn_stats_std(&s), sqrt(2), 1e-15);
    near(qn_stats_kurtosis(&s), 1.7, 1e-12); // five equally spaced points
    near(s.min, 0, 0);
    near(s.max, 4, 0);
}

static void stats_do_not_depend_on_blocks(void **state) {
    (void)state;
    enum { N = 20000 };
    float *x = malloc(N * sizeof *x);
    for (size_t i = 0; i < N; i++) x[i] = (float)qn_rng_normal(1, 2, i) + 3;
    x[7777] = NAN;
    qn_stats whole = {0}, parts = {0};
    qn_stats_add(&whole, x, N);
    for (size_t at = 0; at < N;) {
        size_t n = 1 + at % 777;
        if (n > N - at) n = N - at;
        qn_stats one = {0};
        qn_stats_add(&one, x + at, n);
        qn_stats_merge(&parts, &one);
        at += n;
    }
    near(parts.mean, whole.mean, 1e-12);
    near(qn_stats_std(&parts), qn_stats_std(&whole), 1e-12);
    near(qn_stats_kurtosis(&parts), qn_stats_kurtosis(&whole), 1e-9);
    near(qn_stats_kurtosis(&whole), 3, 0.2);
    assert_int_equal(parts.first_nonfinite, 7777);
    free(x);
}

// Both builds of the loops give the same bits, and rounding is base/f16.h's.
static void runs_agree(void **state) {
    (void)state;
    enum { N = 1003 };
    static const qn_run_dtype dtypes[] = {QN_RUN_F32, QN_RUN_BF16, QN_RUN_F16};
    const qn_value_runs *best = qn_value_runs_best();
    float x[N];
    for (uint64_t round = 0; round < 200; round++) {
        for (size_t i = 0; i < N; i++) {
            uint32_t bits = (uint32_t)qn_rng_u64(round, 8, i);
            x[i] = qn_f32_from_bits(bits);
            if (!isfinite(x[i])) x[i] = (float)i * 1e-6f;
        }
        qn_run_stats a, b;
        qn_value_runs_plain.stats(x, N, &a);
        best->stats(x, N, &b);
        assert_memory_equal(&a, &b, sizeof a);
        for (int d = 0; d < 3; d++)
            for (int saturate = 0; saturate < 2; saturate++) {
                uint8_t p[4 * N], q[4 * N];
                qn_run_error e = {0}, f = {0};
                qn_value_runs_plain.round(dtypes[d], x, N, saturate, p, &e);
                best->round(dtypes[d], x, N, saturate, q, &f);
                assert_memory_equal(p, q, N * (d == 0 ? 4 : 2));
                assert_memory_equal(&e, &f, sizeof e);
                for (size_t i = 0; i < N && d > 0; i++) {
                    uint16_t h, expected = d == 1 ? qn_f32_to_bf16(x[i]) : qn_f32_to_f16(x[i]);
                    if (d == 2 && saturate && (expected & 0x7FFF) == 0x7C00) expected--;
                    memcpy(&h, p + 2 * i, 2);
                    if (h != expected) fail_msg("%g: %04x, expected %04x", x[i], h, expected);
                }
            }
    }
}

static void differences(void **state) {
    (void)state;
    const float a[] = {1, 0, 3, 4}, b[] = {1, 0, -3, 2};
    qn_diff d = {0}, left = {0}, right = {0};
    qn_diff_add(&d, a, b, 4);
    qn_diff_add(&left, a, b, 2);
    qn_diff_add(&right, a + 2, b + 2, 2);
    qn_diff_merge(&left, &right);
    assert_memory_equal(&d, &left, sizeof d);
    assert_true(d.any_differs);
    assert_int_equal(d.first, 2);
    near(d.max_abs, 6, 0);
    assert_int_equal(d.at_max, 2);
    near(qn_diff_cosine(&d), (1 - 9 + 8) / sqrt(26 * 14), 1e-15);
    near(qn_diff_mse(&d), 10, 1e-15);
    const float zero[2] = {0};
    qn_diff z = {0};
    qn_diff_add(&z, zero, zero, 2);
    near(qn_diff_cosine(&z), 1, 0);
}

typedef struct outer {
    size_t cols;
    double scale;
} outer;

// Rank one: scale * u v^T with u_r = 1 + r % 3, v_c = 1 if c even.
static bool outer_rows(void *user, size_t row0, size_t n, float *out, qn_err *err) {
    (void)err;
    outer *o = user;
    for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < o->cols; c++)
            out[r * o->cols + c] = c % 2 ? 0 : (float)(o->scale * (double)(1 + (row0 + r) % 3));
    return true;
}

static void matrix_figures(void **state) {
    (void)state;
    outer o = {500, 0.5};
    enum { ROWS = 3000 };
    double expected = 0.5 * sqrt(ROWS / 3.0 * (1 + 4 + 9)) * sqrt(250);
    for (int threads = 1; threads <= 3; threads += 2) {
        qn_pool *p = qn_pool_new(threads, NULL);
        qn_matrix_stats m;
        assert_true(qn_measure_matrix(p, outer_rows, &o, ROWS, o.cols, &m, NULL));
        assert_int_equal(m.zero_cols, 250);
        assert_int_equal(m.zero_rows, 0);
        near(m.all.mean, 0.5, 1e-12);
        double norm, tolerance;
        float *w = malloc(ROWS * o.cols * sizeof *w);
        outer_rows(&o, 0, ROWS, w, NULL);
        assert_true(qn_operator_norm(p, w, ROWS, o.cols, 4, &norm, &tolerance, NULL));
        near(norm, expected, 1e-5 * expected);
        assert_true(tolerance < 1e-3);
        free(w);
        qn_pool_free(p);
    }
}

// A square Gaussian matrix has a flat spectrum that ends near 2 sqrt(n): the hardest common case.
static void norm_of_noise(void **state) {
    (void)state;
    enum { N = 400 };
    float *w = malloc(N * N * sizeof *w);
    for (size_t i = 0; i < N * N; i++) w[i] = (float)qn_rng_normal(3, 1, i);
    double norm, tolerance, exact;
    assert_true(qn_operator_norm(NULL, w, N, N, 8, &exact, &tolerance, NULL));
    near(exact, 2 * sqrt(N), 0.03 * exact);
    assert_true(qn_operator_norm(NULL, w, N, N, 4, &norm, &tolerance, NULL));
    assert_true(norm <= exact * (1 + 1e-6) && norm * (1 + tolerance) >= exact);
    near(norm, exact, 0.03 * exact);
    w[5] = NAN; // counts as 0
    assert_true(qn_operator_norm(NULL, w, N, N, 8, &norm, &tolerance, NULL));
    near(norm, exact, 0.01 * exact);
    free(w);
}

static void logits(void **state) {
    (void)state;
    const float p[] = {0, 1, 2, 3}, q[] = {3, 2, 1, 0};
    double lp[4], lq[4];
    qn_log_softmax(p, 4, lp);
    qn_log_softmax(q, 4, lq);
    near(qn_kl(lp, lp, 4), 0, 0);
    double sum = 0, by_hand = 0;
    for (int i = 0; i < 4; i++) sum += exp(lp[i]), by_hand += exp(lp[i]) * (p[i] - q[i]);
    near(sum, 1, 1e-14);
    near(qn_kl(lp, lq, 4), by_hand, 1e-14); // equal normalisers cancel
    near(qn_topk_agreement(p, q, 4, 1), 0, 0);
    near(qn_topk_agreement(p, q, 4, 4), 1, 0);
    double x[] = {3, 1, 2};
    qn_summary s;
    qn_summarize(x, 3, &s);
    near(s.mean, 2, 0);
    near(s.median, 2, 0);
    near(s.max, 3, 0);
    near(s.std_error, 1 / sqrt(3), 1e-15);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stats_of_known_numbers), cmocka_unit_test(stats_do_not_depend_on_blocks),
        cmocka_unit_test(runs_agree),             cmocka_unit_test(differences),
        cmocka_unit_test(matrix_figures),         cmocka_unit_test(norm_of_noise),
        cmocka_unit_test(logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
