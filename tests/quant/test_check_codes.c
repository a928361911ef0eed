// Quantized weights beside their original: scales and groups of others in one matrix are told, what its
// codes or its e4m3 past explain is not. And what is hardly meant is told with no reference at all.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/str.h"
#include "quant/check.h"
#include "quant/check_siblings.h"
#include "quant/convert.h"
#include "store/checkpoint.h"
#include "support/scratch.h"

#define UP "model.layers.1.mlp.up_proj"

static json_t *check(const char *dir, const char *against) {
    json_t *report;
    qn_err err = {0};
    qn_check_options o = {.against = against, .n_threads = 2};
    if (!qn_check(dir, &o, &report, &err)) fail_msg("%s", err.text);
    return report;
}

// The first problem of this tensor, or NULL.
static const json_t *problem(const json_t *report, const char *tensor) {
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(report, "problems"), i, p) {
        const char *name = json_string_value(json_object_get(p, "tensor"));
        if (name && strcmp(name, tensor) == 0) return p;
    }
    return NULL;
}

static const char *text(const json_t *p, const char *key) {
    return json_string_value(json_object_get(p, key));
}

static void expect(const json_t *report, const char *tensor, const char *severity,
                   const char *code, const char *message) {
    const json_t *p = problem(report, tensor);
    if (!p) fail_msg("nothing about %s", tensor);
    if (strcmp(text(p, "severity"), severity) || strcmp(text(p, "code"), code) ||
        !strstr(text(p, "message"), message))
        fail_msg("%s %s: %s", text(p, "severity"), text(p, "code"), text(p, "message"));
}

// ---- folders with one tensor changed ----

typedef void (*spoil_fn)(uint8_t *bytes, const qn_tensor *t);

static void copy_file(const char *from, const char *name, const char *to) {
    char *source = qn_path_join(from, name), *target = qn_path_join(to, name);
    qn_buf b = {0};
    qn_err err = {0};
    if (!qn_file_read(source, 1 << 26, &b, &err) || !qn_file_write(target, b.data, b.n, &err))
        fail_msg("%s", err.text);
    qn_buf_done(&b);
    free(source);
    free(target);
}

static char *spoilt(const char *from, const char *tensor, spoil_fn spoil) {
    qn_err err = {0};
    char *dir = scratch_path("spoilt");
    assert_int_equal(mkdir(dir, 0777), 0);
    copy_file(from, "config.json", dir);
    copy_file(from, "model.safetensors", dir);
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    const qn_tensor *t = c ? qn_ckpt_find(c, tensor) : NULL;
    assert_non_null(t);
    uint8_t *bytes = malloc(t->bytes);
    memcpy(bytes, t->data, t->bytes);
    spoil(bytes, t);
    char *path = qn_path_join(dir, "model.safetensors");
    FILE *f = fopen(path, "r+b");
    assert_true(f && fseek(f, (long)t->offset, SEEK_SET) == 0 &&
                fwrite(bytes, 1, t->bytes, f) == t->bytes);
    fclose(f);
    qn_ckpt_free(c);
    free(bytes);
    free(path);
    return dir;
}

// ---- beside the original ----

static void roll_by_one(uint8_t *bytes, const qn_tensor *t) { // scales, F16 [groups, outputs]
    for (size_t g = 0; g < t->shape[0]; g++) {
        uint8_t *row = bytes + g * t->shape[1] * 2, last[2];
        memcpy(last, row + t->shape[1] * 2 - 2, 2);
        memmove(row + 2, row, t->shape[1] * 2 - 2);
        memcpy(row, last, 2);
    }
}

static void other_groups(uint8_t *bytes, const qn_tensor *t) { // g_idx, I32 [inputs]
    for (size_t i = t->n - 1; i > 0; i--) {
        size_t k = (size_t)(qn_rng_u64(3, 1, i) % (i + 1));
        uint8_t x[4];
        memcpy(x, bytes + 4 * i, 4);
        memcpy(bytes + 4 * i, bytes + 4 * k, 4);
        memcpy(bytes + 4 * k, x, 4);
    }
}

static void leave(uint8_t *bytes, const qn_tensor *t) { (void)bytes, (void)t; }

static void scales_of_others(void **state) {
    (void)state;
    static const struct {
        const char *from, *tensor;
        spoil_fn spoil;
        const char *severity, *message;
    } cases[] = {
        {"tests/data/thirdparty/gptqmodel-w4g128", UP ".scales", roll_by_one, "error",
         "its codes fit the reference, but not with the scales of their groups"},
        {"tests/data/thirdparty/gptqmodel-w3g128", UP ".scales", roll_by_one, "error",
         "its codes fit the reference, but not with the scales of their groups"},
        {"models/tiny-qwen3-gptq-int8", UP ".scales", roll_by_one, "error",
         "expected at least 0.9999"},
        {"tests/data/thirdparty/gptqmodel-w4g32-actorder-asym", UP ".g_idx", other_groups, "error",
         "expected at least 0.9000"},
        {"tests/data/thirdparty/gptqmodel-w4g128", UP ".scales", leave, NULL, NULL},
        {"tests/data/thirdparty/gptqmodel-w4g32-actorder-asym", UP ".g_idx", leave, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *dir = spoilt(cases[i].from, cases[i].tensor, cases[i].spoil);
        json_t *r = check(dir, "models/tiny-qwen3");
        if (cases[i].severity)
            expect(r, UP ".weight", cases[i].severity, "differs-from-reference", cases[i].message);
        else
            assert_null(problem(r, UP ".weight"));
        json_decref(r);
        scratch_remove(dir);
    }
}

// A report's entries as far as they are looked at: one projection of so many layers.
static void siblings(const double *rms, size_t n, size_t expected) {
    json_t *list = json_array();
    qn_problems p;
    qn_problems_init(&p);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(
            list, json_pack("{s:o, s:f, s:{s:i}}", "name",
                            json_sprintf("model.layers.%d.mlp.up_proj.weight", (int)i),
                            "relative_rms", rms[i], "quantized", "bits", 4));
    qn_check_siblings(list, &p);
    assert_int_equal(p.n, expected);
    if (expected) assert_string_equal(p.list[0].tensor, "model.layers.2.mlp.up_proj.weight");
    qn_problems_done(&p);
    json_decref(list);
}

// As found with right scales and codes but in groups of others; and as healthy models have it: AWQ,
// whose columns are scaled, and down projections of layers with outliers.
static void one_among_its_kind(void **state) {
    (void)state;
    siblings((const double[]){0.101, 0.102, 0.219, 0.099}, 4, 1);
    siblings((const double[]){0.101, 0.102, 0.219}, 3, 0); // too few to tell
    siblings((const double[]){0.1746, 0.416, 0.6233, 0.5331}, 4, 0);
    siblings((const double[]){0.2125, 0.2720, 0.2972, 0.2828, 0.155}, 5, 0);
}

// The test data's embeddings have fewer rows than the original's.
static bool is_in_layer(const json_t *p) { return strstr(text(p, "tensor"), "layers.") != NULL; }

static void expect_no_difference(const json_t *report, const char *what) {
    size_t k;
    json_t *p;
    json_array_foreach(json_object_get(report, "problems"), k, p)
        if (strcmp(text(p, "code"), "differs-from-reference") == 0 && is_in_layer(p))
            fail_msg("%s: %s %s", what, text(p, "tensor"), text(p, "message"));
}

// Real quantizers differ from layer to layer, and none of that is a fault.
static void quantizers_are_believed(void **state) {
    (void)state;
    static const char *const made[] = {"gptqmodel-w3g128", "gptqmodel-w4g128-v2-asym",
                                       "autoround-gptq-w4g128", "autoround-native-w2g32",
                                       "llmcompressor-w3a16", "llmcompressor-w4a16",
                                       "llmcompressor-w8a8", "llmcompressor-fp8-dynamic"};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        char *dir = qn_strf("tests/data/thirdparty/%s", made[i]);
        json_t *r = check(dir, "models/tiny-qwen3");
        expect_no_difference(r, made[i]);
        json_decref(r);
        free(dir);
    }
}

// BF16: one in three loses its last digits.
static void noise(uint8_t *bytes, const qn_tensor *t) {
    for (size_t i = 0; i < t->n; i++)
        if (qn_rng_u64(9, 2, i) % 3 == 0) bytes[2 * i] = (uint8_t)(bytes[2 * i] & 0xC0);
}

static void dequantized_fp8_is_right(void **state) {
    (void)state;
    static const char *const from[] = {"tests/data/thirdparty/llmcompressor-fp8-block",
                                       "tests/data/thirdparty/llmcompressor-fp8-dynamic"};
    for (size_t i = 0; i < 2; i++)
        for (int dtype = QN_TO_F32; dtype <= QN_TO_F16; dtype++) {
            qn_err err = {0};
            json_t *report;
            char *out = scratch_path("plain");
            qn_convert_options o = {.dtype = (qn_convert_dtype)dtype, .shard_bytes = 1 << 30,
                                    .n_threads = 2};
            if (!qn_convert(from[i], out, &o, &report, &err)) fail_msg("%s", err.text);
            json_decref(report);
            report = check(out, "models/tiny-qwen3");
            expect_no_difference(report, from[i]);
            json_decref(report);
            scratch_remove(out);
        }
    // The same error in weights that were never e4m3 is none that a format explains.
    char *dir = spoilt("models/tiny-qwen3", UP ".weight", noise);
    json_t *r = check(dir, "models/tiny-qwen3");
    expect(r, UP ".weight", "error", "differs-from-reference", "expected at least 0.9999");
    json_decref(r);
    scratch_remove(dir);
}

// ---- hardly meant ----

static void all_zero(uint8_t *bytes, const qn_tensor *t) { memset(bytes, 0, t->bytes); }

static void zeros_are_told(void **state) {
    (void)state;
    static const struct {
        const char *from, *tensor, *message; // NULL: a zero there is 1
    } cases[] = {
        {"models/tiny-qwen3", UP ".weight", "every value of this matrix is 0"},
        {"models/tiny-qwen3", "model.layers.1.input_layernorm.weight",
         "every value of this norm is 0"},
        {"tests/data/tiny-qwen3.5", "model.language_model.layers.1.input_layernorm.weight", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *dir = spoilt(cases[i].from, cases[i].tensor, all_zero);
        json_t *r = check(dir, NULL);
        if (cases[i].message)
            expect(r, cases[i].tensor, "warning", "outlier", cases[i].message);
        else
            assert_null(problem(r, cases[i].tensor));
        json_decref(r);
        scratch_remove(dir);
    }
}

// A folder of one matrix and one more tensor: no config, so nothing else is asked of it.
static char *two_tensors(const char *header, const void *data, size_t n) {
    char *dir = scratch_path("tensors"), *path = qn_path_join(dir, "model.safetensors");
    qn_err err = {0};
    qn_buf b = {0};
    uint64_t length = strlen(header);
    assert_int_equal(mkdir(dir, 0777), 0);
    qn_buf_add(&b, (const char *)&length, 8);
    qn_buf_adds(&b, header);
    qn_buf_add(&b, data, n);
    assert_true(qn_file_write(path, b.data, b.n, &err));
    qn_buf_done(&b);
    free(path);
    return dir;
}

static void fp8_that_lost_its_scale(void **state) {
    (void)state;
    static uint8_t codes[64 * 64];
    for (int large = 0; large < 2; large++) {
        for (size_t i = 0; i < sizeof codes; i++) // up to 0.9, or to 448
            codes[i] = (uint8_t)(qn_rng_u64(4, 1, i) % (large ? 0x7F : 0x37));
        char *dir = two_tensors("{\"p.q.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[64,64],"
                                "\"data_offsets\":[0,4096]}}", codes, sizeof codes);
        json_t *r = check(dir, NULL);
        expect(r, "p.q.weight", large ? "error" : "warning", "missing-tensor",
               large ? "codes whose scale is lost" : "without a scale");
        json_decref(r);
        scratch_remove(dir);
    }
}

// int8 codes 1 with scale 1, and the same matrix once more as floats.
static void a_matrix_stored_twice(void **state) {
    (void)state;
    struct {
        int32_t qweight[16 * 64];
        uint16_t scales[64], dense[64 * 64];
    } data;
    for (int differ = 0; differ < 2; differ++) {
        for (size_t i = 0; i < 16 * 64; i++) data.qweight[i] = 0x01010101 * 5;
        for (size_t i = 0; i < 64; i++) data.scales[i] = 0x3C00;
        for (size_t i = 0; i < 64 * 64; i++) data.dense[i] = 0x4400; // 4, as F16
        if (differ) data.dense[77] = 0x4500;
        // qzeros [1, 64 * 8 / 32 = 16] words of stored 0, which is zero 1: codes 5 mean 4
        char *dir = two_tensors(
            "{\"p.q.qweight\":{\"dtype\":\"I32\",\"shape\":[16,64],\"data_offsets\":[0,4096]},"
            "\"p.q.qzeros\":{\"dtype\":\"I32\",\"shape\":[1,16],\"data_offsets\":[4096,4160]},"
            "\"p.q.scales\":{\"dtype\":\"F16\",\"shape\":[1,64],\"data_offsets\":[4160,4288]},"
            "\"p.q.weight\":{\"dtype\":\"F16\",\"shape\":[64,64],\"data_offsets\":[4288,12480]}}",
            NULL, 0);
        char *path = qn_path_join(dir, "model.safetensors");
        FILE *f = fopen(path, "ab");
        static const uint8_t zeros[64];
        assert_true(fwrite(data.qweight, 1, 4096, f) == 4096 && fwrite(zeros, 1, 64, f) == 64 &&
                    fwrite(data.scales, 1, 128, f) == 128 && fwrite(data.dense, 1, 8192, f) == 8192);
        fclose(f);
        json_t *r = check(dir, NULL);
        expect(r, "p.q.weight", differ ? "error" : "warning", "unexpected-tensor",
               differ ? "the two differ, cosine 0.99" : "with the same values");
        json_decref(r);
        free(path);
        scratch_remove(dir);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales_of_others), cmocka_unit_test(one_among_its_kind),
        cmocka_unit_test(quantizers_are_believed),
        cmocka_unit_test(dequantized_fp8_is_right), cmocka_unit_test(zeros_are_told),
        cmocka_unit_test(fp8_that_lost_its_scale), cmocka_unit_test(a_matrix_stored_twice),
    };
    qn_log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
