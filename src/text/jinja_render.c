// The way into and out of a render: JSON to values, variables to text.
#include <string.h>

#include "base/err.h"
#include "text/jinja.h"
#include "text/jinja_number.h"
#include "text/jinja_run.h"
#include "text/json_scan.h"

typedef struct reader {
    qn_arena *arena;
    qn_scan scan;
    qn_buf text; // of the string being read
    qn_err *err;
} reader;

static bool too_big(reader *x) {
    return qn_fail(x->err, QN_LIMIT, "%s: %s", x->scan.what,
                   x->arena->deep ? "nested too deeply" : "needs too much memory");
}

static bool read_value(reader *x, qn_value *out);

static bool read_object(reader *x, qn_value *out) {
    bool more;
    qn_vdict *d = qn_vdict_new(x->arena);
    *out = qn_v_of_dict(d);
    if (!qn_scan_open(&x->scan, '{', x->err)) return false;
    while (qn_scan_member(&x->scan, &x->text, &more, x->err)) {
        if (!more) return true;
        qn_value key = qn_v_str(x->arena, x->text.data, x->text.n), v;
        if (!read_value(x, &v)) return false;
        if (!qn_vdict_set(x->arena, d, key, v)) return too_big(x);
    }
    return false;
}

static bool read_array(reader *x, qn_value *out) {
    bool more;
    qn_vlist *l = qn_vlist_new(x->arena, 0);
    *out = qn_v_of_list(l);
    if (!qn_scan_open(&x->scan, '[', x->err)) return false;
    while (qn_scan_item(&x->scan, &more, x->err)) {
        qn_value v;
        if (!more) return true;
        if (!read_value(x, &v)) return false;
        if (!qn_vlist_push(x->arena, l, v)) return too_big(x);
    }
    return false;
}

static bool read_string(reader *x, qn_value *out) {
    if (!qn_scan_string(&x->scan, &x->text, x->err)) return false;
    *out = qn_v_str(x->arena, x->text.data, x->text.n);
    return !x->arena->over || too_big(x);
}

static bool read_number(reader *x, qn_value *out) {
    qn_span span;
    double f;
    if (!qn_scan_skip(&x->scan, &span, x->err)) return false;
    bool whole = true, negative = span.text[0] == '-';
    for (size_t i = 0; i < span.n; i++) whole = whole && !strchr(".eE", span.text[i]);
    if (!whole) {
        if (!qn_float_parse(span.text, span.n, &f)) return too_big(x);
        *out = qn_v_float(f);
        return true;
    }
    if (span.n - negative > QN_INT_MAX_DIGITS)
        return qn_fail(x->err, QN_LIMIT, "%s: integer of %zu digits, at most %d are read",
                       x->scan.what, span.n - negative, QN_INT_MAX_DIGITS);
    const char *digits = span.text + negative;
    return qn_int_parse(x->arena, digits, span.n - negative, negative, out) == QN_NUM_OK ||
           too_big(x);
}

static bool read_value(reader *x, qn_value *out) {
    qn_span word;
    switch (qn_scan_peek(&x->scan)) {
    case '{': return read_object(x, out);
    case '[': return read_array(x, out);
    case '"': return read_string(x, out);
    case 't':
    case 'f':
    case 'n':
        if (!qn_scan_skip(&x->scan, &word, x->err)) return false;
        *out = word.text[0] == 'n' ? qn_v_none() : qn_v_bool(word.text[0] == 't');
        return true;
    default: return read_number(x, out);
    }
}

bool qn_json_value(qn_arena *a, const char *text, size_t n, const char *what, qn_value *out,
                   qn_err *err) {
    reader x = {.arena = a, .scan = {.text = text, .n = n, .what = what}, .err = err};
    *out = qn_v_none();
    bool ok = read_value(&x, out) && qn_scan_end(&x.scan, err);
    qn_buf_done(&x.text);
    return ok;
}

bool qn_jinja_render(const qn_jinja *t, qn_arena *a, const qn_vdict *context, qn_buf *out,
                     qn_err *err) {
    qn_jrun r = {.arena = a, .context = context, .out = out, .err = err};
    r.act = qn_arena_alloc(a, sizeof *r.act + t->n_slots * sizeof *r.act->slot);
    if (!r.act) return qn_fail(err, QN_LIMIT, "template: needs too much memory");
    r.act->up = NULL;
    for (uint32_t i = 0; i < t->n_slots; i++) r.act->slot[i] = qn_v_absent();
    qn_jinja_scope_enter(&r, &t->scope);
    qn_jinja_exec(&r, &t->body);
    qn_run_spend(&r, 0); // notices a limit that was passed in the last step
    return !r.failed;
}
