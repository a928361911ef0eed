// Wrong labels: what check makes of them and how repair puts them right. Folders borrow the weights of
// the test data and have a config of their own.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "quant/check.h"
#include "quant/repair.h"
#include "store/checkpoint.h"
#include "store/weight.h"
#include "support/scratch.h"

#define DATA "tests/data/quantized/"

static void borrow(const char *from, const char *dir, const char *name) {
    char *inner = qn_path_join(from, name), *whole = realpath(inner, NULL);
    char *link = qn_path_join(dir, name);
    assert_non_null(whole);
    assert_int_equal(symlink(whole, link), 0);
    free(inner);
    free(whole);
    free(link);
}

static void merge(json_t *into, json_t *edit) {
    const char *key;
    json_t *value;
    json_object_foreach(edit, key, value) {
        if (json_is_null(value)) json_object_del(into, key);
        else if (json_is_object(json_object_get(into, key)) && json_object_size(value))
            merge(json_object_get(into, key), value);
        else json_object_set(into, key, value);
    }
}

// A folder like this one, its quantization config changed (edit NULL: removed).
static char *folder_with(const char *source, const char *edit) {
    qn_err err = {0};
    char *from = qn_strf(DATA "%s", source), *dir = scratch_path("label");
    assert_int_equal(mkdir(dir, 0777), 0);
    borrow(from, dir, "model.safetensors");
    char *path = qn_path_join(from, "config.json");
    json_t *config = qn_json_load(path, 1 << 20, &err);
    assert_non_null(config);
    free(path);
    if (edit) {
        json_t *e = json_loads(edit, 0, NULL);
        assert_non_null(e);
        merge(json_object_get(config, "quantization_config"), e);
        json_decref(e);
    } else {
        json_object_del(config, "quantization_config");
    }
    path = qn_path_join(dir, "config.json");
    char *text = qn_json_text(config, false);
    assert_true(qn_file_write(path, text, strlen(text), &err));
    json_decref(config);
    qn_free(text);
    free(path);
    free(from);
    return dir;
}

// ---- check ----

static void check_says(const char *source, const char *edit, const char *severity,
                       const char *message) {
    char *dir = folder_with(source, edit);
    json_t *report, *found = NULL, *p;
    qn_err err = {0};
    size_t i;
    if (!qn_check(dir, &(qn_check_options){.n_threads = 2}, &report, &err)) fail_msg("%s", err.text);
    json_array_foreach(json_object_get(report, "problems"), i, p)
        if (strstr(json_string_value(json_object_get(p, "message")), message)) found = p;
    if (!found) fail_msg("%s %s: nothing says: %s", source, edit, message);
    assert_string_equal(json_string_value(json_object_get(found, "code")), "label-mismatch");
    assert_string_equal(json_string_value(json_object_get(found, "severity")), severity);
    bool bad = strcmp(severity, "error") == 0;
    assert_string_equal(json_string_value(json_object_get(report, "verdict")),
                        bad ? "problems" : "ok");
    // Who reads strictly reads it just when check has no error.
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    assert_int_equal(c && qn_ckpt_weights(c, NULL, NULL, &err), !bad);
    qn_ckpt_free(c);
    json_decref(report);
    scratch_remove(dir);
}

static void check_and_the_readers_agree(void **state) {
    (void)state;
    check_says("gptq-int4-v2", "{\"quant_method\":\"frobnicate\"}", "error", "frobnicate is not one");
    check_says("gptq-int4-v2", "{\"bits\":\"4\"}", "error", "bits is \"4\"");
    check_says("gptq-int4-v2", "{\"checkpoint_format\":\"marlin\"}", "error", "is marlin");
    check_says("fp8-block", "{\"fmt\":\"e5m2\"}", "error", "fmt is e5m2");
    check_says("gptq-int4-v2", "{\"quant_method\":\"awq\"}", "warning", "the method is awq, but");
    check_says("awq-gemm-g64", "{\"quant_method\":\"gptq\"}", "warning", "the method is gptq, but");
    check_says("gptq-int4-v2", "{\"pack_dtype\":\"int64\"}", "warning", "pack_dtype is int64");
}

// ---- repair ----

static bool same_row(const qn_weight *a, const qn_weight *b, size_t row) {
    float *x = malloc(a->cols * sizeof *x), *y = malloc(a->cols * sizeof *y);
    qn_err err = {0};
    bool same = a->cols == b->cols && qn_weight_decode(a, row, 1, x, &err) &&
                qn_weight_decode(b, row, 1, y, &err) && memcmp(x, y, a->cols * sizeof *x) == 0;
    free(x);
    free(y);
    return same;
}

static void same_weights(const char *dir, const char *source) {
    qn_err err = {0};
    const qn_weight *list;
    size_t n, quantized = 0;
    char *from = qn_strf(DATA "%s", source);
    qn_ckpt *a = qn_ckpt_open(dir, 0, &err), *b = qn_ckpt_open(from, 0, &err);
    assert_true(a && b && qn_ckpt_weights(a, &list, &n, &err) &&
                qn_ckpt_weights(b, NULL, NULL, &err));
    assert_int_equal(qn_ckpt_n_label_errors(a), 0);
    for (size_t i = 0; i < n; i++) {
        const qn_weight *w = &list[i], *right = qn_ckpt_weight(b, w->name);
        if (!w->scheme) continue;
        quantized++;
        assert_ptr_equal(w->scheme, right->scheme);
        assert_true(same_row(w, right, 0) && same_row(w, right, w->rows - 1));
    }
    assert_true(quantized > 0);
    qn_ckpt_free(a);
    qn_ckpt_free(b);
    free(from);
}

static void labels_are_put_right(void **state) {
    (void)state;
    static const struct {
        const char *source, *edit, *key, *value; // the key afterwards, as JSON; NULL: gone
    } cases[] = {
        {"gptq-int8-channel", "{\"group_size\":32}", "group_size", "-1"},
        {"gptq-int4-g32-actorder", "{\"desc_act\":false}", "desc_act", "true"},
        {"gptq-int4-v2", "{\"bits\":null,\"group_size\":null}", "bits", "4"},
        {"gptq-int4-v2", "{\"quant_method\":\"awq\"}", "quant_method", "\"gptq\""},
        {"gptq-int4-v2", "{\"quant_method\":\"awq\"}", "checkpoint_format", "\"gptq_v2\""},
        {"gptq-int4-v2", "{\"quant_method\":\"fp8\"}", "quant_method", "\"gptq\""},
        {"gptq-int4-v2", "{\"pack_dtype\":\"int64\"}", "pack_dtype", "\"int32\""},
        {"gptq-int4-v2", "{\"lm_head\":true}", "lm_head", "false"},
        {"gptq-int4-v2", "{\"dynamic\":{\"-:.*mlp.*\":{},\"-:visual\":{}}}", "dynamic",
         "{\"-:visual\":{}}"},
        {"gptq-int4-v2", NULL, "checkpoint_format", "\"gptq_v2\""},
        {"awq-gemm-g64", "{\"version\":\"gemv\"}", "version", "\"gemm\""},
        {"awq-gemm-g64", "{\"quant_method\":\"gptq\",\"version\":null}", "quant_method", "\"awq\""},
        {"awq-gemm-g64", "{\"modules_to_not_convert\":[\"visual\",\"up_proj\"]}",
         "modules_to_not_convert", "[\"visual\"]"},
        {"awq-gemm-g64", NULL, "group_size", "64"},
        {"fp8-block", "{\"weight_block_size\":[64,64]}", "weight_block_size", "[128,128]"},
        {"fp8-block", "{\"quant_method\":\"gptq\"}", "quant_method", "\"fp8\""},
        {"fp8-block", NULL, "modules_to_not_convert", "[\"lm_head\"]"},
        {"ct-pack-w4a16-g128", "{\"format\":\"int-quantized\"}", "format", "\"pack-quantized\""},
        {"ct-pack-w4a16-g128",
         "{\"config_groups\":{\"group_0\":{\"weights\":{\"num_bits\":8,\"group_size\":32}}}}", "ignore",
         "[\"lm_head\"]"},
        {"ct-pack-asym", NULL, "ignore", "[\"lm_head\"]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_err err = {0};
        json_t *report;
        char *dir = folder_with(cases[i].source, cases[i].edit), *out = scratch_path("right");
        if (!qn_repair(dir, out, &(qn_repair_options){0}, &report, &err))
            fail_msg("%s %s: %s", cases[i].source, cases[i].edit, err.text);
        same_weights(out, cases[i].source);
        char *path = qn_path_join(out, "config.json");
        json_t *config = qn_json_load(path, 1 << 20, &err);
        json_t *found = json_object_get(json_object_get(config, "quantization_config"),
                                        cases[i].key);
        json_t *expected = json_loads(cases[i].value, JSON_DECODE_ANY, NULL);
        if (!json_equal(found, expected))
            fail_msg("%s %s: %s is %s", cases[i].source, cases[i].edit, cases[i].key,
                     json_dumps(found, JSON_ENCODE_ANY));
        json_decref(expected);
        json_decref(config);
        json_decref(report);
        free(path);
        scratch_remove(dir);
        scratch_remove(out);
    }
}

// Dense layers that the label forgets are added to it, whatever else it says.
static void dense_layers_are_added(void **state) {
    (void)state;
    qn_err err = {0};
    json_t *report;
    char *dir = folder_with("gptq-int4-partial", "{\"dynamic\":null}");
    char *out = scratch_path("partial");
    if (!qn_repair(dir, out, &(qn_repair_options){0}, &report, &err)) fail_msg("%s", err.text);
    same_weights(out, "gptq-int4-partial");
    json_decref(report);
    scratch_remove(dir);
    scratch_remove(out);
}

static void what_the_tensors_do_not_tell(void **state) {
    (void)state;
    static const char *const sources[] = {"ct-int8-channel", "ct-fp8-channel"};
    for (size_t i = 0; i < 2; i++) {
        qn_err err = {0};
        json_t *report;
        char *dir = folder_with(sources[i], NULL), *out = scratch_path("never");
        assert_false(qn_repair(dir, out, &(qn_repair_options){0}, &report, &err));
        assert_int_equal(err.code, QN_UNSUPPORTED);
        assert_non_null(strstr(err.text, "whether activations are quantized too is not in the"));
        assert_false(qn_file_exists(out));
        scratch_remove(dir);
        scratch_remove(out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_and_the_readers_agree), cmocka_unit_test(labels_are_put_right),
        cmocka_unit_test(dense_layers_are_added), cmocka_unit_test(what_the_tensors_do_not_tell),
    };
    qn_log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
