// The list of tensors of a family, and what inspect says of a checkpoint.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "model/family.h"

static qn_config config_of(const char *folder) {
    char path[256];
    qn_err err = {0};
    qn_config c;
    snprintf(path, sizeof path, "%s/config.json", folder);
    json_t *j = qn_json_load(path, 1 << 20, &err);
    if (!j || !qn_config_read(&c, j, path, &err)) fail_msg("%s", err.text);
    json_decref(j);
    return c;
}

// From the published config alone: 18 * 14 + 6 * 11 + 2 + 15 (draft layer) + 153 (tower) tensors.
static void published_layout(void **state) {
    (void)state;
    qn_config c = config_of("tests/data/model_configs/qwen3.5-0.8b");
    qn_spelling s = qn_spelling_release(&c);
    qn_layout l;
    size_t parts[QN_N_PARTS] = {0}, text = 0;
    qn_layout_build(&l, &c, &s);
    assert_int_equal(l.n, 488);
    for (size_t i = 0; i < l.n; i++) {
        const qn_expected *e = &l.tensors[i];
        size_t n = 1;
        for (int d = 0; d < e->n_dims; d++) n *= e->shape[d];
        parts[e->part]++;
        if (e->part == QN_PART_TEXT) text += n;
    }
    assert_int_equal(parts[QN_PART_TEXT], 18 * 14 + 6 * 11 + 2);
    assert_int_equal(parts[QN_PART_MTP], 15);
    assert_int_equal(parts[QN_PART_VISION], 153);
    assert_in_range(text, 751500000, 752500000);
    const qn_expected *e =
        qn_layout_find(&l, "model.language_model.layers.3.self_attn.q_proj.weight");
    assert_non_null(e);
    assert_int_equal(e->shape[0], 4096);
    assert_int_equal(e->role, QN_ROLE_LINEAR);
    assert_int_equal(e->layer, 3);
    e = qn_layout_find(&l, "model.language_model.layers.0.linear_attn.conv1d.weight");
    assert_true(e && e->n_dims == 3 && e->shape[0] == 6144 && e->shape[2] == 4);
    assert_null(qn_layout_find(&l, "lm_head.weight"));
    assert_string_equal(l.tensors[0].name, "model.language_model.embed_tokens.weight");
    qn_layout_done(&l);
    qn_config_done(&c);
}

// Every fixture has exactly the tensors of the list, in the shapes of the list.
static void fixtures(void **state) {
    static const char *const folders[] = {
        "qwen2", "qwen2-untied-sharded", "qwen3", "qwen3-untied", "qwen3_moe", "qwen3_moe-fused",
        "qwen3_5", "qwen3_5-same", "qwen3_next", "qwen3_5_moe"};
    (void)state;
    for (size_t f = 0; f < sizeof folders / sizeof *folders; f++) {
        char path[256];
        qn_err err = {0};
        const qn_weight *list;
        size_t n;
        qn_layout l;
        snprintf(path, sizeof path, "tests/data/families/%s", folders[f]);
        qn_config c = config_of(path);
        qn_ckpt *ckpt = qn_ckpt_open(path, 0, &err);
        if (!ckpt || !qn_ckpt_weights(ckpt, &list, &n, &err)) fail_msg("%s", err.text);
        qn_spelling s = qn_spelling_detect(&c, ckpt);
        qn_layout_build(&l, &c, &s);
        for (size_t i = 0; i < l.n; i++) {
            const qn_weight *w = qn_ckpt_weight(ckpt, l.tensors[i].name);
            if (!w) fail_msg("%s lacks %s", folders[f], l.tensors[i].name);
            if (!qn_expected_matches(&l.tensors[i], w, &err)) fail_msg("%s", err.text);
        }
        for (size_t i = 0; i < n; i++)
            if (!qn_layout_find(&l, list[i].name))
                fail_msg("%s: %s is not listed", folders[f], list[i].name);
        assert_int_equal(l.n, n);
        qn_layout_done(&l);
        qn_config_done(&c);
        qn_ckpt_free(ckpt);
    }
}

static json_t *inspect(const char *path, bool list) {
    qn_err err = {0};
    char *text = NULL;
    if (!qn_inspect(path, list, &text, &err)) fail_msg("%s", err.text);
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    qn_free(text);
    return j;
}

static json_int_t number(const json_t *j, const char *key) {
    const json_t *v = json_object_get(j, key);
    if (!json_is_integer(v)) fail_msg("%s is not an integer", key);
    return json_integer_value(v);
}

static void inspect_hybrid(void **state) {
    (void)state;
    json_t *j = inspect("tests/data/families/qwen3_5", true);
    assert_string_equal(json_string_value(json_object_get(j, "family")), "qwen3_5");
    assert_string_equal(json_string_value(json_object_get(j, "architecture")),
                        "Qwen3_5ForConditionalGeneration");
    assert_int_equal(number(j, "layers"), 4);
    assert_int_equal(number(j, "head_dim"), 64);
    assert_int_equal(number(j, "kv_bytes_per_token"), 2 * 64 * 2);
    assert_int_equal(number(j, "state_bytes_per_sequence"), 3 * (3 * 128 + 4 * 16 * 16) * 4);
    assert_true(json_is_null(json_object_get(j, "quantization")));
    assert_true(json_is_true(json_object_get(j, "tied_embeddings")));
    assert_int_equal(json_array_size(json_object_get(j, "tensor_list")), number(j, "tensors"));
    json_int_t tensors = 0;
    size_t i;
    json_t *g;
    json_array_foreach(json_object_get(j, "groups"), i, g) tensors += number(g, "tensors");
    assert_int_equal(tensors, number(j, "tensors"));
    json_decref(j);
}

static void inspect_quantized(void **state) {
    (void)state;
    json_t *plain = inspect("tests/data/quantized/base-bf16", false);
    json_t *j = inspect("tests/data/quantized/gptq-int4-g128", false);
    json_t *q = json_object_get(j, "quantization");
    assert_int_equal(number(j, "parameters"), number(plain, "parameters"));
    assert_null(json_object_get(j, "tensor_list"));
    assert_int_equal(number(q, "bits"), 4);
    assert_int_equal(number(q, "group_size"), 128);
    assert_int_equal(number(q, "modules"), 14);
    assert_true(json_is_true(json_object_get(q, "sym")));
    assert_true(json_is_true(json_object_get(q, "label_matches")));
    assert_string_equal(json_string_value(json_object_get(q, "method")), "gptq");
    json_decref(j);
    j = inspect("tests/data/quantized/gptq-int4-mislabelled", false);
    assert_true(json_is_false(json_object_get(json_object_get(j, "quantization"),
                                              "label_matches")));
    json_decref(j);
    json_decref(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_layout), cmocka_unit_test(fixtures),
        cmocka_unit_test(inspect_hybrid),   cmocka_unit_test(inspect_quantized),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
