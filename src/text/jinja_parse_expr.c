// Expressions, by recursive descent in Jinja's order of binding: if-else, or, and, not, comparison,
// + -, ~, * / // %, ** (which groups to the left), unary minus, postfix, filters and tests.
#include <string.h>

#include "base/err.h"
#include "text/jinja_ast.h"

// Chains such as a + b + c lean to the left and nest without any bracket; the depth that they
// need when they are evaluated is limited here. The original stops at 200.
#define MAX_DEPTH 250

static qn_jnode *under(qn_jparser *p, qn_jnode *n, const qn_jnode *child) {
    if (child && n->depth <= child->depth) n->depth = (uint16_t)(child->depth + 1);
    if (n->depth > MAX_DEPTH && !p->failed) {
        p->failed = true;
        qn_fail(p->err, QN_LIMIT, "template line %d: expression nested deeper than %d", n->line,
                MAX_DEPTH);
        n->depth = 0;
    }
    return n;
}

static qn_jnode *unary_node(qn_jparser *p, qn_jkind kind, qn_jnode *a) {
    qn_jnode *n = qn_parse_node(p, kind);
    n->a = a;
    return under(p, n, a);
}

static qn_jnode *binary_node(qn_jparser *p, qn_jkind kind, qn_jnode *a, qn_jnode *b) {
    qn_jnode *n = unary_node(p, kind, a);
    n->b = b;
    return under(p, n, b);
}

static void add(qn_jparser *p, qn_jnode *n, qn_jlist *l, qn_jnode *child) {
    qn_parse_push(p, l, child);
    under(p, n, child);
}

static qn_jnode *constant(qn_jparser *p, qn_value v) {
    qn_jnode *n = qn_parse_node(p, QN_N_CONST);
    n->value = v;
    return n;
}

// ---- literals ----

static qn_jnode *list_literal(qn_jparser *p) {
    qn_jnode *n = qn_parse_node(p, QN_N_LIST);
    qn_parse_expect(p, '[');
    while (!p->failed && p->at->kind != ']') {
        if (n->list.n) qn_parse_expect(p, ',');
        if (p->at->kind == ']') break;
        add(p, n, &n->list, qn_parse_expr(p, true));
    }
    qn_parse_expect(p, ']');
    return n;
}

static qn_jnode *dict_literal(qn_jparser *p) {
    qn_jnode *n = qn_parse_node(p, QN_N_DICT);
    qn_parse_expect(p, '{');
    while (!p->failed && p->at->kind != '}') {
        if (n->list.n) qn_parse_expect(p, ',');
        if (p->at->kind == '}') break;
        add(p, n, &n->list, qn_parse_expr(p, true));
        qn_parse_expect(p, ':');
        add(p, n, &n->list, qn_parse_expr(p, true));
    }
    qn_parse_expect(p, '}');
    return n;
}

static qn_jnode *string_literal(qn_jparser *p) { // adjacent ones join
    qn_buf text = {0};
    for (; p->at->kind == QN_T_STRING; p->at++)
        qn_buf_add(&text, p->at->value.s->s, p->at->value.s->n);
    qn_value v = qn_v_str(p->arena, text.data, text.n);
    qn_buf_done(&text);
    qn_value *known = qn_vdict_get(p->names, v);
    if (known) v = *known;
    else qn_vdict_set(p->arena, p->names, v, v);
    return constant(p, v);
}

static qn_jnode *name_or_word(qn_jparser *p, bool with_namespace) {
    const qn_vstr *name = qn_parse_name(p);
    if (p->failed) return constant(p, qn_v_none());
    if (qn_vstr_is(name, "true") || qn_vstr_is(name, "True")) return constant(p, qn_v_bool(true));
    if (qn_vstr_is(name, "false") || qn_vstr_is(name, "False"))
        return constant(p, qn_v_bool(false));
    if (qn_vstr_is(name, "none") || qn_vstr_is(name, "None")) return constant(p, qn_v_none());
    bool reference = with_namespace && qn_parse_take(p, '.');
    qn_jnode *n = qn_parse_node(p, reference ? QN_N_NSREF : QN_N_NAME);
    n->name = name;
    if (reference) n->value = qn_v_of_str(qn_parse_name(p));
    return n;
}

qn_jnode *qn_parse_primary(qn_jparser *p, bool with_namespace) {
    qn_jnode *n;
    switch (p->at->kind) {
    case QN_T_NAME: return name_or_word(p, with_namespace);
    case QN_T_STRING: return string_literal(p);
    case QN_T_INTEGER:
    case QN_T_FLOAT:
        n = constant(p, p->at->value);
        p->at++;
        return n;
    default: break;
    }
    if (!qn_parse_enter(p)) return constant(p, qn_v_none());
    if (qn_parse_take(p, '(')) {
        n = qn_parse_tuple(p, QN_TUPLE_PARENS, NULL);
        qn_parse_expect(p, ')');
    } else if (p->at->kind == '[') {
        n = list_literal(p);
    } else if (p->at->kind == '{') {
        n = dict_literal(p);
    } else {
        qn_parse_fail(p, "an expression expected");
        n = constant(p, qn_v_none());
    }
    p->nesting--;
    return n;
}

static bool tuple_ends(const qn_jparser *p, const char *end) {
    int k = p->at->kind;
    return k == QN_T_VARIABLE_END || k == QN_T_BLOCK_END || k == ')' ||
           (end && qn_parse_is(p, end));
}

qn_jnode *qn_parse_tuple(qn_jparser *p, qn_tuple_style style, const char *end) {
    qn_jnode *n = qn_parse_node(p, QN_N_TUPLE);
    bool is_tuple = false;
    while (!p->failed) {
        if (n->list.n) qn_parse_expect(p, ',');
        if (tuple_ends(p, end)) break;
        qn_jnode *item = style == QN_TUPLE_TARGET || style == QN_TUPLE_NS_TARGET
                             ? qn_parse_primary(p, style == QN_TUPLE_NS_TARGET)
                             : qn_parse_expr(p, style != QN_TUPLE_NO_CONDITION);
        add(p, n, &n->list, item);
        if (p->at->kind != ',') break;
        is_tuple = true;
    }
    if (is_tuple || p->failed) return n;
    if (n->list.n) return n->list.v[0];
    if (style != QN_TUPLE_PARENS) qn_parse_fail(p, "an expression expected");
    return n;
}

// ---- postfix ----

static void argument(qn_jparser *p, qn_jnode *n, qn_jcall *c) {
    if (qn_parse_take(p, '*')) {
        if (c->star || c->star2) qn_parse_fail(p, "invalid syntax for function call");
        c->star = qn_parse_expr(p, true);
        under(p, n, c->star);
    } else if (qn_parse_take(p, QN_T_POW)) {
        if (c->star2) qn_parse_fail(p, "invalid syntax for function call");
        c->star2 = qn_parse_expr(p, true);
        under(p, n, c->star2);
    } else if (p->at->kind == QN_T_NAME && p->at[1].kind == '=') {
        if (c->star2) qn_parse_fail(p, "invalid syntax for function call");
        const qn_vstr *name = qn_parse_name(p);
        p->at++;
        const qn_vstr **names = qn_arena_alloc(p->arena, (c->kwargs.n + 1) * sizeof *names);
        if (!names) {
            qn_parse_fail(p, "too many arguments");
            return;
        }
        if (c->kwargs.n) memcpy(names, c->kwnames, c->kwargs.n * sizeof *names);
        for (uint32_t i = 0; i < c->kwargs.n; i++)
            if (names[i] == name) qn_parse_fail(p, "an argument is given twice");
        names[c->kwargs.n] = name;
        c->kwnames = names;
        add(p, n, &c->kwargs, qn_parse_expr(p, true));
    } else {
        if (c->star || c->star2 || c->kwargs.n)
            qn_parse_fail(p, "invalid syntax for function call");
        add(p, n, &c->args, qn_parse_expr(p, true));
    }
}

static void call_arguments(qn_jparser *p, qn_jnode *n) {
    qn_jcall *c = qn_arena_alloc(p->arena, sizeof *c);
    *c = (qn_jcall){0};
    n->call = c;
    if (!qn_parse_enter(p)) return;
    qn_parse_expect(p, '(');
    bool comma = false;
    while (!p->failed && p->at->kind != ')') {
        if (comma) qn_parse_expect(p, ',');
        if (p->at->kind == ')') break;
        if (c->kwargs.n >= 255) qn_parse_fail(p, "too many arguments");
        argument(p, n, c);
        comma = true;
    }
    qn_parse_expect(p, ')');
    p->nesting--;
}

static qn_jnode *slice_part(qn_jparser *p) {
    int k = p->at->kind;
    return k == ':' || k == ']' || k == ',' ? NULL : qn_parse_expr(p, true);
}

// What stands in square brackets: an expression or start:stop:step.
static qn_jnode *subscript(qn_jparser *p, bool *slice) {
    qn_jnode *start = p->at->kind == ':' ? NULL : qn_parse_expr(p, true);
    *slice = qn_parse_take(p, ':');
    if (!*slice) return start;
    qn_jnode *n = qn_parse_node(p, QN_N_SLICE), *parts[3] = {start};
    parts[1] = slice_part(p);
    if (qn_parse_take(p, ':')) parts[2] = slice_part(p);
    for (int i = 0; i < 3; i++) add(p, n, &n->list, parts[i]);
    return n;
}

static qn_jnode *brackets(qn_jparser *p, qn_jnode *of) {
    if (!qn_parse_enter(p)) return of;
    qn_parse_expect(p, '[');
    qn_jnode *tuple = qn_parse_node(p, QN_N_TUPLE);
    bool slice = false, any = false;
    while (!p->failed && p->at->kind != ']') {
        if (tuple->list.n) qn_parse_expect(p, ',');
        add(p, tuple, &tuple->list, subscript(p, &slice));
        any = any || slice;
    }
    qn_parse_expect(p, ']');
    p->nesting--;
    qn_jnode *arg = tuple->list.n == 1 ? tuple->list.v[0] : tuple;
    if (any && arg == tuple) qn_parse_fail(p, "slices cannot be combined");
    if (!any) return binary_node(p, QN_N_GETITEM, of, arg);
    arg->a = of;
    arg->flag = of->kind == QN_N_CONST || of->kind == QN_N_DICT; // sliced when it is compiled:
    return under(p, arg, of);                                    // then it cannot fail
}

static qn_jnode *dotted(qn_jparser *p, qn_jnode *of) {
    qn_parse_expect(p, '.');
    if (p->at->kind == QN_T_INTEGER) {
        qn_jnode *i = constant(p, p->at->value);
        p->at++;
        return binary_node(p, QN_N_GETITEM, of, i);
    }
    qn_jnode *n = unary_node(p, QN_N_GETATTR, of);
    n->name = qn_parse_name(p);
    return n;
}

static qn_jnode *called(qn_jparser *p, qn_jnode *of) {
    qn_jnode *n = unary_node(p, QN_N_CALL, of);
    call_arguments(p, n);
    return n;
}

static qn_jnode *postfix(qn_jparser *p, qn_jnode *n) {
    while (!p->failed) {
        if (p->at->kind == '.') n = dotted(p, n);
        else if (p->at->kind == '[') n = brackets(p, n);
        else if (p->at->kind == '(') n = called(p, n);
        else break;
    }
    return n;
}

static const qn_vstr *dotted_name(qn_jparser *p) { // names with dots parse; none exists
    const qn_vstr *name = qn_parse_name(p);
    if (p->failed || p->at->kind != '.') return name;
    qn_buf whole = {0};
    qn_buf_add(&whole, name->s, name->n);
    while (!p->failed && qn_parse_take(p, '.')) {
        name = qn_parse_name(p);
        qn_buf_addc(&whole, '.');
        qn_buf_add(&whole, name->s, name->n);
    }
    name = qn_v_str(p->arena, whole.data, whole.n).s;
    qn_buf_done(&whole);
    return name;
}

qn_jnode *qn_parse_filters(qn_jparser *p, qn_jnode *n, bool inline_start) {
    while (!p->failed && (inline_start || qn_parse_take(p, '|'))) {
        qn_jnode *f = n ? unary_node(p, QN_N_FILTER, n) : qn_parse_node(p, QN_N_FILTER);
        f->name = dotted_name(p);
        if (p->at->kind == '(') call_arguments(p, f);
        n = f;
        inline_start = false;
    }
    return n;
}

static bool test_argument_follows(const qn_jparser *p) {
    switch (p->at->kind) {
    case QN_T_NAME:
        return !qn_parse_is(p, "else") && !qn_parse_is(p, "or") && !qn_parse_is(p, "and");
    case QN_T_STRING:
    case QN_T_INTEGER:
    case QN_T_FLOAT:
    case '[':
    case '{': return true;
    default: return false;
    }
}

static qn_jnode *test(qn_jparser *p, qn_jnode *of) { // behind "is"
    bool negated = qn_parse_take_name(p, "not");
    qn_jnode *n = unary_node(p, QN_N_TEST, of);
    n->name = dotted_name(p);
    if (p->at->kind == '(') {
        call_arguments(p, n);
    } else if (test_argument_follows(p)) {
        if (qn_parse_is(p, "is")) qn_parse_fail(p, "tests cannot be chained with is");
        n->call = qn_arena_alloc(p->arena, sizeof *n->call);
        *n->call = (qn_jcall){0};
        add(p, n, &n->call->args, postfix(p, qn_parse_primary(p, false)));
    }
    return negated ? unary_node(p, QN_N_NOT, n) : n;
}

static qn_jnode *filters_and_tests(qn_jparser *p, qn_jnode *n) {
    while (!p->failed) {
        if (p->at->kind == '|') n = qn_parse_filters(p, n, false);
        else if (qn_parse_take_name(p, "is")) n = test(p, n);
        else if (p->at->kind == '(') n = called(p, n);
        else break;
    }
    return n;
}

// ---- operators ----

static qn_jnode *unary(qn_jparser *p, bool with_filters) {
    qn_jnode *n;
    if (!qn_parse_enter(p)) return constant(p, qn_v_none());
    if (qn_parse_take(p, '-')) n = unary_node(p, QN_N_NEG, unary(p, false));
    else if (qn_parse_take(p, '+')) n = unary_node(p, QN_N_POS, unary(p, false));
    else n = qn_parse_primary(p, false);
    p->nesting--;
    n = postfix(p, n);
    return with_filters ? filters_and_tests(p, n) : n;
}

static char operator_of(int token, int level) {
    switch (token) {
    case '+':
    case '-': return level == 0 ? (char)token : 0;
    case '*':
    case '/':
    case '%': return level == 1 ? (char)token : 0;
    case QN_T_FLOORDIV: return level == 1 ? 'f' : 0;
    case QN_T_POW: return level == 2 ? 'p' : 0;
    default: return 0;
    }
}

static qn_jnode *arithmetic(qn_jparser *p, int level);

static qn_jnode *concat(qn_jparser *p) { // ~ lies between + and *
    qn_jnode *first = arithmetic(p, 1);
    if (p->at->kind != '~') return first;
    qn_jnode *n = qn_parse_node(p, QN_N_CONCAT);
    add(p, n, &n->list, first);
    while (!p->failed && qn_parse_take(p, '~')) add(p, n, &n->list, arithmetic(p, 1));
    return n;
}

static qn_jnode *operand(qn_jparser *p, int level) {
    return level == 0 ? concat(p) : level == 1 ? arithmetic(p, 2) : unary(p, true);
}

// Numbers and what is calculated from numbers alone: the original calculates it when it compiles.
static bool is_fixed(const qn_jnode *n) {
    switch (n->kind) {
    case QN_N_CONST: return n->value.kind >= QN_V_BOOL && n->value.kind <= QN_V_FLOAT;
    case QN_N_NEG:
    case QN_N_POS: return is_fixed(n->a);
    case QN_N_BINARY: return n->flag;
    default: return false;
    }
}

static qn_jnode *arithmetic(qn_jparser *p, int level) { // 0: + -, 1: * / // %, 2: **
    qn_jnode *n = operand(p, level);
    for (char op; !p->failed && (op = operator_of(p->at->kind, level));) {
        p->at++;
        n = binary_node(p, QN_N_BINARY, n, operand(p, level));
        n->op = (uint8_t)op;
        bool base = is_fixed(n->a);
        n->flag = base && is_fixed(n->b);
        // A quirk to keep: the original writes a calculated -2 into Python source in front of **,
        // where it means -(2 ** x).
        if (op == 'p' && base && !n->flag) n->op = 'q';
    }
    return n;
}

static char comparison(qn_jparser *p) { // takes the operator; 0: there is none
    char op;
    switch (p->at->kind) {
    case '<': op = '<'; break;
    case '>': op = '>'; break;
    case QN_T_LE: op = 'l'; break;
    case QN_T_GE: op = 'g'; break;
    case QN_T_EQ: op = '='; break;
    case QN_T_NE: op = '!'; break;
    default:
        if (qn_parse_take_name(p, "in")) return 'i';
        if (!qn_parse_is(p, "not") || p->at[1].kind != QN_T_NAME ||
            !qn_vstr_is(p->at[1].value.s, "in"))
            return 0;
        p->at += 2;
        return 'n';
    }
    p->at++;
    return op;
}

static qn_jnode *compare(qn_jparser *p) {
    qn_jnode *first = arithmetic(p, 0), *n = NULL;
    qn_buf ops = {0};
    for (char op; !p->failed && (op = comparison(p));) {
        if (!n) n = unary_node(p, QN_N_COMPARE, first);
        qn_buf_addc(&ops, op);
        add(p, n, &n->list, arithmetic(p, 0));
    }
    if (n) n->ops = (const uint8_t *)qn_v_str(p->arena, ops.data, ops.n).s->s;
    qn_buf_done(&ops);
    return n ? n : first;
}

static qn_jnode *negation(qn_jparser *p) {
    if (!qn_parse_is(p, "not")) return compare(p);
    if (!qn_parse_enter(p)) return constant(p, qn_v_none());
    p->at++;
    qn_jnode *n = unary_node(p, QN_N_NOT, negation(p));
    p->nesting--;
    return n;
}

static qn_jnode *conjunction(qn_jparser *p) {
    qn_jnode *n = negation(p);
    while (!p->failed && qn_parse_take_name(p, "and"))
        n = binary_node(p, QN_N_AND, n, negation(p));
    return n;
}

static qn_jnode *disjunction(qn_jparser *p) {
    qn_jnode *n = conjunction(p);
    while (!p->failed && qn_parse_take_name(p, "or"))
        n = binary_node(p, QN_N_OR, n, conjunction(p));
    return n;
}

qn_jnode *qn_parse_expr(qn_jparser *p, bool with_condition) {
    if (!with_condition) return disjunction(p);
    if (!qn_parse_enter(p)) return constant(p, qn_v_none());
    qn_jnode *n = disjunction(p);
    while (!p->failed && qn_parse_take_name(p, "if")) {
        n = binary_node(p, QN_N_COND, n, disjunction(p));
        if (qn_parse_take_name(p, "else")) n->c = qn_parse_expr(p, true);
        under(p, n, n->c);
    }
    p->nesting--;
    return n;
}
