// Every quantized fixture, bit for bit: the floats that rows decode to, rounded to bf16 and f16,
// and what the matrix in memory gives back, against the sums in expected.json.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/f16.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/weight.h"
#include "support/sha256.h"

static qn_pool *pool;

static void sum(const void *data, size_t n, char out[65]) {
    sha256 s;
    sha256_init(&s);
    sha256_update(&s, data, n);
    sha256_hex(&s, out);
}

static void check_sum(const json_t *entry, const char *key, const void *data, size_t n,
                      const char *name) {
    char hex[65];
    sum(data, n, hex);
    const char *expected = json_string_value(json_object_get(entry, key));
    assert_non_null(expected);
    if (strcmp(hex, expected) != 0) fail_msg("%s: %s differs", name, key);
}

static void check_halves(const json_t *entry, const float *w, size_t n, const char *name) {
    uint16_t *half = malloc(n * sizeof *half);
    for (size_t i = 0; i < n; i++) half[i] = qn_f32_to_bf16(w[i]);
    check_sum(entry, "bf16", half, 2 * n, name);
    for (size_t i = 0; i < n; i++) half[i] = qn_f32_to_f16(w[i]);
    check_sum(entry, "f16", half, 2 * n, name);
    free(half);
}

// Loading keeps every value: as stored, as floats, and a part of the rows alone.
static void check_loaded(const qn_weight *w, const float *expected, qn_weights want, size_t row0,
                         size_t rows) {
    qn_mat m;
    qn_err err = {0};
    float *row = malloc(w->cols * sizeof *row);
    if (!qn_weight_load(w, row0, rows, want, pool, &m, &err)) fail_msg("%s", err.text);
    assert_int_equal(m.rows, rows);
    for (size_t i = 0; i < rows; i++) {
        qn_mat_row(&m, i, row);
        if (memcmp(row, expected + (row0 + i) * w->cols, w->cols * sizeof *row) != 0)
            fail_msg("%s: row %zu of %zu differs in memory (%d)", w->name, i, rows, (int)want);
    }
    qn_mat_done(&m);
    free(row);
}

// Decoding tells the range of the codes it went over.
static void check_seen(const qn_weight *w, const float *expected) {
    uint8_t *codes = malloc(w->rows * w->cols);
    float *out = malloc(w->rows * w->cols * sizeof *out);
    qn_codes_seen seen = {255, 0}, true_range = {255, 0};
    qn_err err = {0};
    int32_t *perm = NULL;
    bool even = qn_weight_perm(w, &perm, NULL);
    qn_free(perm);
    assert_true(qn_weight_decode_seen(w, 0, w->rows, out, &seen, &err));
    assert_memory_equal(out, expected, w->rows * w->cols * sizeof *out);
    if (even) {
        assert_true(qn_weight_codes(w, 0, w->rows, codes, NULL, NULL, &err));
        for (size_t i = 0; i < w->rows * w->cols; i++) {
            if (codes[i] < true_range.lo) true_range.lo = codes[i];
            if (codes[i] > true_range.hi) true_range.hi = codes[i];
        }
        assert_true(seen.lo == true_range.lo && seen.hi == true_range.hi);
    }
    free(codes);
    free(out);
}

// Codes, scales and zeros, put together by hand, are the floats too.
static void check_codes(const qn_weight *w, const float *expected) {
    uint8_t *codes = malloc(w->cols), *zeros = malloc(w->n_groups);
    float *scales = malloc(w->n_groups * sizeof *scales);
    int32_t *perm = NULL;
    qn_err err = {0};
    size_t row = w->rows / 2;
    assert_true(qn_weight_perm(w, &perm, &err));
    assert_true((perm != NULL) == w->act_order);
    assert_true(qn_weight_codes(w, row, 1, codes, scales, zeros, &err));
    for (size_t j = 0; j < w->cols; j++) {
        size_t g = j / w->group, i = perm ? (size_t)perm[j] : j;
        float v = strncmp(w->layout, "fp8", 3) == 0
                      ? scales[g] * qn_f8e4m3_to_f32(codes[j])
                      : scales[g] * (float)(codes[j] - zeros[g]);
        assert_memory_equal(&v, &expected[row * w->cols + i], sizeof v);
    }
    qn_free(perm);
    free(codes);
    free(zeros);
    free(scales);
}

static void check_weight(const qn_weight *w, const json_t *entry) {
    size_t n = w->rows * w->cols;
    const json_t *shape = json_object_get(entry, "shape");
    qn_err err = {0};
    assert_int_equal(json_integer_value(json_array_get(shape, 0)), w->rows);
    assert_int_equal(json_integer_value(json_array_get(shape, 1)), w->cols);
    assert_true(json_is_true(json_object_get(entry, "quantized")) == (w->scheme != NULL));
    float *all = malloc(n * sizeof *all), *some = malloc(3 * w->cols * sizeof *some);
    assert_true(qn_weight_decode(w, 0, w->rows, all, &err));
    check_sum(entry, "f32", all, n * sizeof *all, w->name);
    check_halves(entry, all, n, w->name);
    assert_true(qn_weight_decode(w, w->rows - 5, 3, some, &err)); // not at a panel's border
    assert_memory_equal(some, all + (w->rows - 5) * w->cols, 3 * w->cols * sizeof *some);
    assert_false(qn_weight_decode(w, w->rows - 1, 2, some, &err));
    check_loaded(w, all, QN_STORED, 0, w->rows);
    if (w->scheme) check_codes(w, all);
    if (w->scheme) check_seen(w, all);
    if (strstr(w->name, "k_proj")) { // the ways that are the same for all: one small matrix each
        check_loaded(w, all, QN_F32, 0, w->rows);
        check_loaded(w, all, QN_STORED, 7, w->rows - 9);
        if (w->scheme && strncmp(w->layout, "fp8", 3) != 0) check_loaded(w, all, QN_Q8, 0, w->rows);
    }
    free(all);
    free(some);
}

static void check_folder(const char *folder, const char *expected_path) {
    qn_err err = {0};
    const char *name;
    json_t *entry, *expected = qn_json_load(expected_path, 1 << 24, &err);
    assert_non_null(expected);
    qn_ckpt *c = qn_ckpt_open(folder, 0, &err);
    if (!c || !qn_ckpt_weights(c, NULL, NULL, &err)) fail_msg("%s: %s", folder, err.text);
    assert_true(json_object_size(expected) >= 7);
    json_object_foreach(expected, name, entry) {
        const qn_weight *w = qn_ckpt_weight(c, name);
        if (!w) fail_msg("%s: %s is missing", folder, name);
        check_weight(w, entry);
    }
    bool lies = strstr(folder, "mislabelled");
    assert_int_equal(qn_ckpt_n_label_errors(c), lies ? 1 : 0);
    if (lies) assert_non_null(strstr(qn_ckpt_label_error(c, 0), "the content is gptq_v2"));
    qn_ckpt_free(c);
    json_decref(expected);
}

static size_t check_all(const char *dir) {
    size_t n = 0;
    DIR *d = opendir(dir);
    struct dirent *e;
    assert_non_null(d);
    while ((e = readdir(d))) {
        char *folder = qn_path_join(dir, e->d_name), *path = qn_path_join(folder, "expected.json");
        if (qn_file_exists(path)) {
            check_folder(folder, path);
            n++;
        }
        free(folder);
        free(path);
    }
    closedir(d);
    return n;
}

static void quantized_folders_are_exact(void **state) {
    (void)state;
    assert_int_equal(check_all("tests/data/quantized"), 22);
}

static void other_peoples_files_are_exact(void **state) {
    (void)state;
    assert_int_equal(check_all("tests/data/thirdparty"), 14);
}

// The threads change nothing.
static void one_thread_packs_the_same(void **state) {
    (void)state;
    qn_err err = {0};
    qn_mat a, b;
    qn_ckpt *c = qn_ckpt_open("tests/data/quantized/gptq-int4-g32-actorder", 0, &err);
    assert_true(c && qn_ckpt_weights(c, NULL, NULL, &err));
    const qn_weight *w = qn_ckpt_weight(c, "model.layers.1.mlp.up_proj.weight");
    assert_true(qn_weight_load(w, 0, w->rows, QN_STORED, NULL, &a, &err));
    assert_true(qn_weight_load(w, 0, w->rows, QN_STORED, pool, &b, &err));
    assert_int_equal(a.data_bytes, b.data_bytes);
    assert_memory_equal(a.data, b.data, a.data_bytes);
    assert_memory_equal(a.scales, b.scales, a.scales_bytes);
    assert_memory_equal(a.zeros, b.zeros, a.zeros_bytes);
    qn_mat_done(&a);
    qn_mat_done(&b);
    qn_ckpt_free(c);
}

// What --weights makes of a float checkpoint stays near it, and is smaller.
static void floats_are_quantized_while_loading(void **state) {
    (void)state;
    static const struct {
        qn_weights want;
        float within; // of the row's largest value: a step, as codes reach one end only
        size_t bits;
    } cases[] = {{QN_BF16, 0, 16}, {QN_Q8, 0.0083f, 9}, {QN_Q4, 0.13f, 5}};
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open("tests/data/quantized/base-bf16", 0, &err);
    assert_true(c && qn_ckpt_weights(c, NULL, NULL, &err));
    const qn_weight *w = qn_ckpt_weight(c, "model.layers.0.mlp.down_proj.weight");
    float *row = malloc(w->cols * sizeof *row), *exact = malloc(w->cols * sizeof *row);
    for (size_t k = 0; k < 3; k++) {
        qn_mat m;
        assert_true(qn_weight_load(w, 0, w->rows, cases[k].want, pool, &m, &err));
        assert_true(qn_mat_bytes(&m) <= w->rows * w->cols * cases[k].bits / 8);
        for (size_t r = 0; r < w->rows; r++) {
            float most = 0;
            qn_mat_row(&m, r, row);
            assert_true(qn_weight_decode(w, r, 1, exact, &err));
            for (size_t i = 0; i < w->cols; i++) {
                float a = exact[i] < 0 ? -exact[i] : exact[i];
                most = a > most ? a : most;
            }
            for (size_t i = 0; i < w->cols; i++)
                assert_float_equal(row[i], exact[i], most * cases[k].within);
        }
        qn_mat_done(&m);
    }
    free(row);
    free(exact);
    qn_ckpt_free(c);
}

static int start(void **state) {
    (void)state;
    qn_log_set_quiet(true);
    pool = qn_pool_new(3, NULL);
    return pool ? 0 : -1;
}

static int stop(void **state) {
    (void)state;
    qn_pool_free(pool);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantized_folders_are_exact),
        cmocka_unit_test(other_peoples_files_are_exact),
        cmocka_unit_test(one_thread_packs_the_same),
        cmocka_unit_test(floats_are_quantized_while_loading),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
