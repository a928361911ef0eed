// jansson with our manners: limits, one-line errors, typed look-ups.
#include "base/json.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"

json_t *qn_json_parse(const char *text, size_t n, const char *what, qn_err *err) {
    json_error_t e;
    json_t *j = json_loadb(text ? text : "", n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (j) return j;
    if (json_error_code(&e) == json_error_stack_overflow)
        return qn_fail_null(err, QN_LIMIT, "%s: nested deeper than 2048 levels (the JSON library's "
                            "limit)", what);
    return qn_fail_null(err, QN_INPUT, "%s: not valid JSON at line %d column %d: %s", what, e.line,
                        e.column, e.text);
}

json_t *qn_json_load(const char *path, size_t max, qn_err *err) {
    qn_buf text = {0};
    json_t *j = NULL;
    if (qn_file_read(path, max, &text, err)) j = qn_json_parse(text.data, text.n, path, err);
    qn_buf_done(&text);
    return j;
}

static bool wrong(const json_t *v, const char *key, const char *expected, const char *what,
                  qn_err *err) {
    char *found = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    qn_fail(err, QN_INPUT, "%s: %s is %.80s, expected %s", what, key, found ? found : "?",
            expected);
    free(found);
    return false;
}

static const json_t *present(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v) ? v : NULL;
}

bool qn_json_int(const json_t *o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                 const char *what, qn_err *err) {
    const json_t *v = present(o, key);
    if (!v) return true;
    char expected[96];
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)lo,
             (long long)hi);
    int64_t x;
    if (json_is_integer(v)) {
        x = json_integer_value(v);
    } else {
        double d = json_is_real(v) ? json_real_value(v) : 0.5;
        if (d != floor(d) || fabs(d) > 9e15) return wrong(v, key, expected, what, err);
        x = (int64_t)d;
    }
    if (x < lo || x > hi) return wrong(v, key, expected, what, err);
    *out = x;
    return true;
}

bool qn_json_real(const json_t *o, const char *key, double *out, const char *what, qn_err *err) {
    const json_t *v = present(o, key);
    if (!v) return true;
    if (!json_is_number(v)) return wrong(v, key, "a number", what, err);
    *out = json_number_value(v);
    return true;
}

bool qn_json_bool(const json_t *o, const char *key, bool *out, const char *what, qn_err *err) {
    const json_t *v = present(o, key);
    if (!v) return true;
    if (!json_is_boolean(v)) return wrong(v, key, "true or false", what, err);
    *out = json_is_true(v);
    return true;
}

bool qn_json_str(const json_t *o, const char *key, const char **out, const char *what,
                 qn_err *err) {
    const json_t *v = present(o, key);
    if (!v) return true;
    if (!json_is_string(v)) return wrong(v, key, "a string", what, err);
    *out = json_string_value(v);
    return true;
}

json_t *qn_json_any(const json_t *o, const char *const *keys, size_t n) {
    for (size_t i = 0; i < n; i++) {
        json_t *v = json_object_get(o, keys[i]);
        if (v && !json_is_null(v)) return v;
    }
    return NULL;
}

json_t *qn_json_string(const char *s) {
    size_t n = strlen(s);
    if (qn_utf8_valid(s, n) == n) return json_stringn(s, n);
    qn_buf fixed = {0};
    for (size_t at = 0; at < n;) {
        int32_t c;
        size_t len = qn_utf8_next(s + at, n - at, &c);
        qn_buf_add_utf8(&fixed, c < 0 ? 0xFFFD : (uint32_t)c);
        at += len;
    }
    json_t *j = json_stringn(fixed.data, fixed.n);
    qn_buf_done(&fixed);
    return j;
}

json_t *qn_json_number(double x) {
    if (isnan(x)) return json_string("nan");
    if (isinf(x)) return json_string(x > 0 ? "inf" : "-inf");
    return json_real(x);
}

char *qn_json_text(const json_t *j, bool indent) {
    return json_dumps(j, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9) |
                             (indent ? (size_t)JSON_INDENT(2) : (size_t)JSON_COMPACT));
}
