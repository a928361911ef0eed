// The page: nothing foreign gets out of its place, nothing comes from outside, and the security
// policy names exactly the style and the script that are in it.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "quant/compare.h"
#include "quant/html_report.h"
#include "support/scratch.h"
#include "support/sha256.h"

static const char evil[] = "</script><img src=x onerror=alert(1)>\"'&amp; ]]> <!-- ";

static json_t *load(const char *text) {
    qn_err err = {0};
    json_t *j = qn_json_parse(text, strlen(text), "report", &err);
    if (!j) fail_msg("%s", err.text);
    return j;
}

// A report in which every string that may be foreign is hostile.
static json_t *hostile_report(void) {
    json_t *r = load(
        "{\"verdict\":\"different\",\"kind\":\"checkpoints\",\"identical\":false,"
        "\"thresholds\":{\"cosine\":0.99,\"max_abs\":0.001},\"notes\":[],\"notes_zh\":[],"
        "\"overall\":{\"cosine\":\"nan\",\"max_abs_error\":\"inf\",\"kl\":null},\"worst\":[],"
        "\"layers\":[{\"name\":\"x\",\"norm_a\":1,\"norm_b\":\"inf\",\"relative_rms\":\"nan\"},"
        "{\"name\":\"y\",\"norm_a\":0,\"norm_b\":2,\"relative_rms\":0}]}");
    json_object_set_new(r, "a", json_string(evil));
    json_object_set_new(r, "b", json_string(evil));
    json_object_set_new(r, "reasons", json_pack("[s]", evil));
    json_object_set_new(r, "reasons_zh", json_pack("[s]", evil));
    json_object_set_new(r, "only_in_a", json_pack("[s]", evil));
    json_object_set_new(r, "first_layer", json_string(evil));
    json_object_set_new(r, "histograms", json_pack("[{s:s,s:f,s:f,s:[i,i],s:[i,i]}]", "name", evil,
                                                   "low", -1.0, "high", 1.0, "a", 1, 2, "b", 0, 3));
    json_object_set_new(r, "tensors",
                        json_pack("[{s:s,s:s,s:s,s:n},{s:s,s:s,s:s,s:f}]", "name", evil, "stored_a",
                                  evil, "stored_b", evil, "cosine", "name", evil, "stored_a", evil,
                                  "stored_b", evil, "cosine", 0.5));
    return r;
}

static size_t occurrences(const char *text, const char *part) {
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, part)); p += strlen(part)) n++;
    return n;
}

static void foreign_text_stays_text(void **state) {
    (void)state;
    json_t *r = hostile_report();
    size_t n;
    char *page = qn_html_report_text(r, &n);
    assert_int_equal(strlen(page), n);
    assert_int_equal(occurrences(page, "<script"), 1);
    assert_int_equal(occurrences(page, "</script"), 1);
    assert_int_equal(occurrences(page, "<img"), 0);
    assert_int_equal(occurrences(page, "<!--"), 0);
    assert_null(strstr(page, "onerror=alert(1)>"));
    assert_true(occurrences(page, "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&quot;&#39;"
                                  "&amp;amp;") >= 10);
    qn_free(page);
    json_decref(r);
}

// What is not finite has a cross in the plots and a row in a table; what merely has no figure, not.
static void broken_points_are_marked(void **state) {
    (void)state;
    json_t *r = load(
        "{\"verdict\":\"different\",\"kind\":\"dumps\",\"overall\":{\"top1\":0.5},\"thresholds\":"
        "{\"cosine\":0.99,\"max_abs\":0.001,\"top1\":1},\"nonfinite\":[{\"side\":\"b\",\"tensor\":"
        "\"hidden.1\",\"count\":3,\"row\":4,\"column\":5,\"value\":\"-inf\"}],\"layers\":["
        "{\"name\":\"hidden.0\",\"norm_a\":1,\"norm_b\":2,\"relative_rms\":null},"
        "{\"name\":\"hidden.1\",\"norm_a\":1,\"norm_b\":2,\"relative_rms\":0.5},"
        "{\"name\":\"hidden.2\",\"norm_a\":1,\"norm_b\":2,\"relative_rms\":\"nan\"}],"
        "\"tensors\":[{\"name\":\"mtp.logits\",\"positions\":[{\"position\":0,\"kl\":0.1},"
        "{\"position\":1,\"kl\":0.2}]}]}");
    size_t n;
    char *page = qn_html_report_text(r, &n);
    // Two legends; hidden.1 in both plots of layers, hidden.2 where its error is nan.
    assert_int_equal(occurrences(page, "class=\"broken\""), 2 + 3);
    assert_int_equal(occurrences(page, "<title>1: nan, inf"), 2);
    assert_non_null(strstr(page, "<code>-inf</code>"));
    assert_non_null(strstr(page, "<b>50 %</b>"));
    assert_non_null(strstr(page, "Divergence of the draft per position"));
    assert_non_null(strstr(page, "Positions of the draft"));
    qn_free(page);
    json_decref(r);
}

static json_t *real_report(void) {
    qn_compare_options o = {.cosine = 0.99, .max_abs = 0.001, .top1 = 1, .page = true};
    json_t *r = NULL;
    qn_err err = {0};
    if (!qn_compare("tests/data/quantized/broken-signed-view", "tests/data/quantized/base-bf16", &o,
                    &r, &err))
        fail_msg("%s", err.text);
    return r;
}

static void nothing_comes_from_outside(void **state) {
    (void)state;
    static const char *const absent[] = {"http:", "https:", "//cdn", "src=", "href=", "url(",
                                         "@import", "style=", "onclick", "innerHTML", "eval(",
                                         "fetch(", "<iframe", "<link", "<object", "<form"};
    static const char *const present[] = {"default-src 'none'", "base-uri 'none'",
                                          "form-action 'none'", "<!doctype html>",
                                          "prefers-color-scheme: dark", "@media print",
                                          "navigator.language", "aria-sort", "role=\"img\"",
                                          "不一致", "Different", "<svg", "scope=\"col\""};
    json_t *r = real_report();
    size_t n;
    char *page = qn_html_report_text(r, &n);
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        if (strstr(page, absent[i])) fail_msg("the page has \"%s\"", absent[i]);
    for (size_t i = 0; i < sizeof present / sizeof *present; i++)
        if (!strstr(page, present[i])) fail_msg("the page lacks \"%s\"", present[i]);
    assert_int_equal(occurrences(page, "class=\"area a\""), 1 + 6); // the legend and six plots
    qn_free(page);
    json_decref(r);
}

static int digit_of(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = strchr(digits, c);
    return at && c ? (int)(at - digits) : -1;
}

// "KIND-src 'sha256-…'" against what stands between open and close.
static void policy_fits(const char *page, const char *kind, const char *open, const char *close) {
    const char *from = strstr(page, open), *to = from ? strstr(from, close) : NULL;
    const char *hash = strstr(page, kind);
    assert_non_null(to);
    assert_non_null(hash);
    char wanted[65], said[65] = "";
    sha256 s;
    sha256_init(&s);
    sha256_update(&s, from + strlen(open), (size_t)(to - from) - strlen(open));
    sha256_hex(&s, wanted);
    unsigned bits = 0, n_bits = 0, n = 0;
    for (const char *p = hash + strlen(kind); digit_of(*p) >= 0; p++) {
        bits = bits << 6 | (unsigned)digit_of(*p);
        n_bits += 6;
        if (n_bits < 8 || n == 32) continue;
        n_bits -= 8;
        snprintf(said + 2 * n++, 3, "%02x", bits >> n_bits & 255);
    }
    if (strcmp(wanted, said) != 0)
        fail_msg("%s%s is not the page's %s: run web/report/embed.sh", kind, said, wanted);
}

static void the_policy_names_what_is_there(void **state) {
    (void)state;
    json_t *r = hostile_report();
    size_t n;
    char *page = qn_html_report_text(r, &n);
    policy_fits(page, "style-src 'sha256-", "<style>", "</style>");
    policy_fits(page, "script-src 'sha256-", "<script>", "</script>");
    qn_free(page);
    json_decref(r);
}

// What is embedded is what lies in web/report.
static void assets_are_up_to_date(void **state) {
    (void)state;
    json_t *r = hostile_report();
    size_t n;
    char *page = qn_html_report_text(r, &n);
    static const char *const files[] = {"web/report/report.css", "web/report/report.js"};
    for (int i = 0; i < 2; i++) {
        qn_buf b = {0};
        assert_true(qn_file_read(files[i], 1 << 20, &b, NULL));
        if (!strstr(page, b.data)) fail_msg("%s has changed: run web/report/embed.sh", files[i]);
        qn_buf_done(&b);
    }
    qn_free(page);
    json_decref(r);
}

static void appears_whole_or_not(void **state) {
    (void)state;
    json_t *r = hostile_report();
    qn_err err = {0};
    char *path = scratch_path("page.html");
    assert_true(qn_html_report_write(path, r, &err));
    assert_true(qn_file_size(path) > 5000);
    assert_true(qn_html_report_write(path, r, &err)); // replaces
    assert_false(qn_html_report_write("no/such/folder/page.html", r, &err));
    assert_int_equal(qn_exit_status(err.code), 3);
    scratch_remove(path);
    json_decref(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_text_stays_text),
        cmocka_unit_test(broken_points_are_marked),
        cmocka_unit_test(nothing_comes_from_outside),
        cmocka_unit_test(the_policy_names_what_is_there),
        cmocka_unit_test(assets_are_up_to_date),
        cmocka_unit_test(appears_whole_or_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
