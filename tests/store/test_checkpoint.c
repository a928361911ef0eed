// Folders: shards and their index, configs, the broken fixtures, what tolerant openings report.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "store/weight.h"
#include "temp_model.h"

static const float numbers[] = {1, 2, 3, 4, 5, 6};

static void expect_refused(const char *path, qn_code code, const char *message) {
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open(path, 0, &err);
    bool ok = c && qn_ckpt_weights(c, NULL, NULL, &err);
    qn_ckpt_free(c);
    if (ok) fail_msg("%s was taken, expected: %s", path, message);
    if (!strstr(err.text, message)) fail_msg("found %s, expected %s", err.text, message);
    assert_int_equal(err.code, code);
    assert_null(strchr(err.text, '\n'));
}

// Opened tolerantly, the damage is named and everything else can be read.
static qn_ckpt *open_damaged(const char *path, const char *code, const char *tensor) {
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open(path, QN_CKPT_TOLERANT, &err);
    if (!c || !qn_ckpt_weights(c, NULL, NULL, &err)) fail_msg("%s: %s", path, err.text);
    for (size_t i = 0; i < qn_ckpt_n_damages(c); i++) {
        const qn_damage *d = qn_ckpt_damage(c, i);
        if (strcmp(d->code, code) != 0) continue;
        if (!tensor || (d->tensor && strcmp(d->tensor, tensor) == 0)) return c;
    }
    fail_msg("%s: no damage %s", path, code);
    return c;
}

#define BROKEN "tests/data/quantized/broken-"

static void broken_fixtures_are_named(void **state) {
    (void)state;
    expect_refused(BROKEN "bad-offsets", QN_INPUT,
                   "tests/data/quantized/broken-bad-offsets/model.safetensors: tensors "
                   "model.layers.0.mlp.gate_proj.weight and model.layers.0.mlp.up_proj.weight "
                   "overlap: one ends at offset 36992, the other begins at 24960");
    expect_refused(BROKEN "dup-key", QN_INPUT, "tensor model.norm.weight is in the header twice");
    expect_refused(BROKEN "huge-header", QN_INPUT, "header of 4611686018427387904 bytes, expected "
                   "at most 100000000");
    expect_refused(BROKEN "truncated", QN_INPUT, "the file has 56367 bytes, but tensor "
                   "model.layers.0.self_attn.k_proj.weight ends at 59056: truncated");
    qn_ckpt *c = open_damaged(BROKEN "bad-offsets", "overlap",
                              "model.layers.0.mlp.up_proj.weight");
    assert_int_equal(qn_ckpt_n_tensors(c), 13);
    qn_ckpt_free(c);
    qn_ckpt_free(open_damaged(BROKEN "dup-key", "duplicate-key", "model.norm.weight"));
    c = open_damaged(BROKEN "truncated", "truncated", "model.layers.0.self_attn.k_proj.weight");
    const qn_tensor *t = qn_ckpt_find(c, "model.layers.0.self_attn.k_proj.weight");
    assert_true(t && !t->data);
    t = qn_ckpt_find(c, "model.embed_tokens.weight");
    assert_true(t && t->data);
    qn_err err = {0};
    qn_mat m;
    const qn_weight *w = qn_ckpt_weight(c, "model.layers.0.self_attn.k_proj.weight");
    assert_false(qn_weight_load(w, 0, w->rows, QN_STORED, NULL, &m, &err));
    assert_string_equal(err.text, "tensor model.layers.0.self_attn.k_proj.weight: its data are not "
                        "in the file");
    qn_ckpt_free(c);
    // The length field lies, and yet nothing is lost.
    c = open_damaged(BROKEN "huge-header", "bad-header", NULL);
    assert_int_equal(qn_ckpt_n_damages(c), 1);
    assert_int_equal(qn_ckpt_n_tensors(c), 13);
    t = qn_ckpt_find(c, "model.norm.weight");
    assert_true(t && t->data);
    qn_ckpt_free(c);
}

static void sharded_folders_are_one(void **state) {
    (void)state;
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open("tests/data/families/qwen2-untied-sharded", 0, &err);
    assert_non_null(c);
    assert_int_equal(qn_ckpt_n_shards(c), 3);
    assert_string_equal(qn_ckpt_shard_name(c, 1), "model-00002-of-00003.safetensors");
    const qn_tensor *before = NULL;
    for (size_t i = 0; i < qn_ckpt_n_tensors(c); i++) {
        const qn_tensor *t = qn_ckpt_tensor(c, i);
        const qn_map *map = qn_ckpt_shard_map(c, (size_t)t->shard);
        assert_ptr_equal(qn_ckpt_find(c, t->name), t);
        assert_true(t->data == map->data + t->offset && t->offset + t->bytes <= map->n);
        assert_true(!before || before->shard < t->shard || before->offset < t->offset);
        before = t;
    }
    assert_null(qn_ckpt_find(c, "model.nothing"));
    assert_non_null(qn_ckpt_config(c));
    assert_non_null(qn_ckpt_generation_config(c));
    assert_null(qn_ckpt_quant_config(c));
    qn_ckpt_free(c);
}

static void write_shards(const char *dir) {
    const st_tensor a = {"a.weight", QN_DT_F32, 2, {2, 3}, numbers};
    const st_tensor b = {"b.weight", QN_DT_F32, 1, {4}, numbers};
    temp_text(dir, "config.json", "{}");
    st_write(dir, "m-1.safetensors", &a, 1);
    st_write(dir, "m-2.safetensors", &b, 1);
}

#define INDEX "model.safetensors.index.json"
#define MAP(a, b) "{\"weight_map\":{\"a.weight\":\"" a "\",\"b.weight\":\"" b "\"}}"

static void an_index_is_checked(void **state) {
    (void)state;
    static const struct {
        const char *index, *message, *code;
        qn_code error;
    } cases[] = {
        {MAP("m-1.safetensors", "m-3.safetensors"),
         "/m-3.safetensors is missing, and the index names it", "missing-tensor", QN_NOT_FOUND},
        {MAP("m-1.safetensors", "../m-2.safetensors"),
         "tensor b.weight is said to be in \"../m-2.safetensors\", expected a .safetensors file of "
         "this folder", "bad-header", QN_INPUT},
        {MAP("/etc/m.safetensors", "m-2.safetensors"), "expected a .safetensors file",
         "bad-header", QN_INPUT},
        {MAP("m-1.safetensors", "config.json"), "expected a .safetensors file", "bad-header",
         QN_INPUT},
        {"{\"weight_map\":{\"a.weight\":7}}", "is said to be in 7", "bad-header", QN_INPUT},
        {"{\"weight_map\":{\"a.weight\":\"m-1.safetensors\",\"c\":\"m-1.safetensors\"}}",
         INDEX ": tensor c is said to be in m-1.safetensors, but is not there", "missing-tensor",
         QN_INPUT},
        {MAP("m-2.safetensors", "m-1.safetensors"),
         "tensor a.weight is said to be in m-2.safetensors, but it is in m-1.safetensors",
         "missing-tensor", QN_INPUT},
        {"{}", "weight_map is missing or empty", "bad-header", QN_INPUT},
        {"[", "not valid JSON", "bad-header", QN_INPUT},
    };
    char *dir = temp_dir_new();
    write_shards(dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        temp_text(dir, INDEX, cases[i].index);
        expect_refused(dir, cases[i].error, cases[i].message);
        qn_ckpt_free(open_damaged(dir, cases[i].code, NULL));
    }
    // A good one, by way of links as the caches have them; other files beside are not read.
    temp_text(dir, "reference.safetensors", "not a shard");
    temp_link(dir, "m-4.safetensors", "m-2.safetensors");
    temp_text(dir, INDEX, MAP("m-1.safetensors", "m-4.safetensors"));
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    if (!c) fail_msg("%s", err.text);
    assert_int_equal(qn_ckpt_n_tensors(c), 2);
    qn_ckpt_free(c);
    temp_dir_free(dir);
}

static void the_same_tensor_in_two_shards(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    const st_tensor two[] = {{"a.weight", QN_DT_F32, 1, {1}, numbers},
                             {"b.weight", QN_DT_F32, 1, {1}, numbers}};
    write_shards(dir);
    st_write(dir, "m-2.safetensors", two, 2);
    temp_text(dir, INDEX, MAP("m-1.safetensors", "m-2.safetensors"));
    expect_refused(dir, QN_INPUT, ": tensor a.weight is in m-1.safetensors and in m-2.safetensors");
    qn_ckpt_free(open_damaged(dir, "duplicate-key", "a.weight"));
    temp_dir_free(dir);
}

static void what_is_not_there(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    qn_err err = {0};
    expect_refused("tests/data/no-such-folder", QN_NOT_FOUND,
                   "tests/data/no-such-folder: no such file or folder");
    assert_null(qn_ckpt_open("tests/data/no-such-folder", QN_CKPT_TOLERANT, &err));
    expect_refused(dir, QN_NOT_FOUND, "no weights: neither model.safetensors nor");
    temp_text(dir, "config.json", "{\"a\":1,\"a\":2}");
    expect_refused(dir, QN_INPUT, "config.json: not valid JSON");
    temp_text(dir, "config.json", "[1]");
    expect_refused(dir, QN_INPUT, "config.json: not a JSON object");
    char *deep = malloc(20001);
    memset(deep, '[', 10000);
    memset(deep + 10000, ']', 10000);
    deep[20000] = 0;
    temp_text(dir, "config.json", deep);
    expect_refused(dir, QN_LIMIT, "config.json: nested deeper than 2048 levels");
    free(deep);
    temp_text(dir, "config.json", "{\"a\":\"\xFF\"}");
    expect_refused(dir, QN_INPUT, "config.json: not valid JSON at line 1");
    temp_text(dir, "config.json", "{\"model_type\":\"x\"}");
    qn_ckpt *c = qn_ckpt_open(dir, QN_CKPT_NO_WEIGHTS, &err); // configs do not need weights
    assert_non_null(c);
    assert_int_equal(qn_ckpt_n_tensors(c), 0);
    qn_ckpt_free(c);
    temp_link(dir, "model.safetensors", "gone");
    expect_refused(dir, QN_NOT_FOUND, "model.safetensors: No such file or directory");
    temp_dir_free(dir);
}

static void one_file_is_a_checkpoint(void **state) {
    (void)state;
    qn_err err = {0};
    const qn_weight *list;
    size_t n;
    qn_ckpt *c = qn_ckpt_open("tests/data/families/qwen3/reference.safetensors", 0, &err);
    assert_non_null(c);
    assert_null(qn_ckpt_config(c));
    assert_string_equal(qn_ckpt_shard_name(c, 0), "reference.safetensors");
    assert_true(qn_ckpt_weights(c, &list, &n, &err));
    assert_int_equal(n, qn_ckpt_n_tensors(c));
    const qn_weight *tokens = qn_ckpt_weight(c, "tokens");
    assert_true(tokens && tokens->rows == 1 && tokens->cols == 96 && !tokens->scheme);
    qn_ckpt_free(c);
}

static void plain_tensors_keep_their_shape(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    const int32_t ints[] = {1, 2};
    const st_tensor list[] = {{"vector", QN_DT_F32, 1, {3}, numbers},
                              {"scalar", QN_DT_F32, 0, {0}, numbers},
                              {"experts.gate_up_proj", QN_DT_F32, 3, {1, 2, 3}, numbers},
                              {"ints", QN_DT_I32, 1, {2}, ints}};
    st_write(dir, "model.safetensors", list, 4);
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    assert_true(c && qn_ckpt_weights(c, NULL, NULL, &err));
    const qn_weight *w = qn_ckpt_weight(c, "experts.gate_up_proj");
    assert_true(w->rows == 2 && w->cols == 3);
    float out[6];
    assert_true(qn_weight_floats(w, 6, out, &err));
    assert_memory_equal(out, numbers, sizeof out);
    assert_false(qn_weight_floats(w, 5, out, &err));
    assert_string_equal(err.text,
                        "tensor experts.gate_up_proj: F32 [1, 2, 3], expected 5 elements");
    w = qn_ckpt_weight(c, "scalar");
    assert_true(w->rows == 1 && w->cols == 1 && qn_weight_floats(w, 1, out, &err));
    w = qn_ckpt_weight(c, "ints");
    assert_false(qn_weight_floats(w, 2, out, &err));
    qn_mat m;
    assert_false(qn_weight_load(w, 0, 1, QN_STORED, NULL, &m, &err));
    assert_string_equal(err.text, "tensor ints: I32 [2], expected floats, or scales beside");
    qn_ckpt_free(c);
    temp_dir_free(dir);
}

static void a_merged_file_counts_before_an_old_index(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    qn_err err = {0};
    write_shards(dir);
    temp_text(dir, INDEX, MAP("m-1.safetensors", "m-9.safetensors"));
    const st_tensor a = {"a.weight", QN_DT_F32, 1, {2}, numbers};
    st_write(dir, "model.safetensors", &a, 1);
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    assert_non_null(c);
    assert_int_equal(qn_ckpt_n_tensors(c), 1);
    qn_ckpt_free(c);
    temp_dir_free(dir);
}

static int quiet(void **state) {
    (void)state;
    qn_log_set_quiet(true);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_fixtures_are_named),
        cmocka_unit_test(sharded_folders_are_one),
        cmocka_unit_test(an_index_is_checked),
        cmocka_unit_test(the_same_tensor_in_two_shards),
        cmocka_unit_test(what_is_not_there),
        cmocka_unit_test(one_file_is_a_checkpoint),
        cmocka_unit_test(plain_tensors_keep_their_shape),
        cmocka_unit_test(a_merged_file_counts_before_an_old_index),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
