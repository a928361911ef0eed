// A parsed template: tokens, nodes, and where each name's value is found. Read-only once
// qn_jinja_parse has returned it, so any number of renders may share one.
#ifndef QN_TEXT_JINJA_AST_H
#define QN_TEXT_JINJA_AST_H

#include "text/jinja_value.h"

#define QN_JINJA_MAX_SOURCE ((size_t)1 << 20)
#define QN_JINJA_MAX_NESTING 150 // of brackets and blocks; Python stops at about 100

// ---- tokens (jinja_lex.c) ----

typedef enum qn_jtoken_kind { // single-character operators are their own character
    QN_T_EOF,
    QN_T_DATA = 256,
    QN_T_VARIABLE_BEGIN,
    QN_T_VARIABLE_END,
    QN_T_BLOCK_BEGIN,
    QN_T_BLOCK_END,
    QN_T_NAME,
    QN_T_STRING,
    QN_T_INTEGER,
    QN_T_FLOAT,
    QN_T_FLOORDIV,
    QN_T_POW,
    QN_T_EQ,
    QN_T_NE,
    QN_T_LE,
    QN_T_GE,
} qn_jtoken_kind;

typedef struct qn_jtoken {
    int kind;
    int line;
    qn_value value; // DATA, NAME, STRING: text; INTEGER, FLOAT: the number
} qn_jtoken;

typedef struct qn_jtokens {
    qn_jtoken *v;
    size_t n, cap;
} qn_jtokens;

// The last token is EOF. Texts point into the arena. Errors say "template line N: …".
bool qn_jinja_lex(qn_arena *a, const char *source, size_t n, qn_jtokens *out, qn_err *err);

// ---- nodes ----

typedef enum qn_jkind {
    QN_N_CONST,   // value
    QN_N_NAME,    // name, slot
    QN_N_TUPLE,   // list
    QN_N_LIST,    // list
    QN_N_DICT,    // list: key, value, key, value …
    QN_N_GETATTR, // a.name
    QN_N_GETITEM, // a[b]
    QN_N_SLICE,   // a[list[0]:list[1]:list[2]], NULL where left out
    QN_N_CALL,    // a(call)
    QN_N_FILTER,  // a|name(call); a NULL: the block's text
    QN_N_TEST,    // a is name(call)
    QN_N_COND,    // a if b else c (c may be NULL)
    QN_N_AND,
    QN_N_OR,
    QN_N_NOT,
    QN_N_NEG,
    QN_N_POS,
    QN_N_BINARY,  // a op b; op as in qn_num_op, or 'q': -(|a| ** b) if a is negative
    QN_N_CONCAT,  // list joined by ~
    QN_N_COMPARE, // a ops[0] list[0] ops[1] list[1] …
    QN_N_NSREF,   // name.value in an assignment: slot, value = attribute
    // statements
    QN_N_DATA,    // value
    QN_N_OUTPUT,  // a
    QN_N_FOR,     // for a in b if c: body, else: orelse
    QN_N_IF,      // a: body, else: orelse
    QN_N_SET,     // a = b
    QN_N_SETBLOCK,    // a = body, b: filters or NULL
    QN_N_MACRO,       // name(list, defaults: orelse): body
    QN_N_CALLBLOCK,   // a: the call; list, orelse, body as in MACRO
    QN_N_FILTERBLOCK, // a: filters; body
    QN_N_WITH,        // list = orelse: body
    QN_N_BREAK,
    QN_N_CONTINUE,
} qn_jkind;

typedef struct qn_jnode qn_jnode;

typedef struct qn_jlist {
    qn_jnode **v;
    uint32_t n, cap;
} qn_jlist;

typedef struct qn_jcall { // arguments of a call, filter or test
    qn_jlist args;
    qn_jlist kwargs;        // values
    const qn_vstr **kwnames; // as many
    qn_jnode *star, *star2; // *args, **kwargs, or NULL
} qn_jcall;

// A variable's place: slot `index` of the activation `up` functions outside.
typedef struct qn_jslot {
    uint32_t up, index;
} qn_jslot;

typedef enum qn_jload_from { QN_LOAD_PARAMETER, QN_LOAD_CONTEXT, QN_LOAD_OUTER, QN_LOAD_ABSENT }
    qn_jload_from;

typedef struct qn_jload { // what a variable of a scope is set to on entry
    uint8_t from;
    uint32_t slot;
    qn_jslot outer;      // LOAD_OUTER
    const qn_vstr *name; // LOAD_CONTEXT
} qn_jload;

typedef struct qn_jscope {
    qn_jload *loads;
    uint32_t n, cap;
} qn_jscope;

typedef struct qn_jcompiled { // what the scope pass adds to statements that have their own scope
    qn_jscope body, orelse, test;
    uint32_t n_slots;      // activation of a macro, call block or recursive loop
    uint32_t n_test_slots; // activation of a loop's filter
    qn_jslot self;         // where a macro's own value goes
    uint32_t loop;         // slot of `loop`
    bool catches_caller, catches_kwargs, catches_varargs;
    uint32_t caller, kwargs, varargs; // slots, when caught
} qn_jcompiled;

struct qn_jnode {
    uint8_t kind; // qn_jkind
    uint8_t op;   // BINARY
    bool flag;    // TEST: negated is a NOT around it, this is "unknown name allowed"; FILTER: the
                  // same; FOR: recursive; NAME: is stored to; CALLBLOCK: {% generation %};
                  // BINARY: made of constants; SLICE: of a constant
    uint16_t depth; // of the expression below
    int line;
    qn_jnode *a, *b, *c;
    qn_jlist list, body, orelse;
    const uint8_t *ops; // COMPARE: '<' '>' 'l' (<=) 'g' (>=) '=' '!' 'i' (in) 'n' (not in)
    qn_jcall *call;
    const qn_vstr *name;
    const qn_jinja_func *func; // FILTER, TEST: what the name means, or NULL
    qn_value value;
    qn_jslot slot;
    qn_jcompiled *compiled;
};

typedef struct qn_jinja {
    qn_arena arena;
    qn_jlist body;
    qn_jscope scope;
    uint32_t n_slots;
} qn_jinja;

// ---- parser (jinja_parse.c, jinja_parse_expr.c), scopes (jinja_scope.c) ----

typedef struct qn_jparser {
    qn_arena *arena;
    const qn_jtoken *at; // stays on EOF
    qn_vdict *names;     // names and strings seen, so that equal ones are one object
    int nesting, loops;  // loops: how many a break could leave; every_loop: all around
    int every_loop;
    bool failed; // err is filled; everything below returns quickly
    qn_err *err;
} qn_jparser;

bool qn_parse_fail(qn_jparser *p, const char *fmt, ...) QN_PRINTF(2, 3); // QN_INPUT, once
bool qn_parse_is(const qn_jparser *p, const char *name); // the current token is that name
bool qn_parse_take(qn_jparser *p, int kind);             // skips the token if it is of that kind
bool qn_parse_take_name(qn_jparser *p, const char *name);
void qn_parse_expect(qn_jparser *p, int kind);
qn_jnode *qn_parse_node(qn_jparser *p, qn_jkind kind);
void qn_parse_push(qn_jparser *p, qn_jlist *l, qn_jnode *n);
const qn_vstr *qn_parse_name(qn_jparser *p); // expects a name
bool qn_parse_enter(qn_jparser *p);          // one level deeper; false: too deep
qn_jnode *qn_parse_expr(qn_jparser *p, bool with_condition);
qn_jnode *qn_parse_primary(qn_jparser *p, bool with_namespace);
// Expressions with commas between them. end: a name that ends it, or NULL.
typedef enum qn_tuple_style { QN_TUPLE_EXPR, QN_TUPLE_NO_CONDITION, QN_TUPLE_TARGET,
                              QN_TUPLE_NS_TARGET, QN_TUPLE_PARENS } qn_tuple_style;
qn_jnode *qn_parse_tuple(qn_jparser *p, qn_tuple_style style, const char *end);
qn_jnode *qn_parse_filters(qn_jparser *p, qn_jnode *n, bool inline_start);

// Finds a place for every name (Jinja's scoping, decided before rendering) and checks that filters
// and tests exist.
bool qn_jinja_resolve(qn_jinja *t, qn_err *err);

// NULL with err filled: QN_INPUT for syntax errors, QN_UNSUPPORTED, QN_LIMIT.
qn_jinja *qn_jinja_parse(const char *source, size_t n, qn_err *err);
void qn_jinja_free(qn_jinja *t);

#endif
