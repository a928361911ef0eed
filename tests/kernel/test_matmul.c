// Matrices and their products: what is put in comes out; exact products against doubles; one row
// equals the same row in any batch; threads and instruction sets change nothing.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/f16.h"
#include "base/mem.h"
#include "kernel/random_matrix.h"

static const size_t shapes[][2] = {{1, 1}, {16, 32}, {17, 33}, {40, 200}, {150, 320}, {64, 131}};
#define N_SHAPES (sizeof shapes / sizeof *shapes)

static void product(const qn_mat *w, const float *x, size_t m, qn_pool *pool, qn_precision how,
                    float *y) {
    qn_compute *c = qn_compute_new(pool, how);
    qn_acts *a = qn_acts_new(c);
    qn_acts_set(a, x, m, w->cols, w->cols);
    qn_matmul(a, w, y, w->rows);
    qn_acts_free(a);
    qn_compute_free(c);
}

static void rows_come_out_as_they_went_in(void **state) {
    (void)state;
    for (size_t i = 0; i < N_RANDOM_SPECS; i++)
        for (size_t s = 0; s < N_SHAPES; s++) {
            random_spec spec = random_spec_at(i, shapes[s][0], shapes[s][1]);
            random_mat r;
            random_mat_make(&r, &spec);
            float *row = QN_NEW_ARRAY(float, spec.cols);
            for (size_t j = 0; j < spec.rows; j++) {
                qn_mat_row(&r.mat, j, row);
                if (memcmp(row, r.values + j * spec.cols, spec.cols * sizeof *row))
                    fail_msg("%s: row %zu differs", random_spec_text(&spec), j);
            }
            qn_free(row);
            random_mat_free(&r);
        }
}

// |y - reference| relative to sum |x w|.
static double worst(const random_mat *r, const float *x, size_t m, const float *y) {
    size_t rows = r->mat.rows, cols = r->mat.cols;
    double top = 0;
    for (size_t i = 0; i < m; i++)
        for (size_t o = 0; o < rows; o++) {
            double sum = 0, size = 1e-30;
            for (size_t k = 0; k < cols; k++) {
                double p = (double)x[i * cols + k] * (double)r->values[o * cols + k];
                sum += p;
                size += fabs(p);
            }
            if (r->bias) sum += (double)r->bias[o];
            if (r->bias) size += fabs((double)r->bias[o]);
            double e = fabs((double)y[i * rows + o] - sum) / size;
            if (!(e <= top)) top = e;
        }
    return top;
}

static void products_are_close_to_doubles(void **state) {
    (void)state;
    for (size_t i = 0; i < N_RANDOM_SPECS; i++)
        for (size_t s = 0; s < N_SHAPES; s++) {
            random_spec spec = random_spec_at(i, shapes[s][0], shapes[s][1]);
            random_mat r;
            random_mat_make(&r, &spec);
            float *x = random_floats(3 * spec.cols, 7), *y = random_floats(3 * spec.rows, 8);
            product(&r.mat, x, 3, NULL, QN_EXACT, y);
            double exact = worst(&r, x, 3, y);
            product(&r.mat, x, 3, NULL, QN_FAST, y);
            double fast = worst(&r, x, 3, y);
            double limit = spec.format == QN_FORMAT_Q8 || spec.format == QN_FORMAT_Q4 ? 2e-2 : 6e-3;
            // A zero point far from the codes makes sums cancel; float formats keep theirs.
            if (!(exact < 2e-6) || !(fast < limit))
                fail_msg("%s: exact off by %g, fast by %g", random_spec_text(&spec), exact, fast);
            qn_free(x);
            qn_free(y);
            random_mat_free(&r);
        }
}

static void equal_bits(const float *a, const float *b, size_t n, const random_spec *s,
                       const char *what) {
    for (size_t i = 0; i < n; i++)
        if (qn_f32_bits(a[i]) != qn_f32_bits(b[i]))
            fail_msg("%s: %s: output %zu is %a, expected %a", random_spec_text(s), what, i,
                     (double)a[i], (double)b[i]);
}

static const qn_isa levels[] = {QN_ISA_SCALAR,     QN_ISA_AVX2,       QN_ISA_AVX512,
                                QN_ISA_AVX512VNNI, QN_ISA_AVX512BF16, QN_ISA_AMX,
                                QN_ISA_NEON,       QN_ISA_DOTPROD,    QN_ISA_I8MM};

static void every_instruction_set_equals_scalar(void **state) {
    (void)state;
    enum { M = 19 };
    for (size_t i = 0; i < N_RANDOM_SPECS; i++)
        for (size_t s = 0; s < N_SHAPES; s++)
            for (int how = QN_FAST; how <= QN_EXACT; how++) {
                random_spec spec = random_spec_at(i, shapes[s][0], shapes[s][1]);
                random_mat r;
                random_mat_make(&r, &spec);
                float *x = random_floats(M * spec.cols, 7);
                for (size_t k = 0; k < M * spec.cols; k += 5) x[k] *= k % 2 ? 1e-30f : 1e3f;
                float *y = random_floats(M * spec.rows, 8), *z = random_floats(M * spec.rows, 9);
                qn_cpu_cap(QN_ISA_SCALAR);
                product(&r.mat, x, M, NULL, (qn_precision)how, y);
                for (size_t l = 1; l < sizeof levels / sizeof *levels; l++) {
                    qn_cpu_cap(levels[l]);
                    if (!qn_cpu_has(levels[l])) continue;
                    product(&r.mat, x, M, NULL, (qn_precision)how, z);
                    equal_bits(z, y, M * spec.rows, &spec, qn_isa_name(levels[l]));
                }
                qn_cpu_cap(QN_N_ISA);
                qn_free(x);
                qn_free(y);
                qn_free(z);
                random_mat_free(&r);
            }
}

static void a_row_never_depends_on_its_batch(void **state) {
    (void)state;
    enum { M = 53 };
    qn_err err = {0};
    qn_pool *pools[] = {NULL, qn_pool_new(2, &err), qn_pool_new(3, &err), qn_pool_new(4, &err)};
    for (size_t i = 0; i < N_RANDOM_SPECS; i++)
        for (int how = QN_FAST; how <= QN_EXACT; how++) {
            random_spec spec = random_spec_at(i, 150, 200);
            random_mat r;
            random_mat_make(&r, &spec);
            float *x = random_floats(M * spec.cols, 7), *alone = random_floats(M * spec.rows, 8);
            float *y = random_floats(M * spec.rows, 9), *back = random_floats(M * spec.cols, 1);
            for (size_t j = 0; j < M; j++) {
                product(&r.mat, x + j * spec.cols, 1, NULL, (qn_precision)how,
                        alone + j * spec.rows);
                memcpy(back + j * spec.cols, x + (M - 1 - j) * spec.cols, spec.cols * 4);
            }
            for (size_t m = 1; m <= M; m += m < 35 ? 1 : 9)
                product(&r.mat, x, m, pools[m % 4], (qn_precision)how, y),
                    equal_bits(y, alone, m * spec.rows, &spec, "batch");
            product(&r.mat, back, M, pools[3], (qn_precision)how, y);
            for (size_t j = 0; j < M; j++)
                equal_bits(y + j * spec.rows, alone + (M - 1 - j) * spec.rows, spec.rows, &spec,
                           "order");
            qn_free(x);
            qn_free(alone);
            qn_free(y);
            qn_free(back);
            random_mat_free(&r);
        }
    for (int i = 1; i < 4; i++) qn_pool_free(pools[i]);
}

static void jobs_equal_single_products(void **state) {
    (void)state;
    enum { M = 9, J = N_RANDOM_SPECS };
    qn_err err = {0};
    qn_pool *pool = qn_pool_new(3, &err);
    random_mat mats[J];
    qn_matmul_job jobs[J];
    float *x = random_floats(M * 96, 3), *y[J], *z = random_floats(M * 70, 4);
    qn_compute *c = qn_compute_new(pool, QN_FAST);
    qn_acts *a = qn_acts_new(c);
    for (int again = 0; again < 2; again++) { // the second time in memory that is reused
        qn_acts_set(a, x, M, 96, 96);
        for (size_t i = 0; i < J; i++) {
            random_spec spec = random_spec_at(i, 30 + i, 96);
            random_mat_make(&mats[i], &spec);
            y[i] = random_floats(M * spec.rows, i);
            jobs[i] = (qn_matmul_job){&mats[i].mat, i % M, i % (M - i % M + 1), y[i], spec.rows};
        }
        qn_matmul_jobs(a, jobs, J);
        for (size_t i = 0; i < J; i++) {
            random_spec spec = random_spec_at(i, 30 + i, 96);
            product(&mats[i].mat, x + jobs[i].row * 96, jobs[i].n, NULL, QN_FAST, z);
            equal_bits(y[i], z, jobs[i].n * spec.rows, &spec, "job");
            random_mat_free(&mats[i]);
            qn_free(y[i]);
        }
        for (size_t k = 0; k < M * 96; k++) x[k] += 1;
    }
    qn_acts_free(a);
    qn_compute_free(c);
    qn_pool_free(pool);
    qn_free(x);
    qn_free(z);
}

static void nothing_finite_comes_of_nan(void **state) {
    (void)state;
    for (size_t i = 0; i < N_RANDOM_SPECS; i++)
        for (int how = QN_FAST; how <= QN_EXACT; how++)
            for (int inf = 0; inf < 2; inf++) {
                random_spec spec = random_spec_at(i, 20, 64);
                spec.adversarial = false;
                random_mat r;
                random_mat_make(&r, &spec);
                float *x = random_floats(64, 7), *y = random_floats(20, 8);
                x[33] = inf ? INFINITY : NAN;
                product(&r.mat, x, 1, NULL, (qn_precision)how, y);
                for (size_t o = 0; o < 20; o++)
                    if (isfinite(y[o]) && r.values[o * 64 + 33] != 0)
                        fail_msg("%s: output %zu is %g", random_spec_text(&spec), o, (double)y[o]);
                qn_free(x);
                qn_free(y);
                random_mat_free(&r);
            }
}

static void floats_are_quantized_to_the_nearest_code(void **state) {
    (void)state;
    qn_err err = {0};
    float *x = random_floats(20 * 100, 11), row[100];
    x[3] = 0;
    memset(x + 100, 0, 400);
    for (int f = QN_FORMAT_Q8; f <= QN_FORMAT_Q4; f++) {
        qn_mat m;
        qn_mat_spec spec = {(qn_format_id)f, 20, 100, 32, false, 16, false, NULL, "w"};
        assert_true(qn_mat_init(&m, &spec, &err));
        qn_mat_put(&m, &(qn_rows){.n = 20, .f32 = x});
        for (size_t i = 0; i < 20; i++) {
            qn_mat_row(&m, i, row);
            for (size_t g = 0; g < 100; g += 32) {
                float top = 0;
                for (size_t k = g; k < 100 && k < g + 32; k++)
                    top = fmaxf(top, fabsf(x[i * 100 + k]));
                float step = top / (f == QN_FORMAT_Q8 ? 128 : 8);
                for (size_t k = g; k < 100 && k < g + 32; k++)
                    assert_true(fabsf(row[k] - x[i * 100 + k]) <= 1.01f * step);
            }
        }
        qn_mat_done(&m);
    }
    qn_free(x);
}

static void refused(qn_mat_spec spec, qn_code code, const char *word) {
    qn_mat m;
    qn_err err = {0};
    assert_false(qn_mat_init(&m, &spec, &err));
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.text, word));
    qn_mat_done(&m);
}

static void bad_shapes_are_refused(void **state) {
    (void)state;
    int32_t perm[4] = {0, 1, 2, 9};
    refused((qn_mat_spec){QN_FORMAT_F32, 0, 4, 0, false, 0, false, NULL, "a.b"}, QN_INPUT, "a.b");
    refused((qn_mat_spec){QN_FORMAT_Q8, 4, 4, 0, false, 16, false, NULL, "a.b"}, QN_INPUT, "group");
    refused((qn_mat_spec){QN_FORMAT_Q8, 4, 4, 4, false, 7, false, NULL, "a.b"}, QN_UNSUPPORTED,
            "7");
    refused((qn_mat_spec){QN_FORMAT_Q8, 4, 4, 4, false, 16, false, perm, "a.b"}, QN_INPUT, "9");
    refused((qn_mat_spec){QN_FORMAT_Q8, 4, 100000, 100000, false, 16, false, NULL, "a.b"},
            QN_UNSUPPORTED, "100000");
    refused((qn_mat_spec){QN_FORMAT_F32, SIZE_MAX / 4, 64, 0, false, 0, false, NULL, "a.b"},
            QN_LIMIT, "large");
    refused((qn_mat_spec){QN_FORMAT_F32, SIZE_MAX / 2048, 1 << 20, 0, false, 0, false, NULL, "a.b"},
            QN_LIMIT, "large");
    refused((qn_mat_spec){(qn_format_id)77, 4, 4, 0, false, 0, false, NULL, "a.b"}, QN_UNSUPPORTED,
            "77");
    refused((qn_mat_spec){QN_FORMAT_F32, (size_t)1 << 30, 1 << 20, 0, false, 0, false, NULL, "a.b"},
            QN_NOMEM, "a.b");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_out_as_they_went_in),
        cmocka_unit_test(products_are_close_to_doubles),
        cmocka_unit_test(every_instruction_set_equals_scalar),
        cmocka_unit_test(a_row_never_depends_on_its_batch),
        cmocka_unit_test(jobs_equal_single_products),
        cmocka_unit_test(nothing_finite_comes_of_nan),
        cmocka_unit_test(floats_are_quantized_to_the_nearest_code),
        cmocka_unit_test(bad_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
