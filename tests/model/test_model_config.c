// config.json: key drift that means the same, and values that make no sense, each with its message.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "model/family.h"
#include "model/rope.h"

static json_t *load(const char *name) {
    char path[256];
    qn_err err = {0};
    snprintf(path, sizeof path, "tests/data/%s/config.json", name);
    json_t *j = qn_json_load(path, 1 << 20, &err);
    if (!j) fail_msg("%s", err.text);
    return j;
}

// Where text keys stand.
static json_t *text_of(json_t *config) {
    json_t *t = json_object_get(config, "text_config");
    return t ? t : config;
}

typedef struct bad {
    const char *folder, *key, *value; // value is JSON; NULL: the key is removed
    qn_code code;
    const char *message; // a part of it
} bad;

static const bad bads[] = {
    {"families/qwen3", "hidden_size", NULL, QN_INPUT, "config.json: hidden_size is missing"},
    {"families/qwen3", "hidden_size", "\"big\"", QN_INPUT, "hidden_size is \"big\", expected an"},
    {"families/qwen3", "hidden_size", "4611686018427387904", QN_INPUT, "hidden_size is 46116860"},
    {"families/qwen3", "num_hidden_layers", "0", QN_INPUT, "num_hidden_layers is 0, expected"},
    {"families/qwen3", "num_key_value_heads", "3", QN_INPUT,
     "num_key_value_heads is 3, expected a divisor of num_attention_heads (4)"},
    {"families/qwen2", "num_attention_heads", "6", QN_INPUT,
     "num_attention_heads is 6, expected a divisor of hidden_size (64)"},
    {"families/qwen3", "intermediate_size", NULL, QN_INPUT, "intermediate_size is missing"},
    {"families/qwen3", "rms_norm_eps", "-1", QN_INPUT, "rms_norm_eps is -1"},
    {"families/qwen3", "hidden_act", "\"gelu\"", QN_UNSUPPORTED,
     "hidden_act is \"gelu\", expected \"silu\""},
    {"families/qwen3", "head_dim", "31", QN_INPUT, "31 rotary dimensions"},
    {"families/qwen3", "rope_scaling", "{\"type\": \"longrope\"}", QN_UNSUPPORTED,
     "rope type is \"longrope\", expected default, linear, dynamic or yarn"},
    {"families/qwen2-yarn", "rope_scaling", "{\"type\": \"yarn\"}", QN_INPUT,
     "rope type yarn without factor"},
    {"families/qwen3", "rope_scaling", "{\"rope_type\": \"linear\"}", QN_INPUT,
     "rope type linear without factor"},
    {"families/qwen3", "eos_token_id", "\"<|im_end|>\"", QN_INPUT, "eos_token_id is not a token"},
    {"families/qwen3_5", "layer_types", "[\"full_attention\"]", QN_INPUT,
     "layer_types has 1 entries, expected num_hidden_layers (4)"},
    {"families/qwen3_5", "layer_types", "[\"full_attention\", \"mamba\", \"full_attention\", 1]",
     QN_INPUT, "layer_types[1] is \"mamba\", expected full_attention or linear_attention"},
    {"families/qwen3_5", "linear_conv_kernel_dim", "3", QN_UNSUPPORTED,
     "linear_conv_kernel_dim is 3, expected 4"},
    {"families/qwen3_5", "linear_num_value_heads", "3", QN_INPUT,
     "linear_num_value_heads is 3, expected a multiple of linear_num_key_heads (2)"},
    {"families/qwen3_5", "head_dim", "60", QN_INPUT, "15 rotary dimensions"},
    {"families/qwen3_5", "head_dim", "128", QN_INPUT, "mrope_section adds up to 8, expected"},
    {"families/qwen3_moe", "num_experts_per_tok", "9", QN_INPUT,
     "num_experts_per_tok is 9, expected at most num_experts (8)"},
    {"families/qwen3_moe", "num_experts", NULL, QN_INPUT, "num_local_experts is missing"},
    {"families/qwen3_moe", "mlp_only_layers", "[true]", QN_INPUT, "mlp_only_layers[0] is not an"},
    {"families/qwen3_5_moe", "shared_expert_intermediate_size", NULL, QN_INPUT,
     "shared_expert_intermediate_size is missing"},
};

static void bad_values(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        const bad *b = &bads[i];
        qn_err err = {0};
        qn_config c;
        json_t *j = load(b->folder);
        if (b->value)
            json_object_set_new(text_of(j), b->key,
                                json_loads(b->value, JSON_DECODE_ANY, NULL));
        else
            json_object_del(text_of(j), b->key);
        if (qn_config_read(&c, j, "config.json", &err))
            fail_msg("%s with %s = %s was taken", b->folder, b->key, b->value ? b->value : "-");
        if (!strstr(err.text, b->message) || err.code != b->code)
            fail_msg("%s %s: \"%s\" (code %d), expected \"%s\"", b->folder, b->key, err.text,
                     err.code, b->message);
        assert_int_equal(strncmp(err.text, "config.json: ", 13), 0);
        qn_config_done(&c);
        json_decref(j);
    }
}

static void unknown_architecture(void **state) {
    (void)state;
    const char *const configs[] = {
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\"}",
        "{\"model_type\": \"qwen3_vl\"}", "{}", "{\"architectures\": [1]}", "[1]"};
    const char *const messages[] = {"architecture is LlamaForCausalLM, expected one of "
                                    "Qwen2ForCausalLM, Qwen3ForCausalLM",
                                    "model_type is qwen3_vl, expected one of",
                                    "model_type is missing", "architectures is not a list",
                                    "not a JSON object"};
    for (size_t i = 0; i < 5; i++) {
        qn_err err = {0};
        qn_config c;
        json_t *j = json_loads(configs[i], 0, NULL);
        assert_false(qn_config_read(&c, j, "config.json", &err));
        if (!strstr(err.text, messages[i])) fail_msg("\"%s\"", err.text);
        if (i == 0) assert_non_null(strstr(err.text, "Qwen3_5ForConditionalGeneration"));
        qn_config_done(&c);
        json_decref(j);
    }
}

static qn_config read(json_t *j) {
    qn_err err = {0};
    qn_config c;
    if (!qn_config_read(&c, j, "config.json", &err)) fail_msg("%s", err.text);
    return c;
}

static void plans(void **state) {
    (void)state;
    json_t *j = load("families/qwen2-window");
    qn_config c = read(j);
    assert_int_equal(c.layers[0].window, 0);
    assert_int_equal(c.layers[1].window, 16);
    qn_config_done(&c);
    json_object_set_new(j, "layer_types", json_pack("[sss]", "sliding_attention", "full_attention",
                                                    "sliding_attention"));
    c = read(j);
    assert_int_equal(c.layers[0].window, 16);
    assert_int_equal(c.layers[1].window, 0);
    qn_config_done(&c);
    json_object_set_new(j, "use_sliding_window", json_false());
    c = read(j);
    assert_int_equal(c.layers[0].window, 0);
    qn_config_done(&c);
    json_decref(j);

    j = load("families/qwen3_moe");
    json_object_set_new(j, "use_sliding_window", json_true()); // max_window_layers does not count
    c = read(j);
    assert_int_equal(c.layers[0].window, 16);
    assert_int_equal(c.layers[0].ffn, QN_FFN_MOE);
    assert_int_equal(c.layers[1].ffn, QN_FFN_MLP);
    qn_config_done(&c);
    json_decref(j);

    j = load("families/qwen3_5-same"); // by interval
    c = read(j);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(c.layers[i].mixer,
                         i % 4 == 3 ? QN_MIXER_ATTENTION : QN_MIXER_DELTANET);
    assert_string_equal(c.family->name, "qwen3_5");
    qn_config_done(&c);
    json_decref(j);
}

// Old and new spelling of the same thing.
static void drift(void **state) {
    (void)state;
    json_t *j = load("families/qwen2-yarn");
    qn_config old = read(j);
    json_t *rope = json_deep_copy(json_object_get(j, "rope_scaling"));
    json_object_del(j, "rope_scaling");
    json_object_set_new(rope, "rope_type", json_string("yarn"));
    json_object_set(rope, "rope_theta", json_object_get(j, "rope_theta"));
    json_object_del(rope, "type");
    json_object_del(j, "rope_theta");
    json_object_set_new(j, "rope_parameters", rope);
    qn_config new = read(j);
    double *a = qn_rope_frequencies(&old.rope), *b = qn_rope_frequencies(&new.rope);
    assert_true(old.rope.yarn);
    assert_memory_equal(a, b, old.rope.dims / 2 * sizeof *a);
    assert_true(old.rope.attention_factor == new.rope.attention_factor);
    free(a);
    free(b);
    qn_config_done(&old);
    qn_config_done(&new);
    json_decref(j);

    j = load("families/qwen3_5");
    qn_config c = read(j);
    assert_int_equal(c.rope.dims, 16);
    assert_true(c.rope.mrope);
    assert_int_equal(c.image_token_id, 204);
    assert_true(c.tie_word_embeddings);
    assert_int_equal(c.n_eos, 1);
    json_object_set_new(j, "tie_word_embeddings", json_false());
    qn_config outer = read(j); // the outer key is the whole model's
    assert_false(outer.tie_word_embeddings);
    qn_config_done(&c);
    qn_config_done(&outer);
    json_decref(j);
}

// YaRN by the numbers of the paper's formula, worked out by hand for 4 frequencies.
static void yarn(void **state) {
    (void)state;
    const qn_rope_config r = {.theta = 10000, .dims = 8, .yarn = true, .truncate = true,
                              .factor = 4, .original_length = 4096, .beta_fast = 32,
                              .beta_slow = 1};
    double *inv = qn_rope_frequencies(&r);
    // dim(32) = 8 ln(4096 / (64 pi)) / (2 ln 10000) = 1.309 -> 1; dim(1) = 2.81 -> 3
    const double expected[] = {1, 0.1, 0.01 * 0.5 + 0.0025 * 0.5, 0.001 / 4};
    for (size_t i = 0; i < 4; i++) assert_true(inv[i] > expected[i] * 0.999999 &&
                                               inv[i] < expected[i] * 1.000001);
    free(inv);
}

// Angles by transformers 5.23 for theta 1000000 and 32 dimensions; its dynamic type differs from the
// default beyond max_position_embeddings only, where no prompt reaches.
static void stretched(void **state) {
    (void)state;
    static const struct {
        const char *type;
        double factor, second, last;
    } cases[] = {{"default", 3, 0.42169651, 2.3713737e-06},
                 {"linear", 3, 0.14056551, 7.9045792e-07},
                 {"dynamic", 3, 0.42169651, 2.3713737e-06}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *j = load("families/qwen3");
        json_object_set_new(j, "head_dim", json_integer(32));
        json_object_set_new(j, "rope_parameters",
                            json_pack("{s:s, s:f, s:f}", "rope_type", cases[i].type, "factor",
                                      cases[i].factor, "rope_theta", 1e6));
        qn_config c = read(j);
        double *inv = qn_rope_frequencies(&c.rope);
        assert_int_equal(c.rope.dims, 32);
        assert_true(fabs(inv[1] / cases[i].second - 1) < 1e-7);
        assert_true(fabs(inv[15] / cases[i].last - 1) < 1e-7);
        assert_true(c.rope.attention_factor == 1);
        free(inv);
        qn_config_done(&c);
        json_decref(j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_values), cmocka_unit_test(unknown_architecture),
        cmocka_unit_test(plans),      cmocka_unit_test(drift),
        cmocka_unit_test(yarn),       cmocka_unit_test(stretched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
