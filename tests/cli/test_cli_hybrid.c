// The hybrid family through the program: pictures in chat and dump, and every command that looks at
// or changes a checkpoint.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/str.h"
#include "cli/spawn.h"

#define TRAINED "tests/data/tiny-qwen3.5"
#define DRAWINGS TRAINED "/reference/pictures"
#define GPTQ "tests/data/hybrid/gptq-dynamic"
#define MTP "{\"method\":\"mtp\",\"num_speculative_tokens\":2}"

static json_int_t integer(const json_t *j, const char *key) {
    const json_t *x = json_object_get(j, key);
    if (!json_is_integer(x)) fail_msg("%s is no integer", key);
    return json_integer_value(x);
}

static const char *text(const json_t *j, const char *key) {
    const char *s = json_string_value(json_object_get(j, key));
    if (!s) fail_msg("%s is no string", key);
    return s;
}

// Every sixth drawing; the engine's tests see them all.
static void chat_about_pictures(void **state) {
    (void)state;
    json_t *answers = json_load_file(DRAWINGS "/answers.json", 0, NULL);
    for (size_t i = 0; i < json_array_size(answers); i += 6) {
        const json_t *a = json_array_get(answers, i);
        char *file = qn_path_join(DRAWINGS, text(a, "file"));
        json_t *j = json_of(NULL, ARGS("chat", TRAINED, "--image", file, "-p", text(a, "question"),
                                       "--no-think", "--temp", "0", "--precision", "exact",
                                       "--json"));
        assert_string_equal(text(j, "answer"), text(a, "original_answers"));
        assert_int_equal(integer(j, "prompt_tokens"), integer(a, "prompt_tokens"));
        json_decref(j);
        free(file);
    }
    json_decref(answers);
}

static void bad_pictures(void **state) {
    (void)state;
    char *file = scratch("cut.jpg");
    write_file(file, "\xFF\xD8\xFF\xE0 and nothing more");
    expect_error(NULL, 2, "JPEG image", ARGS("chat", TRAINED, "--image", file, "-p", "What?"));
    expect_error(NULL, 2, "neither PNG, JPEG nor WebP",
                 ARGS("chat", TRAINED, "--image", "README.md", "-p", "What?"));
    expect_error(NULL, 2, "vision tower",
                 ARGS("chat", TINY, "--image", DRAWINGS "/00.png", "-p", "What?"));
    expect_error(NULL, 2, "2 image placeholders for 1 image",
                 ARGS("dump", TRAINED, "--tokens", "5 3980 6 3980", "--image", DRAWINGS "/00.png",
                      "-o", "/tmp/not-written.safetensors"));
    expect_error(NULL, 2, "0 image placeholders for 1 image",
                 ARGS("dump", TRAINED, "--tokens", "5 6", "--image", DRAWINGS "/00.png", "-o",
                      "/tmp/not-written.safetensors"));
    expect_error(NULL, 2, "videos are not supported",
                 ARGS("chat", TRAINED, "-p", "<|video_pad|> What?", "--no-think"));
    free(file);
}

static void drafts(void **state) {
    (void)state;
    const char *prompt = "The capital of France is";
    outcome o = spawn(NULL, ARGS("run", TRAINED, "-p", prompt, "--temp", "0", "-n", "40",
                                 "--ignore-eos", "--speculative-config", MTP));
    char *plain = output_of(NULL, ARGS("run", TRAINED, "-p", prompt, "--temp", "0", "-n", "40",
                                       "--ignore-eos"));
    assert_int_equal(o.status, 0);
    assert_string_equal(o.out, plain);
    assert_non_null(strstr(o.err, "drafts accepted"));
    free(plain);
    outcome_done(&o);
    json_t *j = json_of(NULL, ARGS("bench", TRAINED, "-p", "16", "-n", "12", "-b", "1", "--repeat",
                                   "1", "--speculative-config", MTP, "--json"));
    assert_true(integer(j, "drafted_tokens") >= integer(j, "accepted_tokens"));
    json_decref(j);
}

static const json_t *group(const json_t *inspected, const char *name) {
    size_t i;
    json_t *g;
    json_array_foreach(json_object_get(inspected, "groups"), i, g)
        if (strcmp(text(g, "name"), name) == 0) return g;
    fail_msg("no group is named %s", name);
    return NULL;
}

static void looked_at(void **state) {
    static const char *const folders[] = {
        TRAINED, "tests/data/families/qwen3_5", "tests/data/families/qwen3_5_moe",
        "tests/data/families/qwen3_next", GPTQ, "tests/data/hybrid/fp8-block",
        "tests/data/hybrid/awq-gemm"};
    (void)state;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        json_t *j = json_of(NULL, ARGS("inspect", folders[i], "--json"));
        assert_true(integer(group(j, "gated deltanet layers"), "tensors") > 0);
        assert_true(integer(j, "state_bytes_per_sequence") > 0);
        json_decref(j);
        j = json_of(NULL, ARGS("check", folders[i], "--json")); // status 0: no error
        assert_string_equal(text(j, "verdict"), "ok");
        json_decref(j);
    }
    json_t *j = json_of(NULL, ARGS("inspect", GPTQ, "--json"));
    assert_int_equal(integer(group(j, "vision tower"), "tensors"), 33);
    assert_int_equal(integer(group(j, "draft layer (mtp)"), "tensors"), 15);
    assert_int_equal(integer(json_object_get(j, "quantization"), "modules"), 21);
    json_decref(j);
}

// A plain checkpoint out of a quantized one says the same; so do its draft layer and its tower.
static void converted(void **state) {
    (void)state;
    char *out = scratch("plain"), *a = scratch("a.safetensors"), *b = scratch("b.safetensors");
    free(output_of(NULL, ARGS("convert", GPTQ, out, "--dtype", "f32")));
    const char *const models[] = {GPTQ, out}, *const dumps[] = {a, b};
    for (size_t i = 0; i < 2; i++)
        free(output_of(NULL, ARGS("dump", models[i], "--tokens", "5 201 204 202 6 7 8", "--image",
                                  "tests/data/families/qwen3_5/vision.png", "--hidden", "--mtp",
                                  "-o", dumps[i])));
    json_t *j = json_of(NULL, ARGS("compare", a, b, "--max-abs", "1e-3", "--json"));
    assert_string_equal(text(j, "verdict"), "ok");
    json_decref(j);
    free(out);
    free(a);
    free(b);
}

// One token has no next one to draft: the dump goes without, rather than with an empty tensor.
static void one_token_has_no_draft(void **state) {
    (void)state;
    char *a = scratch("one.safetensors");
    expect_error(NULL, 0, "there is no mtp.logits",
                 ARGS("dump", GPTQ, "--tokens", "5", "--mtp", "-o", a));
    json_t *j = json_of(NULL, ARGS("compare", a, a, "--json"));
    assert_string_equal(text(j, "verdict"), "ok");
    json_decref(j);
    free(a);
}

static void evaluated(void **state) {
    (void)state;
    json_t *j = json_of(NULL, ARGS("eval", TRAINED, "--text", "README.md", "--context", "128",
                                   "--weights", "q8", "--reference", TRAINED, "--json"));
    assert_true(json_number_value(json_object_get(j, "perplexity")) > 1);
    assert_true(json_number_value(json_object_get(json_object_get(j, "kl"), "mean")) < 0.05);
    json_decref(j);
}

static int done(void **state) {
    (void)state;
    scratch_done();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_about_pictures), cmocka_unit_test(bad_pictures),
        cmocka_unit_test(drafts),              cmocka_unit_test(looked_at),
        cmocka_unit_test(converted),           cmocka_unit_test(evaluated),
        cmocka_unit_test(one_token_has_no_draft),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
