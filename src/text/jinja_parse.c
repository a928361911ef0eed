// Statements, and the parser's small tools. Which token may follow is Jinja's; its wording of
// errors is not kept.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "text/jinja_ast.h"

bool qn_parse_fail(qn_jparser *p, const char *fmt, ...) {
    if (p->failed) return false;
    p->failed = true;
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return qn_fail(p->err, QN_INPUT, "template line %d: %s", p->at->line, text);
}

static bool unsupported(qn_jparser *p, const char *what) {
    if (p->failed) return false;
    p->failed = true;
    return qn_fail(p->err, QN_UNSUPPORTED, "template line %d: {%% %s %%} is not supported",
                   p->at->line, what);
}

bool qn_parse_is(const qn_jparser *p, const char *name) {
    return p->at->kind == QN_T_NAME && qn_vstr_is(p->at->value.s, name);
}

bool qn_parse_take(qn_jparser *p, int kind) {
    if (p->failed || p->at->kind != kind || kind == QN_T_EOF) return false;
    p->at++;
    return true;
}

bool qn_parse_take_name(qn_jparser *p, const char *name) {
    return !p->failed && qn_parse_is(p, name) && (p->at++, true);
}

static const char *describe(int kind, char one[4]) {
    switch (kind) {
    case QN_T_EOF: return "end of template";
    case QN_T_DATA: return "text";
    case QN_T_VARIABLE_BEGIN: return "'{{'";
    case QN_T_VARIABLE_END: return "'}}'";
    case QN_T_BLOCK_BEGIN: return "'{%'";
    case QN_T_BLOCK_END: return "'%}'";
    case QN_T_NAME: return "a name";
    case QN_T_STRING: return "a string";
    case QN_T_INTEGER:
    case QN_T_FLOAT: return "a number";
    default: break;
    }
    if (kind > 127) return "an operator";
    one[0] = one[2] = '\'', one[1] = (char)kind, one[3] = 0;
    return one;
}

void qn_parse_expect(qn_jparser *p, int kind) {
    char a[4], b[4];
    if (!qn_parse_take(p, kind))
        qn_parse_fail(p, "expected %s, got %s", describe(kind, a), describe(p->at->kind, b));
}

bool qn_parse_enter(qn_jparser *p) {
    if (p->failed) return false;
    if (++p->nesting <= QN_JINJA_MAX_NESTING) return true;
    p->failed = true;
    return qn_fail(p->err, QN_LIMIT, "template line %d: nested deeper than %d", p->at->line,
                   QN_JINJA_MAX_NESTING);
}

qn_jnode *qn_parse_node(qn_jparser *p, qn_jkind kind) {
    qn_jnode *n = qn_arena_alloc(p->arena, sizeof *n);
    *n = (qn_jnode){.kind = (uint8_t)kind, .line = p->at->line};
    if (p->arena->over) qn_parse_fail(p, "needs too much memory");
    return n;
}

void qn_parse_push(qn_jparser *p, qn_jlist *l, qn_jnode *n) {
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? 2 * l->cap : 4;
        qn_jnode **v = qn_arena_alloc(p->arena, cap * sizeof *v);
        if (!v) {
            qn_parse_fail(p, "needs too much memory");
            return;
        }
        if (l->n) memcpy(v, l->v, l->n * sizeof *v);
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = n;
}

const qn_vstr *qn_parse_name(qn_jparser *p) {
    static const qn_vstr none = {"", 0, 0};
    if (p->at->kind != QN_T_NAME) {
        char a[4];
        qn_parse_fail(p, "expected a name, got %s", describe(p->at->kind, a));
        return &none;
    }
    qn_value v = p->at->value, *known = qn_vdict_get(p->names, v);
    if (known) v = *known;
    else qn_vdict_set(p->arena, p->names, v, v);
    p->at++;
    return v.s;
}

// ---- targets of assignments ----

static void store(qn_jparser *p, qn_jnode *n, bool in_loop) {
    if (n->kind == QN_N_NAME) {
        n->flag = true;
        if (in_loop && qn_vstr_is(n->name, "loop")) qn_parse_fail(p, "cannot assign to loop");
    } else if (n->kind == QN_N_TUPLE) {
        for (uint32_t i = 0; i < n->list.n; i++) store(p, n->list.v[i], in_loop);
    } else if (n->kind != QN_N_NSREF) {
        qn_parse_fail(p, "cannot assign to this");
    }
}

static qn_jnode *named(qn_jparser *p) { // a single name to store to
    qn_jnode *n = qn_parse_primary(p, false);
    if (n->kind != QN_N_NAME) qn_parse_fail(p, "a name expected");
    n->flag = true;
    return n;
}

// ---- statements ----

static void statements(qn_jparser *p, qn_jlist *out, const char *const *ends);

// The body behind a block's tag, up to a tag of the given names (NULL-terminated), whose name is
// the current token then.
static void body(qn_jparser *p, qn_jlist *out, const char *const *ends) {
    qn_parse_take(p, ':');
    qn_parse_expect(p, QN_T_BLOCK_END);
    if (!qn_parse_enter(p)) return;
    statements(p, out, ends);
    p->nesting--;
    if (p->at->kind == QN_T_EOF) qn_parse_fail(p, "end of template, expected '%s'", ends[0]);
}

static void body_until(qn_jparser *p, qn_jlist *out, const char *end) {
    const char *const ends[] = {end, NULL};
    body(p, out, ends);
    qn_parse_take_name(p, end);
}

// Bodies of macros and call blocks are functions of their own: no break leads out of them.
static void function_body(qn_jparser *p, qn_jlist *out, const char *end) {
    int loops = p->loops;
    p->loops = 0;
    body_until(p, out, end);
    p->loops = loops;
}

static qn_jnode *for_loop(qn_jparser *p) {
    static const char *const ends[] = {"endfor", "else", NULL};
    qn_jnode *n = qn_parse_node(p, QN_N_FOR);
    n->a = qn_parse_tuple(p, QN_TUPLE_TARGET, "in");
    store(p, n->a, true);
    if (!qn_parse_take_name(p, "in")) qn_parse_fail(p, "expected 'in'");
    n->b = qn_parse_tuple(p, QN_TUPLE_NO_CONDITION, "recursive");
    if (qn_parse_take_name(p, "if")) n->c = qn_parse_expr(p, true);
    n->flag = qn_parse_take_name(p, "recursive");
    p->loops++;
    p->every_loop++;
    body(p, &n->body, ends);
    p->loops--;
    if (qn_parse_take_name(p, "else")) body_until(p, &n->orelse, "endfor");
    else qn_parse_take_name(p, "endfor");
    p->every_loop--;
    return n;
}

static qn_jnode *if_block(qn_jparser *p) {
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    qn_jnode *first = qn_parse_node(p, QN_N_IF), *n = first;
    for (;;) {
        n->a = qn_parse_tuple(p, QN_TUPLE_NO_CONDITION, NULL);
        body(p, &n->body, ends);
        if (!qn_parse_take_name(p, "elif")) break;
        n = qn_parse_node(p, QN_N_IF);
        qn_parse_push(p, &first->list, n); // elifs lie flat, however many there are
    }
    if (qn_parse_take_name(p, "else")) body_until(p, &first->orelse, "endif");
    else qn_parse_take_name(p, "endif");
    return first;
}

static qn_jnode *set(qn_jparser *p) {
    qn_jnode *n = qn_parse_node(p, QN_N_SET);
    n->a = qn_parse_tuple(p, QN_TUPLE_NS_TARGET, NULL);
    store(p, n->a, p->every_loop > 0);
    if (qn_parse_take(p, '=')) {
        n->b = qn_parse_tuple(p, QN_TUPLE_EXPR, NULL);
        return n;
    }
    n->kind = QN_N_SETBLOCK;
    n->b = qn_parse_filters(p, NULL, false);
    body_until(p, &n->body, "endset");
    return n;
}

static void signature(qn_jparser *p, qn_jnode *n) {
    qn_parse_expect(p, '(');
    while (!p->failed && p->at->kind != ')') {
        if (n->list.n) qn_parse_expect(p, ',');
        qn_parse_push(p, &n->list, named(p));
        if (qn_parse_take(p, '=')) qn_parse_push(p, &n->orelse, qn_parse_expr(p, true));
        else if (n->orelse.n) qn_parse_fail(p, "argument without default behind one with default");
        if (n->list.n > 255) qn_parse_fail(p, "too many arguments");
    }
    qn_parse_expect(p, ')');
}

static qn_jnode *macro(qn_jparser *p) {
    qn_jnode *n = qn_parse_node(p, QN_N_MACRO);
    n->name = named(p)->name;
    if (!p->failed) signature(p, n);
    function_body(p, &n->body, "endmacro");
    return n;
}

static qn_jnode *call_block(qn_jparser *p) {
    qn_jnode *n = qn_parse_node(p, QN_N_CALLBLOCK);
    if (p->at->kind == '(') signature(p, n);
    n->a = qn_parse_expr(p, true);
    if (n->a->kind != QN_N_CALL) qn_parse_fail(p, "expected a call");
    function_body(p, &n->body, "endcall");
    return n;
}

static qn_jnode *generation(qn_jparser *p) {
    qn_jnode *n = qn_parse_node(p, QN_N_CALLBLOCK);
    n->flag = true;
    function_body(p, &n->body, "endgeneration");
    return n;
}

static qn_jnode *filter_block(qn_jparser *p) {
    qn_jnode *n = qn_parse_node(p, QN_N_FILTERBLOCK);
    n->a = qn_parse_filters(p, NULL, true);
    body_until(p, &n->body, "endfilter");
    return n;
}

static qn_jnode *with(qn_jparser *p) {
    qn_jnode *n = qn_parse_node(p, QN_N_WITH);
    while (!p->failed && p->at->kind != QN_T_BLOCK_END) {
        if (n->list.n) qn_parse_expect(p, ',');
        qn_jnode *target = qn_parse_tuple(p, QN_TUPLE_TARGET, NULL);
        store(p, target, false);
        qn_parse_push(p, &n->list, target);
        qn_parse_expect(p, '=');
        qn_parse_push(p, &n->orelse, qn_parse_expr(p, true));
    }
    body_until(p, &n->body, "endwith");
    return n;
}

static void print(qn_jparser *p, qn_jlist *out) {
    bool first = true;
    while (!p->failed && p->at->kind != QN_T_BLOCK_END) {
        if (!first) qn_parse_expect(p, ',');
        qn_jnode *n = qn_parse_node(p, QN_N_OUTPUT);
        n->a = qn_parse_expr(p, true);
        qn_parse_push(p, out, n);
        first = false;
    }
}

static qn_jnode *jump(qn_jparser *p, qn_jkind kind) {
    if (!p->loops) qn_parse_fail(p, "break or continue outside of a loop");
    return qn_parse_node(p, kind);
}

static void statement(qn_jparser *p, qn_jlist *out) {
    static const struct {
        const char *name;
        qn_jnode *(*parse)(qn_jparser *p);
    } tags[] = {{"if", if_block},          {"set", set},         {"for", for_loop},
                {"macro", macro},          {"with", with},       {"filter", filter_block},
                {"generation", generation}, {"call", call_block}};
    static const char *const others[] = {"block",  "extends",    "include", "import",
                                         "from", "autoescape"};
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (!qn_parse_take_name(p, tags[i].name)) continue;
        qn_parse_push(p, out, tags[i].parse(p));
        return;
    }
    if (qn_parse_take_name(p, "print")) print(p, out);
    else if (qn_parse_take_name(p, "break")) qn_parse_push(p, out, jump(p, QN_N_BREAK));
    else if (qn_parse_take_name(p, "continue")) qn_parse_push(p, out, jump(p, QN_N_CONTINUE));
    else if (p->at->kind != QN_T_NAME) qn_parse_fail(p, "tag name expected");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (qn_parse_is(p, others[i])) unsupported(p, others[i]);
    if (p->at->kind != QN_T_NAME) return;
    const qn_vstr *name = p->at->value.s;
    qn_parse_fail(p, "unknown tag '%.*s'", (int)qn_vstr_offset(name, 40), name->s);
}

static bool at_end(const qn_jparser *p, const char *const *ends) {
    for (; ends && *ends; ends++)
        if (qn_parse_is(p, *ends)) return true;
    return false;
}

static void statements(qn_jparser *p, qn_jlist *out, const char *const *ends) {
    while (!p->failed && p->at->kind != QN_T_EOF) {
        if (p->at->kind == QN_T_DATA) {
            qn_jnode *n = qn_parse_node(p, QN_N_DATA);
            n->value = p->at->value;
            qn_parse_push(p, out, n);
            p->at++;
        } else if (qn_parse_take(p, QN_T_VARIABLE_BEGIN)) {
            qn_jnode *n = qn_parse_node(p, QN_N_OUTPUT);
            n->a = qn_parse_tuple(p, QN_TUPLE_EXPR, NULL);
            qn_parse_expect(p, QN_T_VARIABLE_END);
            qn_parse_push(p, out, n);
        } else {
            qn_parse_expect(p, QN_T_BLOCK_BEGIN);
            if (at_end(p, ends)) return;
            statement(p, out);
            qn_parse_expect(p, QN_T_BLOCK_END);
        }
    }
}

#define PARSE_MEMORY ((size_t)256 << 20)

qn_jinja *qn_jinja_parse(const char *source, size_t n, qn_err *err) {
    qn_jinja *t = QN_NEW(qn_jinja);
    t->arena.cap = PARSE_MEMORY;
    qn_jtokens tokens = {0};
    if (!qn_jinja_lex(&t->arena, source, n, &tokens, err)) goto fail;
    qn_jparser p = {.arena = &t->arena, .at = tokens.v, .err = err};
    p.names = qn_vdict_new(&t->arena);
    statements(&p, &t->body, NULL);
    if (p.failed || !qn_jinja_resolve(t, err)) goto fail;
    return t;
fail:
    qn_jinja_free(t);
    return NULL;
}

void qn_jinja_free(qn_jinja *t) {
    if (!t) return;
    qn_arena_done(&t->arena);
    qn_free(t);
}
