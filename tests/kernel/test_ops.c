// Row operations against the C library in double; every instruction set against scalar.
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
#include "kernel/ops.h"
#include "kernel/random_matrix.h"

static double ulps(double got, double expected) {
    double e = fabs(expected), unit = nextafterf((float)e, INFINITY) - (float)e;
    return fabs(got - expected) / unit;
}

static void exp_and_its_relatives_are_accurate(void **state) {
    (void)state;
    double top = 0, top_sigmoid = 0, top_softplus = 0;
    for (float x = -87.25f; x < 88.7f; x += 0.00113f)
        top = fmax(top, ulps((double)qn_exp(x), exp((double)x)));
    for (float x = -80; x < 80; x += 0.00113f) {
        double e = exp((double)x);
        top_sigmoid = fmax(top_sigmoid, ulps((double)qn_sigmoid(x), e / (1 + e)));
        top_softplus = fmax(top_softplus, ulps((double)qn_softplus(x), log1p(e)));
    }
    if (top > 1.5 || top_sigmoid > 3 || top_softplus > 3.5)
        fail_msg("exp %g, sigmoid %g, softplus %g ulp", top, top_sigmoid, top_softplus);
    assert_true(qn_exp(0) == 1 && qn_exp(-INFINITY) == 0 && qn_exp(-100) == 0);
    assert_true(isinf(qn_exp(89)) && isinf(qn_exp(INFINITY)) && isfinite(qn_exp(88.7f)));
    assert_true(isnan(qn_exp(NAN)) && isnan(qn_sigmoid(NAN)) && isnan(qn_softplus(NAN)));
    assert_true(qn_softplus(21) == 21);
}

enum { M = 5, N = 203, LD = 210 };

static void norms_match(void **state) {
    (void)state;
    float *x = random_floats(M * LD, 1), *w = random_floats(N, 2), *b = random_floats(N, 3);
    float *y = random_floats(M * LD, 4), *z = random_floats(M * LD, 5);
    qn_rmsnorm(NULL, x, LD, w, 1e-6f, y, LD, M, N);
    qn_layernorm(NULL, x, LD, w, b, 1e-6f, z, LD, M, N);
    for (size_t i = 0; i < M; i++) {
        double sum = 0, square = 0, var = 0;
        for (size_t k = 0; k < N; k++) {
            sum += (double)x[i * LD + k];
            square += (double)x[i * LD + k] * (double)x[i * LD + k];
        }
        for (size_t k = 0; k < N; k++) var += pow((double)x[i * LD + k] - sum / N, 2);
        for (size_t k = 0; k < N; k++) {
            double v = (double)x[i * LD + k], rms = v / sqrt(square / N + 1e-6) * (double)w[k];
            double ln = (v - sum / N) / sqrt(var / N + 1e-6) * (double)w[k] + (double)b[k];
            assert_true(fabs((double)y[i * LD + k] - rms) < 1e-6 * (1 + fabs(rms)));
            assert_true(fabs((double)z[i * LD + k] - ln) < 2e-6 * (1 + fabs(ln)));
        }
    }
    memcpy(z, x, M * LD * 4);
    qn_headnorm(NULL, z, LD, w, 1e-6f, M, 7, 29); // 7 heads of 29
    for (size_t i = 0; i < M; i++)
        for (size_t h = 0; h < 7; h++) {
            qn_rmsnorm(NULL, x + i * LD + h * 29, 29, w, 1e-6f, y, 29, 1, 29);
            assert_memory_equal(y, z + i * LD + h * 29, 29 * 4);
        }
    qn_free(x), qn_free(w), qn_free(b), qn_free(y), qn_free(z);
}

static void element_operations_match(void **state) {
    (void)state;
    float *g = random_floats(M * LD, 1), *u = random_floats(M * LD, 2);
    float *y = random_floats(M * LD, 3), *s = random_floats(M * LD, 4);
    for (size_t i = 0; i < M * LD; i++) g[i] *= 3;
    float *a = random_floats(M * LD, 4), *t = random_floats(M * LD, 4);
    float *e = random_floats(M * LD, 4);
    for (size_t i = 0; i < M * LD; i++) t[i] = e[i] = g[i];
    qn_silu_mul(NULL, g, LD, u, LD, y, LD, M, N);
    qn_add(NULL, a, LD, u, LD, M, N);
    qn_sigmoid_mul(NULL, s, LD, g, LD, M, N);
    qn_gelu_tanh(NULL, t, LD, M, N);
    qn_gelu_erf(NULL, e, LD, M, N);
    float *old = random_floats(M * LD, 4);
    for (size_t i = 0; i < M * LD; i++) {
        double v = (double)g[i], w = (double)u[i], o = (double)old[i];
        if (i % LD >= N) { // beyond the row: untouched
            assert_true(a[i] == old[i] && s[i] == old[i] && t[i] == g[i] && e[i] == g[i]);
            continue;
        }
        double silu = v / (1 + exp(-v)) * w;
        double gt = v / 2 * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
        double ge = v / 2 * (1 + erf(v / sqrt(2)));
        assert_true(fabs((double)y[i] - silu) < 5e-7 * (1e-3 + fabs(silu)));
        assert_true(a[i] == old[i] + u[i]);
        assert_true(fabs((double)s[i] - o / (1 + exp(-v))) < 5e-7 * (1e-3 + fabs(o)));
        assert_true(fabs((double)t[i] - gt) < 2e-6 * (1e-2 + fabs(gt)));
        assert_true(fabs((double)e[i] - ge) < 6e-7 * (1 + fabs(ge)));
    }
    qn_free(g), qn_free(u), qn_free(y), qn_free(a);
    qn_free(t), qn_free(e), qn_free(s), qn_free(old);
}

static void rope_rotates_halves(void **state) {
    (void)state;
    float x[2 * 20], old[2 * 20], cs[8];
    for (size_t i = 0; i < 40; i++) x[i] = old[i] = (float)i - 15;
    for (size_t i = 0; i < 4; i++) {
        cs[i] = cosf((float)i);
        cs[4 + i] = sinf((float)i);
    }
    qn_rope(NULL, x, 40, cs, 1, 2, 20, 4); // two heads of 20, the first 8 dimensions turn
    for (size_t h = 0; h < 2; h++)
        for (size_t i = 0; i < 20; i++) {
            const float *o = old + 20 * h;
            float expected = i < 4   ? o[i] * cs[i] - o[i + 4] * cs[4 + i]
                             : i < 8 ? o[i] * cs[i - 4] + o[i - 4] * cs[i]
                                     : o[i];
            assert_true(fabsf(x[20 * h + i] - expected) < 1e-5f);
        }
}

static void softmax_argmax_and_faults(void **state) {
    (void)state;
    for (size_t n = 1; n < 70; n++) {
        float *x = random_floats(n, n), *y = random_floats(n, n);
        double sum = 0, top = -INFINITY;
        size_t best = 0;
        for (size_t i = 0; i < n; i++) top = fmax(top, (double)x[i]);
        for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - top);
        for (size_t i = n; i-- > 0;)
            if ((double)x[i] == top) best = i;
        qn_softmax(y, n);
        for (size_t i = 0; i < n; i++)
            assert_true(fabs((double)y[i] - exp((double)x[i] - top) / sum) < 1e-6);
        assert_int_equal(qn_argmax(x, n), best);
        assert_int_equal(qn_first_nonfinite(x, n), n);
        x[n / 2] = NAN;
        assert_int_equal(qn_first_nonfinite(x, n), n / 2);
        if (n > 1) assert_true(qn_argmax(x, n) != n / 2);
        x[n / 3] = -INFINITY;
        assert_int_equal(qn_first_nonfinite(x, n), n / 3);
        qn_free(x), qn_free(y);
    }
    float ties[] = {NAN, 1, 3, 3, 2};
    assert_int_equal(qn_argmax(ties, 5), 2);
}

static const qn_isa levels[] = {QN_ISA_AVX2,       QN_ISA_AVX512, QN_ISA_AVX512VNNI,
                                QN_ISA_AVX512BF16, QN_ISA_AMX,    QN_ISA_NEON};

// Everything once, into y; the values include every kind of trouble.
static void everything(float *y, size_t n, qn_pool *p) {
    float *x = random_floats(n * M, 1), *w = random_floats(n * M, 2);
    static const float trouble[] = {INFINITY, -INFINITY, 1e-41f, -1e-39f, 0.0f, -0.0f,
                                    3e38f,    -1e38f,    88.5f,  -87.4f,  1e-20f, 200};
    for (size_t i = 0; i < n * M; i++)
        if (i % 11 == 5) x[i] = trouble[i / 11 % 12];
    size_t at = 0, size = n * M;
    for (size_t i = 0; i < 9; i++) memcpy(y + i * size, x, size * 4);
    qn_rmsnorm(p, w, n, w, 1e-5f, y, n, M, n), at += size;
    qn_layernorm(p, w, n, w, x, 1e-5f, y + at, n, M, n), at += size;
    qn_silu_mul(p, x, n, w, n, y + at, n, M, n), at += size;
    qn_add(p, y + at, n, w, n, M, n), at += size;
    qn_sigmoid_mul(p, y + at, n, w, n, M, n), at += size;
    qn_gelu_tanh(p, y + at, n, M, n), at += size;
    qn_gelu_erf(p, y + at, n, M, n), at += size;
    for (size_t i = 0; i < size; i++) y[at + i] = x[i] > 1e30f ? 5 : x[i];
    qn_softmax(y + at, size), at += size;
    if (n / 2) qn_rope(p, y + at, n, w, M, 1, n, n / 2);
    qn_free(x), qn_free(w);
}

static void every_instruction_set_equals_scalar(void **state) {
    (void)state;
    qn_err err = {0};
    qn_pool *pool = qn_pool_new(3, &err);
    for (size_t n = 1; n < 5000; n += n < 70 ? 1 : 1231) {
        float *y = random_floats(9 * n * M, 1), *z = random_floats(9 * n * M, 2);
        qn_cpu_cap(QN_ISA_SCALAR);
        everything(y, n, NULL);
        for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
            qn_cpu_cap(levels[l]);
            if (!qn_cpu_has(levels[l])) continue;
            everything(z, n, pool);
            for (size_t i = 0; i < 9 * n * M; i++)
                if (qn_f32_bits(y[i]) != qn_f32_bits(z[i]) && !(isnan(y[i]) && isnan(z[i])))
                    fail_msg("%s: operation %zu of %zu: %a, expected %a", qn_isa_name(levels[l]),
                             i / (n * M), n, (double)z[i], (double)y[i]);
        }
        qn_free(y), qn_free(z);
    }
    qn_cpu_cap(QN_N_ISA);
    qn_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_and_its_relatives_are_accurate),
        cmocka_unit_test(norms_match),
        cmocka_unit_test(element_operations_match),
        cmocka_unit_test(rope_rotates_halves),
        cmocka_unit_test(softmax_argmax_and_faults),
        cmocka_unit_test(every_instruction_set_equals_scalar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
