// Checkpoints that lack something, have too much, or hold values that are none; made-up weights;
// what a model says of itself.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "model/runner.h"
#include "model/scratch_checkpoint.h"

#define QWEN2 "tests/data/families/qwen2"
#define QWEN3 "tests/data/families/qwen3"
#define QWEN35 "tests/data/families/qwen3_5"

static const qn_model_options plain = {.precision = QN_EXACT, .n_threads = 1, .no_vision = true};

static void expect_failure(const char *folder, qn_code code, const char *message) {
    qn_err err = {0};
    qn_model *m = qn_model_load(folder, &plain, &err);
    if (m) fail_msg("%s loaded, expected \"%s\"", folder, message);
    if (err.code != code || !strstr(err.text, message))
        fail_msg("\"%s\" (code %d), expected \"%s\"", err.text, err.code, message);
}

static void expect_failure_with(const char *source, const edit *e, qn_code code,
                                const char *message) {
    char folder[64];
    scratch_write(folder, source, NULL, e, 1);
    expect_failure(folder, code, message);
    scratch_remove(folder);
}

static void missing(void **state) {
    (void)state;
    expect_failure("tests/data/quantized/broken-missing-tensor", QN_NOT_FOUND,
                   "tensor model.layers.0.mlp.up_proj.weight is missing");
    expect_failure_with(QWEN2, &(edit){"model.layers.1.self_attn.k_proj.bias", .drop = true},
                        QN_NOT_FOUND, "tensor model.layers.1.self_attn.k_proj.bias is missing");
    expect_failure_with(QWEN3, &(edit){"model.embed_tokens.weight", .drop = true},
                        QN_NOT_FOUND, "tensor model.embed_tokens.weight is missing");
    expect_failure_with("tests/data/families/qwen3-untied", &(edit){"lm_head", .drop = true},
                        QN_NOT_FOUND, "tensor lm_head.weight is missing");
    expect_failure("tests/data/tokenizers", QN_NOT_FOUND, "neither model.safetensors nor");
    char folder[64], path[96];
    scratch_write(folder, QWEN3, NULL, NULL, 0);
    snprintf(path, sizeof path, "%s/config.json", folder);
    remove(path);
    expect_failure(folder, QN_NOT_FOUND, "config.json");
    scratch_remove(folder);
}

static void surplus(void **state) {
    (void)state;
    const char *bias = "model.layers.0.self_attn.o_proj.bias";
    expect_failure_with(QWEN3, &(edit){bias, .add = 64, .value = 0.5f}, QN_UNSUPPORTED,
                        "tensor model.layers.0.self_attn.o_proj.bias is not zero");
    for (int i = 0; i < 2; i++) { // a zero bias and an unknown tensor are noted and left out
        char folder[64];
        const edit e = {i ? "model.rotary_emb.inv_freq" : bias, .add = 64};
        scratch_write(folder, QWEN3, NULL, &e, 1);
        qn_err err = {0};
        qn_model *m = qn_model_load(folder, &plain, &err);
        if (!m) fail_msg("%s", err.text);
        qn_model_free(m);
        scratch_remove(folder);
    }
}

static void wrong_shape(void **state) {
    (void)state;
    json_t *config = json_load_file(QWEN3 "/config.json", 0, NULL);
    char folder[64];
    json_object_set_new(config, "intermediate_size", json_integer(160));
    scratch_write(folder, QWEN3, config, NULL, 0);
    expect_failure(folder, QN_INPUT, "tensor model.layers.0.mlp.gate_proj.weight: shape is "
                   "[128, 64], expected [160, 64] by config.json");
    scratch_remove(folder);
    json_decref(config);
}

static void small_vocabulary(void **state) {
    char folder[64];
    (void)state;
    scratch_write(folder, QWEN3, NULL, NULL, 0);
    scratch_copy(folder, "models/tiny-qwen3", "tokenizer.json");
    expect_failure(folder, QN_INPUT, "vocabulary larger than the embedding");
    scratch_remove(folder);
}

// Text runs without the optional parts.
static void optional_parts(void **state) {
    const edit e[] = {{"mtp.", .drop = true}, {"model.visual.", .drop = true}};
    char folder[64];
    runner r;
    reference ref;
    qn_err err = {0};
    (void)state;
    scratch_write(folder, QWEN35, NULL, e, 2);
    reference_open(&ref, QWEN35 "/reference.safetensors", "tokens");
    const qn_model_options o = {.precision = QN_EXACT, .n_threads = 1};
    runner_open(&r, folder, &o, 128);
    assert_false(r.info->has_mtp);
    assert_false(r.info->has_vision);
    assert_int_equal(r.info->image_token, -1);
    float *expected = reference_floats(&ref, "logits", NULL);
    float *x = runner_logits(&r, 0, ref.tokens, ref.n, ref.n);
    assert_true(worst_row(x, expected, ref.n, (size_t)r.info->vocab_size, NULL) < 1e-4);
    qn_draft_segment d = {.tokens = ref.tokens, .n = 1};
    assert_false(qn_model_draft(r.model, r.work, &d, 1, r.arena, &err));
    assert_int_equal(err.code, QN_UNSUPPORTED);
    free(x);
    free(expected);
    runner_close(&r);
    reference_close(&ref);
    scratch_remove(folder);
}

// ---- values that are no numbers ----

typedef struct poison {
    const char *source, *tensor, *message;
} poison;

static void check_poison(const poison *p) {
    const edit e = {p->tensor, .poison = true};
    char folder[64];
    runner r;
    reference ref;
    qn_err err = {0};
    scratch_write(folder, p->source, NULL, &e, 1);
    char path[128];
    snprintf(path, sizeof path, "%s/reference.safetensors", p->source);
    reference_open(&ref, path, "tokens");
    runner_open(&r, folder, &plain, 128);
    float *x = runner_logits(&r, 0, ref.tokens, 20, 20);
    if (!qn_work_fault(r.work, 0, &err)) fail_msg("%s: no fault", p->tensor);
    assert_int_equal(err.code, QN_NONFINITE);
    if (!strstr(err.text, p->message))
        fail_msg("\"%s\", expected \"%s\"", err.text, p->message);
    free(x);
    runner_close(&r);
    reference_close(&ref);
    scratch_remove(folder);
}

static void poisoned(void **state) {
    static const poison all[] = {
        {QWEN3, "model.layers.0.input_layernorm.weight", "layer 0 input_layernorm: non-finite"},
        {QWEN3, "model.layers.1.self_attn.q_proj.weight", "layer 1 self_attn.q_proj: non-finite"},
        {QWEN3, "model.layers.1.self_attn.o_proj.weight", "layer 1 self_attn.o_proj: non-finite"},
        {QWEN3, "model.layers.2.mlp.up_proj.weight", "layer 2 mlp.up_proj: non-finite value at "
                                                     "position 0"},
        {QWEN3, "model.layers.1.mlp.down_proj.weight", "layer 1 mlp.down_proj: non-finite"},
        {QWEN3, "model.norm.weight", "norm: non-finite value at position 0"},
        {"tests/data/families/qwen3-untied", "lm_head.weight", "lm_head: non-finite"},
        {QWEN35, "model.language_model.layers.1.linear_attn.in_proj_z.weight",
         "layer 1 linear_attn.in_proj_z: non-finite"},
        {QWEN35, "model.language_model.layers.2.linear_attn.A_log",
         "layer 2 linear_attn.A_log: non-finite"},
        {QWEN35, "model.language_model.layers.0.linear_attn.norm.weight",
         "layer 0 linear_attn.norm: non-finite"},
        {"tests/data/families/qwen3_next", "model.layers.0.mlp.gate.weight",
         "layer 0 mlp.gate: non-finite"},
        {"tests/data/families/qwen3_next", "model.layers.1.mlp.shared_expert.up_proj.weight",
         "layer 1 mlp.shared_expert.up_proj: non-finite"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) check_poison(&all[i]);
}

// One sequence's trouble is not its neighbour's.
static void poisoned_neighbour(void **state) {
    runner r;
    reference ref;
    qn_err err = {0};
    (void)state;
    reference_open(&ref, QWEN35 "/reference.safetensors", "tokens");
    runner_open(&r, QWEN35, &plain, 128);
    size_t h = (size_t)r.info->hidden_size, v = (size_t)r.info->vocab_size;
    float *rows = calloc(h, sizeof *rows);
    rows[3] = NAN;
    const qn_embed_span span = {4, 1, rows};
    qn_segment s[2] = {runner_segment(&r, 0, ref.tokens, 0, 10),
                       runner_segment(&r, 1, ref.tokens, 0, 10)};
    s[0].spans = &span;
    s[0].n_spans = 1;
    runner_step(&r, s, 2);
    assert_true(qn_work_fault(r.work, 0, &err));
    assert_string_equal(err.text, "embed_tokens: non-finite value at position 4");
    assert_false(qn_work_fault(r.work, 1, &err));
    float *x = malloc(10 * v * sizeof *x);
    memcpy(x, qn_work_logits(r.work, 1, 0), 10 * v * sizeof *x);
    float *alone = runner_logits(&r, 2, ref.tokens, 10, 10);
    assert_memory_equal(x, alone, 10 * v * sizeof *x);
    free(alone);
    free(x);
    free(rows);
    runner_close(&r);
    reference_close(&ref);
}

static void token_out_of_range(void **state) {
    runner r;
    qn_err err = {0};
    const int32_t tokens[] = {3, 384, -1};
    (void)state;
    runner_open(&r, QWEN3, &plain, 32);
    for (size_t i = 1; i < 3; i++) {
        qn_segment s = runner_segment(&r, 0, tokens, i, 1);
        const qn_step step = {&s, 1, r.arena};
        err = (qn_err){0};
        assert_false(qn_model_forward(r.model, r.work, &step, &err));
        assert_int_equal(err.code, QN_USAGE);
    }
    assert_string_equal(err.text, "token id -1 is out of range, expected 0 to 383");
    runner_close(&r);
}

// ---- the rest ----

static void made_up(void **state) {
    static const char *const folders[] = {"tests/data/families/qwen3_5_moe",
                                          "tests/data/tiny-qwen3.5", "tests/data/families/qwen2"};
    int32_t tokens[12];
    (void)state;
    for (int i = 0; i < 12; i++) tokens[i] = 5 * i;
    for (size_t f = 0; f < 3; f++)
        for (qn_weights want = QN_STORED; want <= QN_Q4; want++) {
            const qn_model_options o = {.precision = QN_FAST, .weights = want, .n_threads = 2,
                                        .dummy = true};
            runner r;
            qn_err err = {0};
            runner_open(&r, folders[f], &o, 32);
            float *x = runner_logits(&r, 0, tokens, 12, 12);
            assert_false(qn_work_fault(r.work, 0, &err));
            assert_int_equal(r.info->has_mtp, f < 2);
            assert_true(r.info->weight_bytes > 0);
            free(x);
            runner_close(&r);
        }
}

static void says_of_itself(void **state) {
    qn_err err = {0};
    qn_sampling s;
    (void)state;
    qn_model *m = qn_model_load(QWEN35, &plain, &err);
    if (!m) fail_msg("%s", err.text);
    const qn_model_info *i = qn_model_get_info(m);
    assert_string_equal(i->family, "qwen3_5");
    assert_int_equal(i->n_layers, 4);
    assert_int_equal(i->vocab_size, 224);
    assert_int_equal(i->context_length, 512);
    assert_int_equal(i->n_eos, 2); // generation_config.json, not config.json's single one
    assert_int_equal(i->eos[0], 194);
    assert_int_equal(i->kv_bytes_per_token, 2 * 2 * 64 * 4); // the draft layer included, floats
    assert_true(i->has_mtp);
    assert_null(qn_model_tokenizer(m));
    assert_null(qn_model_template(m));
    qn_sampling_default(m, &s);
    assert_true(fabsf(s.temperature - 0.7f) < 1e-6f && s.top_k == 20);
    qn_model_free(m);
}

static bool stop(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)what;
    assert_true(done <= total);
    return ++*(int *)user < 5;
}

static void stopped(void **state) {
    int calls = 0;
    qn_err err = {0};
    (void)state;
    const qn_model_options o = {.n_threads = 1, .progress = stop, .user = &calls};
    assert_null(qn_model_load(QWEN3, &o, &err));
    assert_int_equal(err.code, QN_CANCELLED);
    assert_int_equal(calls, 5);
}

int main(void) {
    qn_log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing),         cmocka_unit_test(surplus),
        cmocka_unit_test(wrong_shape),     cmocka_unit_test(small_vocabulary),
        cmocka_unit_test(optional_parts),  cmocka_unit_test(poisoned),
        cmocka_unit_test(poisoned_neighbour), cmocka_unit_test(token_out_of_range),
        cmocka_unit_test(made_up),         cmocka_unit_test(says_of_itself),
        cmocka_unit_test(stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
