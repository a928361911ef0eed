// What must not pass for sound: folders edited tensor by tensor from tests/data/quantized/base-bf16,
// and what check, convert, pad and dump say of them.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/f16.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/check.h"
#include "quant/convert.h"
#include "quant/dump.h"
#include "quant/pad.h"
#include "store/checkpoint.h"
#include "store/shard_writer.h"
#include "support/scratch.h"

#define BASE "tests/data/quantized/base-bf16"
#define UP "model.layers.0.mlp.up_proj.weight"

typedef struct edit {
    const char *tensor;
    double factor;    // its values are multiplied
    bool as_integers; // then stored as I32
    const char *copy; // a tensor of this name is added: the embedding times copy_factor
    double copy_factor;
} edit;

static void declare(qn_shards *s, const char *name, const qn_tensor *t, qn_dtype dtype) {
    qn_err err = {0};
    if (!qn_shards_declare(s, name, dtype, t->shape, t->n_dims, &err)) fail_msg("%s", err.text);
}

static void write_values(qn_shards *s, const qn_tensor *t, double factor, bool integers) {
    size_t width = integers ? 4 : 2;
    uint8_t *out = qn_alloc(t->n * width);
    float *x = qn_alloc(t->n * sizeof *x);
    qn_err err = {0};
    qn_tensor_to_f32(t, 0, t->n, x);
    for (size_t i = 0; i < t->n; i++) {
        int32_t whole = (int32_t)(x[i] * 1000);
        uint16_t half = qn_f32_to_bf16((float)((double)x[i] * factor));
        memcpy(out + i * width, integers ? (void *)&whole : (void *)&half, width);
    }
    if (!qn_shards_add(s, out, t->n * width, &err)) fail_msg("%s", err.text);
    qn_free(out);
    qn_free(x);
}

static char *edited(const edit *e, bool tied) {
    qn_err err = {0};
    char *dir = scratch_path("edited"), *config = qn_path_join(dir, "config.json");
    qn_ckpt *c = qn_ckpt_open(BASE, 0, &err);
    assert_non_null(c);
    mkdir(dir, 0777);
    json_t *j = json_deep_copy(qn_ckpt_config(c));
    json_object_set_new(j, "tie_word_embeddings", json_boolean(tied));
    json_dump_file(j, config, 0);
    qn_shards *s = qn_shards_new(dir, "model", 0, NULL, &err);
    const qn_tensor *embed = qn_ckpt_find(c, "model.embed_tokens.weight");
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < qn_ckpt_n_tensors(c); i++) {
            const qn_tensor *t = qn_ckpt_tensor(c, i);
            bool chosen = e->tensor && strcmp(t->name, e->tensor) == 0;
            bool integers = chosen && e->as_integers;
            if (tied && strcmp(t->name, "lm_head.weight") == 0) continue;
            if (pass == 0) declare(s, t->name, t, integers ? QN_DT_I32 : QN_DT_BF16);
            else write_values(s, t, chosen ? e->factor : 1, integers);
        }
        if (!e->copy) continue;
        if (pass == 0) declare(s, e->copy, embed, QN_DT_BF16);
        else write_values(s, embed, e->copy_factor, false);
    }
    if (!qn_shards_finish(s, &err)) fail_msg("%s", err.text);
    qn_shards_free(s);
    qn_ckpt_free(c);
    json_decref(j);
    qn_free(config);
    return dir;
}

static json_t *check(const char *model) {
    json_t *report;
    qn_err err = {0};
    if (!qn_check(model, &(qn_check_options){.n_threads = 2}, &report, &err))
        fail_msg("%s: %s", model, err.text);
    return report;
}

// The message of the first problem with this code, or "".
static const char *said(const json_t *report, const char *code, const char **severity) {
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(report, "problems"), i, p) {
        if (strcmp(json_string_value(json_object_get(p, "code")), code) != 0) continue;
        *severity = json_string_value(json_object_get(p, "severity"));
        return json_string_value(json_object_get(p, "message"));
    }
    *severity = "";
    return "";
}

static size_t count(const json_t *report, const char *code) {
    size_t i, n = 0;
    json_t *p;
    json_array_foreach(json_object_get(report, "problems"), i, p)
        n += strcmp(json_string_value(json_object_get(p, "code")), code) == 0;
    return n;
}

static void convert_refuses(const char *model, const char *words) {
    qn_err err = {0};
    json_t *report;
    struct stat st;
    char *out = scratch_path("out");
    qn_convert_options o = {.dtype = QN_TO_F16, .n_threads = 2};
    assert_false(qn_convert(model, out, &o, &report, &err));
    if (!strstr(err.text, words)) fail_msg("%s", err.text);
    assert_int_not_equal(stat(out, &st), 0);
    scratch_remove(out);
}

static void integers_are_no_weights(void **state) {
    (void)state;
    char *dir = edited(&(edit){UP, 1, true, NULL, 0}, true);
    const char *severity;
    json_t *r = check(dir);
    assert_non_null(strstr(said(r, "shape-mismatch", &severity), "dtype is I32, expected floats"));
    assert_string_equal(severity, "error");
    convert_refuses(dir, UP);
    json_decref(r);
    scratch_remove(dir);
}

static void what_f16_loses_is_told(void **state) {
    (void)state;
    char *dir = edited(&(edit){UP, 1e-6, false, NULL, 0}, true);
    const char *severity;
    json_t *r = check(dir), *whole = check(BASE);
    assert_non_null(strstr(said(r, "fp16-range", &severity), "become 0 as f16"));
    assert_string_equal(severity, "warning");
    assert_int_equal(count(whole, "fp16-range"), 0);
    json_decref(r);
    json_decref(whole);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        qn_err err = {0};
        char *out = scratch_path("out");
        qn_convert_options o = {.dtype = bf16 ? QN_TO_BF16 : QN_TO_F16, .n_threads = 2};
        if (!qn_convert(dir, out, &o, &r, &err)) fail_msg("%s", err.text);
        char *notes = json_dumps(json_object_get(r, "notes"), 0);
        assert_int_equal(strstr(notes, UP " first") != NULL, !bf16);
        free(notes);
        json_decref(r);
        scratch_remove(out);
    }
    scratch_remove(dir);
}

static void a_tied_head_is_compared(void **state) {
    (void)state;
    const char *severity;
    for (int same = 0; same < 2; same++) {
        char *dir = edited(&(edit){NULL, 1, false, "lm_head.weight", same ? 1 : 2}, true);
        json_t *r = check(dir);
        const char *text = said(r, "unexpected-tensor", &severity);
        if (!strstr(text, same ? "a copy of the embedding" : "differs from it"))
            fail_msg("%s", text);
        json_decref(r);
        scratch_remove(dir);
    }
}

static void devices_hear_why(void **state) {
    (void)state;
    const char *severity;
    json_t *r = check(BASE); // 2 heads
    json_t *tp = json_object_get(json_object_get(r, "summary"), "tp_divisible");
    assert_true(json_is_false(json_object_get(tp, "4")));
    const char *text = said(r, "tp-indivisible", &severity);
    if (!strstr(text, "4 devices") || !strstr(text, "num_attention_heads")) fail_msg("%s", text);
    json_decref(r);
}

static void fp8_scales_have_figures(void **state) {
    (void)state;
    json_t *r = check("tests/data/quantized/fp8-block");
    size_t i, n = 0;
    json_t *e;
    json_array_foreach(json_object_get(r, "tensors"), i, e) {
        const json_t *q = json_object_get(e, "quantized");
        if (!q) continue;
        n++;
        double lo = json_number_value(json_object_get(q, "scale_min"));
        double hi = json_number_value(json_object_get(q, "scale_max"));
        double mean = json_number_value(json_object_get(q, "scale_mean"));
        assert_true(lo > 0 && lo <= mean && mean <= hi);
        assert_null(json_object_get(q, "code_histogram"));
    }
    assert_true(n > 0);
    json_decref(r);
}

static void an_absent_file_is_one_problem(void **state) {
    (void)state;
    const char *severity;
    char *dir = edited(&(edit){NULL, 1, false, NULL, 0}, true);
    char *path = qn_path_join(dir, "model.safetensors");
    unlink(path);
    assert_int_equal(symlink("nowhere", path), 0);
    json_t *r = check(dir);
    assert_int_equal(count(r, "missing-tensor"), 1);
    assert_non_null(strstr(said(r, "missing-tensor", &severity), "not in what could be read"));
    json_decref(r);
    qn_free(path);
    scratch_remove(dir);
}

// A new folder made of wrongly read codes would pass for a right one.
static void wrong_codes_are_not_carried_over(void **state) {
    (void)state;
    static const char *const folders[] = {"tests/data/quantized/broken-signed-view",
                                          "tests/data/quantized/broken-zero-off-by-one"};
    for (int i = 0; i < 2; i++) {
        qn_err err = {0};
        json_t *report;
        char *out = scratch_path("out");
        convert_refuses(folders[i], i ? "is zero-offset" : "is signed-view");
        qn_pad_options pad = {.tp = 8, .n_threads = 2};
        assert_false(qn_pad(folders[i], out, &pad, &report, &err));
        assert_non_null(strstr(err.text, "quern repair"));
        qn_convert_options o = {.dtype = QN_TO_F16, .n_threads = 2, .as_is = true};
        err = (qn_err){0};
        if (!qn_convert(folders[i], out, &o, &report, &err)) fail_msg("%s", err.text);
        const json_t *notes = json_object_get(report, "notes");
        assert_true(json_array_size(notes) > 0);
        assert_non_null(strstr(json_string_value(json_array_get(notes, 0)), "carried over"));
        json_decref(report);
        scratch_remove(out);
    }
}

static void a_dump_tells_where_it_broke(void **state) {
    (void)state;
    for (int hidden = 0; hidden < 2; hidden++) {
        qn_err err = {0};
        const int32_t tokens[] = {1, 2, 3};
        struct stat st;
        qn_model_options mo = {.precision = QN_EXACT, .n_threads = 2};
        qn_engine_options eo = {.no_prefix_cache = true, .max_num_seqs = 1};
        qn_model *m = qn_model_load("tests/data/quantized/broken-nan", &mo, &err);
        qn_engine *e = m ? qn_engine_new(m, &eo, &err) : NULL;
        if (!e) fail_msg("%s", err.text);
        char *path = scratch_path("dump.safetensors");
        qn_dump_options o = {.tokens = tokens, .n_tokens = 3, .hidden = hidden};
        assert_false(qn_dump_write(m, e, path, &o, &err));
        assert_int_equal(err.code, QN_NONFINITE);
        if (!strstr(err.text, hidden ? "hidden." : "logits")) fail_msg("%s", err.text);
        assert_int_equal(stat(path, &st), 0);
        scratch_remove(path);
        qn_engine_free(e);
        qn_model_free(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_no_weights),
        cmocka_unit_test(what_f16_loses_is_told),
        cmocka_unit_test(a_tied_head_is_compared),
        cmocka_unit_test(devices_hear_why),
        cmocka_unit_test(fp8_scales_have_figures),
        cmocka_unit_test(an_absent_file_is_one_problem),
        cmocka_unit_test(wrong_codes_are_not_carried_over),
        cmocka_unit_test(a_dump_tells_where_it_broke),
    };
    qn_log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
