// Every vector of tests/data/chat_templates, byte for byte: language features through the raw
// render, conversations through the six templates.
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#include "text/template_support.h"

static size_t wrong;

static void judge(const vector *v, size_t line, bool ok, const qn_buf *got, const qn_err *err) {
    bool right = ok ? v->has_rendered && got->n == v->rendered.n &&
                          memcmp(got->data, v->rendered.data, got->n) == 0
                    : v->error != NULL && err->text[0];
    // What a template raises are its own words; other errors keep their own wording.
    if (!ok && right && strcmp(v->error_kind, "raised") == 0)
        right = strcmp(err->text, v->error) == 0;
    if (right) return;
    wrong++;
    print_message("line %zu (%s)\n  want %s\n  got  %s\n", line, v->label,
                  v->has_rendered ? v->rendered.data : v->error, ok ? got->data : err->text);
}

static void render(const vector *v, size_t line, const char *source, size_t n) {
    qn_err err = {0};
    qn_buf got = {0};
    qn_template *t = qn_template_new(source, n, &err);
    bool ok = t != NULL;
    if (ok && v->context) ok = qn_template_render_raw(t, v->context, &got.data, &got.n, &err);
    else if (ok)
        ok = qn_template_render(t, v->messages, v->tools, v->kwargs, &got.data, &got.n, &err);
    judge(v, line, ok, &got, &err);
    qn_free(got.data);
    qn_template_free(t);
}

static void feature(const vector *v, size_t line) {
    assert_non_null(v->context);
    render(v, line, v->source, strlen(v->source));
}

static void conversation(const vector *v, size_t line) {
    size_t n;
    char *source = template_text(v->template_name, &n);
    render(v, line, source, n);
    qn_free(source);
}

static void test_features(void **state) {
    (void)state;
    wrong = 0;
    assert_int_equal(vectors_each("jinja.jsonl", feature), 114);
    assert_int_equal(wrong, 0);
}

static void test_conversations(void **state) {
    (void)state;
    wrong = 0;
    assert_int_equal(vectors_each("vectors.jsonl", conversation), 198);
    assert_int_equal(wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_conversations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
