// Runs statements: output, conditions, loops, assignments, macros. Text goes to r->out, which is
// the result or, inside of a macro or block, a buffer of its own.
#include <string.h>

#include "base/err.h"
#include "text/jinja_run.h"

// ---- scopes ----

void qn_jinja_scope_enter(qn_jrun *r, const qn_jscope *s) {
    for (uint32_t i = 0; i < s->n && qn_run_spend(r, 1); i++) {
        const qn_jload *l = &s->loads[i];
        qn_value v = qn_v_absent();
        if (l->from == QN_LOAD_PARAMETER) continue;
        if (l->from == QN_LOAD_OUTER) {
            qn_jact *act = r->act;
            for (uint32_t up = l->outer.up; up; up--) act = act->up;
            v = act->slot[l->outer.index];
        } else if (l->from == QN_LOAD_CONTEXT) {
            qn_value *found = qn_vdict_get(r->context, qn_v_of_str(l->name));
            v = found ? *found : qn_global_find(l->name);
        }
        r->act->slot[l->slot] = v;
    }
}

void qn_jinja_scope_leave(qn_jrun *r, const qn_jscope *s) {
    for (uint32_t i = 0; i < s->n; i++) r->act->slot[s->loads[i].slot] = qn_v_absent();
}

static qn_jact *new_act(qn_jrun *r, uint32_t n_slots, qn_jact *up) {
    qn_jact *act = qn_arena_alloc(r->arena, sizeof *act + n_slots * sizeof *act->slot);
    if (!act) return qn_run_limit(r, "memory a template may use"), NULL;
    act->up = up;
    for (uint32_t i = 0; i < n_slots; i++) act->slot[i] = qn_v_absent();
    return act;
}

// ---- assignment ----

static void unpack(qn_jrun *r, const qn_jnode *target, qn_value v) {
    qn_vlist *l = qn_v_items(r, v);
    if (!l) return;
    if (l->n != target->list.n) {
        qn_run_fail(r, "cannot unpack %zu values into %u names", l->n, target->list.n);
        return;
    }
    for (uint32_t i = 0; i < target->list.n && !r->failed; i++)
        qn_jinja_assign(r, target->list.v[i], l->v[i]);
}

void qn_jinja_assign(qn_jrun *r, const qn_jnode *target, qn_value v) {
    if (r->failed) return;
    if (target->kind == QN_N_TUPLE) {
        unpack(r, target, v);
        return;
    }
    qn_jact *act = r->act;
    for (uint32_t up = target->slot.up; up; up--) act = act->up;
    qn_value *slot = &act->slot[target->slot.index];
    if (target->kind == QN_N_NAME) {
        *slot = v;
    } else if (slot->kind != QN_V_NAMESPACE) {
        qn_run_fail(r, "cannot assign attribute on non-namespace object");
    } else if (target->value.s->n && target->value.s->s[0] == '_') {
        qn_run_fail(r, "templates cannot store underscore-prefixed attributes on a namespace");
    } else {
        qn_vdict_set(r->arena, slot->dict, target->value, v);
    }
}

// The original checks that every namespace in the target is one before it evaluates anything.
static bool namespaces_ready(qn_jrun *r, const qn_jnode *target) {
    for (uint32_t i = 0; target->kind == QN_N_TUPLE && i < target->list.n; i++)
        if (!namespaces_ready(r, target->list.v[i])) return false;
    if (target->kind != QN_N_NSREF) return true;
    const qn_jact *act = r->act;
    for (uint32_t up = target->slot.up; up; up--) act = act->up;
    return act->slot[target->slot.index].kind == QN_V_NAMESPACE ||
           qn_run_fail(r, "cannot assign attribute on non-namespace object");
}

// ---- loops ----

// An item taken in advance, or the next one from what the loop walks through.
static bool pull(qn_jrun *r, qn_jinja_loop *l, qn_value *out) {
    if (!l->rest) return qn_iter_next(r, &l->iter, out);
    if (l->rest_at == l->rest->n) return false;
    *out = l->rest->v[l->rest_at++];
    return true;
}

bool qn_loop_peek(qn_jrun *r, qn_jinja_loop *l, qn_value *out) {
    if (!l->peeked) {
        l->peeked = true;
        if (!pull(r, l, &l->after)) l->after = qn_v_absent();
    }
    *out = l->after;
    return l->after.kind != QN_V_ABSENT;
}

bool qn_loop_next(qn_jrun *r, qn_jinja_loop *l, qn_value *out) {
    qn_value v;
    // An end seen by peeking is not remembered: a generator may go on when its filter changes.
    bool got = l->peeked && l->after.kind != QN_V_ABSENT ? (v = l->after, true) : pull(r, l, &v);
    l->peeked = false;
    l->after = qn_v_absent();
    if (!got) return false;
    l->index0++;
    l->before = l->current;
    l->current = v;
    *out = v;
    return true;
}

int64_t qn_loop_length(qn_jrun *r, qn_jinja_loop *l) {
    if (l->length >= 0) return l->length;
    if (!l->iter.loop && l->iter.over.kind != QN_V_ITER)
        return l->length = qn_v_length(r, l->iter.over);
    qn_vlist *rest = qn_vlist_new(r->arena, 0); // no length: take everything to count it
    qn_value v;
    while (pull(r, l, &v)) qn_vlist_push(r->arena, rest, v);
    l->rest = rest;
    l->rest_at = 0;
    return l->length = (int64_t)rest->n + l->index0 + 1 + (l->after.kind != QN_V_ABSENT);
}

static bool open_loop(qn_jrun *r, const qn_jnode *n, qn_value over, qn_jinja_loop *l) {
    *l = (qn_jinja_loop){.index0 = -1, .length = -1, .act = r->act};
    if (n->flag) l->node = n;
    if (!qn_iter_open(r, over, &l->iter)) return false;
    if (!n->c) return true;
    qn_jact *here = r->act;
    l->iter.loop = n;
    l->iter.act = new_act(r, n->compiled->n_test_slots, here);
    if (!l->iter.act) return false;
    r->act = l->iter.act;
    qn_jinja_scope_enter(r, &n->compiled->test);
    r->act = here;
    return !r->failed;
}

// Runs a loop's body for every item. r->act holds the loop's variables.
static qn_jflow run_loop(qn_jrun *r, const qn_jnode *n, qn_jinja_loop *l) {
    const qn_jcompiled *c = n->compiled;
    qn_value item;
    bool completed = false; // some pass reached its end; else the else branch runs
    while (!r->failed && qn_loop_next(r, l, &item)) {
        qn_jinja_assign(r, n->a, item);
        r->act->slot[c->loop] = (qn_value){.kind = QN_V_LOOP, .loop = l};
        qn_jinja_scope_enter(r, &c->body);
        qn_jflow flow = qn_jinja_exec(r, &n->body);
        if (flow == QN_FLOW_BREAK) break;
        completed = completed || flow == QN_FLOW_ON;
    }
    qn_jinja_scope_leave(r, &c->body);
    if (completed || !n->orelse.n || r->failed) return QN_FLOW_ON;
    qn_jinja_scope_enter(r, &c->orelse);
    qn_jflow flow = qn_jinja_exec(r, &n->orelse);
    qn_jinja_scope_leave(r, &c->orelse);
    return flow;
}

// A recursive loop is a function: its own activation, its own buffer.
static qn_value recursive_loop(qn_jrun *r, const qn_jnode *n, qn_value over, int64_t depth0) {
    qn_jinja_loop *l = qn_arena_alloc(r->arena, sizeof *l);
    qn_buf text = {0}, *out = r->out;
    qn_jact *here = r->act;
    if (!open_loop(r, n, over, l)) return qn_v_none();
    l->depth0 = depth0;
    qn_jact *act = new_act(r, n->compiled->n_slots, here);
    if (!act) return qn_v_none();
    r->act = act;
    r->out = &text;
    run_loop(r, n, l);
    r->out = out;
    r->act = here;
    return qn_run_text(r, &text);
}

qn_value qn_loop_call(qn_jrun *r, const qn_jinja_loop *l, qn_value over) {
    if (!l->node) {
        qn_run_fail(r, "the loop must have the 'recursive' marker to be called recursively");
        return qn_v_none();
    }
    if (r->depth >= QN_JINJA_DEPTH) return qn_run_limit(r, "depth of evaluation"), qn_v_none();
    qn_jact *here = r->act;
    r->depth++;
    r->act = l->act;
    qn_value v = recursive_loop(r, l->node, over, l->depth0 + 1);
    r->act = here;
    r->depth--;
    return v;
}

static qn_jflow for_loop(qn_jrun *r, const qn_jnode *n) {
    qn_value over = qn_jinja_eval(r, n->b);
    if (r->failed) return QN_FLOW_ON;
    if (n->flag) {
        qn_v_print(r, r->out, recursive_loop(r, n, over, 0));
        return QN_FLOW_ON;
    }
    qn_jinja_loop *l = qn_arena_alloc(r->arena, sizeof *l); // may outlive the loop: set x = loop
    return open_loop(r, n, over, l) ? run_loop(r, n, l) : QN_FLOW_ON;
}

// ---- macros ----

static bool bind_keywords(qn_jrun *r, const qn_jnode *n, const qn_jargs *args, qn_vdict *extra) {
    for (size_t i = 0; args->kw && i < args->kw->n && qn_run_spend(r, n->list.n + 1); i++) {
        const qn_ventry *e = &args->kw->e[i];
        uint32_t k = (uint32_t)(args->n < n->list.n ? args->n : n->list.n); // the others are given
        while (k < n->list.n && qn_vstr_cmp(n->list.v[k]->name, e->key.s) != 0) k++;
        if (k < n->list.n) r->act->slot[n->list.v[k]->slot.index] = e->value;
        else if (n->compiled->catches_caller && qn_vstr_is(e->key.s, "caller"))
            r->act->slot[n->compiled->caller] = e->value;
        else qn_vdict_set(r->arena, extra, e->key, e->value);
    }
    if (!extra->n || n->compiled->catches_kwargs) return !r->failed;
    const qn_vstr *name = extra->e[0].key.s;
    return qn_run_fail(r, "macro takes no keyword argument '%.*s'", (int)qn_vstr_offset(name, 60),
                       name->s);
}

static void bind_arguments(qn_jrun *r, const qn_jnode *n, const qn_jargs *args) {
    const qn_jcompiled *c = n->compiled;
    qn_vdict *extra = qn_vdict_new(r->arena);
    if (args->n > n->list.n && !c->catches_varargs) {
        qn_run_fail(r, "macro takes not more than %u argument(s)", n->list.n);
        return;
    }
    for (uint32_t i = 0; i < n->list.n && i < args->n; i++)
        r->act->slot[n->list.v[i]->slot.index] = args->v[i];
    if (c->catches_caller) r->act->slot[c->caller] = qn_v_undefined_hint(r, "No caller defined");
    if (!bind_keywords(r, n, args, extra)) return;
    if (c->catches_kwargs) r->act->slot[c->kwargs] = qn_v_of_dict(extra);
    size_t over = args->n > n->list.n ? args->n - n->list.n : 0;
    if (c->catches_varargs)
        r->act->slot[c->varargs] = qn_v_tuple(r, over ? args->v + n->list.n : NULL, over);
}

static void bind_defaults(qn_jrun *r, const qn_jnode *n) {
    for (uint32_t i = 0; i < n->list.n && !r->failed; i++) {
        qn_value *slot = &r->act->slot[n->list.v[i]->slot.index];
        uint32_t first = n->list.n - n->orelse.n;
        if (slot->kind != QN_V_ABSENT) continue;
        if (i >= first) *slot = qn_jinja_eval(r, n->orelse.v[i - first]);
        else *slot = qn_v_undefined(r, qn_v_absent(), qn_v_of_str(n->list.v[i]->name));
    }
}

qn_value qn_macro_call(qn_jrun *r, const qn_jinja_macro *m, const qn_jargs *args) {
    const qn_jnode *n = m->node;
    if (r->failed) return qn_v_none();
    if (r->depth >= QN_JINJA_DEPTH) return qn_run_limit(r, "depth of evaluation"), qn_v_none();
    qn_jact *here = r->act, *act = new_act(r, n->compiled->n_slots, m->act);
    qn_buf text = {0}, *out = r->out;
    if (!act) return qn_v_none();
    r->depth++;
    r->act = act;
    r->out = &text;
    bind_arguments(r, n, args);
    qn_jinja_scope_enter(r, &n->compiled->body);
    bind_defaults(r, n);
    qn_jinja_exec(r, &n->body);
    r->out = out;
    r->act = here;
    r->depth--;
    return qn_run_text(r, &text);
}

static qn_value macro_value(qn_jrun *r, const qn_jnode *n) {
    qn_jinja_macro *m = qn_arena_alloc(r->arena, sizeof *m);
    *m = (qn_jinja_macro){n, r->act};
    return (qn_value){.kind = QN_V_MACRO, .macro = m};
}

static void define_macro(qn_jrun *r, const qn_jnode *n) {
    qn_jact *act = r->act;
    for (uint32_t up = n->compiled->self.up; up; up--) act = act->up;
    act->slot[n->compiled->self.index] = macro_value(r, n);
}

// {% call f(…) %}body{% endcall %}: f gets the body as `caller`. {% generation %} is the body.
static void call_block(qn_jrun *r, const qn_jnode *n) {
    qn_value caller = macro_value(r, n);
    const qn_jargs none = {0};
    if (n->flag) {
        qn_v_print(r, r->out, qn_macro_call(r, caller.macro, &none));
        return;
    }
    qn_jnode with_caller = *n->a; // the same call with one more argument
    qn_jcall call = n->a->call ? *n->a->call : (qn_jcall){0};
    qn_jnode value = {.kind = QN_N_CONST, .line = n->line, .value = caller}, *values[257];
    const qn_vstr *names[257], word = {"caller", 6, 6};
    uint32_t k = call.kwargs.n;
    if (k) memcpy(values, call.kwargs.v, k * sizeof *values);
    if (k) memcpy(names, call.kwnames, k * sizeof *names);
    values[k] = &value;
    names[k] = &word;
    call.kwargs = (qn_jlist){values, k + 1, k + 1};
    call.kwnames = names;
    with_caller.call = &call;
    qn_v_print(r, r->out, qn_jinja_eval(r, &with_caller));
}

// ---- blocks whose text is taken ----

static qn_jflow captured(qn_jrun *r, const qn_jnode *n, qn_value *text) {
    qn_buf buffer = {0}, *out = r->out;
    const qn_jnode *filters = n->kind == QN_N_FILTERBLOCK ? n->a : n->b;
    qn_jinja_scope_enter(r, &n->compiled->body);
    r->out = &buffer;
    qn_jflow flow = qn_jinja_exec(r, &n->body);
    if (flow == QN_FLOW_ON && filters) *text = qn_jinja_eval(r, filters);
    r->out = out;
    if (flow == QN_FLOW_ON && !filters) *text = qn_run_text(r, &buffer);
    qn_buf_done(&buffer);
    return flow;
}

static qn_jflow block(qn_jrun *r, const qn_jnode *n) {
    qn_value text = qn_v_none();
    qn_jflow flow = captured(r, n, &text);
    if (flow == QN_FLOW_ON && !r->failed) {
        if (n->kind == QN_N_FILTERBLOCK && text.kind != QN_V_STR)
            qn_run_fail(r, "a filter block's filter must give a str, not %s", qn_v_type(text));
        else if (n->kind == QN_N_FILTERBLOCK) qn_v_print(r, r->out, text);
        else if (namespaces_ready(r, n->a)) qn_jinja_assign(r, n->a, text);
    }
    qn_jinja_scope_leave(r, &n->compiled->body);
    return flow;
}

static qn_jflow with(qn_jrun *r, const qn_jnode *n) {
    qn_jinja_scope_enter(r, &n->compiled->body);
    for (uint32_t i = 0; i < n->list.n && !r->failed; i++)
        qn_jinja_assign(r, n->list.v[i], qn_jinja_eval(r, n->orelse.v[i]));
    qn_jflow flow = qn_jinja_exec(r, &n->body);
    qn_jinja_scope_leave(r, &n->compiled->body);
    return flow;
}

// ---- statements ----

static qn_jflow condition(qn_jrun *r, const qn_jnode *n) {
    if (qn_v_true(r, qn_jinja_eval(r, n->a))) return qn_jinja_exec(r, &n->body);
    for (uint32_t i = 0; i < n->list.n && !r->failed; i++)
        if (qn_v_true(r, qn_jinja_eval(r, n->list.v[i]->a)))
            return qn_jinja_exec(r, &n->list.v[i]->body);
    return r->failed ? QN_FLOW_ON : qn_jinja_exec(r, &n->orelse);
}

static qn_jflow statement(qn_jrun *r, const qn_jnode *n) {
    r->line = n->line;
    switch (n->kind) {
    case QN_N_DATA: qn_v_print(r, r->out, n->value); break;
    case QN_N_OUTPUT: qn_v_print(r, r->out, qn_jinja_eval(r, n->a)); break;
    case QN_N_FOR: return for_loop(r, n);
    case QN_N_IF: return condition(r, n);
    case QN_N_SET:
        if (namespaces_ready(r, n->a)) qn_jinja_assign(r, n->a, qn_jinja_eval(r, n->b));
        break;
    case QN_N_SETBLOCK:
    case QN_N_FILTERBLOCK: return block(r, n);
    case QN_N_WITH: return with(r, n);
    case QN_N_MACRO: define_macro(r, n); break;
    case QN_N_CALLBLOCK: call_block(r, n); break;
    case QN_N_BREAK: return QN_FLOW_BREAK;
    case QN_N_CONTINUE: return QN_FLOW_CONTINUE;
    default: break;
    }
    return QN_FLOW_ON;
}

qn_jflow qn_jinja_exec(qn_jrun *r, const qn_jlist *body) {
    if (r->depth >= QN_JINJA_DEPTH) qn_run_limit(r, "depth of evaluation");
    r->depth++;
    qn_jflow flow = QN_FLOW_ON;
    for (uint32_t i = 0; i < body->n && flow == QN_FLOW_ON && qn_run_spend(r, 1); i++)
        flow = statement(r, body->v[i]);
    r->depth--;
    return flow;
}
