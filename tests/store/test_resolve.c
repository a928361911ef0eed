// Names in the caches of Hugging Face and ModelScope, whole and not.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "temp_model.h"

static char *home;

static void expect_found(const char *model, const char *inside) {
    qn_err err = {0};
    char *path = NULL, *expected = qn_strf("%s/%s", home, inside);
    if (!qn_resolve(model, &path, &err)) fail_msg("%s: %s", model, err.text);
    assert_string_equal(path, expected);
    free(path);
    free(expected);
}

static void expect_refused(const char *model, const char *message) {
    qn_err err = {0};
    char *path = NULL;
    if (qn_resolve(model, &path, &err)) fail_msg("%s was found: %s", model, path);
    assert_null(path);
    assert_int_equal(err.code, QN_NOT_FOUND);
    if (!strstr(err.text, message)) fail_msg("%s", err.text);
}

#define HUB "cache/huggingface/hub/models--Qwen--Qwen3-0.6B/"

// A snapshot as huggingface_hub lays it out: links into blobs.
static void write_hf(const char *root, const char *commit) {
    char *dir = qn_strf("%s/%s", home, root), *link = qn_strf("snapshots/%s/", commit);
    char *config = qn_strf("%sconfig.json", link), *model = qn_strf("%smodel.safetensors", link);
    temp_text(dir, "blobs/1111", "{}");
    temp_text(dir, "blobs/2222", "weights");
    temp_link(dir, config, "../../blobs/1111");
    temp_link(dir, model, "../../blobs/2222");
    free(dir);
    free(link);
    free(config);
    free(model);
}

static void hf_names_follow_refs(void **state) {
    (void)state;
    write_hf(HUB, "abc123");
    write_hf(HUB, "def456");
    temp_text(home, HUB "refs/main", "abc123\n");
    temp_text(home, HUB "refs/v2", "def456");
    expect_found("Qwen/Qwen3-0.6B", HUB "snapshots/abc123");
    expect_found("Qwen/Qwen3-0.6B@main", HUB "snapshots/abc123");
    expect_found("Qwen/Qwen3-0.6B@v2", HUB "snapshots/def456");
    expect_found("Qwen/Qwen3-0.6B@def456", HUB "snapshots/def456");
    expect_refused("Qwen/Qwen3-0.6B@v3", "Qwen/Qwen3-0.6B@v3 is neither in the Hugging Face cache");
    expect_refused("Qwen/Qwen3-0.6B@v3", "hf download Qwen/Qwen3-0.6B --revision v3");
    temp_text(home, HUB "refs/evil", "../../../etc");
    expect_refused("Qwen/Qwen3-0.6B@evil", "is neither in");
}

static void the_variables_have_their_order(void **state) {
    (void)state;
    static const struct {
        const char *key, *root;
    } order[] = {{"XDG_CACHE_HOME", "xdg/huggingface/hub"}, {"HF_HOME", "hf/hub"},
                 {"HUGGINGFACE_HUB_CACHE", "old"}, {"HF_HUB_CACHE", "new"}};
    static const char *const values[] = {"xdg", "hf", "old", "new"};
    for (size_t i = 0; i < 4; i++) { // each one counts before those already set
        char *repo = qn_strf("%s/models--A--b", order[i].root);
        char *value = qn_strf("%s/%s", home, values[i]);
        char *snapshot = qn_strf("%s/snapshots/c%zu", repo, i);
        char *commit = qn_strf("c%zu", i), *ref = qn_strf("%s/refs/main", repo);
        write_hf(repo, commit);
        temp_text(home, ref, commit);
        setenv(order[i].key, value, 1);
        expect_found("A/b", snapshot);
        free(repo);
        free(value);
        free(snapshot);
        free(commit);
        free(ref);
    }
    for (size_t i = 0; i < 4; i++) unsetenv(order[i].key);
    expect_refused("A/b", "A/b is neither in the Hugging Face cache");
    setenv("HF_HUB_CACHE", "~/new", 1);
    expect_found("A/b", "new/models--A--b/snapshots/c3");
    setenv("HF_HUB_CACHE", "", 1); // empty counts as not set
    expect_refused("A/b", "A/b is neither");
    unsetenv("HF_HUB_CACHE");
}

static void the_error_holds_both_commands(void **state) {
    (void)state;
    qn_err err = {0};
    char *path;
    assert_false(qn_resolve("Qwen/Qwen9", &path, &err));
    char *expected = qn_strf("Qwen/Qwen9 is neither in the Hugging Face cache "
                             "(%s/.cache/huggingface/hub) nor in ModelScope's "
                             "(%s/.cache/modelscope). To download it:\n  hf download Qwen/Qwen9\n"
                             "  modelscope download --model Qwen/Qwen9", home, home);
    assert_string_equal(err.text, expected);
    free(expected);
}

#define PART ".cache/huggingface/hub/models--P--part/"

static void unfinished_snapshots_are_refused(void **state) {
    (void)state;
    temp_text(home, PART "refs/main", "c");
    temp_text(home, PART "snapshots/c/tokenizer.json", "{}");
    expect_refused("P/part", "P/part is not complete in the cache: config.json is missing.");
    temp_text(home, PART "snapshots/c/config.json", "{}");
    expect_refused("P/part", "not complete in the cache");
    expect_refused("P/part", "neither model.safetensors nor model.safetensors.index.json");
    temp_text(home, PART "snapshots/c/model.safetensors.index.json",
              "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
    temp_text(home, PART "snapshots/c/m-1.safetensors", "x");
    expect_refused("P/part", "m-2.safetensors is missing.");
    temp_link(home, PART "snapshots/c/m-2.safetensors", "../../blobs/22");
    expect_refused("P/part", "m-2.safetensors was not downloaded");
    temp_text(home, PART "blobs/22", "x");
    expect_found("P/part", PART "snapshots/c");
    temp_text(home, PART "blobs/33.incomplete", "x");
    expect_refused("P/part", "a download was not finished (blobs/33.incomplete)");
    expect_refused("P/part", "\n  hf download P/part\n  modelscope download --model P/part");
}

static void write_ms(const char *dir) {
    char *folder = qn_strf("%s/%s", home, dir);
    temp_text(folder, "config.json", "{}");
    temp_text(folder, "model.safetensors", "x");
    free(folder);
}

static void modelscope_names_are_mangled(void **state) {
    (void)state;
    write_ms(".cache/modelscope/hub/models/M/New-1___5B");
    expect_found("M/New-1.5B", ".cache/modelscope/hub/models/M/New-1___5B");
    write_ms(".cache/modelscope/hub/M/Old-0___5B");
    expect_found("M/Old-0.5B", ".cache/modelscope/hub/M/Old-0___5B");
    write_ms(".cache/modelscope/hub/M/Plain-2.5B");
    expect_found("M/Plain-2.5B", ".cache/modelscope/hub/M/Plain-2.5B");
    temp_text(home, ".cache/modelscope/hub/M/Old-0___5B/.mv", "Revision:v1.0,CreatedAt:17");
    expect_found("M/Old-0.5B@v1.0", ".cache/modelscope/hub/M/Old-0___5B");
    expect_refused("M/Old-0.5B@v1", "M/Old-0.5B@v1 is neither");
    write_ms(".cache/modelscope/hub/M/Old-0___5B/v2.0");
    expect_found("M/Old-0.5B@v2.0", ".cache/modelscope/hub/M/Old-0___5B/v2.0");
    char *cache = qn_strf("%s/ms", home);
    setenv("MODELSCOPE_CACHE", cache, 1);
    expect_refused("M/New-1.5B", "nor in ModelScope's");
    write_ms("ms/models/M/New-1___5B");
    expect_found("M/New-1.5B", "ms/models/M/New-1___5B");
    unsetenv("MODELSCOPE_CACHE");
    free(cache);
    // One that is whole counts before one that is not.
    write_ms(".cache/modelscope/hub/P/part");
    expect_found("P/part", ".cache/modelscope/hub/P/part");
}

static void folders_are_taken_as_they_are(void **state) {
    (void)state;
    qn_err err = {0};
    char *path;
    assert_true(qn_resolve(home, &path, &err));
    assert_string_equal(path, home);
    free(path);
    static const char *const odd[] = {"nowhere", "./a/b", "/no/where", "../a", "a/b/c", "a/../b",
                                      "a/", "/a", "a/b@", "a/b@../c", "a/b@/c", "a/b@c/", "-x/y",
                                      "a/b c", "a/b\nforged", "a/b@x\ny"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        expect_refused(odd[i], "no such folder, and not a name like Org/Name");
    }
    assert_false(qn_resolve("", &path, &err));
    assert_int_equal(err.code, QN_USAGE);
    char *gguf = qn_strf("%s/x.gguf", home);
    temp_text(home, "x.gguf", "GGUF");
    assert_false(qn_resolve(gguf, &path, &err));
    assert_int_equal(err.code, QN_UNSUPPORTED);
    free(gguf);
}

static int start(void **state) {
    (void)state;
    static const char *const keys[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                       "XDG_CACHE_HOME", "MODELSCOPE_CACHE"};
    for (size_t i = 0; i < 5; i++) unsetenv(keys[i]);
    home = temp_dir_new();
    setenv("HOME", home, 1);
    return 0;
}

static int first_cache(void **state) {
    (void)state;
    char *cache = qn_strf("%s/cache", home);
    setenv("XDG_CACHE_HOME", cache, 1);
    free(cache);
    return 0;
}

static int no_cache(void **state) {
    (void)state;
    unsetenv("XDG_CACHE_HOME");
    return 0;
}

static int stop(void **state) {
    (void)state;
    temp_dir_free(home);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hf_names_follow_refs, first_cache, no_cache),
        cmocka_unit_test(the_variables_have_their_order),
        cmocka_unit_test(the_error_holds_both_commands),
        cmocka_unit_test(unfinished_snapshots_are_refused),
        cmocka_unit_test(modelscope_names_are_mangled),
        cmocka_unit_test(folders_are_taken_as_they_are),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
