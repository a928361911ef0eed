// What is carried over beside the weights: subfolders, their limits, labels of what is no longer
// quantized, and that whatever stays behind is said.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "quant/convert.h"
#include "quant/pad.h"
#include "store/temp_model.h"
#include "support/scratch.h"

#define INT8 "tests/data/quantized/gptq-int8-g128"
#define FLOAT "tests/data/quantized/base-bf16"

static void link_into(const char *dir, const char *model, const char *name) {
    char here[4096], *in_model = qn_path_join(model, name);
    assert_non_null(getcwd(here, sizeof here));
    char *target = qn_path_join(here, in_model);
    temp_link(dir, name, target);
    free(target);
    free(in_model);
}

static char *model_of(const char *from) {
    char *dir = temp_dir_new();
    link_into(dir, from, "model.safetensors");
    link_into(dir, from, "config.json");
    return dir;
}

static json_t *converted(const char *model, const char *out) {
    qn_err err = {0};
    json_t *report = NULL;
    qn_convert_options o = {.dtype = QN_TO_BF16, .overwrite = true};
    if (!qn_convert(model, out, &o, &report, &err)) fail_msg("%s", err.text);
    return report;
}

static bool has(const char *dir, const char *name) {
    char *path = qn_path_join(dir, name);
    bool there = qn_file_exists(path);
    free(path);
    return there;
}

static void expect(const char *dir, const char *name, bool there) {
    if (has(dir, name) != there) fail_msg("%s is %s", name, there ? "not there" : "there");
}

static char *notes_of(const json_t *report) {
    return json_dumps(json_object_get(report, "notes"), JSON_ENCODE_ANY);
}

static void mentions(const char *text, const char *what) {
    if (!strstr(text, what)) fail_msg("\"%s\" is not in: %s", what, text);
}

static void subfolders_come_along(void **state) {
    (void)state;
    char *dir = model_of(INT8), *out = scratch_path("sides");
    temp_text(dir, "modules.json", "[]");
    temp_text(dir, "1_Pooling/config.json", "{\"pooling\": 1}");
    temp_text(dir, "1_Pooling/deep/er/note.txt", "x");
    temp_link(dir, "1_Pooling/linked.json", "config.json"); // as caches of downloads have them
    temp_text(dir, ".git/config", "x");
    temp_text(dir, "__pycache__/a.pyc", "x");
    json_t *report = converted(dir, out);
    static const char *const there[] = {"modules.json", "1_Pooling/config.json",
                                        "1_Pooling/linked.json", "1_Pooling/deep/er/note.txt"};
    for (size_t i = 0; i < sizeof there / sizeof *there; i++) expect(out, there[i], true);
    expect(out, ".git", false);
    expect(out, "__pycache__", false);
    char *path = qn_path_join(out, "1_Pooling/linked.json"), *notes = notes_of(report);
    qn_buf text = {0};
    assert_true(qn_file_read(path, 100, &text, NULL));
    assert_string_equal(text.data, "{\"pooling\": 1}");
    assert_null(strstr(notes, "left out"));
    qn_buf_done(&text);
    free(notes);
    free(path);
    json_decref(report);
    scratch_remove(out);
    temp_dir_free(dir);
}

static void what_stays_is_said(void **state) {
    (void)state;
    char *dir = model_of(INT8), *out = scratch_path("sides");
    temp_text(dir, "2_Dense/config.json", "{}");
    temp_text(dir, "2_Dense/model.safetensors", "x");
    temp_text(dir, "a/b/c/d/e/f.txt", "x");
    temp_text(dir, "big/small.txt", "x");
    temp_text(dir, "big/large.txt", "x");
    char *large = qn_path_join(dir, "big/large.txt");
    assert_int_equal(truncate(large, (64 << 20) + 1), 0);
    free(large);
    temp_link(dir, "round", ".");
    temp_link(dir, "broken.txt", "nowhere");
    json_t *report = converted(dir, out);
    char *notes = notes_of(report), *readme = qn_path_join(out, "README.md");
    qn_buf text = {0};
    assert_true(qn_file_read(readme, 1 << 20, &text, NULL));
    static const char *const said[] = {"2_Dense (it holds weights of its own)",
                                       "big/large.txt (larger than 64 MiB)",
                                       "round (a link to a folder)", "broken.txt (a broken link)",
                                       "a/b/c/d/e (too deep)"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        mentions(notes, said[i]);
        mentions(text.data, said[i]);
    }
    expect(out, "2_Dense", false);
    expect(out, "round", false);
    expect(out, "big/small.txt", true);
    expect(out, "big/large.txt", false);
    qn_buf_done(&text);
    free(notes);
    free(readme);
    json_decref(report);
    scratch_remove(out);
    temp_dir_free(dir);
}

static void many_small_files_end_somewhere(void **state) {
    (void)state;
    char *dir = model_of(INT8), *out = scratch_path("sides"), name[64];
    for (int i = 0; i < 1010; i++) {
        snprintf(name, sizeof name, "logs/%04d.txt", i);
        temp_text(dir, name, "x");
    }
    json_t *report = converted(dir, out);
    char *notes = notes_of(report);
    mentions(notes, "logs/1000.txt (more than 1000 files)");
    mentions(notes, ", and 2 more");
    expect(out, "logs/0999.txt", true);
    expect(out, "logs/1000.txt", false);
    free(notes);
    json_decref(report);
    scratch_remove(out);
    temp_dir_free(dir);
}

static void labels_of_nothing(void **state) {
    (void)state;
    static const char *const labels[] = {"quantize_config.json", "hf_quant_config.json"};
    char *dir = model_of(INT8), *out = scratch_path("sides");
    for (size_t i = 0; i < 2; i++) temp_text(dir, labels[i], "{\"bits\": 8, \"group_size\": 128}");
    json_decref(converted(dir, out));
    for (size_t i = 0; i < 2; i++) expect(out, labels[i], false);
    qn_err err = {0};
    json_t *report = NULL;
    qn_pad_options o = {.tp = 3, .group_size = 32, .overwrite = true};
    temp_dir_free(dir);
    dir = model_of(FLOAT); // padding a float model: a label that is left there is of nothing either
    temp_text(dir, "hf_quant_config.json", "{}");
    if (!qn_pad(dir, out, &o, &report, &err)) fail_msg("%s", err.text);
    expect(out, "hf_quant_config.json", false);
    char *notes = notes_of(report);
    mentions(notes, "hf_quant_config.json (a quantization label; nothing is quantized)");
    free(notes);
    json_decref(report);
    scratch_remove(out);
    temp_dir_free(dir);
}

int main(void) {
    qn_log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(subfolders_come_along), cmocka_unit_test(what_stays_is_said),
        cmocka_unit_test(many_small_files_end_somewhere), cmocka_unit_test(labels_of_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
