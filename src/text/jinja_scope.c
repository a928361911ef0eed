// Gives every name its place before anything is rendered, as Jinja's compiler does. A scope (the
// template, a loop's body, a macro …) owns the names it stores to; what it owns starts out with the
// outer scope's value, the context's, or none, and what it sets is gone when it ends. An if has no
// scope, but a name that only a branch stores to keeps its outer value in the other branches.
// Macros and call blocks are functions: their variables live in an activation of their own and
// they see those of the function around them, late.
#include <string.h>

#include "base/err.h"
#include "text/jinja_ast.h"
#include "text/jinja_run.h"

typedef struct func {
    struct func *up;
    uint32_t depth, n_slots;
} func;

typedef struct sym { // a scope while it is being resolved
    struct sym *up;
    func *fn;
    qn_vdict *refs;   // name -> index of its load
    qn_vdict *stores; // names stored to, in order
    qn_jscope loads;
} sym;

typedef struct pass {
    qn_arena *arena;
    qn_err *err;
    bool failed;
} pass;

static sym sym_new(pass *p, sym *up, func *fn) {
    return (sym){up, fn, qn_vdict_new(p->arena), qn_vdict_new(p->arena), {0}};
}

// ---- a scope's names ----

static qn_jload *own(const sym *s, const qn_vstr *name) {
    qn_value *i = qn_vdict_get(s->refs, qn_v_of_str(name));
    return i ? &s->loads.loads[i->i] : NULL;
}

static bool find(sym *from, const qn_vstr *name, const func *seen_from, qn_jslot *out) {
    for (sym *s = from; s; s = s->up) {
        qn_jload *l = own(s, name);
        if (!l) continue;
        *out = (qn_jslot){seen_from->depth - s->fn->depth, l->slot};
        return true;
    }
    return false;
}

static qn_jload *define(pass *p, sym *s, const qn_vstr *name, qn_jload load) {
    qn_jscope *c = &s->loads;
    if (c->n == c->cap) {
        uint32_t cap = c->cap ? 2 * c->cap : 4;
        qn_jload *v = qn_arena_alloc(p->arena, cap * sizeof *v);
        if (!v) {
            static qn_jload spare;
            p->failed = true;
            qn_fail(p->err, QN_LIMIT, "template: needs too much memory");
            return &spare;
        }
        if (c->n) memcpy(v, c->loads, c->n * sizeof *v);
        c->loads = v;
        c->cap = cap;
    }
    load.slot = s->fn->n_slots++;
    load.name = name;
    c->loads[c->n] = load;
    qn_vdict_set(p->arena, s->refs, qn_v_of_str(name), qn_v_int(c->n));
    return &c->loads[c->n++];
}

static void parameter(pass *p, sym *s, const qn_vstr *name) {
    qn_vdict_set(p->arena, s->stores, qn_v_of_str(name), qn_v_none());
    define(p, s, name, (qn_jload){.from = QN_LOAD_PARAMETER});
}

static void load(pass *p, sym *s, const qn_vstr *name) {
    qn_jslot slot;
    if (!find(s, name, s->fn, &slot)) define(p, s, name, (qn_jload){.from = QN_LOAD_CONTEXT});
}

static void store(pass *p, sym *s, const qn_vstr *name) {
    qn_vdict_set(p->arena, s->stores, qn_v_of_str(name), qn_v_none());
    if (own(s, name)) return;
    qn_jload l = {.from = QN_LOAD_ABSENT};
    if (s->up && find(s->up, name, s->fn, &l.outer)) l.from = QN_LOAD_OUTER;
    define(p, s, name, l);
}

// ---- first walk: what a scope loads and stores, inner scopes left out ----

static void survey(pass *p, sym *s, const qn_jnode *n);

static void survey_list(pass *p, sym *s, const qn_jlist *l) {
    for (uint32_t i = 0; i < l->n && !p->failed; i++) survey(p, s, l->v[i]);
}

static void survey_if(pass *p, sym *s, const qn_jnode *n) {
    size_t mark = s->stores->n;
    survey(p, s, n->a);
    survey_list(p, s, &n->body);
    survey_list(p, s, &n->list);
    survey_list(p, s, &n->orelse);
    for (size_t i = mark; i < s->stores->n; i++) { // stored in a branch, perhaps
        const qn_vstr *name = s->stores->e[i].key.s;
        qn_jload *l = own(s, name);
        bool outer = s->up && find(s->up, name, s->fn, &l->outer);
        l->from = outer ? QN_LOAD_OUTER : QN_LOAD_CONTEXT;
    }
}

static void survey(pass *p, sym *s, const qn_jnode *n) {
    if (!n || p->failed) return;
    switch (n->kind) {
    case QN_N_NAME:
        if (n->flag) store(p, s, n->name);
        else load(p, s, n->name);
        return;
    case QN_N_NSREF: load(p, s, n->name); return;
    case QN_N_IF: survey_if(p, s, n); return;
    case QN_N_MACRO: store(p, s, n->name); return;
    case QN_N_FOR: survey(p, s, n->b); return;
    case QN_N_WITH: survey_list(p, s, &n->orelse); return;
    case QN_N_CALLBLOCK:
    case QN_N_FILTERBLOCK:
    case QN_N_SETBLOCK: survey(p, s, n->a); return;
    case QN_N_SET:
        survey(p, s, n->b);
        survey(p, s, n->a);
        return;
    default: break;
    }
    survey(p, s, n->a);
    survey(p, s, n->b);
    survey(p, s, n->c);
    survey_list(p, s, &n->list);
    if (!n->call) return;
    survey_list(p, s, &n->call->args);
    survey_list(p, s, &n->call->kwargs);
    survey(p, s, n->call->star);
    survey(p, s, n->call->star2);
}

static void survey_params(pass *p, sym *s, const qn_jnode *n) { // names in a target
    if (n->kind == QN_N_NAME) parameter(p, s, n->name);
    for (uint32_t i = 0; i < n->list.n; i++) survey_params(p, s, n->list.v[i]);
}

// Whether a body uses a name that it has not stored to before: 1 yes, -1 no, 0 not mentioned.
static int mentions(const qn_jnode *n, const char *name);

static int list_mentions(const qn_jlist *l, const char *name) {
    int m = 0;
    for (uint32_t i = 0; i < l->n && !m; i++) m = mentions(l->v[i], name);
    return m;
}

static int mentions(const qn_jnode *n, const char *name) {
    if (!n) return 0;
    if (n->kind == QN_N_NAME && qn_vstr_is(n->name, name)) return n->flag ? -1 : 1;
    int m = mentions(n->a, name);
    if (!m) m = mentions(n->b, name);
    if (!m) m = mentions(n->c, name);
    if (!m) m = list_mentions(&n->list, name);
    if (!m && n->call) m = list_mentions(&n->call->args, name);
    if (!m && n->call) m = list_mentions(&n->call->kwargs, name);
    if (!m && n->call) m = mentions(n->call->star, name);
    if (!m && n->call) m = mentions(n->call->star2, name);
    if (!m) m = list_mentions(&n->body, name);
    return m ? m : list_mentions(&n->orelse, name);
}

// ---- second walk: binds names, goes into inner scopes ----

static void bind(pass *p, sym *s, qn_jnode *n, bool soft);

static void bind_list(pass *p, sym *s, const qn_jlist *l, bool soft) {
    for (uint32_t i = 0; i < l->n && !p->failed; i++) bind(p, s, l->v[i], soft);
}

static void bind_name(pass *p, sym *s, qn_jnode *n) {
    if (find(s, n->name, s->fn, &n->slot) || p->failed) return;
    // Only the filter of a set block is not surveyed with its scope.
    define(p, s, n->name, (qn_jload){.from = QN_LOAD_CONTEXT});
    find(s, n->name, s->fn, &n->slot);
}

// In an if, an unknown filter or test is an error only when it is reached.
static void bind_function(pass *p, qn_jnode *n, bool soft) {
    bool filter = n->kind == QN_N_FILTER;
    n->func = filter ? qn_filter_find(n->name) : qn_test_find(n->name);
    if (n->func || soft || p->failed) return;
    p->failed = true;
    qn_fail(p->err, QN_INPUT, "template line %d: no %s named '%.*s'", n->line,
            filter ? "filter" : "test", (int)qn_vstr_offset(n->name, 60), n->name->s);
}

static qn_jnode *copy_target(pass *p, const qn_jnode *n) {
    qn_jnode *c = qn_arena_alloc(p->arena, sizeof *c);
    *c = *n;
    if (!n->list.n) return c;
    c->list.v = qn_arena_alloc(p->arena, n->list.n * sizeof *c->list.v);
    c->list.n = c->list.v ? n->list.n : 0;
    for (uint32_t i = 0; i < c->list.n; i++) c->list.v[i] = copy_target(p, n->list.v[i]);
    return c;
}

static const qn_vstr *word(pass *p, const char *text) { return qn_v_cstr(p->arena, text).s; }

// The filter of a loop is a function that sees the loop's targets and what is outside.
static void bind_loop_test(pass *p, sym *s, qn_jnode *n) {
    func fn = {s->fn, s->fn->depth + 1, 0};
    sym test = sym_new(p, s, &fn);
    qn_jnode *target = copy_target(p, n->a);
    n->list.v = qn_arena_alloc(p->arena, sizeof *n->list.v);
    n->list.v[0] = target;
    n->list.n = 1;
    survey_params(p, &test, target);
    survey(p, &test, n->c);
    bind(p, &test, target, false);
    bind(p, &test, n->c, false);
    n->compiled->test = test.loads;
    n->compiled->n_test_slots = fn.n_slots;
}

static void bind_for(pass *p, sym *s, qn_jnode *n, bool soft) {
    qn_jcompiled *c = n->compiled;
    bind(p, s, n->b, soft);
    if (n->c) bind_loop_test(p, s, n);
    func own_fn = {s->fn, s->fn->depth + 1, 0}, *fn = n->flag ? &own_fn : s->fn;
    sym body = sym_new(p, s, fn), orelse = sym_new(p, s, fn);
    parameter(p, &body, word(p, "loop"));
    survey_params(p, &body, n->a);
    survey_list(p, &body, &n->body);
    survey_list(p, &orelse, &n->orelse);
    bind(p, &body, n->a, false);
    bind_list(p, &body, &n->body, false);
    bind_list(p, &orelse, &n->orelse, false);
    c->loop = body.loads.n ? body.loads.loads[0].slot : 0;
    c->body = body.loads;
    c->orelse = orelse.loads;
    c->n_slots = own_fn.n_slots;
}

static bool has_parameter(const qn_jnode *n, const char *name) {
    for (uint32_t i = 0; i < n->list.n; i++)
        if (qn_vstr_is(n->list.v[i]->name, name)) return true;
    return false;
}

// caller, kwargs and varargs are parameters of a macro whose body uses them.
static bool catches(pass *p, sym *s, const qn_jnode *n, const char *name, uint32_t *slot) {
    if (has_parameter(n, name) || list_mentions(&n->body, name) != 1) return false;
    *slot = define(p, s, word(p, name), (qn_jload){.from = QN_LOAD_PARAMETER})->slot;
    return true;
}

static void bind_macro(pass *p, sym *s, qn_jnode *n, bool soft) {
    qn_jcompiled *c = n->compiled;
    if (n->a) bind(p, s, n->a, soft); // the call of a call block belongs outside
    func fn = {s->fn, s->fn->depth + 1, 0};
    sym inner = sym_new(p, s, &fn);
    for (uint32_t i = 0; i < n->list.n; i++) parameter(p, &inner, n->list.v[i]->name);
    c->catches_caller = catches(p, &inner, n, "caller", &c->caller);
    c->catches_kwargs = catches(p, &inner, n, "kwargs", &c->kwargs);
    c->catches_varargs = catches(p, &inner, n, "varargs", &c->varargs);
    survey_list(p, &inner, &n->orelse);
    survey_list(p, &inner, &n->body);
    bind_list(p, &inner, &n->list, false);
    bind_list(p, &inner, &n->orelse, false);
    bind_list(p, &inner, &n->body, false);
    c->body = inner.loads;
    c->n_slots = fn.n_slots;
    if (n->kind == QN_N_MACRO && !p->failed) find(s, n->name, s->fn, &c->self);
}

// {% set x %}, {% filter %} and {% with %}: a scope in the same function.
static void bind_block(pass *p, sym *s, qn_jnode *n, bool soft) {
    sym inner = sym_new(p, s, s->fn);
    if (n->kind == QN_N_WITH) {
        bind_list(p, s, &n->orelse, soft);
        for (uint32_t i = 0; i < n->list.n; i++) survey_params(p, &inner, n->list.v[i]);
    } else {
        survey(p, &inner, n->kind == QN_N_FILTERBLOCK ? n->a : n->b);
    }
    survey_list(p, &inner, &n->body);
    if (n->kind == QN_N_SETBLOCK) {
        bind(p, s, n->a, soft);
        if (n->b) bind(p, &inner, n->b, false);
    } else if (n->kind == QN_N_FILTERBLOCK) {
        bind(p, &inner, n->a, false);
    } else {
        bind_list(p, &inner, &n->list, false);
    }
    bind_list(p, &inner, &n->body, false);
    n->compiled->body = inner.loads;
}

static void bind(pass *p, sym *s, qn_jnode *n, bool soft) {
    if (!n || p->failed) return;
    if (n->kind >= QN_N_FOR && n->kind != QN_N_IF && n->kind != QN_N_SET) {
        n->compiled = qn_arena_alloc(p->arena, sizeof *n->compiled);
        *n->compiled = (qn_jcompiled){0};
    }
    switch (n->kind) {
    case QN_N_NAME:
    case QN_N_NSREF: bind_name(p, s, n); return;
    case QN_N_FOR: bind_for(p, s, n, soft); return;
    case QN_N_MACRO:
    case QN_N_CALLBLOCK: bind_macro(p, s, n, soft); return;
    case QN_N_SETBLOCK:
    case QN_N_FILTERBLOCK:
    case QN_N_WITH: bind_block(p, s, n, soft); return;
    case QN_N_IF:
    case QN_N_COND: soft = true; break;
    case QN_N_FILTER:
    case QN_N_TEST: bind_function(p, n, soft); break;
    default: break;
    }
    bind(p, s, n->a, soft);
    bind(p, s, n->b, soft);
    bind(p, s, n->c, soft);
    bind_list(p, s, &n->list, soft);
    bind_list(p, s, &n->body, soft);
    bind_list(p, s, &n->orelse, soft);
    if (!n->call) return;
    bind_list(p, s, &n->call->args, soft);
    bind_list(p, s, &n->call->kwargs, soft);
    bind(p, s, n->call->star, soft);
    bind(p, s, n->call->star2, soft);
}

bool qn_jinja_resolve(qn_jinja *t, qn_err *err) {
    pass p = {&t->arena, err, false};
    func root = {0};
    sym top = sym_new(&p, NULL, &root);
    survey_list(&p, &top, &t->body);
    bind_list(&p, &top, &t->body, false);
    t->scope = top.loads;
    t->n_slots = root.n_slots;
    if (p.failed) return false;
    return !t->arena.over || qn_fail(err, QN_LIMIT, "template: needs too much memory");
}
