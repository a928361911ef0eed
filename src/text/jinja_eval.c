// Evaluates expressions by walking the tree. Every visit costs a step; the depth is counted, so
// that no template can exhaust the stack.
#include <string.h>

#include "text/jinja_run.h"

static qn_jact *outside(const qn_jrun *r, uint32_t up) {
    qn_jact *act = r->act;
    while (up--) act = act->up;
    return act;
}

static qn_value name(qn_jrun *r, const qn_jnode *n) {
    qn_value v = outside(r, n->slot.up)->slot[n->slot.index];
    return v.kind == QN_V_ABSENT ? qn_v_undefined(r, v, qn_v_of_str(n->name)) : v;
}

// ---- literals ----

static qn_value sequence(qn_jrun *r, const qn_jnode *n) {
    qn_vlist *l = qn_vlist_new(r->arena, n->list.n);
    for (uint32_t i = 0; i < n->list.n && !r->failed; i++)
        qn_vlist_push(r->arena, l, qn_jinja_eval(r, n->list.v[i]));
    return (qn_value){.kind = n->kind == QN_N_LIST ? QN_V_LIST : QN_V_TUPLE, .list = l};
}

static qn_value mapping(qn_jrun *r, const qn_jnode *n) {
    qn_vdict *d = qn_vdict_new(r->arena);
    for (uint32_t i = 0; i + 1 < n->list.n && !r->failed; i += 2) {
        qn_value key = qn_jinja_eval(r, n->list.v[i]), v = qn_jinja_eval(r, n->list.v[i + 1]);
        if (!qn_v_hashable(key)) qn_run_fail(r, "unhashable type: '%s'", qn_v_type(key));
        else if (qn_run_spend(r, qn_v_weight(key))) qn_vdict_set(r->arena, d, key, v);
    }
    return qn_v_of_dict(d);
}

// ---- calls ----

static void spread_list(qn_jrun *r, qn_vlist *into, const qn_jnode *star) {
    if (!star) return;
    qn_vlist *more = qn_v_items(r, qn_jinja_eval(r, star));
    for (size_t i = 0; more && i < more->n && qn_run_spend(r, 1); i++)
        qn_vlist_push(r->arena, into, more->v[i]);
}

static void spread_dict(qn_jrun *r, qn_vdict *into, const qn_jnode *star) {
    if (!star) return;
    qn_value v = qn_jinja_eval(r, star);
    if (v.kind != QN_V_DICT) {
        qn_run_fail(r, "argument after ** must be a mapping, not %s", qn_v_type(v));
        return;
    }
    for (size_t i = 0; i < v.dict->n && qn_run_spend(r, 1); i++) {
        const qn_ventry *e = &v.dict->e[i];
        if (e->key.kind != QN_V_STR) qn_run_fail(r, "keywords must be strings");
        else if (qn_vdict_get(into, e->key)) qn_run_fail(r, "an argument is given twice");
        else qn_vdict_set(r->arena, into, e->key, e->value);
    }
}

static void arguments(qn_jrun *r, const qn_jcall *c, qn_jargs *out) {
    *out = (qn_jargs){0};
    if (!c) return;
    qn_vlist *l = qn_vlist_new(r->arena, c->args.n);
    for (uint32_t i = 0; i < c->args.n && !r->failed; i++)
        qn_vlist_push(r->arena, l, qn_jinja_eval(r, c->args.v[i]));
    if (c->kwargs.n || c->star2) {
        qn_vdict *kw = qn_vdict_new(r->arena);
        for (uint32_t i = 0; i < c->kwargs.n && !r->failed; i++)
            qn_vdict_set(r->arena, kw, qn_v_of_str(c->kwnames[i]),
                         qn_jinja_eval(r, c->kwargs.v[i]));
        spread_list(r, l, c->star);
        spread_dict(r, kw, c->star2);
        out->kw = kw;
    } else {
        spread_list(r, l, c->star);
    }
    out->v = l->v;
    out->n = l->n;
}

static qn_value call(qn_jrun *r, const qn_jnode *n) {
    qn_value callee = qn_jinja_eval(r, n->a);
    qn_jargs args;
    arguments(r, n->call, &args);
    if (r->failed) return qn_v_none();
    r->line = n->line;
    return qn_value_call(r, callee, &args);
}

static qn_value filter_or_test(qn_jrun *r, const qn_jnode *n) {
    qn_value self;
    if (n->a) {
        self = qn_jinja_eval(r, n->a);
    } else { // the text of the block around it: the buffer that output goes to
        self = qn_v_str(r->arena, r->out->data ? r->out->data : "", r->out->n);
    }
    qn_jargs args;
    arguments(r, n->call, &args);
    if (r->failed) return qn_v_none();
    r->line = n->line;
    if (n->func) return qn_func_call(r, n->func, self, &args);
    qn_run_fail(r, "no %s named '%.*s' found", n->kind == QN_N_FILTER ? "filter" : "test",
                (int)qn_vstr_offset(n->name, 60), n->name->s);
    return qn_v_none();
}

// ---- operators ----

static qn_value condition(qn_jrun *r, const qn_jnode *n) {
    bool yes = qn_v_true(r, qn_jinja_eval(r, n->b));
    if (r->failed) return qn_v_none();
    if (yes) return qn_jinja_eval(r, n->a);
    if (n->c) return qn_jinja_eval(r, n->c);
    return qn_v_undefined_hint(r, "the inline if-expression evaluated to false and no else "
                                  "section was defined.");
}

static qn_value concat(qn_jrun *r, const qn_jnode *n) {
    qn_vlist *l = sequence(r, n).list; // everything is evaluated before anything is printed
    qn_buf b = {0};
    for (size_t i = 0; i < l->n && !r->failed; i++) qn_v_print(r, &b, l->v[i]);
    return qn_run_text(r, &b);
}

static bool compared(qn_jrun *r, char op, qn_value x, qn_value y) {
    int c;
    switch (op) {
    case '=': return qn_v_equal(r, x, y);
    case '!': return !qn_v_equal(r, x, y);
    case 'i': return qn_v_contains(r, y, x);
    case 'n': return !qn_v_contains(r, y, x);
    default: c = qn_v_cmp(r, x, y);
    }
    if (c == 2) return false;
    return op == '<' ? c < 0 : op == '>' ? c > 0 : op == 'l' ? c <= 0 : c >= 0;
}

static qn_value compare(qn_jrun *r, const qn_jnode *n) {
    qn_value x = qn_jinja_eval(r, n->a);
    for (uint32_t i = 0; i < n->list.n && !r->failed; i++) {
        qn_value y = qn_jinja_eval(r, n->list.v[i]);
        if (r->failed || !compared(r, (char)n->ops[i], x, y)) return qn_v_bool(false);
        x = y;
    }
    return qn_v_bool(true);
}

static qn_value slice(qn_jrun *r, const qn_jnode *n) {
    qn_value v = qn_jinja_eval(r, n->a), part[3];
    for (int i = 0; i < 3; i++)
        part[i] = n->list.v[i] ? qn_jinja_eval(r, n->list.v[i]) : qn_v_absent();
    if (r->failed) return v;
    if (n->flag && v.kind != QN_V_STR) return qn_v_undefined(r, v, qn_v_none());
    return qn_v_slice(r, v, part);
}

static qn_value item(qn_jrun *r, const qn_jnode *n) {
    qn_value v = qn_jinja_eval(r, n->a), key = qn_jinja_eval(r, n->b);
    return r->failed ? v : qn_v_getitem(r, v, key);
}

static qn_value binary(qn_jrun *r, const qn_jnode *n) {
    qn_value x = qn_jinja_eval(r, n->a), y = qn_jinja_eval(r, n->b);
    if (r->failed || n->op != 'q') return r->failed ? x : qn_v_binary(r, (char)n->op, x, y);
    bool minus = qn_v_cmp(r, x, qn_v_int(0)) < 0;
    if (minus) x = qn_v_negate(r, x, true);
    x = qn_v_binary(r, 'p', x, y);
    return minus ? qn_v_negate(r, x, true) : x;
}

static qn_value either(qn_jrun *r, const qn_jnode *n) {
    qn_value x = qn_jinja_eval(r, n->a);
    bool yes = qn_v_true(r, x);
    if (r->failed || yes == (n->kind == QN_N_OR)) return x;
    return qn_jinja_eval(r, n->b);
}

static qn_value evaluate(qn_jrun *r, const qn_jnode *n) {
    switch (n->kind) {
    case QN_N_CONST: return n->value;
    case QN_N_NAME: return name(r, n);
    case QN_N_TUPLE:
    case QN_N_LIST: return sequence(r, n);
    case QN_N_DICT: return mapping(r, n);
    case QN_N_GETATTR: return qn_v_getattr(r, qn_jinja_eval(r, n->a), n->name);
    case QN_N_GETITEM: return item(r, n);
    case QN_N_SLICE: return slice(r, n);
    case QN_N_CALL: return call(r, n);
    case QN_N_FILTER:
    case QN_N_TEST: return filter_or_test(r, n);
    case QN_N_COND: return condition(r, n);
    case QN_N_AND:
    case QN_N_OR: return either(r, n);
    case QN_N_NOT: return qn_v_bool(!qn_v_true(r, qn_jinja_eval(r, n->a)));
    case QN_N_NEG: return qn_v_negate(r, qn_jinja_eval(r, n->a), true);
    case QN_N_POS: return qn_v_negate(r, qn_jinja_eval(r, n->a), false);
    case QN_N_BINARY: return binary(r, n);
    case QN_N_CONCAT: return concat(r, n);
    case QN_N_COMPARE: return compare(r, n);
    default: return qn_v_none();
    }
}

qn_value qn_jinja_eval(qn_jrun *r, const qn_jnode *n) {
    if (!qn_run_spend(r, 1)) return qn_v_none();
    if (r->depth >= QN_JINJA_DEPTH) return qn_run_limit(r, "depth of evaluation"), qn_v_none();
    r->depth++;
    r->line = n->line;
    qn_value v = evaluate(r, n);
    r->depth--;
    return r->failed ? qn_v_none() : v;
}
