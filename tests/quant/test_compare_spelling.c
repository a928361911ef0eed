// compare of checkpoints that hold the same weights, cut and named otherwise: the families' own
// checkpoints are written again in the other spelling and must come out identical, or differ at
// exactly the place that was changed.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/compare.h"
#include "store/checkpoint.h"
#include "store/shard_writer.h"
#include "support/scratch.h"

#define FAMILIES "tests/data/families/"

// ---- a checkpoint in another spelling ----

typedef struct changes {
    const char *leave_out;        // a tensor that is not written
    const char *spoil;            // a tensor whose first value changes
    const char *prefix_from, *prefix_to;
    bool quantize_experts;        // to 8 bits per channel, as compressed-tensors keep them
    bool head;                    // the embedding again as lm_head
} changes;

typedef struct output {
    char *name;
    qn_dtype dtype;
    size_t shape[QN_MAX_DIMS];
    int n_dims;
    void *data;
    size_t bytes;
} output;

static output outputs[512];
static size_t n_outputs;

static void put(char *name_take, qn_dtype dtype, const size_t *shape, int n_dims,
                const void *data) {
    output *o = &outputs[n_outputs++];
    *o = (output){.name = name_take, .dtype = dtype, .n_dims = n_dims,
                  .bytes = qn_dtype_bytes(dtype)};
    for (int i = 0; i < n_dims; i++) o->bytes *= o->shape[i] = shape[i];
    o->data = malloc(o->bytes);
    memcpy(o->data, data, o->bytes);
}

static void put_quantized(char *name_take, const qn_tensor *t, size_t row0, size_t rows,
                          size_t cols) {
    float *x = malloc(rows * cols * sizeof *x), *scale = malloc(rows * sizeof *scale);
    int8_t *code = malloc(rows * cols);
    qn_tensor_to_f32(t, row0 * cols, rows * cols, x);
    for (size_t i = 0; i < rows; i++) {
        scale[i] = 0.25f; // coarse: this is about names
        for (size_t j = 0; j < cols; j++) code[i * cols + j] = (int8_t)(x[i * cols + j] * 4);
    }
    put(qn_strf("%s_scale", name_take), QN_DT_F32, (const size_t[]){rows, 1}, 2, scale);
    put(name_take, QN_DT_I8, (const size_t[]){rows, cols}, 2, code);
    free(x);
    free(scale);
    free(code);
}

// Rows of a tensor as a matrix of their own.
static void put_rows(char *name_take, const qn_tensor *t, size_t row0, size_t rows,
                     const changes *c) {
    size_t cols = t->shape[t->n_dims - 1];
    if (c->quantize_experts) {
        put_quantized(name_take, t, row0, rows, cols);
        return;
    }
    put(name_take, t->dtype, (const size_t[]){rows, cols}, 2,
        t->data + row0 * cols * qn_dtype_bytes(t->dtype));
}

static bool put_experts(const qn_tensor *t, const char *name, const changes *c) {
    size_t n = strlen(name), rows = t->n_dims == 3 ? t->shape[1] : 0;
    for (size_t e = 0; t->n_dims == 3 && e < t->shape[0]; e++) {
        if (qn_str_ends(name, "experts.down_proj")) {
            put_rows(qn_strf("%.*s%zu.down_proj.weight", (int)(n - 9), name, e), t, e * rows, rows,
                     c);
        } else if (qn_str_ends(name, "experts.gate_up_proj")) {
            int stem = (int)(n - 12);
            put_rows(qn_strf("%.*s%zu.gate_proj.weight", stem, name, e), t, e * rows, rows / 2, c);
            put_rows(qn_strf("%.*s%zu.up_proj.weight", stem, name, e), t, e * rows + rows / 2,
                     rows / 2, c);
        } else {
            return false;
        }
    }
    return rows != 0;
}

// Qwen3-Next's: 2 key heads of 16, 4 value heads of 16. Row r of a group of `size` goes on.
static void put_group_rows(const qn_tensor *t, const char *name, int stem, const char *to,
                           const size_t (*runs)[2], size_t n_runs) {
    size_t cols = t->shape[1], bytes = cols * 2, size = t->shape[0] / 2, rows = 0;
    uint8_t *out = malloc(t->bytes);
    for (size_t k = 0; k < n_runs; k++)
        for (size_t g = 0; g < 2; g++) {
            memcpy(out + rows * bytes, t->data + (g * size + runs[k][0]) * bytes,
                   runs[k][1] * bytes);
            rows += runs[k][1];
        }
    put(qn_strf("%.*s%s", stem, name, to), t->dtype, (const size_t[]){rows, cols}, 2, out);
    free(out);
}

static bool put_projections(const qn_tensor *t, const char *name) {
    static const size_t qkv[][2] = {{0, 16}, {16, 16}, {32, 32}}, z[][2] = {{64, 32}};
    static const size_t b[][2] = {{0, 2}}, a[][2] = {{2, 2}};
    int n = (int)strlen(name);
    if (qn_str_ends(name, "in_proj_qkvz.weight")) {
        put_group_rows(t, name, n - 11, "qkv.weight", qkv, 3);
        put_group_rows(t, name, n - 11, "z.weight", z, 1);
        return true;
    }
    if (!qn_str_ends(name, "in_proj_ba.weight")) return false;
    put_group_rows(t, name, n - 9, "b.weight", b, 1);
    put_group_rows(t, name, n - 9, "a.weight", a, 1);
    return true;
}

static void collect(qn_ckpt *from, const changes *c) {
    for (size_t i = 0; i < qn_ckpt_n_tensors(from); i++) {
        const qn_tensor *t = qn_ckpt_tensor(from, i);
        char *name = c->prefix_from && qn_str_starts(t->name, c->prefix_from)
                         ? qn_strf("%s%s", c->prefix_to, t->name + strlen(c->prefix_from))
                         : qn_strdup(t->name);
        if (c->head && qn_str_ends(name, "embed_tokens.weight"))
            put(qn_strdup("lm_head.weight"), t->dtype, t->shape, t->n_dims, t->data);
        if (!put_experts(t, name, c) && !put_projections(t, name))
            put(qn_strdup(name), t->dtype, t->shape, t->n_dims, t->data);
        qn_free(name);
    }
}

static void write_outputs(const char *path, const changes *c) {
    qn_err err = {0};
    qn_shards *s = qn_shards_new_file(path, NULL, &err);
    assert_non_null(s);
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < n_outputs; i++) {
            output *o = &outputs[i];
            if (c->leave_out && strcmp(o->name, c->leave_out) == 0) continue;
            if (c->spoil && strcmp(o->name, c->spoil) == 0) ((uint8_t *)o->data)[1] = 0x42;
            bool ok = round ? qn_shards_add(s, o->data, o->bytes, &err)
                            : qn_shards_declare(s, o->name, o->dtype, o->shape, o->n_dims, &err);
            if (!ok) fail_msg("%s", err.text);
        }
    if (!qn_shards_finish(s, &err)) fail_msg("%s", err.text);
    qn_shards_free(s);
    for (size_t i = 0; i < n_outputs; i++) {
        qn_free(outputs[i].name);
        free(outputs[i].data);
    }
    n_outputs = 0;
}

static char *spelled_otherwise(const char *model, changes c) {
    qn_err err = {0};
    qn_buf config = {0};
    char *path = qn_strf(FAMILIES "%s/config.json", model), *dir = scratch_path("model");
    assert_true(qn_file_read(path, 1 << 20, &config, &err));
    qn_free(path);
    assert_int_equal(mkdir(dir, 0700), 0);
    path = qn_path_join(dir, "config.json");
    if (c.quantize_experts) {
        json_t *j = qn_json_parse(config.data, config.n, "config", &err);
        json_object_set_new(
            j, "quantization_config",
            json_pack("{s:s,s:s,s:{s:{s:[s],s:{s:i,s:s,s:b,s:s}}}}", "quant_method",
                      "compressed-tensors", "format", "int-quantized", "config_groups", "group_0",
                      "targets", "Linear", "weights", "num_bits", 8, "type", "int", "symmetric", 1,
                      "strategy", "channel"));
        qn_buf_clear(&config);
        char *text = qn_json_text(j, false);
        qn_buf_adds(&config, text);
        qn_free(text);
        json_decref(j);
    }
    assert_true(qn_file_write(path, config.data, config.n, &err));
    qn_free(path);
    qn_buf_done(&config);
    char *from = qn_strf(FAMILIES "%s", model);
    qn_ckpt *ckpt = qn_ckpt_open(from, 0, &err);
    if (!ckpt) fail_msg("%s", err.text);
    collect(ckpt, &c);
    path = qn_path_join(dir, "model.safetensors");
    write_outputs(path, &c);
    qn_free(path);
    qn_free(from);
    qn_ckpt_free(ckpt);
    return dir;
}

// ---- what compare says ----

static json_t *compare(const char *a, const char *b, double max_abs) {
    qn_compare_options o = {.cosine = 0.9, .max_abs = max_abs, .top1 = 1, .n_threads = 2};
    json_t *r = NULL;
    qn_err err = {0};
    if (!qn_compare(a, b, &o, &r, &err)) fail_msg("%s", err.text);
    return r;
}

static const char *text_at(const json_t *list, size_t i) {
    const char *s = json_string_value(json_array_get(list, i));
    return s ? s : "";
}

static size_t size_of(const json_t *r, const char *key) {
    return json_array_size(json_object_get(r, key));
}

// In both directions: identical, nothing left over.
static void same(const char *model, char *dir_take, size_t n_notes) {
    char *path = qn_strf(FAMILIES "%s", model);
    for (int i = 0; i < 2; i++) {
        json_t *r = compare(i ? path : dir_take, i ? dir_take : path, 0);
        if (!json_is_true(json_object_get(r, "identical")))
            fail_msg("%s: %s", model, text_at(json_object_get(r, "reasons"), 0));
        assert_int_equal(size_of(r, "only_in_a"), 0);
        assert_int_equal(size_of(r, "only_in_b"), 0);
        assert_int_equal(size_of(r, "notes"), n_notes);
        json_decref(r);
    }
    qn_free(path);
    scratch_remove(dir_take);
}

static void experts_one_by_one(void **state) {
    (void)state;
    same("qwen3_moe-fused", spelled_otherwise("qwen3_moe-fused", (changes){0}), 1);
    same("qwen3_5_moe", spelled_otherwise("qwen3_5_moe", (changes){0}), 1); // the draft's too
}

static void interleaved_projections(void **state) {
    (void)state;
    same("qwen3_next", spelled_otherwise("qwen3_next", (changes){0}), 1);
}

static void another_prefix_and_a_tied_head(void **state) {
    (void)state;
    changes c = {.prefix_from = "model.language_model.", .prefix_to = "model."};
    same("qwen3_5", spelled_otherwise("qwen3_5", c), 1);
    same("qwen3_5", spelled_otherwise("qwen3_5", (changes){.head = true}), 1);
    c.prefix_from = "model.visual.", c.prefix_to = "visual.";
    same("qwen3_5", spelled_otherwise("qwen3_5", c), 0);
}

static void what_differs_is_named(void **state) {
    (void)state;
    static const char layer[] = "model.language_model.layers.1.mlp.experts.";
    changes c = {.leave_out = "model.language_model.layers.1.mlp.experts.0.gate_proj.weight",
                 .spoil = "model.language_model.layers.1.mlp.experts.6.down_proj.weight"};
    char *dir = spelled_otherwise("qwen3_5_moe", c);
    for (int i = 0; i < 2; i++) {
        const char *fused = FAMILIES "qwen3_5_moe", *only = i ? "only_in_b" : "only_in_a";
        json_t *r = compare(i ? dir : fused, i ? fused : dir, 0), *e;
        size_t k, n = 0;
        assert_int_equal(size_of(r, only), 1);
        assert_int_equal(size_of(r, i ? "only_in_a" : "only_in_b"), 0);
        assert_string_equal(text_at(json_object_get(r, only), 0), c.leave_out);
        json_array_foreach(json_object_get(r, "tensors"), k, e) {
            if (json_is_true(json_object_get(e, "identical"))) continue;
            assert_string_equal(json_string_value(json_object_get(e, "name")), c.spoil);
            char *whole = qn_strf("%sdown_proj", layer);
            assert_string_equal(
                json_string_value(json_object_get(e, i ? "part_of_b" : "part_of_a")), whole);
            qn_free(whole);
            n++;
        }
        assert_int_equal(n, 1);
        json_decref(r);
    }
    scratch_remove(dir);
}

// Quantized one by one against fused and float.
static void quantized_experts(void **state) {
    (void)state;
    char *dir = spelled_otherwise("qwen3_5_moe", (changes){.quantize_experts = true});
    json_t *r = compare(dir, FAMILIES "qwen3_5_moe", 0.26), *e;
    size_t i, n = 0;
    assert_int_equal(size_of(r, "only_in_a"), 0);
    assert_int_equal(size_of(r, "only_in_b"), 0);
    json_array_foreach(json_object_get(r, "tensors"), i, e) {
        bool quantized = strstr(json_string_value(json_object_get(e, "stored_a")), "8-bit");
        assert_int_equal(quantized, !json_is_true(json_object_get(e, "identical")));
        assert_true(json_number_value(json_object_get(e, "max_abs_error")) < 0.25);
        n += quantized;
    }
    assert_int_equal(n, 4 * 8 * 3); // three layers and the draft, eight experts, three matrices
    json_decref(r);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_one_by_one),
        cmocka_unit_test(interleaved_projections),
        cmocka_unit_test(another_prefix_and_a_tied_head),
        cmocka_unit_test(what_differs_is_named),
        cmocka_unit_test(quantized_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
