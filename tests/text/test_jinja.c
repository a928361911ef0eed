// The template language beyond the vectors: quirks of the original (checked against Jinja2 3.1.6),
// the sandbox, and every limit that keeps a stranger's template from hanging or crashing us.
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"
#include "quern.h"

typedef struct example {
    const char *source, *expected;
} example;

static const char context[] =
    "{\"s\": \"Hello\", \"n\": 5, \"l\": [3, 1, 2], \"d\": {\"b\": 1, \"a\": [2, null]}, "
    "\"big\": 123456789012345678901234567890, \"x\": 3, \"nul\": \"a\\u0000b\"}";

// What a template gives, or "CODE: text" of its error.
static char *result(const char *source, const char *vars) {
    qn_err err = {0};
    char *text = NULL;
    size_t n;
    qn_template *t = qn_template_new(source, strlen(source), &err);
    bool ok = t && qn_template_render_raw(t, vars, &text, &n, &err);
    qn_template_free(t);
    return ok ? text : qn_strf("%d: %s", (int)err.code, err.text);
}

static void expect(const char *source, const char *wanted) {
    char *got = result(source, context);
    if (strcmp(got, wanted) != 0) fail_msg("%s\n  want %s\n  got  %s", source, wanted, got);
    qn_free(got);
}

static void expect_code(const char *source, qn_code code, const char *part) {
    char *got = result(source, context), *head = qn_strf("%d: ", (int)code);
    if (!qn_str_starts(got, head) || !strstr(got, part))
        fail_msg("%.200s\n  want %s…%s\n  got  %.300s", source, head, part, got);
    qn_free(got);
    qn_free(head);
}

static void test_quirks(void **state) {
    (void)state;
    static const example examples[] = {
        // scopes are decided before anything runs
        {"{% macro f() %}{{ s }}{% endmacro %}{{ f() }}{% set s = 1 %}{{ f() }}", "1"},
        {"{% for i in [1] %}{% if n %}{% set s = i %}{% endif %}{{ s }}{% endfor %}{{ s }}",
         "1Hello"},
        {"{% if not n %}{% set s = 1 %}{% endif %}{{ s }}", "Hello"},
        {"{% set y %}{% set s = 1 %}{{ s }}{% endset %}{{ s }}{{ y }}", "Hello1"},
        // an else branch runs when no pass of the loop reached its end
        {"{% for i in [1, 2] %}{% continue %}{% else %}E{% endfor %}", "E"},
        {"{% for i in [1, 2] %}{% break %}{% else %}E{% endfor %}", "E"},
        // a loop's filter is asked as late as possible
        {"{% set ns = namespace(k=0) %}{% for i in [1, 2, 3] if ns.k < 2 %}{% set ns.k = ns.k + 1 "
         "%}{{ i }}{% endfor %}", "12"},
        {"{% for i in l recursive %}{{ i }}{% if loop.depth < 2 %}({{ loop([7, 8]) }}){% endif %}"
         "{% endfor %}", "3(78)1(78)2(78)"},
        // marked strings escape what they are added to, ~ does not
        {"{{ '<b>'|safe + '<i>' }} {{ '<b>'|safe ~ '<i>' }} {{ ['<b>'|safe] }}",
         "<b>&lt;i&gt; <b><i> [Markup('<b>')]"},
        {"{% call(a) (n) %}{% endcall %}", "2: template line 1: expected a call"},
        {"{% macro f(a) %}{{ a }}{{ caller(2) }}{{ varargs }}{{ kwargs }}{% endmacro %}"
         "{% call(z) f(1, 3, k=4) %}[{{ z }}]{% endcall %}", "1[2](3,){'k': 4}"},
        {"{% filter upper %}a{{ s }}{% endfilter %}{% with n = 1, m = n %}{{ n }}{{ m }}{% endwith "
         "%}{{ n }}", "AHELLO155"},
        // numbers
        {"{{ 2 ** 64 }} {{ big // 7 }} {{ -big % 7 }} {{ big * big }} {{ big / 3 }}",
         "18446744073709551616 17636684144620811271604938270 0 "
         "15241578753238836750495351562536198787501905199875019052100 4.115226300411523e+28"},
        {"{{ 9223372036854775807 + 1 }} {{ -9223372036854775808 - 1 }} {{ 2.0 ** -44 }}",
         "9223372036854775808 -9223372036854775809 5.684341886080802e-14"},
        {"{{ -2 ** 2 }} {{ -2 ** x }} {{ (-x) ** 2 }} {{ 5e-324 }} {{ 1e400 }}",
         "4 -8 9 5e-324 inf"},
        {"{{ 2.5|round }} {{ 3.5|round }} {{ 1234|round(-2) }} {{ 0.15|round(1) }}",
         "2.0 4.0 1200 0.1"},
        {"{{ {1: 'a', true: 'b', 1.0: 'c'} }}", "{1: 'c'}"},
        // text
        {"{{ nul|length }} {{ [nul] }} {{ nul|tojson }}", "3 ['a\\x00b'] \"a\\u0000b\""},
        {"{{ 'stra\\u00dfe'.upper() }} {{ '\\u03a3\\u0391\\u03a3'.lower() }} {{ '\\u0130'.lower()|"
         "length }}", "STRASSE \xcf\x83\xce\xb1\xcf\x82 2"},
        {"{{ '%s|%5.2f|%-4d|%x' % ('a', 2.5, 7, 255) }} {{ 100 % 7 }}", "a| 2.50|7   |ff 2"},
        {"{{ '{}'.nope }}{{ ''.format }}", "<built-in method format>"},
        {"{{ {'\\u007f': 1}|tojson(ensure_ascii=true) }}", "{\"\\u007f\": 1}"},
        // an unknown filter is an error only where it is reached, if it stands in an if
        {"{% if not n %}{{ s|nosuch }}{% endif %}ok", "ok"},
        {"{{ s if n else s|nosuch }}", "Hello"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        expect(examples[i].source, examples[i].expected);
}

static void test_errors_name_their_line(void **state) {
    (void)state;
    expect("a\n{{ s + 1 }}", "2: template line 2: can only concatenate str (not \"int\") to str");
    expect("\n\n{{ d.nope.x }}", "2: template line 3: 'dict object' has no attribute 'nope'");
    expect("{{ nope() }}", "2: template line 1: 'nope' is undefined");
    expect("{% if %}", "2: template line 1: an expression expected");
    expect("{{ raise_exception('No. ' ~ n) }}", "2: No. 5");
    expect_code("{% set a.b.c = 1 %}", QN_INPUT, "line 1");
    expect_code("{% break %}", QN_INPUT, "outside of a loop");
    expect_code("{{ s|nosuch }}", QN_INPUT, "no filter named 'nosuch'");
    expect_code("{% include 'x' %}", QN_UNSUPPORTED, "include");
    expect_code("{{ s|urlize }}", QN_UNSUPPORTED, "not supported");
    expect_code("\xff", QN_INPUT, "byte 0 is not UTF-8");
}

static void test_sandbox(void **state) {
    (void)state;
    expect("{{ ''.__class__ }}|{{ l.append }}|{{ d._x is defined }}", "||False");
    expect_code("{{ ''.__class__.__mro__ }}", QN_INPUT, "unsafe");
    expect_code("{{ l.append(1) }}", QN_INPUT, "'append' of 'list' object is unsafe");
    expect_code("{{ d.update({}) }}", QN_INPUT, "unsafe");
    expect_code("{% set ns = namespace() %}{% set ns._a = 1 %}", QN_INPUT, "underscore");
    expect_code("{{ namespace(_a=1) }}", QN_INPUT, "underscore");
    expect_code("{{ range(100001) }}", QN_LIMIT, "range");
}

static void test_limits(void **state) {
    (void)state;
    static const example hostile[] = {
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"},
        {"{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s "
         "%}{% endfor %}", "limit"},
        {"{{ 'a' * 999999999999 }}", "memory"},
        {"{{ 'a' * 40000000 }}{{ 'a' * 40000000 }}", "output size"},
        {"{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}"
         "{% endfor %}{{ ns.s == [ns.s] }}{{ ns.s }}", "limit"},
        {"{% set ns = namespace(s=()) %}{% for i in range(9999) %}{% set ns.s = (ns.s,) %}"
         "{% endfor %}", "nesting"},
        {"{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}", "depth"},
        {"{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}", "depth"},
        {"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "depth"},
        {"{{ 9 ** 99999 }}", "integer"},
        {"{{ l|tojson(indent=99999999) }}", "output size"},
        {"{{ '%999999d' % 1 }}", "width"},
    };
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++)
        expect_code(hostile[i].source, QN_LIMIT, hostile[i].expected);
    expect_code("{{ 10 ** 5000 }}", QN_INPUT, "4300 digits");
}

static char *repeated(const char *head, const char *middle, size_t times, const char *tail) {
    qn_buf b = {0};
    qn_buf_adds(&b, head);
    for (size_t i = 0; i < times; i++) qn_buf_adds(&b, middle);
    qn_buf_adds(&b, tail);
    return qn_buf_take(&b, NULL);
}

// Sources that nest or chain without end: refused by the parser, which does not run out of stack.
static void test_deep_sources(void **state) {
    (void)state;
    static const char *const pieces[][3] = {
        {"{{ ", "(", "1 }}"},       {"{{ ", "[", "1 }}"},     {"{{ ", "-", "1 }}"},
        {"{{ ", "not ", "1 }}"},    {"{{ 1", "+1", " }}"},    {"{{ 1", "|string", " }}"},
        {"{{ s", ".a", " }}"},      {"{{ s", "[0]", " }}"},   {"{{ 0", " or 0", " }}"},
        {"", "{% if 1 %}", ""},     {"{{ ", "1 if 1 else ", "1 }}"},
        {"", "{% for i in l %}", ""}, {"{{ f(", "f(", "1 }}"},
    };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        char *source = repeated(pieces[i][0], pieces[i][1], 20000, pieces[i][2]);
        expect_code(source, QN_LIMIT, "nested deeper");
        qn_free(source);
    }
    char *flat = repeated("{{ 1", " ~ 1", 300, " }}"), *elif = repeated(
        "{% if 0 %}", "{% elif 0 %}", 3000, "{% else %}ok{% endif %}");
    expect(elif, "ok");
    char *got = result(flat, "{}");
    assert_int_equal(strlen(got), 301);
    qn_free(got);
    qn_free(flat);
    qn_free(elif);
    char *long_source = repeated("", "x", (1 << 20) + 1, "");
    expect_code(long_source, QN_LIMIT, "bytes long");
    qn_free(long_source);
}

static void test_variables_are_json(void **state) {
    (void)state;
    static const char *const bad[] = {"[1]", "{\"a\": 01}", "{\"a\": \"\\ud800\"}", "{", ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *got = result("x", bad[i]);
        assert_true(qn_str_starts(got, "2: template variables: "));
        qn_free(got);
    }
    char *deep = repeated("{\"a\": ", "[", 10000, ""), *got = result("x", deep);
    assert_true(qn_str_starts(got, "5: template variables: nested deeper than"));
    qn_free(got);
    qn_free(deep);
    got = result("{{ a }} {{ b }} {{ c }}", "{\"a\": 1, \"b\": 1E5, \"c\": -0.0, \"a\": 2}");
    assert_string_equal(got, "2 100000.0 -0.0");
    qn_free(got);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quirks),
        cmocka_unit_test(test_errors_name_their_line),
        cmocka_unit_test(test_sandbox),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_deep_sources),
        cmocka_unit_test(test_variables_are_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
