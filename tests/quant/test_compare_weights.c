// compare: checkpoints whose distance is known, in one scheme or two.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "dump_maker.h"
#include "support/scratch.h"

#define DATA "tests/data/quantized/"
enum { T = 6, V = 40 };

static float values[T * V];

static int setup(void **state) {
    (void)state;
    for (int i = 0; i < T * V; i++) values[i] = (float)(i * 37 % 64 - 32) / 8;
    return 0;
}

static void equal_checkpoints_in_other_files(void **state) {
    (void)state;
    json_t *r = compare(DATA "gptq-int8-g128", DATA "gptq-int8-nogidx");
    is_verdict(r, "ok");
    assert_true(json_is_true(at(r, "identical")));
    assert_int_equal(json_array_size(at(r, "worst")), 0);
    json_decref(r);
    r = compare(DATA "gptq-int4-v2", DATA "awq-gemv-g128"); // two schemes, the same weights
    is_verdict(r, "ok");
    assert_true(json_is_true(at(r, "identical")));
    json_decref(r);
}

static void quantized_against_its_original(void **state) {
    (void)state;
    qn_compare_options o = usual;
    json_t *r = compare(DATA "gptq-int8-g128", DATA "base-bf16");
    is_verdict(r, "different");
    has_reason(r, "max abs error above 0.001");
    double far = number(r, "overall", "max_abs_error");
    assert_true(number(r, "overall", "cosine") > 0.9999);
    assert_true(json_is_null(at(at(r, "overall"), "kl")));
    assert_int_equal(json_array_size(at(r, "worst")), 10);
    json_decref(r);
    o.max_abs = far;
    r = compare_with(DATA "gptq-int8-g128", DATA "base-bf16", o);
    is_verdict(r, "ok");
    json_decref(r);
    o.max_abs = 100;
    r = compare_with(DATA "broken-signed-view", DATA "base-bf16", o);
    is_verdict(r, "different");
    has_reason(r, "14 of 24 weights have a cosine below 0.99");
    json_decref(r);
}

static void tensors_in_one_only(void **state) {
    (void)state;
    qn_compare_options o = {.cosine = -1, .max_abs = 1e9, .top1 = 0};
    json_t *r = compare_with(DATA "broken-missing-tensor", DATA "base-bf16", o);
    is_verdict(r, "different");
    size_t i;
    json_t *name;
    bool found = false;
    json_array_foreach(at(r, "only_in_b"), i, name) found |=
        strcmp(json_string_value(name), "model.layers.0.mlp.up_proj.weight") == 0;
    assert_true(found);
    json_decref(r);
}

static void shapes_and_vocabulary_rows(void **state) {
    (void)state;
    const tensor a[] = {{"model.embed_tokens.weight", QN_DT_BF16, {T, V}, 2, values},
                        {"model.norm.weight", QN_DT_F32, {T, V}, 2, values}};
    const tensor b[] = {{"model.embed_tokens.weight", QN_DT_F32, {T - 2, V}, 2, values},
                        {"model.norm.weight", QN_DT_F32, {V, T}, 2, values}};
    char *pa = write_dump("a.safetensors", a, 1), *pb = write_dump("b.safetensors", b, 1);
    json_t *r = compare(pa, pb);
    is_verdict(r, "ok");
    assert_string_equal(json_string_value(json_array_get(at(r, "notes"), 0)),
                        "model.embed_tokens.weight: A has 6 rows, B has 4; the first 4 are "
                        "compared");
    json_decref(r);
    scratch_remove(pa);
    scratch_remove(pb);
    pa = write_dump("a.safetensors", a, 2), pb = write_dump("b.safetensors", b, 2);
    r = compare(pa, pb);
    is_verdict(r, "different");
    has_reason(r, "model.norm.weight: [6, 40] in A, [40, 6] in B");
    json_decref(r);
    scratch_remove(pa);
    scratch_remove(pb);
}

// Two different models: not a line for each weight.
static void another_model(void **state) {
    (void)state;
    json_t *r = compare("tests/data/families/qwen3", DATA "base-bf16");
    is_verdict(r, "different");
    has_reason(r, "more weights are of other shapes in A and B");
    assert_true(json_array_size(at(r, "reasons")) < 10);
    json_decref(r);
}

static void threads_change_nothing(void **state) {
    (void)state;
    qn_compare_options o = usual;
    char *text[2];
    o.page = true;
    for (int i = 0; i < 2; i++) {
        o.n_threads = i ? 5 : 1;
        json_t *r = compare_with(DATA "gptq-int4-g128", DATA "base-bf16", o);
        assert_int_equal(json_array_size(at(r, "histograms")), 6);
        text[i] = qn_json_text(r, false);
        json_decref(r);
    }
    assert_string_equal(text[0], text[1]);
    qn_free(text[0]);
    qn_free(text[1]);
}

static bool stop(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user;
    (void)what;
    return done == total;
}

static void can_be_stopped(void **state) {
    (void)state;
    json_t *report = NULL;
    qn_err err = {0};
    qn_compare_options o = usual;
    o.progress = stop;
    assert_false(qn_compare(DATA "base-bf16", DATA "base-bf16", &o, &report, &err));
    assert_int_equal(err.code, QN_CANCELLED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_checkpoints_in_other_files),
        cmocka_unit_test(quantized_against_its_original),
        cmocka_unit_test(tensors_in_one_only),
        cmocka_unit_test(shapes_and_vocabulary_rows),
        cmocka_unit_test(another_model),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(can_be_stopped),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
