// Operators with Python's meaning, the errors and limits of a render, and truth, equality, order.
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "text/jinja_number.h"
#include "text/jinja_run.h"

// ---- errors and limits ----

bool qn_run_fail(qn_jrun *r, const char *fmt, ...) {
    if (r->failed) return false;
    r->failed = true;
    char text[QN_ERR_TEXT];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return qn_fail(r->err, QN_INPUT, "template line %d: %s", r->line, text);
}

bool qn_run_unsupported(qn_jrun *r, const char *what) {
    if (r->failed) return false;
    r->failed = true;
    return qn_fail(r->err, QN_UNSUPPORTED, "template line %d: %s is not supported", r->line, what);
}

bool qn_run_limit(qn_jrun *r, const char *what) {
    if (r->failed) return false;
    r->failed = true;
    return qn_fail(r->err, QN_LIMIT, "template line %d: passed the limit of %s", r->line, what);
}

bool qn_run_spend(qn_jrun *r, uint64_t steps) {
    if (r->failed) return false;
    if (steps > QN_JINJA_STEPS - r->steps) return qn_run_limit(r, "steps a template may take");
    r->steps += steps;
    if (r->arena->deep) return qn_run_limit(r, "nesting of lists and mappings");
    if (r->arena->over) return qn_run_limit(r, "memory a template may use");
    return true;
}

// The story of an undefined value, as the original tells it.
static void tell(qn_jrun *r, qn_buf *b, const qn_vundefined *u) {
    if (u->hint) return qn_buf_adds(b, u->hint);
    qn_value name = *u->name;
    if (u->unsafe) {
        qn_buf_adds(b, "access to attribute ");
        qn_v_repr(r, b, name);
        qn_buf_addf(b, " of '%s' object is unsafe.", qn_v_type(*u->obj));
    } else if (!u->obj) {
        qn_v_repr(r, b, name);
        qn_buf_adds(b, " is undefined");
    } else {
        bool str = name.kind == QN_V_STR;
        const char *type = u->obj->kind == QN_V_NONE ? "None" : qn_v_type(*u->obj);
        const char *object = u->obj->kind == QN_V_NONE ? "" : " object";
        const char *quote = str ? "'" : "";
        qn_buf_addf(b, "%s%s%s%s has no %s ", quote, type, object, quote,
                    str ? "attribute" : "element");
        qn_v_repr(r, b, name);
    }
}

bool qn_run_use(qn_jrun *r, qn_value v) {
    if (r->failed) return false;
    if (v.kind != QN_V_UNDEFINED) return true;
    qn_buf text = {0};
    tell(r, &text, v.undefined);
    qn_run_fail(r, "%s", text.data ? text.data : "");
    qn_buf_done(&text);
    return false;
}

bool qn_run_raise(qn_jrun *r, qn_value message) {
    qn_buf text = {0};
    qn_v_print(r, &text, message);
    if (!r->failed) {
        r->failed = true;
        qn_fail(r->err, QN_INPUT, "%s", text.data ? text.data : "");
    }
    qn_buf_done(&text);
    return false;
}

qn_value qn_run_text(qn_jrun *r, qn_buf *b) {
    qn_value v = qn_v_none();
    if (qn_run_spend(r, b->n / 16)) v = qn_v_str(r->arena, b->data ? b->data : "", b->n);
    qn_buf_done(b);
    return v;
}

const char *qn_v_type(qn_value v) {
    static const char *const names[QN_N_VKINDS] = {
        "missing", "Undefined", "NoneType", "bool",  "int",       "int",
        "float",   "str",       "list",     "tuple", "dict",      "range",
        "dict",    "generator", "Namespace", "Macro", "LoopContext", "function",
        "builtin_function_or_method"};
    if (v.kind == QN_V_STR && v.marked) return "Markup";
    if (v.kind == QN_V_VIEW)
        return v.marked == 'k' ? "dict_keys" : v.marked == 'v' ? "dict_values" : "dict_items";
    return names[v.kind];
}

// ---- kinds ----

bool qn_v_is_int(qn_value v) { return v.kind >= QN_V_BOOL && v.kind <= QN_V_BIG; }
bool qn_v_is_number(qn_value v) { return v.kind >= QN_V_BOOL && v.kind <= QN_V_FLOAT; }

int64_t qn_v_index(qn_jrun *r, qn_value v, const char *what) {
    if (v.kind == QN_V_BOOL) return v.b;
    if (v.kind == QN_V_INT) return v.i;
    if (v.kind == QN_V_BIG) return v.big->negative ? INT64_MIN : INT64_MAX;
    if (qn_run_use(r, v)) qn_run_fail(r, "%s must be an integer, not '%s'", what, qn_v_type(v));
    return 0;
}

bool qn_v_true(qn_jrun *r, qn_value v) {
    switch (v.kind) {
    case QN_V_ABSENT:
    case QN_V_UNDEFINED:
    case QN_V_NONE: return false;
    case QN_V_BOOL: return v.b;
    case QN_V_INT: return v.i != 0;
    case QN_V_FLOAT: return v.f != 0;
    case QN_V_STR: return v.s->n != 0;
    case QN_V_LIST:
    case QN_V_TUPLE:
    case QN_V_VIEW: return v.list->n != 0;
    case QN_V_DICT: return v.dict->n != 0;
    case QN_V_RANGE: return v.range->n != 0;
    case QN_V_LOOP: return qn_loop_length(r, v.loop) != 0;
    default: return true;
    }
}

// ---- equality and order ----

static bool deep_equal(qn_value x, qn_value y);

static bool same_items(const qn_vlist *x, const qn_vlist *y) {
    if (x == y) return true;
    if (x->n != y->n) return false;
    for (size_t i = 0; i < x->n; i++)
        if (!deep_equal(x->v[i], y->v[i])) return false;
    return true;
}

static bool same_entries(const qn_vdict *x, const qn_vdict *y) {
    if (x == y) return true;
    if (x->n != y->n) return false;
    for (size_t i = 0; i < x->n; i++) {
        const qn_value *other = qn_vdict_get(y, x->e[i].key);
        if (!other || !deep_equal(x->e[i].value, *other)) return false;
    }
    return true;
}

// The recursion is as deep as the values, which know a bound (QN_V_DEPTH).
static bool deep_equal(qn_value x, qn_value y) {
    if (x.kind == QN_V_LIST || x.kind == QN_V_TUPLE)
        return x.kind == y.kind && same_items(x.list, y.list);
    if (x.kind == QN_V_DICT) return y.kind == QN_V_DICT && same_entries(x.dict, y.dict);
    if (x.kind == QN_V_RANGE && y.kind == QN_V_RANGE)
        return x.range->n == y.range->n &&
               (!x.range->n || (x.range->start == y.range->start &&
                                (x.range->n == 1 || x.range->step == y.range->step)));
    return qn_v_same_key(x, y);
}

bool qn_v_equal(qn_jrun *r, qn_value x, qn_value y) {
    uint64_t wx = qn_v_weight(x), wy = qn_v_weight(y);
    return qn_run_spend(r, wx < wy ? wx : wy) && deep_equal(x, y);
}

static int cmp_items(qn_jrun *r, const qn_vlist *x, const qn_vlist *y) {
    size_t n = x->n < y->n ? x->n : y->n;
    for (size_t i = 0; i < n && !r->failed; i++)
        if (!qn_v_equal(r, x->v[i], y->v[i])) return qn_v_cmp(r, x->v[i], y->v[i]);
    return (x->n > y->n) - (x->n < y->n);
}

int qn_v_cmp(qn_jrun *r, qn_value x, qn_value y) {
    if (!qn_run_spend(r, 1)) return 0;
    if (qn_v_is_number(x) && qn_v_is_number(y)) return qn_num_cmp(x, y);
    if (x.kind == QN_V_STR && y.kind == QN_V_STR) {
        int c = qn_vstr_cmp(x.s, y.s);
        return (c > 0) - (c < 0);
    }
    if (x.kind == y.kind && (x.kind == QN_V_LIST || x.kind == QN_V_TUPLE))
        return cmp_items(r, x.list, y.list);
    if (qn_run_use(r, x) && qn_run_use(r, y))
        qn_run_fail(r, "'<' not supported between instances of '%s' and '%s'", qn_v_type(x),
                    qn_v_type(y));
    return 0;
}

static bool in_list(qn_jrun *r, const qn_vlist *l, qn_value x) {
    for (size_t i = 0; i < l->n && qn_run_spend(r, 1); i++)
        if (qn_v_equal(r, l->v[i], x)) return true;
    return false;
}

static bool in_range(const qn_vrange *g, qn_value x) {
    if (x.kind == QN_V_FLOAT && x.f == floor(x.f) && fabs(x.f) < 0x1p62) x = qn_v_int((int64_t)x.f);
    if (x.kind == QN_V_BOOL) x = qn_v_int(x.b);
    if (x.kind != QN_V_INT || !g->n) return false;
    int64_t last = g->start + (g->n - 1) * g->step, d;
    int64_t lo = g->step > 0 ? g->start : last, hi = g->step > 0 ? last : g->start;
    if (x.i < lo || x.i > hi || __builtin_sub_overflow(x.i, g->start, &d)) return false;
    return d % g->step == 0;
}

static bool in_items(qn_jrun *r, qn_value in, qn_value x) { // walks: generators are used up
    qn_jiter it;
    qn_value v;
    if (!qn_iter_open(r, in, &it)) return false;
    while (qn_iter_next(r, &it, &v))
        if (qn_v_equal(r, v, x)) return true;
    return false;
}

bool qn_v_contains(qn_jrun *r, qn_value in, qn_value x) {
    if (r->failed) return false;
    switch (in.kind) {
    case QN_V_STR:
        if (x.kind != QN_V_STR)
            return qn_run_fail(r, "'in <string>' requires string as left operand, not %s",
                               qn_v_type(x));
        if (!qn_run_spend(r, in.s->n / 16 + 1)) return false;
        return !x.s->n || (in.s->n && memmem(in.s->s, in.s->n, x.s->s, x.s->n));
    case QN_V_DICT:
        if (!qn_v_hashable(x)) return qn_run_fail(r, "unhashable type: '%s'", qn_v_type(x));
        return qn_run_spend(r, qn_v_weight(x)) && qn_vdict_get(in.dict, x);
    case QN_V_LIST:
    case QN_V_TUPLE:
    case QN_V_VIEW: return in_list(r, in.list, x);
    case QN_V_RANGE: return in_range(in.range, x);
    case QN_V_UNDEFINED: return false;
    case QN_V_ITER: return in_items(r, in, x);
    default: return qn_run_fail(r, "argument of type '%s' is not iterable", qn_v_type(in));
    }
}

// ---- arithmetic ----

static qn_value concat_text(qn_jrun *r, qn_value x, qn_value y) {
    bool marked = x.marked || y.marked;
    qn_buf b = {0};
    if (!qn_run_spend(r, (x.s->n + y.s->n) / 16 + 1)) return qn_v_none();
    if (marked && !x.marked) qn_html_escape(&b, x.s->s, x.s->n);
    else qn_buf_add(&b, x.s->s, x.s->n);
    if (marked && !y.marked) qn_html_escape(&b, y.s->s, y.s->n);
    else qn_buf_add(&b, y.s->s, y.s->n);
    qn_value v = qn_run_text(r, &b);
    v.marked = marked;
    return v;
}

static qn_value concat_lists(qn_jrun *r, qn_value x, qn_value y) {
    if (!qn_run_spend(r, x.list->n + y.list->n)) return qn_v_none();
    qn_vlist *l = qn_vlist_new(r->arena, x.list->n + y.list->n);
    for (size_t i = 0; i < x.list->n; i++) qn_vlist_push(r->arena, l, x.list->v[i]);
    for (size_t i = 0; i < y.list->n; i++) qn_vlist_push(r->arena, l, y.list->v[i]);
    return (qn_value){.kind = x.kind, .list = l};
}

qn_value qn_v_repeat(qn_jrun *r, qn_value v, int64_t times) {
    size_t n = v.kind == QN_V_STR ? v.s->n : v.list->n, whole;
    if (times < 0) times = 0;
    size_t most = QN_JINJA_MEMORY / (v.kind == QN_V_STR ? 1 : sizeof v);
    if (!qn_mul(n, (size_t)times, &whole) || whole > most)
        return qn_run_limit(r, "memory a template may use"), qn_v_none();
    if (!qn_run_spend(r, v.kind == QN_V_STR ? whole / 16 : whole)) return qn_v_none();
    if (v.kind == QN_V_STR) {
        qn_buf b = {0};
        qn_buf_reserve(&b, whole);
        for (int64_t i = 0; n && i < times; i++) qn_buf_add(&b, v.s->s, n);
        qn_value text = qn_run_text(r, &b);
        text.marked = v.marked;
        return text;
    }
    qn_vlist *l = qn_vlist_new(r->arena, whole);
    for (size_t i = 0; i < whole && !r->arena->over; i++)
        qn_vlist_push(r->arena, l, v.list->v[i % n]);
    return (qn_value){.kind = v.kind, .list = l};
}

static bool repeats(qn_value v) {
    return v.kind == QN_V_STR || v.kind == QN_V_LIST || v.kind == QN_V_TUPLE;
}

static qn_value numeric(qn_jrun *r, char op, qn_value x, qn_value y) {
    qn_value v = qn_v_none();
    uint64_t nx = x.kind == QN_V_BIG ? x.big->n : 1, ny = y.kind == QN_V_BIG ? y.big->n : 1;
    bool divides = op == '/' || op == 'f' || op == '%';
    if (nx + ny > 2 && !qn_run_spend(r, 200 + nx * ny * (divides ? 2 : 1))) return v;
    switch (qn_num_op(r->arena, op, x, y, &v)) {
    case QN_NUM_OK: break;
    case QN_NUM_ZERO_DIVISION: qn_run_fail(r, "division by zero"); break;
    case QN_NUM_OVERFLOW: qn_run_fail(r, "result too large for a float"); break;
    case QN_NUM_COMPLEX: qn_run_fail(r, "complex numbers are not supported"); break;
    case QN_NUM_TOO_BIG: qn_run_limit(r, "an integer's size"); break;
    }
    if (op == 'p') qn_run_spend(r, v.kind == QN_V_BIG ? (uint64_t)v.big->n * v.big->n / 4 : 50);
    return v;
}

static qn_value mismatch(qn_jrun *r, char op, qn_value x, qn_value y) {
    static const char ops[] = "+-*/%fp";
    static const char *const names[] = {"+", "-", "*", "/", "%", "//", "**"};
    const char *tx = qn_v_type(x), *ty = qn_v_type(y);
    bool sequence = repeats(x) && !x.marked;
    if (op == '+' && sequence)
        qn_run_fail(r, "can only concatenate %s (not \"%s\") to %s", tx, ty, tx);
    else if (op == '*' && (sequence || repeats(y)))
        qn_run_fail(r, "can't multiply sequence by non-int of type '%s'", sequence ? ty : tx);
    else
        qn_run_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'",
                    names[strchr(ops, op) - ops], tx, ty);
    return qn_v_none();
}

qn_value qn_v_binary(qn_jrun *r, char op, qn_value x, qn_value y) {
    if (!qn_run_spend(r, 1)) return qn_v_none();
    if (qn_v_is_number(x) && qn_v_is_number(y)) return numeric(r, op, x, y);
    if (op == '%' && x.kind == QN_V_STR) return qn_v_format(r, x, y);
    if (!qn_run_use(r, x) || !qn_run_use(r, y)) return qn_v_none();
    if (op == '+' && x.kind == QN_V_STR && y.kind == QN_V_STR) return concat_text(r, x, y);
    if (op == '+' && x.kind == y.kind && (x.kind == QN_V_LIST || x.kind == QN_V_TUPLE))
        return concat_lists(r, x, y);
    bool huge = x.kind == QN_V_BIG || y.kind == QN_V_BIG;
    if (op == '*' && huge && (repeats(x) || repeats(y)))
        return qn_run_fail(r, "cannot fit 'int' into an index-sized integer"), qn_v_none();
    if (op == '*' && repeats(x) && qn_v_is_int(y)) return qn_v_repeat(r, x, qn_v_index(r, y, ""));
    if (op == '*' && repeats(y) && qn_v_is_int(x)) return qn_v_repeat(r, y, qn_v_index(r, x, ""));
    return mismatch(r, op, x, y);
}

qn_value qn_v_negate(qn_jrun *r, qn_value v, bool minus) {
    if (!qn_run_use(r, v)) return qn_v_none();
    if (v.kind == QN_V_FLOAT) return qn_v_float(minus ? -v.f : v.f);
    if (qn_v_is_int(v)) return numeric(r, minus ? '-' : '+', qn_v_int(0), v);
    qn_run_fail(r, "bad operand type for unary %c: '%s'", minus ? '-' : '+', qn_v_type(v));
    return qn_v_none();
}
