// repair: the damaged folders come back bit for bit; lattices of every rounding are found again;
// healthy weights of every kind are left alone.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/f16.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "quant/repair.h"
#include "quant/wrong_codes.h"
#include "store/weight.h"
#include "support/scratch.h"
#include "support/sha256.h"

static json_t *load_json(const char *path) {
    qn_err err = {0};
    json_t *j = qn_json_load(path, (size_t)64 << 20, &err);
    if (!j) fail_msg("%s", err.text);
    return j;
}

static json_int_t summary(const json_t *report, const char *key) {
    return json_integer_value(json_object_get(json_object_get(report, "summary"), key));
}

static void sums_match(const char *out, const char *truth_file, const char *key) {
    qn_err err = {0};
    json_t *truth = load_json(truth_file), *weights = json_object_get(truth, "weights"), *e;
    qn_ckpt *c = qn_ckpt_open(out, 0, &err);
    if (!c) fail_msg("%s", err.text);
    const char *name;
    json_object_foreach(weights, name, e) {
        const qn_tensor *t = qn_ckpt_find(c, name);
        sha256 s;
        char hex[65];
        sha256_init(&s);
        sha256_update(&s, t->data, t->bytes);
        sha256_hex(&s, hex);
        assert_string_equal(hex, json_string_value(json_object_get(e, key)));
    }
    qn_ckpt_free(c);
    json_decref(truth);
}

static void signed_view_comes_back(void **state) {
    (void)state;
    qn_err err = {0};
    json_t *report;
    char *out = scratch_path("repaired");
    qn_repair_options o = {.n_threads = 2};
    if (!qn_repair("tests/data/quantized/broken-signed-view", out, &o, &report, &err))
        fail_msg("%s", err.text);
    sums_match(out, "tests/data/quantized/broken-signed-view/truth.json", "f16");
    assert_int_equal(summary(report, "repaired"), 14);
    // The two padding groups are constant: right, but other scales would stand too.
    assert_int_equal(summary(report, "exact_groups"), 3070);
    assert_int_equal(summary(report, "estimated_groups"), 2);
    json_decref(report);
    // What was repaired is healthy.
    assert_false(qn_repair(out, "/tmp/never", &o, &report, &err));
    assert_non_null(strstr(err.text, "nothing to repair"));
    scratch_remove(out);
}

// From bf16 a scale is known to a few neighbours only, so the weights are compared by value.
static void zero_offset_comes_back(void **state) {
    (void)state;
    qn_err err = {0};
    json_t *report;
    char *out = scratch_path("shifted");
    qn_repair_options o = {0};
    if (!qn_repair("tests/data/quantized/broken-zero-off-by-one", out, &o, &report, &err))
        fail_msg("%s", err.text);
    json_decref(report);
    const qn_weight *list;
    size_t n, same = 0, all = 0;
    qn_ckpt *got = qn_ckpt_open(out, 0, &err);
    qn_ckpt *right = qn_ckpt_open("tests/data/quantized/gptq-int4-g128", 0, &err);
    assert_true(qn_ckpt_weights(right, &list, &n, &err));
    for (size_t i = 0; i < n; i++) {
        if (!list[i].scheme) continue;
        const qn_tensor *t = qn_ckpt_find(got, list[i].name);
        float *a = malloc(t->n * sizeof *a), *b = malloc(t->n * sizeof *b);
        qn_tensor_to_f32(t, 0, t->n, a);
        assert_true(qn_weight_decode(&list[i], 0, list[i].rows, b, &err));
        for (size_t k = 0; k < t->n; k++) {
            float expected = qn_bf16_to_f32(qn_f32_to_bf16(b[k]));
            same += a[k] == expected;
            if (fabsf(a[k] - expected) > 0.02f * fabsf(expected) + 1e-6f)
                fail_msg("%s: %g is not %g", list[i].name, a[k], expected);
        }
        all += t->n;
        free(a);
        free(b);
    }
    assert_true((double)same > 0.9 * (double)all);
    qn_ckpt_free(got);
    qn_ckpt_free(right);
    scratch_remove(out);
}

static void a_reference_settles_what_is_open(void **state) {
    (void)state;
    qn_err err = {0};
    json_t *report;
    char *out = scratch_path("settled");
    qn_repair_options o = {.reference = "tests/data/quantized/gptq-int4-g128"};
    if (!qn_repair("tests/data/quantized/broken-zero-off-by-one", out, &o, &report, &err))
        fail_msg("%s", err.text);
    sums_match(out, "tests/data/quantized/broken-zero-off-by-one/truth.json", "bf16");
    json_decref(report);
    scratch_remove(out);
}

static void wrong_label_is_corrected(void **state) {
    (void)state;
    qn_err err = {0};
    json_t *report;
    char *out = scratch_path("relabelled");
    qn_repair_options o = {0};
    if (!qn_repair("tests/data/quantized/gptq-int4-mislabelled", out, &o, &report, &err))
        fail_msg("%s", err.text);
    char *path = qn_path_join(out, "config.json");
    json_t *config = load_json(path), *q = json_object_get(config, "quantization_config");
    assert_string_equal(json_string_value(json_object_get(q, "checkpoint_format")), "gptq_v2");
    json_decref(config);
    json_decref(report);
    free(path);
    scratch_remove(out);
}

static void refuses_healthy_models(void **state) {
    (void)state;
    static const char *const healthy[] = {
        "models/tiny-qwen3", "tests/data/tiny-qwen3.5", "tests/data/families/qwen2",
        "tests/data/families/qwen3_moe-fused", "tests/data/quantized/base-bf16",
        "tests/data/quantized/gptq-int8-g128", "tests/data/quantized/awq-gemm-g128"};
    qn_repair_options o = {0};
    for (size_t i = 0; i < sizeof healthy / sizeof *healthy; i++) {
        qn_err err = {0};
        json_t *report;
        char *out = scratch_path("never");
        if (qn_repair(healthy[i], out, &o, &report, &err)) fail_msg("%s was repaired", healthy[i]);
        if (!strstr(err.text, "nothing to repair")) fail_msg("%s: %s", healthy[i], err.text);
        assert_false(qn_file_exists(out));
        free(out);
    }
}

// ---- made-up matrices ----

enum { ROWS = 24, COLS = 256 };

static float rounded(qn_dtype d, float x) {
    if (d == QN_DT_F16) return qn_f16_to_f32(qn_f32_to_f16(x));
    return d == QN_DT_BF16 ? qn_bf16_to_f32(qn_f32_to_bf16(x)) : x;
}

typedef struct matrix {
    uint8_t bytes[ROWS * COLS * 4];
    qn_tensor t;
    qn_weight w;
} matrix;

static matrix *matrix_of(qn_dtype d, const float *x) {
    matrix *m = calloc(1, sizeof *m);
    for (size_t i = 0; i < ROWS * COLS; i++) {
        uint16_t h = d == QN_DT_F16 ? qn_f32_to_f16(x[i]) : qn_f32_to_bf16(x[i]);
        if (d == QN_DT_F32)
            memcpy(m->bytes + 4 * i, &x[i], 4);
        else
            memcpy(m->bytes + 2 * i, &h, 2);
    }
    m->t = (qn_tensor){.name = (char *)(uintptr_t) "made-up", .dtype = d, .n_dims = 2,
                       .shape = {ROWS, COLS}, .n = ROWS * COLS, .data = m->bytes,
                       .bytes = ROWS * COLS * qn_dtype_bytes(d)};
    m->w = (qn_weight){.name = m->t.name, .parts = {&m->t}, .rows = ROWS, .cols = COLS};
    return m;
}

// Gaussian weights in symmetric groups: codes −128 … 127 (or fewer bits) under f16 scales.
static void quantize(const float *x, size_t group, int half, int16_t *codes, float *scales) {
    for (size_t g = 0; g < ROWS * COLS / group; g++) {
        float top = 0;
        for (size_t i = 0; i < group; i++) top = fmaxf(top, fabsf(x[g * group + i]));
        float s = rounded(QN_DT_F16, top * 2 / (float)(2 * half - 1));
        scales[g] = s;
        for (size_t i = 0; i < group; i++) {
            float c = rintf(x[g * group + i] / s);
            codes[g * group + i] = (int16_t)fmaxf((float)-half, fminf((float)half - 1, c));
        }
    }
}

static void gaussian(float *x, uint64_t seed) {
    for (size_t i = 0; i < ROWS * COLS; i++) x[i] = 0.04f * (float)qn_rng_normal(seed, 1, i);
}

// How code c with scale s is wrongly or rightly turned into a number.
enum making { SIGNED, SHIFT_UP, RIGHT };
static float make(enum making how, int c, float s) {
    if (how == SIGNED) return (float)(c < 0 ? c + 128 : c - 128) * s;
    return (float)(how == SHIFT_UP ? c - 1 : c) * s;
}

static void damage_is_found_and_undone(qn_dtype d, size_t group, int half, enum making how) {
    float *x = malloc(ROWS * COLS * sizeof *x), *scales = malloc(ROWS * COLS * sizeof *scales);
    int16_t *codes = malloc(ROWS * COLS * sizeof *codes);
    gaussian(x, group + (size_t)half);
    quantize(x, group, half, codes, scales);
    for (size_t i = 0; i < ROWS * COLS; i++) x[i] = make(how, codes[i], scales[i / group]);
    matrix *m = matrix_of(d, x);
    qn_wrong_finding f;
    qn_err err = {0};
    assert_true(qn_wrong_codes_find(&m->w, 0, &f, &err));
    qn_wrong expected = how == SIGNED ? QN_SIGNED_VIEW : how == RIGHT ? QN_RIGHT : QN_ZERO_OFFSET;
    if (f.kind != expected)
        fail_msg("%s group %zu half %d making %d: found %d", qn_dtype_name(d), group, half, how,
                 f.kind);
    float row[COLS], right[COLS], found[COLS];
    double bounds[COLS];
    for (size_t r = 0; f.kind && r < ROWS; r++) {
        assert_int_equal(f.group, group);
        assert_true(f.certain);
        qn_mended_row mended = {.values = right, .bounds = bounds, .scales = found};
        qn_tensor_to_f32(&m->t, r * COLS, COLS, row);
        assert_true(qn_wrong_codes_mend(&f, row, COLS, "made-up", &mended, &err));
        for (size_t i = 0; i < COLS; i++) {
            float exact = (float)codes[r * COLS + i] * scales[(r * COLS + i) / group];
            double off = fabs((double)right[i] - (double)exact);
            if (off > bounds[i / group] + 1e-12)
                fail_msg("row %zu column %zu: off by %g, bound %g", r, i, off, bounds[i / group]);
            if (bounds[i / group] == 0 && found[i / group] != scales[(r * COLS + i) / group])
                fail_msg("row %zu column %zu: scale %g", r, i, (double)found[i / group]);
        }
    }
    free(m);
    free(x);
    free(codes);
    free(scales);
}

static void every_dtype_and_group(void **state) {
    (void)state;
    static const qn_dtype dtypes[] = {QN_DT_F16, QN_DT_BF16, QN_DT_F32};
    static const size_t groups[] = {32, 64, 128, COLS};
    for (size_t d = 0; d < 3; d++)
        for (size_t g = 0; g < 4; g++) {
            damage_is_found_and_undone(dtypes[d], groups[g], 128, SIGNED);
            damage_is_found_and_undone(dtypes[d], groups[g], 128, RIGHT);
            damage_is_found_and_undone(dtypes[d], groups[g], 8, RIGHT);
            damage_is_found_and_undone(dtypes[d], groups[g], 8, SHIFT_UP);
            damage_is_found_and_undone(dtypes[d], groups[g], 4, SHIFT_UP);
        }
}

static void stays_silent(const char *what, qn_dtype d, const float *x) {
    matrix *m = matrix_of(d, x);
    qn_wrong_finding f;
    qn_err err = {0};
    assert_true(qn_wrong_codes_find(&m->w, 0, &f, &err));
    if (f.kind != QN_RIGHT) fail_msg("%s: %s", what, f.evidence);
    free(m);
}

// Weights that are no damage, however odd.
static void odd_but_healthy(void **state) {
    (void)state;
    static const qn_dtype dtypes[] = {QN_DT_F16, QN_DT_BF16, QN_DT_F32};
    float *x = malloc(ROWS * COLS * sizeof *x);
    for (size_t d = 0; d < 3; d++) {
        gaussian(x, 5);
        stays_silent("gaussian", dtypes[d], x);
        for (size_t i = 0; i < ROWS * COLS; i++) x[i] = i % 3 ? 0 : x[i];
        stays_silent("pruned", dtypes[d], x);
        gaussian(x, 6);
        for (size_t i = 0; i < ROWS * COLS; i++) x[i] = x[i] * x[i] * x[i] * 100;
        stays_silent("heavy tails", dtypes[d], x);
        gaussian(x, 7);
        for (size_t i = 0; i < ROWS * COLS; i++) x[i] = i % COLS >= 150 ? 0 : x[i];
        stays_silent("padded", dtypes[d], x);
        for (size_t i = 0; i < ROWS * COLS; i++) x[i] = i % 7 == 3 ? 0.03125f : -0.03125f;
        stays_silent("two values", dtypes[d], x);
        for (size_t i = 0; i < ROWS * COLS; i++)
            x[i] = (float)(qn_rng_u64(9, 1, i) % 3) * 0.01f - 0.01f;
        stays_silent("ternary", dtypes[d], x);
        for (size_t i = 0; i < ROWS * COLS; i++) x[i] = (float)qn_rng_uniform(3, 1, i) - 0.5f;
        stays_silent("uniform", dtypes[d], x);
        for (size_t i = 0; i < ROWS * COLS; i++) x[i] = 0;
        stays_silent("zeros", dtypes[d], x);
        for (size_t i = 0; i < ROWS * COLS; i++) x[i] = (float)(i % 2) * 2 - 1;
        stays_silent("signs", dtypes[d], x);
    }
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signed_view_comes_back),   cmocka_unit_test(zero_offset_comes_back),
        cmocka_unit_test(a_reference_settles_what_is_open),
        cmocka_unit_test(wrong_label_is_corrected), cmocka_unit_test(refuses_healthy_models),
        cmocka_unit_test(every_dtype_and_group),    cmocka_unit_test(odd_but_healthy),
    };
    qn_log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
