// cpu, where, inspect, tokenize, template.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/spawn.h"

static void has_keys(const json_t *j, const char *const *keys) {
    for (; *keys; keys++)
        if (!json_object_get(j, *keys)) fail_msg("the key %s is missing", *keys);
}

static void cpu(void **state) {
    (void)state;
    json_t *j = json_of(NULL, ARGS("cpu", "--json"));
    has_keys(j, ARGS("cores", "caches", "memory", "kernels"));
    json_decref(j);
    j = json_of(NULL, ARGS("cpu", "--json", "--measure", "--threads", "1"));
    assert_true(json_number_value(json_object_get(j, "read_gb_s")) > 0);
    json_decref(j);
    char *text = output_of(NULL, ARGS("cpu"));
    assert_non_null(strstr(text, "cores"));
    free(text);
}

static void where(void **state) {
    (void)state;
    char *out = output_of(NULL, ARGS("where", TINY));
    assert_non_null(strstr(out, "tiny-qwen3"));
    free(out);
    expect_error(NULL, 2, "no/such", ARGS("where", "no/such", "-q"));
}

static void inspect(void **state) {
    (void)state;
    json_t *j = json_of(NULL, ARGS("inspect", TINY, "--json", "--tensors"));
    has_keys(j, ARGS("path", "architecture", "model_type", "family", "parameters", "tensors",
                     "bytes", "shards", "dtypes", "layers", "hidden_size", "intermediate_size",
                     "heads", "kv_heads", "head_dim", "vocab_size", "context_length",
                     "tied_embeddings", "quantization", "kv_bytes_per_token",
                     "state_bytes_per_sequence", "tensor_list"));
    assert_int_equal(json_integer_value(json_object_get(j, "layers")), 4);
    assert_true(json_is_null(json_object_get(j, "quantization")));
    assert_int_equal(json_array_size(json_object_get(j, "tensor_list")),
                     json_integer_value(json_object_get(j, "tensors")));
    json_decref(j);
    j = json_of(NULL, ARGS("inspect", TINY_INT8, "--json"));
    json_t *q = json_object_get(j, "quantization");
    has_keys(q, ARGS("method", "bits", "group_size", "sym", "desc_act", "format", "modules",
                     "label_matches"));
    assert_int_equal(json_integer_value(json_object_get(q, "bits")), 8);
    json_decref(j);
    char *text = output_of(NULL, ARGS("inspect", TINY, "--tensors"));
    assert_non_null(strstr(text, "model.embed_tokens.weight"));
    free(text);
}

// ---- tokenize ----

static void round_trips(void **state) {
    (void)state;
    static const char *const texts[] = {"The capital of France is Paris.", "法国的首都是哪里?",
                                        "a\n\n  b\t\xf0\x9f\x98\x80",
                                        "<|im_start|>user\nhi<|im_end|>", "-5"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *ids = output_of(NULL, ARGS("tokenize", TINY, "--", texts[i]));
        char *back = output_of(NULL, ARGS("tokenize", TINY, "--decode", ids));
        assert_string_equal(back, texts[i]);
        surroundings s = {.input = texts[i]};
        char *piped = output_of(&s, ARGS("tokenize", TINY, "-"));
        assert_string_equal(piped, ids);
        char *file = scratch("text");
        write_file(file, texts[i]);
        char *read = output_of(NULL, ARGS("tokenize", TINY, "-f", file));
        assert_string_equal(read, ids);
        free(ids);
        free(back);
        free(piped);
        free(file);
        free(read);
    }
}

static void tokenize_options(void **state) {
    (void)state;
    json_t *j = json_of(NULL, ARGS("tokenize", TINY, "<|im_end|>x", "--json"));
    assert_int_equal(json_array_size(json_object_get(j, "ids")), 2);
    assert_string_equal(json_string_value(json_array_get(json_object_get(j, "tokens"), 0)),
                        "<|im_end|>");
    json_decref(j);
    j = json_of(NULL, ARGS("tokenize", TINY, "<|im_end|>x", "--json", "--plain"));
    assert_true(json_array_size(json_object_get(j, "ids")) > 2);
    json_decref(j);
    char *ids = output_of(NULL, ARGS("tokenize", TINY, "<|im_end|>x"));
    char *text = output_of(NULL, ARGS("tokenize", TINY, "--decode", "--skip-special", ids));
    assert_string_equal(text, "x");
    free(ids);
    free(text);
}

static void tokenize_lines(void **state) {
    (void)state;
    surroundings s = {.input = "{\"text\":\"hello\\u0000\"}\n\n{\"text\":\"\"}\r\n"
                               "{\"text\":\"é\"}"};
    char *ids = output_of(&s, ARGS("tokenize", TINY, "--jsonl"));
    surroundings back = {.input = ids};
    char *text = output_of(&back, ARGS("tokenize", TINY, "--jsonl", "--decode"));
    assert_string_equal(text, "{\"text\":\"hello\\u0000\"}\n{\"text\":\"\"}\n"
                              "{\"text\":\"\\u00E9\"}\n");
    free(ids);
    free(text);
    s.input = "{\"text\":\"a\"}\n{\"txt\":1}\n";
    expect_error(&s, 2, "stdin line 2: expected {\"text\"", ARGS("tokenize", TINY, "--jsonl"));
    s.input = "{\"text\":";
    expect_error(&s, 2, "stdin line 1: not valid JSON", ARGS("tokenize", TINY, "--jsonl"));
    s.input = "{\"ids\":[1,2.5]}";
    expect_error(&s, 2, "no token id", ARGS("tokenize", TINY, "--jsonl", "--decode"));
}

static void tokenize_bad_input(void **state) {
    (void)state;
    expect_error(NULL, 2, "UTF-8 at byte 2 (0xff)", ARGS("tokenize", TINY, "ab\xff"));
    expect_error(NULL, 2, "99999", ARGS("tokenize", TINY, "--decode", "1 99999"));
    expect_error(NULL, 2, "-1", ARGS("tokenize", TINY, "--decode", "-1"));
    expect_error(NULL, 2, "\"x\" is no token id", ARGS("tokenize", TINY, "--decode", "1", "x"));
    expect_error(NULL, 2, "out of range", ARGS("tokenize", TINY, "--decode", "99999999999"));
    expect_error(NULL, 2, "a text with blanks is quoted", ARGS("tokenize", TINY, "a", "b"));
    expect_error(NULL, 2, "no text is given", ARGS("tokenize", TINY));
    expect_error(NULL, 2, "/no/such/file", ARGS("tokenize", TINY, "-f", "/no/such/file"));
}

// ---- template ----

static void templates(void **state) {
    (void)state;
    char *file = scratch("messages.json"), *tools = scratch("tools.json");
    write_file(file, "[{\"role\":\"user\",\"content\":\"hi\"}]");
    write_file(tools, "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\"}}]");
    char *a = output_of(NULL, ARGS("template", TINY, "-f", file));
    assert_string_equal(a, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    char *b = output_of(NULL, ARGS("template", TINY, "-f", file, "--set", "enable_thinking=false"));
    assert_non_null(strstr(b, "<think>\n\n</think>"));
    char *c = output_of(NULL, ARGS("template", TINY, "-f", file, "--no-generation-prompt"));
    assert_string_equal(c, "<|im_start|>user\nhi<|im_end|>\n");
    char *d = output_of(NULL, ARGS("template", TINY, "-f", file, "--tools", tools));
    assert_non_null(strstr(d, "get_weather"));
    json_t *j = json_of(NULL, ARGS("template", TINY, "-f", file, "--json"));
    assert_string_equal(json_string_value(json_object_get(j, "rendered")), a);
    json_decref(j);
    write_file(file, "[{\"role\":\"user\",\"content\":\"hi\"},"
                     "{\"role\":\"assistant\",\"content\":\"Well, \"}]");
    char *e = output_of(NULL, ARGS("template", TINY, "-f", file, "--continue-final"));
    assert_string_equal(e + strlen(e) - 6, "Well, ");
    char *all[] = {a, b, c, d, e, file, tools};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void own_template(void **state) {
    (void)state;
    char *file = scratch("messages.json"), *own = scratch("own.jinja");
    write_file(own, "{{ messages[0].n }} {{ x }} {{ messages[0].big }}");
    write_file(file, "[{\"role\":\"user\",\"n\":1.0,\"big\":123456789012345678901234567890}]");
    char *out = output_of(NULL, ARGS("template", TINY, "-f", file, "--template", own, "--set",
                                     "x=1E5", "--no-generation-prompt"));
    assert_string_equal(out, "1.0 100000.0 123456789012345678901234567890");
    free(out);
    write_file(own, "{% if %}");
    expect_error(NULL, 2, "own.jinja", ARGS("template", TINY, "-f", file, "--template", own));
    write_file(file, "[{\"role\":");
    expect_error(NULL, 2, "messages.json", ARGS("template", TINY, "-f", file));
    write_file(file, "{\"a\":1} x");
    expect_error(NULL, 2, "not valid JSON", ARGS("template", TINY, "-f", file));
    free(file);
    free(own);
}

static void template_lines(void **state) {
    (void)state;
    surroundings s = {.input = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                               "\"tools\":null,\"kwargs\":{\"add_generation_prompt\":false}}\n"
                               "{\"source\":\"{{ x }}|{{ y }}\","
                               "\"context\":{\"x\":1.0,\"y\":\"\\u0000\"}}\n"
                               "{\"source\":\"{{ raise_exception('no') }}\",\"context\":{}}\n"
                               "nonsense\n{\"messages\":[]\n"};
    char *out = output_of(&s, ARGS("template", TINY, "--jsonl"));
    static const char *const wanted[] = {
        "{\"rendered\":\"<|im_start|>user\\na<|im_end|>\\n\"}\n",
        "{\"rendered\":\"1.0|\\u0000\"}\n",
        "{\"error\":\"", "{\"error\":\"stdin line 4: not valid JSON", "{\"error\":\"stdin line 5"};
    const char *p = out;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (strncmp(p, wanted[i], strlen(wanted[i])) != 0) fail_msg("line %zu: %s", i + 1, p);
        p = strchr(p, '\n') + 1;
    }
    free(out);
}

static int done(void **state) {
    (void)state;
    scratch_done();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu),              cmocka_unit_test(where),
        cmocka_unit_test(inspect),          cmocka_unit_test(round_trips),
        cmocka_unit_test(tokenize_options), cmocka_unit_test(tokenize_lines),
        cmocka_unit_test(tokenize_bad_input), cmocka_unit_test(templates),
        cmocka_unit_test(own_template),     cmocka_unit_test(template_lines),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
