// check: every damaged folder is named for what it is, healthy ones raise no error, and a comparison
// with a reference names the mix-up.
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
#include "quant/check.h"
#include "store/checkpoint.h"
#include "support/scratch.h"

static json_t *check(const char *model, qn_check_options o) {
    json_t *report;
    qn_err err = {0};
    o.n_threads = 2;
    if (!qn_check(model, &o, &report, &err)) fail_msg("%s: %s", model, err.text);
    return report;
}

static const char *verdict(const json_t *report) {
    return json_string_value(json_object_get(report, "verdict"));
}

// The first problem with this code (and tensor, unless NULL), or NULL.
static const json_t *problem(const json_t *report, const char *code, const char *tensor) {
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(report, "problems"), i, p) {
        const char *name = json_string_value(json_object_get(p, "tensor"));
        if (strcmp(json_string_value(json_object_get(p, "code")), code) == 0 &&
            (!tensor || (name && strcmp(name, tensor) == 0)))
            return p;
    }
    return NULL;
}

static bool is_error(const json_t *p) {
    return p && strcmp(json_string_value(json_object_get(p, "severity")), "error") == 0;
}

static void every_damage_has_its_name(void **state) {
    (void)state;
    static const struct {
        const char *folder, *code, *tensor;
    } cases[] = {
        {"broken-signed-view", "signed-view", "model.layers.0.mlp.down_proj.weight"},
        {"broken-zero-off-by-one", "zero-offset", "model.layers.1.self_attn.q_proj.weight"},
        {"broken-nan", "non-finite", "model.embed_tokens.weight"},
        {"broken-truncated", "truncated", "model.norm.weight"},
        {"broken-missing-tensor", "missing-tensor", "model.layers.0.mlp.up_proj.weight"},
        {"broken-bad-offsets", "overlap", NULL},
        {"broken-huge-header", "bad-header", NULL},
        {"broken-dup-key", "duplicate-key", "model.norm.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/data/quantized/%s", cases[i].folder);
        json_t *r = check(path, (qn_check_options){0});
        assert_string_equal(verdict(r), "problems");
        if (!is_error(problem(r, cases[i].code, cases[i].tensor)))
            fail_msg("%s: no error %s", cases[i].folder, cases[i].code);
        json_decref(r);
    }
}

static void non_finite_positions(void **state) {
    (void)state;
    json_t *r = check("tests/data/quantized/broken-nan", (qn_check_options){0});
    qn_err err = {0};
    json_t *truth = qn_json_load("tests/data/quantized/broken-nan/truth.json", 1 << 20, &err);
    assert_non_null(truth);
    const json_t *p = problem(r, "non-finite", "model.layers.0.mlp.down_proj.weight");
    assert_non_null(strstr(json_string_value(json_object_get(p, "message")), "2 values"));
    json_decref(truth);
    json_decref(r);
}

static void healthy_models_raise_no_error(void **state) {
    (void)state;
    static const char *const healthy[] = {
        "models/tiny-qwen3", "models/tiny-qwen3-gptq-int8", "tests/data/tiny-qwen3.5",
        "tests/data/families/qwen2", "tests/data/families/qwen2-untied-sharded",
        "tests/data/families/qwen2-yarn", "tests/data/families/qwen3_moe",
        "tests/data/families/qwen3_moe-fused", "tests/data/families/qwen3_next",
        "tests/data/families/qwen3_5_moe", "tests/data/quantized/base-bf16",
        "tests/data/quantized/gptq-int4-g32-actorder", "tests/data/quantized/gptq-int2-g32",
        "tests/data/quantized/awq-zerogroup", "tests/data/quantized/awq-gemv-g128",
        "tests/data/quantized/fp8-block", "tests/data/quantized/ct-int8-channel",
        "tests/data/quantized/gptq-int4-qwen2-bias", "tests/data/thirdparty/autoround-native-w2g32",
        "tests/data/thirdparty/llmcompressor-w3a16"};
    for (size_t i = 0; i < sizeof healthy / sizeof *healthy; i++) {
        json_t *r = check(healthy[i], (qn_check_options){0});
        if (strcmp(verdict(r), "ok") != 0) {
            char *text = qn_json_text(json_object_get(r, "problems"), true);
            fail_msg("%s: %s", healthy[i], text);
        }
        json_decref(r);
    }
}

static void warnings_that_matter(void **state) {
    (void)state;
    json_t *r = check("tests/data/quantized/gptq-int4-mislabelled", (qn_check_options){0});
    assert_non_null(problem(r, "label-mismatch", NULL));
    json_decref(r);
    r = check("tests/data/quantized/awq-zerogroup", (qn_check_options){0});
    assert_non_null(problem(r, "zero-scale", NULL));
    json_decref(r);
    r = check("tests/data/quantized/gptq-int4-qwen2-bias", (qn_check_options){0});
    assert_false(is_error(problem(r, "invented-bias", "model.layers.0.mlp.up_proj.bias")));
    json_decref(r);
    r = check("models/tiny-qwen3", (qn_check_options){.forward = true});
    const json_t *forward = json_object_get(json_object_get(r, "summary"), "forward");
    assert_int_equal(json_array_size(json_object_get(forward, "layers")), 7);
    json_decref(r);
}

static void against_the_original(void **state) {
    (void)state;
    json_t *r =
        check("models/tiny-qwen3-gptq-int8", (qn_check_options){.against = "models/tiny-qwen3"});
    assert_string_equal(verdict(r), "ok");
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(r, "tensors"), i, e)
        assert_true(json_number_value(json_object_get(e, "cosine")) > 0.9999);
    assert_int_equal(json_array_size(json_object_get(json_object_get(r, "summary"), "worst")), 10);
    json_decref(r);
    r = check("tests/data/quantized/broken-signed-view",
              (qn_check_options){.against = "tests/data/quantized/base-bf16"});
    assert_true(is_error(problem(r, "differs-from-reference",
                                 "model.layers.0.self_attn.q_proj.weight")));
    json_decref(r);
}

// ---- mix-ups: one matrix of a copy of the bundled model is spoilt ----

enum { SIDE = 256 };
typedef void (*spoil_fn)(uint16_t *w);

static void transpose(uint16_t *w) {
    for (size_t i = 0; i < SIDE; i++)
        for (size_t j = 0; j < i; j++) {
            uint16_t x = w[i * SIDE + j];
            w[i * SIDE + j] = w[j * SIDE + i];
            w[j * SIDE + i] = x;
        }
}

static void flip(uint16_t *w) {
    for (size_t i = 0; i < SIDE * SIDE; i++) w[i] ^= 0x8000;
}

static void shift_rows(uint16_t *w) {
    uint16_t *copy = malloc(SIDE * SIDE * 2);
    memcpy(copy, w, SIDE * SIDE * 2);
    for (size_t i = 0; i < SIDE; i++) memcpy(w + (i + 3) % SIDE * SIDE, copy + i * SIDE, SIDE * 2);
    free(copy);
}

static void shuffle_rows(uint16_t *w) {
    uint16_t *copy = malloc(SIDE * SIDE * 2);
    memcpy(copy, w, SIDE * SIDE * 2);
    for (size_t i = 0; i < SIDE; i++) memcpy(w + i * 77 % SIDE * SIDE, copy + i * SIDE, SIDE * 2);
    free(copy);
}

static void permute_columns(uint16_t *w) {
    uint16_t row[SIDE];
    for (size_t i = 0; i < SIDE; i++) {
        memcpy(row, w + i * SIDE, sizeof row);
        for (size_t j = 0; j < SIDE; j++) w[i * SIDE + j * 77 % SIDE] = row[j];
    }
}

// Another weight of the same shape in its place.
static void take_sibling(uint16_t *w) {
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open("models/tiny-qwen3", 0, &err);
    assert_non_null(c);
    memcpy(w, qn_ckpt_find(c, "model.layers.3.self_attn.o_proj.weight")->data, SIDE * SIDE * 2);
    qn_ckpt_free(c);
}

static void copy_file(const char *from, const char *to) {
    qn_buf b = {0};
    qn_err err = {0};
    if (!qn_file_read(from, 1 << 26, &b, &err) || !qn_file_write(to, b.data, b.n, &err))
        fail_msg("%s", err.text);
    qn_buf_done(&b);
}

static void spoilt(spoil_fn spoil, const char *expected) {
    static const char name[] = "model.layers.1.self_attn.q_proj.weight"; // 256 x 256
    qn_err err = {0};
    char *dir = scratch_path("spoilt"), *config = NULL, *weights = NULL;
    assert_int_equal(mkdir(dir, 0777), 0);
    config = qn_path_join(dir, "config.json");
    weights = qn_path_join(dir, "model.safetensors");
    copy_file("models/tiny-qwen3/config.json", config);
    copy_file("models/tiny-qwen3/model.safetensors", weights);
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    assert_non_null(c);
    const qn_tensor *t = qn_ckpt_find(c, name);
    assert_int_equal(t->n, SIDE * SIDE);
    uint16_t *w = malloc(t->bytes);
    memcpy(w, t->data, t->bytes);
    size_t offset = t->offset;
    qn_ckpt_free(c);
    spoil(w);
    FILE *f = fopen(weights, "r+b");
    assert_true(fseek(f, (long)offset, SEEK_SET) == 0 && fwrite(w, 2, SIDE * SIDE, f) == SIDE * SIDE);
    fclose(f);
    json_t *r = check(dir, (qn_check_options){.against = "models/tiny-qwen3"});
    const json_t *p = problem(r, "differs-from-reference", name);
    assert_true(is_error(p));
    const char *message = json_string_value(json_object_get(p, "message"));
    if (!strstr(message, expected)) fail_msg("\"%s\" does not say: %s", message, expected);
    json_decref(r);
    free(w);
    free(config);
    free(weights);
    scratch_remove(dir);
}

static void mixups_are_named(void **state) {
    (void)state;
    spoilt(transpose, "transposed");
    spoilt(flip, "sign flipped");
    spoilt(shift_rows, "shifted down by 3 rows");
    spoilt(shuffle_rows, "row-shuffled");
    spoilt(permute_columns, "permuted");
    spoilt(take_sibling, "it is the reference's model.layers.3.self_attn.o_proj.weight");
}

// Writes zeros over a tensor of a copy of an fp8 model.
static void scales_that_are_all_zero(void **state) {
    (void)state;
    static const char model[] = "tests/data/quantized/fp8-block";
    static const char name[] = "model.layers.1.mlp.up_proj.weight_scale_inv";
    qn_err err = {0};
    char *dir = scratch_path("unscaled"), *config = NULL, *weights = NULL;
    assert_int_equal(mkdir(dir, 0777), 0);
    config = qn_path_join(dir, "config.json");
    weights = qn_path_join(dir, "model.safetensors");
    copy_file("tests/data/quantized/fp8-block/config.json", config);
    copy_file("tests/data/quantized/fp8-block/model.safetensors", weights);
    qn_ckpt *c = qn_ckpt_open(model, 0, &err);
    assert_non_null(c);
    const qn_tensor *t = qn_ckpt_find(c, name);
    assert_non_null(t);
    FILE *f = fopen(weights, "r+b");
    assert_int_equal(fseek(f, (long)t->offset, SEEK_SET), 0);
    for (size_t i = 0; i < t->bytes; i++) fputc(0, f);
    fclose(f);
    qn_ckpt_free(c);
    json_t *r = check(dir, (qn_check_options){0});
    assert_true(is_error(problem(r, "zero-scale", "model.layers.1.mlp.up_proj.weight")));
    json_decref(r);
    free(config);
    free(weights);
    scratch_remove(dir);
}

static void what_cannot_be_looked_at(void **state) {
    (void)state;
    json_t *report;
    qn_err err = {0};
    assert_false(qn_check("tests/data/no-such-folder", &(qn_check_options){0}, &report, &err));
    assert_int_equal(qn_exit_status(err.code), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_damage_has_its_name), cmocka_unit_test(non_finite_positions),
        cmocka_unit_test(healthy_models_raise_no_error), cmocka_unit_test(warnings_that_matter),
        cmocka_unit_test(against_the_original), cmocka_unit_test(mixups_are_named),
        cmocka_unit_test(scales_that_are_all_zero), cmocka_unit_test(what_cannot_be_looked_at),
    };
    qn_log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
