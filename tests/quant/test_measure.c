// Statistics and differences against closed forms and against themselves in other block splits.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/f16.h"
#include "base/rng.h"
#include "base/cpu.h"
#include "quant/matrix_survey.h"
#include "quant/measure.h"
#include "quant/seven_bit_rows.h"
#include "quant/value_runs.h"
#include "store/code_loops.h"

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
    double sum = 0, squares = 0;
    for (size_t i = 0; i < N; i++) sum += i == 7777 ? 0 : (double)x[i];
    for (size_t i = 0; i < N; i++)
        squares += i == 7777 ? 0 : ((double)x[i] - sum / (N - 1)) * ((double)x[i] - sum / (N - 1));
    near(whole.mean, sum / (N - 1), 1e-7);
    near(qn_stats_std(&whole), sqrt(squares / (N - 1)), 1e-7);
    near(parts.mean, whole.mean, 1e-7);
    near(qn_stats_std(&parts), qn_stats_std(&whole), 1e-7);
    near(qn_stats_kurtosis(&parts), qn_stats_kurtosis(&whole), 1e-5);
    near(qn_stats_kurtosis(&whole), 3, 0.2);
    assert_int_equal(parts.first_nonfinite, 7777);
    free(x);
}

// Magnitudes that float sums of fourth powers cannot hold, offsets and outliers: the figures stay
// those of double arithmetic.
static void stats_of_hard_numbers(void **state) {
    (void)state;
    enum { N = 4000 };
    static const struct hard {
        double offset, scale, outlier;
    } cases[] = {{0, 1e-20, 0}, {0, 1e20, 0}, {1, 1e-4, 0}, {1e6, 1, 0}, {0, 1, 3e4}, {0, 0, 0},
                 {5, 0, 0}, {0, 1e-7, 1}, {-3, 0.02, 7}};
    float *x = malloc(N * sizeof *x);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (size_t i = 0; i < N; i++)
            x[i] = (float)(cases[c].offset + cases[c].scale * qn_rng_normal(c, 3, i));
        if (cases[c].outlier > 0) x[0] = x[1234] = (float)cases[c].outlier;
        qn_stats s = {0};
        qn_run_stats exact;
        qn_stats_add(&s, x, N);
        qn_run_stats_careful(x, N, &exact);
        double std = sqrt(exact.m2 / N);
        near(s.mean, exact.mean, 1e-6 * std + 1e-12 * fabs(exact.mean));
        near(qn_stats_std(&s), std, 1e-5 * std);
        near(s.m4, exact.m4, 1e-4 * exact.m4);
        assert_int_equal(s.n_zero, exact.n_zero);
        assert_int_equal(s.n_subnormal, exact.n_subnormal);
        assert_int_equal(s.n_vanishing, exact.n_vanishing);
        assert_int_equal(s.n_overflow, exact.n_overflow);
        assert_true(s.min == (double)exact.min && s.max == (double)exact.max);
    }
    free(x);
}

enum { BUILDS = 2 };

// The builds that this processor can run.
static int builds(const qn_value_runs *list[BUILDS]) {
    int n = 0;
    if (qn_cpu_found(QN_ISA_AVX2)) list[n++] = &qn_value_runs_avx2;
    if (qn_cpu_found(QN_ISA_AVX512)) list[n++] = &qn_value_runs_avx512;
    return n;
}

// As the same processor's loops of codes do it.
static void widen(const qn_value_runs *runs, qn_run_dtype dtype, const uint8_t *x, size_t n,
                  float *out) {
    const qn_code_loops *l = runs == &qn_value_runs_avx512 ? &qn_code_loops_avx512
                             : runs == &qn_value_runs_avx2 ? &qn_code_loops_avx2
                                                           : &qn_code_loops_plain;
    if (dtype == QN_RUN_F32) memcpy(out, x, n * sizeof *out);
    else (dtype == QN_RUN_BF16 ? l->widen_bf16 : l->widen_f16)(x, n, out);
}

static void rounding_agrees(const qn_value_runs *other, const float *x, size_t n) {
    static const qn_run_dtype dtypes[] = {QN_RUN_F32, QN_RUN_BF16, QN_RUN_F16};
    uint8_t *p = malloc(4 * n), *q = malloc(4 * n);
    float *back = malloc(n * sizeof *back), *again = malloc(n * sizeof *again);
    for (int d = 0; d < 3; d++)
        for (int saturate = 0; saturate < 2; saturate++) {
            qn_run_error e = {0}, f = {0};
            qn_value_runs_plain.round(dtypes[d], x, n, saturate, p, &e);
            other->round(dtypes[d], x, n, saturate, q, &f);
            assert_memory_equal(p, q, n * (d == 0 ? 4 : 2));
            assert_memory_equal(&e, &f, sizeof e);
            widen(&qn_value_runs_plain, dtypes[d], p, n, back);
            widen(other, dtypes[d], p, n, again);
            assert_memory_equal(back, again, n * sizeof *back);
            for (size_t i = 0; i < n && d > 0; i++) {
                uint16_t h, expected = d == 1 ? qn_f32_to_bf16(x[i]) : qn_f32_to_f16(x[i]);
                if (d == 2 && saturate && (expected & 0x7FFF) == 0x7C00) expected--;
                memcpy(&h, p + 2 * i, 2);
                if (h != expected) fail_msg("%g: %04x, expected %04x", (double)x[i], h, expected);
            }
        }
    free(p);
    free(q);
    free(back);
    free(again);
}

static void products_agree(const qn_value_runs *other, const float *x) {
    enum { ROWS = 11, COLS = 83 };
    float y[ROWS], y2[ROWS], z[COLS] = {1, 2, 3}, z2[COLS] = {1, 2, 3}, v[COLS];
    uint8_t codes[ROWS * COLS], codes2[ROWS * COLS];
    for (size_t i = 0; i < COLS; i++) v[i] = (float)qn_rng_normal(9, 1, i);
    qn_value_runs_plain.rows_times(x, ROWS, COLS, v, y, z);
    other->rows_times(x, ROWS, COLS, v, y2, z2);
    assert_memory_equal(y, y2, sizeof y);
    assert_memory_equal(z, z2, sizeof z);
    float a = qn_value_runs_plain.seven_bits(x, ROWS * COLS, codes);
    float b = other->seven_bits(x, ROWS * COLS, codes2);
    assert_true(a == b);
    assert_memory_equal(codes, codes2, sizeof codes);
    for (size_t i = 0; i < ROWS * COLS; i++)
        assert_true(fabsf(x[i] - a * (float)(codes[i] - 64)) <= 0.501f * a);
}

// All builds of the loops give the same bits, and rounding is base/f16.h's.
static void runs_agree(void **state) {
    (void)state;
    enum { N = 1003 };
    const qn_value_runs *list[BUILDS];
    float x[N], small[N];
    for (int b = 0, n = builds(list); b < n; b++)
        for (uint64_t round = 0; round < 200; round++) {
            for (size_t i = 0; i < N; i++) {
                x[i] = qn_f32_from_bits((uint32_t)qn_rng_u64(round, 8, i));
                if (!isfinite(x[i])) x[i] = (float)i * 1e-6f;
                small[i] = (float)qn_rng_normal(round, 9, i);
            }
            qn_run_stats s, t;
            for (int k = 0; k < 2; k++) {
                assert_true(qn_value_runs_plain.stats(k ? small : x, N - round, &s));
                assert_true(list[b]->stats(k ? small : x, N - round, &t));
                assert_memory_equal(&s, &t, sizeof s);
            }
            rounding_agrees(list[b], x, N);
            products_agree(list[b], small);
            x[round] = round % 2 ? NAN : -INFINITY;
            assert_false(list[b]->stats(x, N, &t));
            assert_false(list[b]->finite(x, N));
        }
}

// Values as they are stored give the bits of the widened ones, in all builds, for any bits.
static void stored_runs_agree(void **state) {
    (void)state;
    enum { N = 2611 };
    const qn_value_runs *list[BUILDS + 1] = {&qn_value_runs_plain};
    uint16_t h[N];
    float wide[N];
    uint8_t codes[N], codes2[N];
    for (int b = 0, n = 1 + builds(list + 1); b < n; b++)
        for (uint64_t round = 0; round < 240; round++) {
            qn_run_dtype dtype = round % 2 ? QN_RUN_BF16 : QN_RUN_F16;
            const uint8_t *x = (const uint8_t *)h;
            size_t len = N - round;
            for (size_t i = 0; i < N; i++) {
                float v = (float)(qn_rng_normal(round, 4, i) * (round % 3 ? 0.02 : 1e-6));
                h[i] = round % 2 ? qn_f32_to_bf16(v) : qn_f32_to_f16(v);
                if (round % 5 == 0) h[i] = (uint16_t)qn_rng_u64(round, 5, i); // anything
                if (round % 7 == 0 && i % 3) h[i] &= 0x8000;                  // zeros, signed
                if (round % 11 == 0) h[i] = (uint16_t)(h[i] | 0x8000);        // all negative
                if (round % 13 == 0) h[i] &= 0x7FFF;
            }
            widen(list[b], dtype, x, len, wide);
            qn_run_stats s, t;
            bool finite = list[b]->stats(wide, len, &s);
            assert_int_equal(list[b]->stats_stored(dtype, x, len, &t), finite);
            if (!finite) continue;
            assert_memory_equal(&s, &t, sizeof s);
            float p = list[b]->seven_bits(wide, len, codes);
            float q = list[b]->seven_bits_stored(dtype, x, len, codes2);
            assert_true(p == q);
            assert_memory_equal(codes, codes2, len);
        }
}

// The same for the search's products, and they are the products.
static void seven_bit_rows_agree(void **state) {
    (void)state;
    enum { GROUPS = 3, ROWS = 16 * GROUPS, PITCH = 192 };
    uint8_t codes[ROWS * PITCH];
    int8_t v[PITCH];
    float scales[ROWS], y[3][ROWS], z[3][PITCH];
    memset(z, 0, sizeof z);
    for (size_t i = 0; i < ROWS * PITCH; i++) codes[i] = (uint8_t)(1 + qn_rng_u64(1, 1, i) % 127);
    for (size_t i = 0; i < PITCH; i++) v[i] = (int8_t)((int)(qn_rng_u64(1, 2, i) % 255) - 127);
    for (size_t i = 0; i < ROWS; i++) scales[i] = (float)(1 + i % 5) * 0.01f;
    memset(codes, 127, PITCH), memset(v, 127, PITCH / 2); // the largest sums
    qn_seven_bit_rows s = {codes, GROUPS, PITCH, scales, v, NULL, NULL};
    int builds = 1 + qn_cpu_found(QN_ISA_AVX2) + qn_cpu_found(QN_ISA_AVX512VNNI);
    for (int b = 0; b < builds; b++) {
        s.y = y[b], s.z = z[b];
        (b == 0 ? qn_seven_bit_rows_plain
                : b == 1 ? qn_seven_bit_rows_avx2 : qn_seven_bit_rows_vnni)(&s);
        assert_memory_equal(y[b], y[0], sizeof y[0]);
        assert_memory_equal(z[b], z[0], sizeof z[0]);
    }
    for (size_t r = 0; r < ROWS; r++) {
        double sum = 0;
        for (size_t c = 0; c < PITCH; c++) sum += (double)(codes[r * PITCH + c] - 64) * v[c];
        near(y[0][r], sum * (double)scales[r], 1e-6 * fabs(sum) + 1e-12);
    }
    for (size_t c = 0; c < PITCH; c++) {
        double sum = 0, size = 0;
        for (size_t r = 0; r < ROWS; r++) {
            double w = (double)scales[r] * (codes[r * PITCH + c] - 64);
            sum += w * (double)y[0][r], size += fabs(w * (double)y[0][r]);
        }
        near(z[0][c], sum, 0.02 * size);
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
    qn_matrix_figures first = {0};
    for (int threads = 1; threads <= 3; threads += 2)
        for (int single = 0; single < 2; single++) {
            qn_pool *p = qn_pool_new(threads, NULL);
            qn_survey *s = qn_survey_new(p);
            qn_matrix_figures m;
            qn_matrix_source source = {.rows = ROWS, .cols = o.cols, .rows_of = outer_rows,
                                       .user = &o, .single = single, .norm = true};
            assert_true(qn_survey_matrix(s, &source, &m, NULL));
            assert_int_equal(m.zero_cols, 250);
            assert_int_equal(m.zero_rows, 0);
            near(m.all.mean, 0.5, 1e-9);
            near(m.norm, expected, 1e-5 * expected);
            assert_true(m.norm_tolerance >= 0 && m.norm_tolerance < 0.03);
            if (threads == 1 && !single) first = m;
            assert_true(m.norm == first.norm); // whatever the threads and the blocks
            qn_survey_free(s);
            qn_pool_free(p);
        }
}

typedef struct noise {
    size_t cols;
    double spike; // added along the rank-one matrix of all ones / sqrt(cols)
    size_t bad;   // element that is NaN, if not 0
} noise;

static bool noise_rows(void *user, size_t row0, size_t n, float *out, qn_err *err) {
    (void)err;
    const noise *o = user;
    for (size_t i = 0; i < n * o->cols; i++) {
        size_t at = row0 * o->cols + i;
        out[i] = (float)(qn_rng_normal(3, 1, at) + o->spike / sqrt((double)o->cols));
        if (o->bad && at == o->bad) out[i] = NAN;
    }
    return true;
}

static bool widened_rows(void *user, size_t row0, size_t n, float *out, qn_err *err) {
    (void)err;
    const uint16_t *h = user;
    for (size_t i = 0; i < n * 1600; i++) out[i] = qn_bf16_to_f32(h[row0 * 1600 + i]);
    return true;
}

static qn_matrix_figures measured(const noise *o, size_t rows) {
    qn_matrix_figures m;
    qn_pool *p = qn_pool_new(2, NULL);
    qn_survey *s = qn_survey_new(p);
    qn_matrix_source source = {.rows = rows, .cols = o->cols, .rows_of = noise_rows,
                               .user = (void *)(uintptr_t)o, .single = true, .norm = true};
    assert_true(qn_survey_matrix(s, &source, &m, NULL));
    qn_survey_free(s);
    qn_pool_free(p);
    return m;
}

// A square Gaussian matrix has a flat spectrum that ends near 2 sqrt(n): the hardest common case.
// Small matrices reach their tolerance; for larger ones it is told, and it covers the distance.
static void norm_of_noise(void **state) {
    (void)state;
    noise small = {400, 0, 0}, damaged = {400, 0, 5}, large = {1200, 0, 0}, spiked = {1200, 3, 0};
    qn_matrix_figures m = measured(&small, 400);
    near(m.norm, 2 * sqrt(400), 0.03 * m.norm);
    assert_true(m.norm_tolerance < 0.01);
    near(measured(&damaged, 400).norm, m.norm, 1e-3 * m.norm); // NaN counts as 0
    m = measured(&large, 1200);
    double exact = 2 * sqrt(1200);
    assert_true(m.norm < 1.01 * exact && m.norm * (1 + m.norm_tolerance) > 0.98 * exact);
    // A spike of s √n ends at √(n (s² + 1)² / s²) (Baik, Ben Arous & Péché 2005).
    m = measured(&spiked, 1200);
    near(m.norm, sqrt(1200 * 100 / 9.0), 0.01 * m.norm);
    assert_true(m.norm_tolerance < 0.05);
}

// Of a matrix as it is stored all figures are those of its widened rows.
static void figures_of_stored_rows(void **state) {
    (void)state;
    enum { ROWS = 700, COLS = 1600 };
    uint16_t *h = malloc(2 * ROWS * COLS);
    for (int kind = 0; kind < 3; kind++) { // plain; zero rows and columns; not all finite
        for (size_t i = 0; i < ROWS * COLS; i++) {
            h[i] = qn_f32_to_bf16((float)qn_rng_normal(7, 1, i));
            if (kind == 1 && (i / COLS % 50 == 3 || i % COLS == 77)) h[i] = 0x8000;
        }
        if (kind == 2) h[5 * COLS + 9] = 0x7FC0;
        qn_matrix_figures m[2];
        qn_pool *p = qn_pool_new(2, NULL);
        qn_survey *s = qn_survey_new(p);
        qn_matrix_source source = {.rows = ROWS, .cols = COLS, .rows_of = widened_rows, .user = h,
                                   .single = true, .norm = true, .dtype = QN_RUN_BF16};
        for (int k = 0; k < 2; k++) {
            source.stored = k ? (const uint8_t *)h : NULL;
            assert_true(qn_survey_matrix(s, &source, &m[k], NULL));
        }
        assert_memory_equal(&m[0], &m[1], sizeof m[0]);
        assert_int_equal(m[1].zero_rows, kind == 1 ? 14 : 0);
        assert_int_equal(m[1].zero_cols, kind == 1);
        assert_int_equal(m[1].all.n_nonfinite, kind == 2);
        qn_survey_free(s);
        qn_pool_free(p);
    }
    free(h);
}

// Norms of values far from 1 are as good as any.
static void norms_beyond_float_squares(void **state) {
    (void)state;
    static const double scales[] = {1e18, 1e36, 1e-12, 1e-25};
    qn_pool *p = qn_pool_new(2, NULL);
    qn_survey *s = qn_survey_new(p);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        for (size_t rows = 300; rows <= 3000; rows += 2700) {
            outer o = {500, scales[i]};
            double expected = scales[i] * sqrt((double)rows / 3.0 * (1 + 4 + 9)) * sqrt(250);
            qn_matrix_figures m;
            qn_matrix_source source = {.rows = rows, .cols = o.cols, .rows_of = outer_rows,
                                       .user = &o, .single = true, .norm = true};
            assert_true(qn_survey_matrix(s, &source, &m, NULL));
            near(m.norm, expected, 1e-4 * expected);
        }
    qn_survey_free(s);
    qn_pool_free(p);
}

// More values than are copied for the search: the norm is estimated from samples of rows.
static void norm_of_an_embedding(void **state) {
    (void)state;
    enum { ROWS = 40000, COLS = 1024 };
    outer o = {COLS, 0.5};
    double expected = 0.5 * sqrt(ROWS / 3.0 * (1 + 4 + 9)) * sqrt(COLS / 2.0);
    qn_pool *p = qn_pool_new(2, NULL);
    qn_survey *s = qn_survey_new(p);
    qn_matrix_figures m;
    qn_matrix_source source = {.rows = ROWS, .cols = COLS, .rows_of = outer_rows, .user = &o,
                               .single = true, .norm = true};
    assert_true(qn_survey_matrix(s, &source, &m, NULL));
    near(m.norm, expected, 0.01 * expected);
    assert_true(m.norm_tolerance < 0.05);
    qn_survey_free(s);
    qn_pool_free(p);
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
    const float hurt[] = {0, NAN, 2, 3}, dead[] = {NAN, NAN, NAN, NAN};
    near(qn_topk_agreement(hurt, p, 4, 2), 1, 0); // a NaN is in no one's way
    near(qn_topk_agreement(hurt, p, 4, 4), 0.75, 0);
    near(qn_topk_agreement(dead, p, 4, 2), 0, 0);
    double x[] = {3, 1, 2};
    qn_summary s;
    qn_summarize(x, 3, &s);
    near(s.mean, 2, 0);
    near(s.median, 2, 0);
    near(s.max, 3, 0);
    near(s.std_error, 1 / sqrt(3), 1e-15);
    double y[] = {40, 10, 30, 20}, endless[] = {INFINITY, 1, INFINITY}; // as numpy.percentile
    qn_summarize(y, 4, &s);
    near(s.median, 25, 0);
    near(s.p99, 39.7, 1e-12);
    qn_summarize(endless, 3, &s);
    assert_true(isinf(s.median) && isinf(s.p99));
    qn_summarize(y, 1, &s);
    near(s.p99, 10, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stats_of_known_numbers), cmocka_unit_test(stats_do_not_depend_on_blocks),
        cmocka_unit_test(stats_of_hard_numbers),  cmocka_unit_test(seven_bit_rows_agree),
        cmocka_unit_test(runs_agree),             cmocka_unit_test(differences),
        cmocka_unit_test(matrix_figures),         cmocka_unit_test(norm_of_noise),
        cmocka_unit_test(stored_runs_agree),      cmocka_unit_test(figures_of_stored_rows),
        cmocka_unit_test(norms_beyond_float_squares),
        cmocka_unit_test(norm_of_an_embedding),   cmocka_unit_test(logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
