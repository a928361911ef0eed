// What check, convert and repair print for people: what it says, and that it fits.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/f16.h"
#include "base/rng.h"
#include "cli/spawn.h"

#define DATA "tests/data/quantized/"
#define BROKEN DATA "broken-signed-view"

// Runs, with the exit status, and returns stdout.
static char *printed(int status, const char *const *args) {
    outcome o = spawn(NULL, args);
    if (o.status != status) fail_msg("%s: exit %d: %s", args[0], o.status, o.err);
    char *out = o.out;
    o.out = NULL;
    outcome_done(&o);
    return out;
}

static void has(const char *out, const char *text) {
    if (!strstr(out, text)) fail_msg("\"%s\" is missing in:\n%s", text, out);
}

static void has_not(const char *out, const char *text) {
    if (strstr(out, text)) fail_msg("\"%s\" is in:\n%s", text, out);
}

// Characters, of which all here are one cell wide.
static void fits(const char *out, size_t width) {
    for (const char *line = out; *line;) {
        size_t bytes = strcspn(line, "\n"), cells = 0;
        for (size_t i = 0; i < bytes; i++) cells += (line[i] & 0xC0) != 0x80;
        if (cells > width) fail_msg("%zu cells, expected %zu: %.*s", cells, width, (int)bytes, line);
        line += bytes + (line[bytes] == '\n');
    }
}

static size_t count(const char *out, const char *text) {
    size_t n = 0;
    for (const char *p = out; (p = strstr(p, text)); p += strlen(text)) n++;
    return n;
}

static json_t *load(const char *dir, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    json_error_t err;
    json_t *j = json_load_file(path, 0, &err);
    if (!j) fail_msg("%s: %s", path, err.text);
    return j;
}

static double at(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("%s is missing", key);
    return json_number_value(v);
}

// For eyes: one headline for a kind, the first of it, broken at the width.
static void problems_are_broken_for_eyes(void **state) {
    (void)state;
    const char *const widths[] = {"60", "80", "120"};
    for (size_t i = 0; i < 3; i++) {
        setenv("COLUMNS", widths[i], 1);
        char *out = printed(1, ARGS("check", BROKEN));
        unsetenv("COLUMNS");
        fits(out, (size_t)atoi(widths[i]));
        has(out, "problems: 14 errors");
        has(out, "error    signed-view in 14 of 24 weights");
        has(out, "groups of 128");
        has(out, "         … and 11 more");
        assert_int_equal(count(out, "error    "), 1);
        free(out);
    }
}

// For grep: a line each, with severity and code.
static void problems_are_lines_for_pipes(void **state) {
    (void)state;
    unsetenv("COLUMNS");
    char *out = printed(1, ARGS("check", BROKEN));
    assert_int_equal(count(out, "\nerror    signed-view  model.layers."), 14);
    free(out);
}

// Random weights in 8 bits, their bytes viewed as signed, times the scale of their group, as F16.
static void signed_view(uint16_t *to, size_t n, size_t group, uint64_t stream) {
    for (size_t g = 0; g < n; g += group) {
        double top = 0;
        for (size_t i = g; i < g + group; i++)
            top = fmax(top, fabs(0.04 * qn_rng_normal(7, stream, i)));
        float scale = qn_f16_to_f32(qn_f32_to_f16((float)(2 * top / 255)));
        for (size_t i = g; i < g + group; i++) {
            double code = rint(0.04 * qn_rng_normal(7, stream, i) / (double)scale);
            code = fmin(fmax(code, -128), 127);
            to[i] = qn_f32_to_f16((float)(code < 0 ? code + 128 : code - 128) * scale);
        }
    }
}

// Many of a kind, in groups of several sizes, are summed up, for pipes as well.
static void many_of_a_kind_have_a_headline(void **state) {
    (void)state;
    enum { N = 18, SIZE = 64 * 256 };
    uint16_t *w = malloc(N * SIZE * sizeof *w);
    char header[4096] = "{", *dir = scratch("many"), path[4096];
    for (size_t i = 0; i < N; i++) {
        size_t at = strlen(header);
        signed_view(w + i * SIZE, SIZE, i % 2 ? 64 : 32, i);
        snprintf(header + at, sizeof header - at, "%s\"layers.%zu.w\":{\"dtype\":\"F16\",\"shape\":"
                 "[64,256],\"data_offsets\":[%zu,%zu]}", i ? "," : "", i, i * SIZE * 2,
                 (i + 1) * SIZE * 2);
    }
    strcat(header, "}");
    assert_int_equal(mkdir(dir, 0777), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *f = fopen(path, "wb");
    uint64_t length = strlen(header);
    assert_true(f && fwrite(&length, 8, 1, f) == 1 && fwrite(header, length, 1, f) == 1 &&
                fwrite(w, N * SIZE * 2, 1, f) == 1);
    fclose(f);
    free(w);
    unsetenv("COLUMNS");
    char *out = printed(1, ARGS("check", dir));
    has(out, "\nerror    signed-view in 18 of 18 weights, groups of 32 and 64, confidence at ");
    assert_int_equal(count(out, "\nerror    signed-view  layers."), 16);
    has(out, "\nerror    signed-view  … and 2 more");
    free(out);
    setenv("COLUMNS", "100", 1);
    out = printed(1, ARGS("check", dir));
    unsetenv("COLUMNS");
    has(out, "signed-view in 18 of 18 weights, groups of 32 and 64, confidence");
    free(out);
    free(dir);
}

static void tables_fit_and_leave_out_what_is_empty(void **state) {
    (void)state;
    char *out = printed(0, ARGS("check", DATA "awq-zerogroup", "--tensors"));
    char *end = strstr(out, "\nok");
    assert_non_null(end);
    *end = 0;
    fits(out, 100);
    *end = '\n';
    has(out, "shape");
    has(out, "384×128");
    has(out, "zero columns");
    has(out, "zero points");
    has(out, "0 … 15");
    has(out, "zero scales");
    has(out, " ± ");
    has_not(out, "cosine");
    has(out, "read speed");
    free(out);
    out = printed(0, ARGS("check", TINY_INT8, "--tensors", "--against", TINY));
    has(out, "cosine");
    free(out);
}

static void activations_are_told(void **state) {
    (void)state;
    char *out = printed(0, ARGS("check", TINY, "--forward"));
    has(out, "\nlargest: ");
    has(out, ", channel ");
    has(out, ", position ");
    has(out, "largest activation");
    free(out);
}

// All figures that the note about a dequantized model lists.
static void a_conversion_tells_its_figures(void **state) {
    (void)state;
    char *dir = scratch("converted");
    char *out = printed(0, ARGS("convert", TINY_INT8, dir, "--dtype", "f16"));
    fits(out, 100 + strlen(dir));
    static const char *const words[] = {
        "gptq 8-bit g128 → F16", "shape", "256×256", "range", "mean", "std", "operator norm", " ± ",
        "scales", "scale mean", "max error", "mean error", "allclose at 1e-3: yes",
        "46 (1 embedding, 28 linear, 17 norm)", "codes", "0 … 255", "in 1 file", "proof  passed"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) has(out, words[i]);
    const char *seed = strstr(out, "seed ");
    assert_non_null(seed);
    assert_true(strcspn(seed, "\n") < strcspn(seed, ","));
    free(out);
    json_t *report = load(dir, "quern-report.json"), *s = json_object_get(report, "summary"), *e;
    double worst = 0, low = 1e9, high = 0;
    size_t i;
    json_array_foreach(json_object_get(report, "tensors"), i, e) {
        if (at(e, "max_abs_error") > worst) worst = at(e, "max_abs_error");
        if (!json_object_get(e, "scale_min")) continue;
        if (at(e, "scale_min") < low) low = at(e, "scale_min");
        if (at(e, "scale_max") > high) high = at(e, "scale_max");
    }
    assert_true(worst > 0 && at(s, "max_abs_error") == worst);
    assert_true(at(s, "mean_abs_error") > 0 && at(s, "mean_abs_error") < worst);
    assert_true(at(s, "scale_min") == low && at(s, "scale_max") == high);
    assert_true(at(s, "scale_mean") > low && at(s, "scale_mean") < high);
    assert_true(at(s, "code_min") == 0 && at(s, "code_max") == 255);
    assert_true(at(s, "operator_norm_min") < at(s, "operator_norm_max"));
    assert_true(at(s, "bytes") > 8390000 && at(s, "bytes") < 8410000);
    assert_true(at(json_object_get(s, "kinds"), "linear") == 28);
    json_decref(report);
    free(dir);
}

static char *text_of(const char *dir, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is not there", path);
    char *text = calloc(1, 1 << 20);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

// What stays as it is counts as copied, whichever way it went; files are lines.
static void what_is_unchanged_is_copied(void **state) {
    (void)state;
    char *dir = scratch("same");
    free(printed(0, ARGS("convert", DATA "gptq-int8-g128", dir, "--dtype", "f16")));
    json_t *report = load(dir, "quern-report.json"), *s = json_object_get(report, "summary");
    assert_true(at(s, "copied") == 10 && at(s, "quantized") == 14);
    json_decref(report);
    const char *const files[] = {"config.json", "quern-report.json"};
    for (size_t i = 0; i < 2; i++) {
        char *text = text_of(dir, files[i]);
        assert_string_equal(text + strlen(text) - 2, "}\n");
        free(text);
    }
    free(dir);
    dir = scratch("cut");
    free(printed(0, ARGS("convert", DATA "base-bf16", dir, "--dtype", "f32", "--shard-size=1MB")));
    char *index = text_of(dir, "model.safetensors.index.json");
    assert_string_equal(index + strlen(index) - 2, "}\n");
    free(index);
    report = load(dir, "quern-report.json");
    assert_true(at(json_object_get(report, "summary"), "copied") == 0);
    json_decref(report);
    free(dir);
}

static void repair_tells_exact_from_estimated(void **state) {
    (void)state;
    char *dir = scratch("repaired");
    char *out = printed(0, ARGS("repair", BROKEN, dir));
    static const char *const words[] = {"exact groups", "estimated groups", "largest bound",
                                        "damage: signed-view", "groups of: 128", "383"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) has(out, words[i]);
    free(out);
    free(dir);
}

// BROKEN with one matrix of nothing but ±1/1024, which may be codes seen wrongly and may be not.
static char *with_a_binary_matrix(void) {
    char *dir = scratch("binary"), path[4096];
    size_t n = 1 << 21, got = 0;
    uint8_t *bytes = malloc(n);
    FILE *f = fopen(BROKEN "/model.safetensors", "rb");
    assert_true(f && (got = fread(bytes, 1, n, f)) > 8 && got < n);
    fclose(f);
    uint64_t header;
    memcpy(&header, bytes, 8);
    json_t *j = json_loadb((char *)bytes + 8, header, 0, NULL);
    const json_t *at = json_object_get(json_object_get(j, "model.layers.1.mlp.up_proj.weight"),
                                       "data_offsets");
    size_t from = 8 + header + (size_t)json_integer_value(json_array_get(at, 0));
    size_t to = 8 + header + (size_t)json_integer_value(json_array_get(at, 1));
    assert_true(to > from && to <= got);
    for (size_t i = from; i < to; i += 2) {
        uint16_t h = (uint16_t)(0x1400 | (i / 2 * 2654435761u >> 13 & 1) << 15);
        memcpy(bytes + i, &h, 2);
    }
    json_decref(j);
    mkdir(dir, 0777);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    f = fopen(path, "wb");
    assert_true(f && fwrite(bytes, 1, got, f) == got && fclose(f) == 0);
    free(bytes);
    char *config = text_of(BROKEN, "config.json");
    snprintf(path, sizeof path, "%s/config.json", dir);
    write_file(path, config);
    free(config);
    return dir;
}

// What could not be judged is named, and nothing lets the result pass for a whole one.
static void a_repair_in_part_says_so(void **state) {
    (void)state;
    char *dir = with_a_binary_matrix(), *into = scratch("in-part"), head[4200];
    char *out = printed(1, ARGS("repair", dir, into));
    snprintf(head, sizeof head, "repair  %s  INCOMPLETE", into);
    has(out, head);
    has(out, "model.layers.1.mlp.up_proj.weight may be damaged and was left as it is");
    free(out);
    json_t *report = load(into, "quern-report.json"), *e;
    assert_string_equal(json_string_value(json_object_get(report, "verdict")), "incomplete");
    assert_true(at(json_object_get(report, "summary"), "left_as_they_were") == 1);
    assert_true(at(json_object_get(report, "summary"), "repaired") == 13);
    size_t i, named = 0;
    json_array_foreach(json_object_get(report, "tensors"), i, e)
        named += json_object_get(e, "left_because") != NULL;
    assert_int_equal(named, 1);
    json_decref(report);
    char *readme = text_of(into, "README.md");
    has(readme, "IN PART");
    free(readme);
    out = printed(1, ARGS("check", dir));
    has(out, "perhaps, as other matrices are");
    free(out);
    free(dir);
    free(into);
}

// The scales and codes that were found are those of the quantized original.
static void a_repair_tells_scales_and_codes(void **state) {
    (void)state;
    char *fixed = scratch("found"), *right = scratch("known");
    free(printed(0, ARGS("repair", BROKEN, fixed)));
    free(printed(0, ARGS("convert", DATA "gptq-int8-g128", right, "--dtype", "f16")));
    json_t *a = load(fixed, "quern-report.json"), *b = load(right, "quern-report.json"), *e, *o;
    size_t i, k, compared = 0;
    json_array_foreach(json_object_get(a, "tensors"), i, e) {
        if (!json_object_get(e, "repaired")) continue;
        json_array_foreach(json_object_get(b, "tensors"), k, o) {
            static const char *const keys[] = {"scale_min", "scale_max", "code_min", "code_max"};
            if (!json_equal(json_object_get(e, "name"), json_object_get(o, "name"))) continue;
            for (size_t x = 0; x < 4; x++)
                if (at(e, keys[x]) != at(o, keys[x])) fail_msg("%s of %zu", keys[x], i);
            double mean = at(o, "scale_mean");
            assert_true(at(e, "scale_mean") > mean * 0.999999 && at(e, "scale_mean") < mean * 1.000001);
            compared++;
        }
    }
    assert_int_equal(compared, 14);
    json_decref(a);
    json_decref(b);
    free(fixed);
    free(right);
}

// Tensors that stay packed are told as the weights they make up; long values are broken, too.
static void a_label_put_right_is_told(void **state) {
    (void)state;
    char *dir = scratch("relabelled");
    setenv("COLUMNS", "70", 1);
    char *out = printed(0, ARGS("repair", DATA "gptq-int4-mislabelled", dir));
    unsetenv("COLUMNS");
    has(out, "66 (1 embedding, 14 linear, 9 norm)");
    fits(strchr(out, '\n'), 70);
    free(out);
    json_t *report = load(dir, "quern-report.json"), *s = json_object_get(report, "summary");
    assert_true(at(s, "quantized") == 14 && at(s, "copied") == 66);
    json_decref(report);
    free(dir);
}

// A block as large as the matrix is a block; one group of 128 is none of a channel if so labelled.
static void formats_have_their_names(void **state) {
    (void)state;
    static const struct {
        const char *folder, *name;
    } cases[] = {{DATA "fp8-block", "fp8-block 8-bit 128x128"},
                 {DATA "ct-fp8-channel", "fp8-channel 8-bit"},
                 {DATA "gptq-int8-g128", "gptq 8-bit g128"},
                 {DATA "gptq-int8-channel", "gptq 8-bit channel"},
                 {DATA "ct-int8-channel", "ct-int 8-bit channel"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *j = json_of(NULL, ARGS("check", cases[i].folder, "--json")), *e;
        size_t k, matrices = 0;
        json_array_foreach(json_object_get(j, "tensors"), k, e) {
            const char *name = json_string_value(json_object_get(e, "dtype"));
            if (!strstr(name, "-bit")) continue;
            assert_string_equal(name, cases[i].name);
            matrices++;
        }
        assert_true(matrices > 0);
        json_decref(j);
    }
}

static void overwrite_is_for_checkpoints(void **state) {
    (void)state;
    char *dir = scratch("folder"), *thesis = scratch("folder/thesis.txt"), *plain = scratch("file");
    free(printed(0, ARGS("convert", DATA "base-bf16", dir, "--dtype", "bf16")));
    free(printed(0, ARGS("convert", DATA "base-bf16", dir, "--dtype", "f16", "--overwrite")));
    char path[4096];
    const char *const marks[] = {"config.json", "quern-report.json"};
    write_file(thesis, "years of work");
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, marks[i]);
        assert_int_equal(remove(path), 0);
    }
    expect_error(NULL, 2, "neither config.json nor quern-report.json",
                 ARGS("convert", DATA "base-bf16", dir, "--dtype", "f16", "--overwrite"));
    assert_int_equal(access(thesis, F_OK), 0);
    write_file(plain, "x");
    expect_error(NULL, 2, "is not a folder",
                 ARGS("convert", DATA "base-bf16", plain, "--dtype", "f16", "--overwrite"));
    free(dir);
    free(thesis);
    free(plain);
}

static void options_and_names(void **state) {
    (void)state;
    free(printed(0, ARGS("check", DATA "base-bf16", "--precision", "exact")));
    free(printed(0, ARGS("compare", DATA "base-bf16", DATA "base-bf16", "--precision=exact")));
    char *dump = scratch("dump.st"), *out = scratch("nan");
    expect_error(NULL, 2, "expected a name that ends in .safetensors",
                 ARGS("dump", TINY, "--tokens", "1", "-o", dump));
    expect_error(NULL, 2, "broken-nan/model.safetensors",
                 ARGS("convert", DATA "broken-nan", out, "--dtype", "f32"));
    free(dump);
    free(out);
}

// The logits are the file's end: the row before the last is given -inf for all tokens but one.
static void rule_out(const char *dump) {
    enum { V = 4096 };
    const float none = -INFINITY, one = 0;
    FILE *f = fopen(dump, "r+b");
    assert_true(f && fseek(f, -2l * V * (long)sizeof none, SEEK_END) == 0);
    for (int i = 0; i < V; i++) assert_int_equal(fwrite(i ? &none : &one, sizeof none, 1, f), 1);
    fclose(f);
}

// "inf" is printed as that, and what was left out is said where the verdict is.
static void figures_that_are_none(void **state) {
    (void)state;
    char *a = scratch("a.safetensors"), *b = scratch("last.safetensors");
    free(printed(0, ARGS("dump", TINY, "--tokens", "5 17 80", "-o", a, "-q")));
    free(printed(0, ARGS("dump", TINY, "--tokens", "5 17 80", "-o", b, "-q", "--hidden")));
    char *text = printed(0, ARGS("compare", a, b, "-q"));
    assert_int_equal(strncmp(text, "ok: what was compared is identical, bit for bit\n", 48), 0);
    free(text);
    rule_out(a);
    text = printed(0, ARGS("eval", TINY, "--reference", a, "-q"));
    if (!strstr(text, "reference    inf")) fail_msg("%s", text);
    free(text);
    free(a);
    free(b);
}

// A short text is one window of its own length, and one is one.
static void counts_read_well(void **state) {
    (void)state;
    char *file = scratch("short.txt");
    write_file(file, "hello world this is a text");
    char *text = printed(0, ARGS("eval", TINY, "--text", file, "-q"));
    if (!strstr(text, "tokens       13 in 1 window of 14\n")) fail_msg("%s", text);
    free(text);
    expect_error(NULL, 0, "prompt 1 token, ", ARGS("run", TINY, "--tokens", "5", "-n", "1"));
    expect_error(NULL, 0, "output 1 token, ", ARGS("run", TINY, "--tokens", "5", "-n", "1"));
    free(file);
}

static int done(void **state) {
    (void)state;
    scratch_done();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(problems_are_broken_for_eyes),
        cmocka_unit_test(problems_are_lines_for_pipes),
        cmocka_unit_test(many_of_a_kind_have_a_headline),
        cmocka_unit_test(tables_fit_and_leave_out_what_is_empty),
        cmocka_unit_test(activations_are_told),
        cmocka_unit_test(a_conversion_tells_its_figures),
        cmocka_unit_test(what_is_unchanged_is_copied),
        cmocka_unit_test(repair_tells_exact_from_estimated),
        cmocka_unit_test(a_repair_in_part_says_so),
        cmocka_unit_test(a_repair_tells_scales_and_codes),
        cmocka_unit_test(a_label_put_right_is_told),
        cmocka_unit_test(formats_have_their_names),
        cmocka_unit_test(overwrite_is_for_checkpoints),
        cmocka_unit_test(options_and_names),
        cmocka_unit_test(figures_that_are_none),
        cmocka_unit_test(counts_read_well),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
