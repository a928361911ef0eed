// Values as text: str() and repr() as Python has them, JSON as json.dumps writes it, HTML escapes
// for marked strings.
#include <string.h>

#include "text/char_case.h"
#include "text/jinja_number.h"
#include "text/jinja_run.h"
#include "text/unicode.h"

// ---- repr ----

static void repr_text(qn_buf *out, const qn_vstr *s) {
    bool single = s->n && memchr(s->s, '\'', s->n), twice = s->n && memchr(s->s, '"', s->n);
    char quote = single && !twice ? '"' : '\'';
    qn_buf_addc(out, quote);
    for (size_t i = 0, len; i < s->n; i += len) {
        uint32_t c = qn_uni_decode(s->s + i, &len);
        if (c == (uint32_t)quote || c == '\\') qn_buf_addc(out, '\\'), qn_buf_addc(out, (char)c);
        else if (c == '\n') qn_buf_adds(out, "\\n");
        else if (c == '\r') qn_buf_adds(out, "\\r");
        else if (c == '\t') qn_buf_adds(out, "\\t");
        else if (qn_char_is(c, QN_CHAR_PRINTABLE)) qn_buf_add(out, s->s + i, len);
        else qn_buf_addf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    qn_buf_addc(out, quote);
}

static bool repr(qn_jrun *r, qn_buf *out, qn_value v);

static void repr_list(qn_jrun *r, qn_buf *out, const qn_vlist *l, const char *ends) {
    qn_buf_addc(out, ends[0]);
    for (size_t i = 0; i < l->n && !r->failed; i++) {
        if (i) qn_buf_adds(out, ", ");
        repr(r, out, l->v[i]);
    }
    if (ends[0] == '(' && l->n == 1) qn_buf_addc(out, ',');
    qn_buf_addc(out, ends[1]);
}

static void repr_dict(qn_jrun *r, qn_buf *out, const qn_vdict *d) {
    qn_buf_addc(out, '{');
    for (size_t i = 0; i < d->n && !r->failed; i++) {
        if (i) qn_buf_adds(out, ", ");
        repr(r, out, d->e[i].key);
        qn_buf_adds(out, ": ");
        repr(r, out, d->e[i].value);
    }
    qn_buf_addc(out, '}');
}

static void repr_range(qn_buf *out, const qn_vrange *g) {
    qn_buf_addf(out, "range(%lld, %lld", (long long)g->start,
                (long long)(g->start + g->n * g->step));
    if (g->step != 1) qn_buf_addf(out, ", %lld", (long long)g->step);
    qn_buf_addc(out, ')');
}

static bool print_int(qn_jrun *r, qn_buf *out, qn_value v) {
    if (v.kind == QN_V_BIG && qn_int_digits(v) > QN_INT_MAX_DIGITS)
        return qn_run_fail(r, "integer of more than %d digits cannot be printed",
                           QN_INT_MAX_DIGITS);
    if (v.kind == QN_V_BIG) qn_run_spend(r, 4 * (uint64_t)v.big->n);
    qn_int_print(out, v);
    return !r->failed;
}

static void repr_object(qn_jrun *r, qn_buf *out, qn_value v) {
    switch (v.kind) {
    case QN_V_VIEW:
        qn_buf_addf(out, "%s(", qn_v_type(v));
        repr_list(r, out, v.list, "[]");
        qn_buf_addc(out, ')');
        break;
    case QN_V_ITER: qn_buf_addf(out, "<%s object>", v.iter->shown); break;
    case QN_V_NAMESPACE:
        qn_buf_adds(out, "<Namespace ");
        repr_dict(r, out, v.dict);
        qn_buf_addc(out, '>');
        break;
    case QN_V_MACRO:
        qn_buf_adds(out, "<Macro ");
        if (v.macro->node->name) repr_text(out, v.macro->node->name);
        else qn_buf_adds(out, "anonymous");
        qn_buf_addc(out, '>');
        break;
    case QN_V_LOOP:
        qn_buf_addf(out, "<LoopContext %lld/%lld>", (long long)v.loop->index0 + 1,
                    (long long)qn_loop_length(r, v.loop));
        break;
    case QN_V_METHOD: qn_buf_addf(out, "<built-in method %s>", v.method->func->name); break;
    default: qn_buf_addf(out, "<function %s>", v.func->name); break;
    }
}

// Namespaces can hold themselves, so the depth is counted besides what the values know.
static bool repr(qn_jrun *r, qn_buf *out, qn_value v) {
    if (!qn_run_spend(r, 1)) return false;
    if (out->n > QN_JINJA_OUTPUT) return qn_run_limit(r, "output size");
    if (r->depth >= QN_JINJA_DEPTH) return qn_run_limit(r, "depth of evaluation");
    r->depth++;
    switch (v.kind) {
    case QN_V_UNDEFINED: qn_buf_adds(out, "Undefined"); break;
    case QN_V_NONE: qn_buf_adds(out, "None"); break;
    case QN_V_BOOL: qn_buf_adds(out, v.b ? "True" : "False"); break;
    case QN_V_INT:
    case QN_V_BIG: print_int(r, out, v); break;
    case QN_V_FLOAT: qn_float_print(out, v.f); break;
    case QN_V_STR:
        if (v.s->n > QN_JINJA_OUTPUT) qn_run_limit(r, "output size");
        if (!qn_run_spend(r, v.s->n / 4)) break;
        if (v.marked) qn_buf_adds(out, "Markup(");
        repr_text(out, v.s);
        if (v.marked) qn_buf_addc(out, ')');
        break;
    case QN_V_LIST: repr_list(r, out, v.list, "[]"); break;
    case QN_V_TUPLE: repr_list(r, out, v.list, "()"); break;
    case QN_V_DICT: repr_dict(r, out, v.dict); break;
    case QN_V_RANGE: repr_range(out, v.range); break;
    default: repr_object(r, out, v); break;
    }
    r->depth--;
    return !r->failed;
}

bool qn_v_repr(qn_jrun *r, qn_buf *out, qn_value v) { return repr(r, out, v); }

bool qn_v_print(qn_jrun *r, qn_buf *out, qn_value v) {
    if (v.kind == QN_V_UNDEFINED) return !r->failed;
    if (v.kind != QN_V_STR) return repr(r, out, v);
    if (!qn_run_spend(r, v.s->n / 16 + 1)) return false;
    if (v.s->n > QN_JINJA_OUTPUT || out->n > QN_JINJA_OUTPUT - v.s->n)
        return qn_run_limit(r, "output size");
    qn_buf_add(out, v.s->s, v.s->n);
    return true;
}

qn_value qn_v_to_str(qn_jrun *r, qn_value v) {
    if (v.kind == QN_V_STR) return v;
    qn_buf b = {0};
    qn_v_print(r, &b, v);
    return qn_run_text(r, &b);
}

// ---- HTML ----

void qn_html_escape(qn_buf *out, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        switch (s[i]) {
        case '&': qn_buf_adds(out, "&amp;"); break;
        case '<': qn_buf_adds(out, "&lt;"); break;
        case '>': qn_buf_adds(out, "&gt;"); break;
        case '"': qn_buf_adds(out, "&#34;"); break;
        case '\'': qn_buf_adds(out, "&#39;"); break;
        default: qn_buf_addc(out, s[i]);
        }
    }
}

qn_value qn_v_escaped(qn_jrun *r, qn_value v) {
    if (v.kind == QN_V_STR && v.marked) return v;
    qn_buf b = {0};
    v = qn_v_to_str(r, v);
    if (r->failed) return v;
    qn_html_escape(&b, v.s->s, v.s->n);
    v = qn_run_text(r, &b);
    v.marked = true;
    return v;
}

// ---- JSON ----

typedef struct json_style {
    bool ascii, sorted, lines;
    const qn_vstr *indent, *item, *colon; // separators
} json_style;

typedef struct json {
    qn_jrun *r;
    qn_buf *out;
    json_style style;
    int level;
} json;

static void json_char(json *j, uint32_t c, const char *raw, size_t len) {
    static const char shorts[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
    const char *found = c && c < 0x80 ? strchr(shorts, (int)c) : NULL;
    if (found) {
        qn_buf_addc(j->out, '\\');
        qn_buf_addc(j->out, letters[found - shorts]);
    } else if (c >= 0x20 && (!j->style.ascii || c < 0x7F)) {
        qn_buf_add(j->out, raw, len);
    } else if (c < 0x10000) {
        qn_buf_addf(j->out, "\\u%04x", c);
    } else {
        c -= 0x10000;
        qn_buf_addf(j->out, "\\u%04x\\u%04x", 0xD800 + (c >> 10), 0xDC00 + (c & 1023));
    }
}

static void json_text(json *j, const qn_vstr *s) {
    if (s->n > QN_JINJA_OUTPUT) qn_run_limit(j->r, "output size");
    if (!qn_run_spend(j->r, s->n / 4)) return;
    qn_buf_addc(j->out, '"');
    for (size_t i = 0, len; i < s->n; i += len) {
        uint32_t c = qn_uni_decode(s->s + i, &len);
        json_char(j, c, s->s + i, len);
    }
    qn_buf_addc(j->out, '"');
}

static void json_line(json *j) { // a new line, indented
    if (!j->style.lines) return;
    qn_buf_addc(j->out, '\n');
    size_t n = (size_t)j->level * j->style.indent->n;
    if (n > QN_JINJA_OUTPUT || j->out->n > QN_JINJA_OUTPUT - n) qn_run_limit(j->r, "output size");
    qn_run_spend(j->r, n / 16);
    for (int i = 0; i < j->level && !j->r->failed; i++)
        qn_buf_add(j->out, j->style.indent->s, j->style.indent->n);
}

static void json_comma(json *j, size_t i) {
    if (i) qn_buf_add(j->out, j->style.item->s, j->style.item->n);
    json_line(j);
}

static bool json_number(json *j, qn_value v) {
    if (v.kind == QN_V_BOOL) qn_buf_adds(j->out, v.b ? "true" : "false");
    else if (v.kind != QN_V_FLOAT) print_int(j->r, j->out, v);
    else if (v.f != v.f) qn_buf_adds(j->out, "NaN");
    else if (v.f - v.f != 0) qn_buf_adds(j->out, v.f > 0 ? "Infinity" : "-Infinity");
    else qn_float_print(j->out, v.f);
    return !j->r->failed;
}

static bool json_key(json *j, qn_value k) {
    if (k.kind == QN_V_STR) return json_text(j, k.s), true;
    if (!qn_v_is_number(k) && k.kind != QN_V_NONE)
        return qn_run_fail(j->r, "keys must be str, int, float, bool or None, not %s",
                           qn_v_type(k));
    qn_buf_addc(j->out, '"');
    if (k.kind == QN_V_NONE) qn_buf_adds(j->out, "null");
    else json_number(j, k);
    qn_buf_addc(j->out, '"');
    return true;
}

static bool json_value(json *j, qn_value v);

static void json_list(json *j, const qn_vlist *l) {
    qn_buf_addc(j->out, '[');
    j->level++;
    for (size_t i = 0; i < l->n && !j->r->failed; i++) {
        json_comma(j, i);
        json_value(j, l->v[i]);
    }
    j->level--;
    if (l->n) json_line(j);
    qn_buf_addc(j->out, ']');
}

// Puts positions in d into the order of their keys: a merge sort, for it is stable.
static void sort_keys(json *j, const qn_vdict *d, size_t *order, size_t *spare, size_t n) {
    if (n < 2 || j->r->failed) return;
    size_t half = n / 2, a = 0, b = half;
    sort_keys(j, d, order, spare, half);
    sort_keys(j, d, order + half, spare, n - half);
    for (size_t k = 0; k < n; k++) {
        bool second = a == half ||
                      (b < n && qn_v_cmp(j->r, d->e[order[b]].key, d->e[order[a]].key) == -1);
        spare[k] = order[second ? b++ : a++];
    }
    memcpy(order, spare, n * sizeof *order);
}

static size_t *key_order(json *j, const qn_vdict *d) {
    size_t *order = qn_arena_alloc(j->r->arena, 2 * (d->n + 1) * sizeof *order);
    if (!order) {
        qn_run_limit(j->r, "memory a template may use");
        return NULL;
    }
    for (size_t i = 0; i < d->n; i++) order[i] = i;
    if (j->style.sorted) sort_keys(j, d, order, order + d->n, d->n);
    return order;
}

static void json_dict(json *j, const qn_vdict *d) {
    size_t *order = j->style.sorted ? key_order(j, d) : NULL;
    qn_buf_addc(j->out, '{');
    j->level++;
    for (size_t i = 0; i < d->n && !j->r->failed; i++) {
        const qn_ventry *e = &d->e[order ? order[i] : i];
        json_comma(j, i);
        if (!json_key(j, e->key)) break;
        qn_buf_add(j->out, j->style.colon->s, j->style.colon->n);
        json_value(j, e->value);
    }
    j->level--;
    if (d->n) json_line(j);
    qn_buf_addc(j->out, '}');
}

static bool json_value(json *j, qn_value v) {
    if (!qn_run_spend(j->r, 1)) return false;
    if (j->out->n > QN_JINJA_OUTPUT) return qn_run_limit(j->r, "output size");
    switch (v.kind) {
    case QN_V_NONE: qn_buf_adds(j->out, "null"); break;
    case QN_V_BOOL:
    case QN_V_INT:
    case QN_V_BIG:
    case QN_V_FLOAT: return json_number(j, v);
    case QN_V_STR: json_text(j, v.s); break;
    case QN_V_LIST:
    case QN_V_TUPLE: json_list(j, v.list); break;
    case QN_V_DICT: json_dict(j, v.dict); break;
    default:
        return qn_run_fail(j->r, "Object of type %s is not JSON serializable", qn_v_type(v));
    }
    return !j->r->failed;
}

static bool absent(qn_value v) { return v.kind == QN_V_ABSENT || v.kind == QN_V_NONE; }

static bool json_separators(qn_jrun *r, qn_value v, json_style *s) {
    static const qn_vstr comma = {", ", 2, 2}, tight = {",", 1, 1}, colon = {": ", 2, 2};
    s->item = s->lines ? &tight : &comma;
    s->colon = &colon;
    if (absent(v)) return true;
    qn_vlist *l = qn_v_items(r, v);
    if (!l) return false;
    if (l->n != 2 || l->v[0].kind != QN_V_STR || l->v[1].kind != QN_V_STR)
        return qn_run_fail(r, "separators must be two strings");
    s->item = l->v[0].s;
    s->colon = l->v[1].s;
    return true;
}

// x|tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)
qn_value qn_filter_tojson(qn_jrun *r, qn_value v, const qn_value *a) {
    qn_buf out = {0};
    json j = {.r = r, .out = &out};
    qn_value indent = a[1];
    j.style.ascii = qn_v_true(r, a[0]);
    j.style.sorted = qn_v_true(r, a[3]);
    j.style.lines = !absent(indent);
    if (j.style.lines && indent.kind != QN_V_STR)
        indent = qn_v_repeat(r, qn_v_cstr(r->arena, " "), qn_v_index(r, indent, "indent"));
    if (r->failed) return qn_v_none();
    if (j.style.lines) j.style.indent = indent.s;
    if (json_separators(r, a[2], &j.style)) json_value(&j, v);
    return qn_run_text(r, &out);
}
