// Bad checkpoints, bad prompts, and a system that says no: the exit status, and one line that names
// what is wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/str.h"
#include "cli/spawn.h"

#define BASE "tests/data/quantized/base-bf16"

// ---- checkpoints ----

static void shell(const char *command) {
    if (system(command) != 0) fail_msg("%s failed", command);
}

// A copy of a folder in which sed has changed one file (script NULL: the file is removed).
static char *changed(const char *folder, const char *file, const char *script) {
    char *copy = scratch("checkpoint");
    char *make = qn_strf("rm -rf '%s' && cp -r %s '%s' && chmod -R u+w '%s'", copy, folder, copy,
                         copy);
    char *change = script ? qn_strf("sed -i '%s' '%s/%s'", script, copy, file)
                          : qn_strf("rm '%s/%s'", copy, file);
    shell(make);
    shell(change);
    free(make);
    free(change);
    return copy;
}

static void refused(const char *folder, const char *file, const char *script, const char *text) {
    char *copy = changed(folder, file, script);
    expect_error(NULL, 2, text, ARGS("run", copy, "--tokens", "1 2", "-n", "1", "-q"));
    free(copy);
}

static void configs(void **state) {
    (void)state;
    refused(BASE, "config.json", NULL, "config.json");
    refused(BASE, "config.json", "s/^{/{,/", "config.json");
    refused(BASE, "config.json", "s/Qwen3ForCausalLM/LlamaForCausalLM/;s/\"qwen3\"/\"llama\"/",
            "expected one of Qwen2ForCausalLM, Qwen3ForCausalLM"); // lists what it knows
    refused(BASE, "config.json", "s/\"hidden_size\": 128/\"hidden_size\": 192/", "192");
    refused(BASE, "config.json", "s/\"vocab_size\": 512/\"vocab_size\": 513/", "513");
    refused(BASE, "config.json", "s/\"num_hidden_layers\": 2/\"num_hidden_layers\": 3/",
            "model.layers.2");
    refused("tests/data/quantized/gptq-int8-g128", "config.json", "s/\"gptq\"/\"zip\"/", "zip");
    refused("tests/data/families/qwen2-untied-sharded", "model-00002-of-00003.safetensors", NULL,
            "model-00002-of-00003.safetensors");
}

static void deep_and_garbled_json(void **state) {
    (void)state;
    char *copy = changed(BASE, "config.json", "s/a/a/");
    char *config = qn_path_join(copy, "config.json");
    qn_buf text = {0};
    for (int i = 0; i < 10000; i++) qn_buf_adds(&text, "{\"a\":");
    write_file(config, text.data);
    expect_error(NULL, 2, "config.json", ARGS("inspect", copy));
    write_file(config, "{\"model_type\": \"\xff\"}");
    expect_error(NULL, 2, "config.json", ARGS("inspect", copy));
    qn_buf_clear(&text);
    for (int i = 0; i < 10000; i++) qn_buf_addc(&text, '[');
    write_file(config, text.data);
    expect_error(NULL, 2, "", ARGS("template", TINY, "-f", config));
    qn_buf_done(&text);
    free(config);
    free(copy);
}

static void broken_files(void **state) {
    (void)state;
    static const char *const folders[] = {"bad-offsets", "dup-key", "huge-header", "missing-tensor",
                                          "truncated"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *path = qn_strf("tests/data/quantized/broken-%s", folders[i]);
        expect_error(NULL, 2, "model", ARGS("run", path, "--tokens", "1", "-n", "1", "-q"));
        free(path);
    }
    expect_error(NULL, 2, "layer", ARGS("run", "tests/data/quantized/broken-nan", "--tokens",
                                        "1 2 3", "-n", "1", "-q"));
}

// ---- prompts ----

static void prompts(void **state) {
    (void)state;
    expect_error(NULL, 2, "the prompt is empty", ARGS("run", TINY, "-p", ""));
    expect_error(NULL, 2, "the prompt is empty", ARGS("run", TINY, "--tokens", " "));
    expect_error(NULL, 2, "no prompt is given", ARGS("run", TINY));
    expect_error(NULL, 2, "UTF-8 at byte 1 (0xff)", ARGS("run", TINY, "-p", "a\xff"));
    expect_error(NULL, 2, "99999", ARGS("run", TINY, "--tokens", "1 99999"));
    expect_error(NULL, 2, "-1", ARGS("run", TINY, "--tokens", "-1"));
    expect_error(NULL, 2, "\"x\" is no token id", ARGS("run", TINY, "--tokens", "1 x"));
    expect_error(NULL, 2, "8", ARGS("run", TINY, "--tokens", "1 2 3 4 5 6 7 8 9", "--max-model-len",
                                    "8"));
    expect_error(NULL, 2, "--stop is empty", ARGS("run", TINY, "-p", "a", "--stop", ""));
    expect_error(NULL, 2, "vision tower", ARGS("chat", TINY, "-p", "a", "--image", "README.md"));
    expect_error(NULL, 2, "speculative", ARGS("run", TINY, "-p", "a", "--speculative-config", "{"));
    char *file = scratch("bytes");
    write_file(file, "ok\xc3");
    expect_error(NULL, 2, "is not UTF-8 at byte 2 (0xc3)", ARGS("run", TINY, "-f", file));
    free(file);
}

// ---- the system ----

static void unwritable_stdout(void **state) {
    (void)state;
    surroundings full = {.stdout_to = "/dev/full"}, closed = {.stdout_to = "-"};
    static const char *const commands[][6] = {
        {"help", NULL}, {"cpu", NULL}, {"inspect", TINY, NULL}, {"tokenize", TINY, "a", NULL},
        {"run", TINY, "-p", "a", "-n9", NULL}, {"chat", TINY, "-p", "a", "-n9", NULL}};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        expect_error(&full, 3, "cannot write stdout: No space left on device", commands[i]);
        expect_error(&closed, 3, "cannot write stdout", commands[i]);
    }
}

static void closed_pipe(void **state) {
    (void)state;
    char *file = scratch("status");
    char *command = qn_strf("(\"$QUERN\" run " TINY " -p a --ignore-eos -n 300 2>/dev/null; "
                            "echo $? > '%s') | head -c 1 > /dev/null", file);
    shell(command);
    qn_buf text = {0};
    qn_err err = {0};
    assert_true(qn_file_read(file, 100, &text, &err));
    assert_string_equal(text.data, "3\n");
    qn_buf_done(&text);
    free(command);
    free(file);
}

static void files_that_cannot_be_written(void **state) {
    (void)state;
    expect_error(NULL, 3, "/no/such/place/x.safetensors",
                 ARGS("dump", TINY, "--tokens", "1", "-o", "/no/such/place/x.safetensors"));
    expect_error(NULL, 3, "models", ARGS("dump", TINY, "--tokens", "1", "-o", "models"));
    char *file = scratch("big.safetensors");
    surroundings small = {.file_size = 100000};
    expect_error(&small, 3, "big.safetensors",
                 ARGS("dump", TINY, "--tokens", "1 2 3 4 5 6 7 8 9 10 11 12", "-o", file));
    assert_false(qn_file_exists(file)); // nothing that looks complete
    free(file);
}

static void no_memory_for_the_cache(void **state) {
    (void)state;
    expect_error(NULL, 3, "would fit", ARGS("run", TINY, "-p", "a", "--max-model-len", "4096",
                                            "--kv-cache-memory-bytes", "200000"));
}

static void names_that_are_not_there(void **state) {
    (void)state;
    char *home = scratch("empty");
    setenv("HF_HOME", home, 1);
    setenv("HF_HUB_CACHE", home, 1);
    setenv("MODELSCOPE_CACHE", home, 1);
    outcome o = spawn(NULL, ARGS("run", "Qwen/Qwen3-0.6B", "-p", "x"));
    assert_int_equal(o.status, 2);
    assert_int_equal(strncmp(o.err, "quern: ", 7), 0);
    assert_non_null(strstr(o.err, "download"));
    outcome_done(&o);
    expect_error(NULL, 2, "no/such/folder", ARGS("inspect", "./no/such/folder"));
    free(home);
}

static int done(void **state) {
    (void)state;
    scratch_done();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configs),           cmocka_unit_test(deep_and_garbled_json),
        cmocka_unit_test(broken_files),      cmocka_unit_test(prompts),
        cmocka_unit_test(unwritable_stdout), cmocka_unit_test(closed_pipe),
        cmocka_unit_test(files_that_cannot_be_written), cmocka_unit_test(no_memory_for_the_cache),
        cmocka_unit_test(names_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
