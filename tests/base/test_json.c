// JSON from strangers: what is refused, in which words, and the typed look-ups.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"

static void refused(const char *text, size_t n, qn_code code, const char *words) {
    qn_err err = {0};
    json_t *j = qn_json_parse(text, n, "config.json", &err);
    assert_null(j);
    assert_int_equal(err.code, code);
    assert_memory_equal(err.text, "config.json: ", 13);
    if (!strstr(err.text, words)) fail_msg("'%s' does not say '%s'", err.text, words);
    assert_null(strchr(err.text, '\n'));
}

static void refused_text(const char *text, qn_code code, const char *words) {
    refused(text, strlen(text), code, words);
}

static void malformed_text_is_refused(void **state) {
    (void)state;
    refused_text("", QN_INPUT, "line 1");
    refused_text("{", QN_INPUT, "line 1");
    refused_text("{\"a\": 1,\n \"b\": }", QN_INPUT, "line 2");
    refused_text("{\"a\": 1, \"a\": 2}", QN_INPUT, "duplicate");
    refused_text("{\"a\": \"\xFF\"}", QN_INPUT, "byte 0xff");
    refused_text("{\"a\": \"\\ud800\"}", QN_INPUT, "\\ud800");
    refused_text("[1] x", QN_INPUT, "end of file");
    refused_text("[1e999]", QN_INPUT, "real number overflow");
    refused_text("[nan]", QN_INPUT, "nan");
    refused_text("{\"a\nb\": 1}", QN_INPUT, "unexpected newline");
    refused(NULL, 0, QN_INPUT, "line 1");
}

static void deep_nesting_is_a_limit(void **state) {
    (void)state;
    qn_buf b = {0};
    for (int i = 0; i < 10000; i++) qn_buf_addc(&b, '[');
    refused(b.data, b.n, QN_LIMIT, "deeper than 2048");
    qn_buf_done(&b);
}

static json_t *parsed(const char *text) {
    qn_err err = {0};
    json_t *j = qn_json_parse(text, strlen(text), "t", &err);
    assert_non_null(j);
    return j;
}

static void integers_are_checked(void **state) {
    (void)state;
    json_t *o = parsed("{\"n\": 7, \"whole\": 128.0, \"exp\": 1e6, \"half\": 0.5, \"s\": \"x\","
                       " \"none\": null, \"big\": 9223372036854775807}");
    qn_err err = {0};
    int64_t v = 5;
    assert_true(qn_json_int(o, "n", 0, 10, &v, "t", &err) && v == 7);
    assert_true(qn_json_int(o, "whole", 0, 200, &v, "t", &err) && v == 128);
    assert_true(qn_json_int(o, "exp", 0, 1000000, &v, "t", &err) && v == 1000000);
    assert_true(qn_json_int(o, "absent", 0, 10, &v, "t", &err) && v == 1000000);
    assert_true(qn_json_int(o, "none", 0, 10, &v, "t", &err) && v == 1000000);
    assert_true(qn_json_int(o, "big", 0, INT64_MAX, &v, "t", &err) && v == INT64_MAX);
    assert_false(qn_json_int(o, "n", 8, 10, &v, "t", &err));
    assert_string_equal(err.text, "t: n is 7, expected an integer from 8 to 10");
    assert_false(qn_json_int(o, "half", 0, 10, &v, "t", &err));
    assert_false(qn_json_int(o, "s", 0, 10, &v, "t", &err));
    assert_string_equal(err.text, "t: s is \"x\", expected an integer from 0 to 10");
    json_decref(o);
}

static void other_kinds_are_checked(void **state) {
    (void)state;
    json_t *o = parsed("{\"r\": 2, \"b\": true, \"s\": \"text\", \"o\": {\"k\": 1}}");
    qn_err err = {0};
    double r = 0;
    bool b = false;
    const char *s = NULL;
    assert_true(qn_json_real(o, "r", &r, "t", &err) && r == 2);
    assert_true(qn_json_bool(o, "b", &b, "t", &err) && b);
    assert_true(qn_json_str(o, "s", &s, "t", &err));
    assert_string_equal(s, "text");
    assert_false(qn_json_real(o, "s", &r, "t", &err));
    assert_string_equal(err.text, "t: s is \"text\", expected a number");
    assert_false(qn_json_bool(o, "r", &b, "t", &err));
    assert_false(qn_json_str(o, "o", &s, "t", &err));
    assert_string_equal(err.text, "t: o is {\"k\":1}, expected a string");
    const char *const spellings[] = {"dtype", "o", "r"};
    assert_ptr_equal(qn_json_any(o, spellings, 3), json_object_get(o, "o"));
    assert_null(qn_json_any(o, spellings, 1));
    json_decref(o);
}

static void numbers_print_as_documented(void **state) {
    (void)state;
    json_t *a = json_pack("[o, o, o, o]", qn_json_number(NAN), qn_json_number(-INFINITY),
                          qn_json_number(INFINITY), qn_json_number(0.1));
    char *text = qn_json_text(a, false);
    assert_string_equal(text, "[\"nan\",\"-inf\",\"inf\",0.1]");
    qn_free(text);
    json_decref(a);
}

static void files_are_limited(void **state) {
    (void)state;
    qn_err err = {0};
    const char *path = "tests/data/quantized/base-bf16/config.json";
    json_t *j = qn_json_load(path, 1 << 20, &err);
    assert_non_null(j);
    json_decref(j);
    assert_null(qn_json_load(path, 10, &err));
    assert_int_equal(err.code, QN_LIMIT);
    assert_null(qn_json_load("tests/data/none.json", 10, &err));
    assert_int_equal(err.code, QN_NOT_FOUND);
    assert_null(qn_json_load("tests/data", 10, &err));
    assert_int_equal(err.code, QN_INPUT);
}

// JSON is UTF-8: a path that is not has a form all the same.
static void any_bytes_have_a_form(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *text;
    } cases[] = {{"", ""}, {"plain 模型", "plain 模型"}, {"m\377x", "m\xEF\xBF\xBDx"},
                 {"\xE4\xBD", "\xEF\xBF\xBD"}, {"\xFF\xFE", "\xEF\xBF\xBD\xEF\xBF\xBD"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *j = qn_json_string(cases[i].bytes);
        assert_non_null(j);
        assert_string_equal(json_string_value(j), cases[i].text);
        json_decref(j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_text_is_refused), cmocka_unit_test(deep_nesting_is_a_limit),
        cmocka_unit_test(integers_are_checked),      cmocka_unit_test(other_kinds_are_checked),
        cmocka_unit_test(numbers_print_as_documented), cmocka_unit_test(files_are_limited),
        cmocka_unit_test(any_bytes_have_a_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
