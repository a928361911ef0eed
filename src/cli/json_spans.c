// A flat scanner: strings and nesting are skipped by counting, so depth costs nothing.
#include "cli/json_spans.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"

typedef struct scan {
    const char *text;
    size_t n, at;
    const char *what;
} scan;

static void skip_space(scan *s) {
    while (s->at < s->n && memchr(" \t\r\n", s->text[s->at], 4)) s->at++;
}

static char peek(scan *s) {
    skip_space(s);
    return s->at < s->n ? s->text[s->at] : 0;
}

static bool wrong(const scan *s, const char *expected, qn_err *err) {
    return qn_fail(err, QN_INPUT, "%s: not valid JSON at byte %zu: expected %s", s->what, s->at,
                   expected);
}

static bool skip_string(scan *s, qn_err *err) {
    for (s->at++; s->at < s->n && s->text[s->at] != '"'; s->at++)
        if (s->text[s->at] == '\\') s->at++;
    if (s->at >= s->n) return wrong(s, "the end of a string", err);
    s->at++;
    return true;
}

// Any value: up to the comma or bracket that ends it at this level.
static bool skip_value(scan *s, qn_json_span *value, qn_err *err) {
    skip_space(s);
    size_t from = s->at, depth = 0;
    for (; s->at < s->n; s->at++) {
        char c = s->text[s->at];
        if (c == '"') {
            if (!skip_string(s, err)) return false;
            s->at--;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0) break;
            depth--;
        } else if (c == ',' && depth == 0) {
            break;
        }
    }
    size_t to = s->at;
    while (to > from && memchr(" \t\r\n", s->text[to - 1], 4)) to--;
    if (to == from) return wrong(s, "a value", err);
    *value = (qn_json_span){s->text + from, to - from};
    return true;
}

static char *decode_key(scan *s, qn_err *err) {
    if (peek(s) != '"') {
        wrong(s, "a key in quotes", err);
        return NULL;
    }
    size_t from = s->at;
    if (!skip_string(s, err)) return NULL;
    json_t *j = json_loadb(s->text + from, s->at - from, JSON_DECODE_ANY, NULL);
    char *key = json_is_string(j) ? qn_strdup(json_string_value(j)) : NULL;
    json_decref(j);
    if (!key) wrong(s, "a valid key", err);
    return key;
}

static bool read_member(scan *s, qn_json_object *out, qn_err *err) {
    char *key = decode_key(s, err);
    qn_json_span value = {0};
    if (!key) return false;
    bool ok = peek(s) == ':' || wrong(s, "\":\" behind a key", err);
    if (ok && qn_json_find(out, key))
        ok = qn_fail(err, QN_INPUT, "%s: the key \"%s\" is given twice", s->what, key);
    if (ok) {
        s->at++;
        ok = skip_value(s, &value, err);
    }
    if (ok) qn_json_set(out, key, value.text, value.n);
    free(key);
    return ok;
}

char qn_json_first(const char *text, size_t n) {
    scan s = {.text = text, .n = n};
    return peek(&s);
}

bool qn_json_members(const char *text, size_t n, const char *what, qn_json_object *out,
                     qn_err *err) {
    scan s = {.text = text, .n = n, .what = what};
    if (peek(&s) != '{') return wrong(&s, "an object", err);
    s.at++;
    bool more = peek(&s) != '}';
    while (more) {
        if (!read_member(&s, out, err)) return false;
        more = peek(&s) == ',';
        if (more) s.at++;
    }
    if (peek(&s) != '}') return wrong(&s, "\",\" or \"}\"", err);
    s.at++;
    return peek(&s) == 0 && s.at == n ? true : wrong(&s, "nothing behind the object", err);
}

void qn_json_object_done(qn_json_object *o) {
    for (size_t i = 0; i < o->n; i++) free(o->members[i].key);
    free(o->members);
    *o = (qn_json_object){0};
}

const qn_json_member *qn_json_find(const qn_json_object *o, const char *key) {
    for (size_t i = 0; i < o->n; i++)
        if (strcmp(o->members[i].key, key) == 0) return &o->members[i];
    return NULL;
}

void qn_json_set(qn_json_object *o, const char *key, const char *text, size_t n) {
    for (size_t i = 0; i < o->n; i++) {
        if (strcmp(o->members[i].key, key) != 0) continue;
        o->members[i].value = (qn_json_span){text, n};
        return;
    }
    o->members = qn_realloc(o->members, (o->n + 1) * sizeof *o->members);
    o->members[o->n++] = (qn_json_member){qn_strdup(key), {text, n}};
}

bool qn_json_span_is_null(qn_json_span s) { return s.n == 4 && memcmp(s.text, "null", 4) == 0; }

char *qn_json_span_text(qn_json_span s) { return qn_strndup(s.text, s.n); }

void qn_json_write(const qn_json_object *o, qn_buf *out) {
    qn_buf_addc(out, '{');
    for (size_t i = 0; i < o->n; i++) {
        json_t *key = json_string(o->members[i].key);
        char *text = key ? json_dumps(key, JSON_ENCODE_ANY) : NULL;
        qn_buf_addf(out, "%s%s:", i ? "," : "", text ? text : "\"\"");
        qn_buf_add(out, o->members[i].value.text, o->members[i].value.n);
        free(text);
        json_decref(key);
    }
    qn_buf_addc(out, '}');
}
