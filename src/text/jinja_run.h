// Rendering: the state of one render, and what evaluation, operators, filters and functions need
// of each other. Errors stick: the first one fills err and sets `failed`; from then on every
// function returns at once with a harmless value, so callers check only where they loop.
#ifndef QN_TEXT_JINJA_RUN_H
#define QN_TEXT_JINJA_RUN_H

#include "text/jinja_ast.h"

// What a template may use up, whoever wrote it. QN_LIMIT names the one that was passed.
#define QN_JINJA_STEPS 20000000u                  // nodes, items, text by its length
#define QN_JINJA_OUTPUT ((size_t)64 << 20)        // bytes of the result
#define QN_JINJA_MEMORY ((size_t)256 << 20)       // bytes of values
#define QN_JINJA_DEPTH 2500                       // nested evaluations, so macros in macros
#define QN_JINJA_RANGE 100000                     // as in the original's sandbox

typedef struct qn_jact { // one call's variables
    struct qn_jact *up;  // of the function around it
    qn_value slot[];
} qn_jact;

typedef struct qn_jrun {
    qn_arena *arena;
    const qn_vdict *context;
    qn_jact *act;
    qn_buf *out; // where output goes now: the result or a block's text
    uint64_t steps;
    int depth, line;
    bool failed;
    qn_err *err;
} qn_jrun;

struct qn_jinja_macro {
    const qn_jnode *node; // MACRO or CALLBLOCK
    qn_jact *act;         // where it was defined
};

typedef struct qn_jiter { // what a for loop walks through
    qn_value over;
    size_t at;             // item, or byte of a string
    const qn_jnode *loop;  // a for with a filter, or NULL
    qn_jact *act;          // the filter's variables
} qn_jiter;

struct qn_jinja_loop {
    qn_jiter iter;
    int64_t index0, length; // length -1: not asked for yet
    qn_value before, current, after; // ABSENT where there is none
    qn_value changed;                // a tuple, or ABSENT
    bool peeked;
    qn_vlist *rest; // items taken early to know the length
    size_t rest_at;
    const qn_jnode *node; // of a recursive loop, or NULL
    qn_jact *act;         // where that one was defined
    int64_t depth0;
};

// ---- functions: filters, tests, methods, globals ----

typedef struct qn_jargs {
    const qn_value *v;
    size_t n;
    const qn_vdict *kw; // may be NULL
} qn_jargs;

struct qn_jinja_func {
    const char *name;
    // self: the value filtered or tested, or the method's owner. a: one value per parameter,
    // ABSENT where not given.
    qn_value (*call)(qn_jrun *r, qn_value self, const qn_value *a);
    // Functions with any number of arguments have this instead, and no parameters.
    qn_value (*call_any)(qn_jrun *r, qn_value self, const qn_jargs *args);
    const char *params; // "default_value,boolean"; NULL: none
    uint8_t required;   // how many of them must be given
    bool positional;    // parameters cannot be given by name
};

#define QN_JINJA_MAX_PARAMS 6

const qn_jinja_func *qn_filter_find(const qn_vstr *name);
const qn_jinja_func *qn_test_find(const qn_vstr *name);
const qn_jinja_func *qn_method_find(qn_value self, const qn_vstr *name);
bool qn_method_modifies(qn_value self, const qn_vstr *name); // the sandbox forbids it
qn_value qn_global_find(const qn_vstr *name); // ABSENT when there is none

// Binds arguments to parameters and calls.
qn_value qn_func_call(qn_jrun *r, const qn_jinja_func *f, qn_value self, const qn_jargs *args);
qn_value qn_value_call(qn_jrun *r, qn_value callee, const qn_jargs *args);

// ---- errors and limits ----

bool qn_run_fail(qn_jrun *r, const char *fmt, ...) QN_PRINTF(2, 3); // QN_INPUT, with the line
bool qn_run_raise(qn_jrun *r, qn_value message);    // the template's own words, nothing around
bool qn_run_unsupported(qn_jrun *r, const char *what); // QN_UNSUPPORTED
bool qn_run_limit(qn_jrun *r, const char *what);    // QN_LIMIT
bool qn_run_spend(qn_jrun *r, uint64_t steps);      // false: failed, now or before
bool qn_run_use(qn_jrun *r, qn_value v);            // fails for an undefined value, with its story
qn_value qn_run_text(qn_jrun *r, qn_buf *b);        // the buffer as a string; empties the buffer
const char *qn_v_type(qn_value v);                  // "str", "int", … as Python names them

// ---- operators (jinja_ops.c), attributes and items (jinja_lookup.c) ----

bool qn_v_true(qn_jrun *r, qn_value v);
bool qn_v_equal(qn_jrun *r, qn_value x, qn_value y);
// -1, 0, 1, or 2 for what has no order (nan); fails for kinds that cannot be compared.
int qn_v_cmp(qn_jrun *r, qn_value x, qn_value y);
bool qn_v_contains(qn_jrun *r, qn_value in, qn_value x);
qn_value qn_v_binary(qn_jrun *r, char op, qn_value x, qn_value y);
qn_value qn_v_negate(qn_jrun *r, qn_value v, bool minus);
bool qn_v_is_int(qn_value v); // BOOL, INT or BIG
bool qn_v_is_number(qn_value v);
// An index or count: clamped to 64 bits; fails unless it is an integer.
int64_t qn_v_index(qn_jrun *r, qn_value v, const char *what);
qn_value qn_v_repeat(qn_jrun *r, qn_value v, int64_t times);

qn_value qn_v_undefined(qn_jrun *r, qn_value obj, qn_value name); // obj ABSENT: a variable
qn_value qn_v_undefined_hint(qn_jrun *r, const char *hint);
qn_value qn_v_attribute(qn_jrun *r, qn_value v, const qn_vstr *name); // ABSENT: has none
qn_value qn_v_getattr(qn_jrun *r, qn_value v, const qn_vstr *name); // v.name
qn_value qn_v_getitem(qn_jrun *r, qn_value v, qn_value key);        // v[key]
qn_value qn_v_slice(qn_jrun *r, qn_value v, const qn_value part[3]);
qn_value qn_v_path(qn_jrun *r, qn_value v, qn_value path); // "a.b.0", as filters' attribute=
int64_t qn_v_length(qn_jrun *r, qn_value v); // fails for values without length
bool qn_v_has_length(qn_value v);
bool qn_v_iterable(qn_value v);
bool qn_iter_open(qn_jrun *r, qn_value v, qn_jiter *it); // fails unless iterable
bool qn_iter_next(qn_jrun *r, qn_jiter *it, qn_value *out);
qn_vlist *qn_v_items(qn_jrun *r, qn_value v); // all items, NULL when that failed
qn_value qn_v_iter(qn_jrun *r, qn_vlist *items, const char *shown);
qn_value qn_v_tuple(qn_jrun *r, const qn_value *v, size_t n);
qn_value qn_v_fresh_list(qn_jrun *r, qn_vlist *l);

// ---- printing (jinja_print.c) ----

bool qn_v_print(qn_jrun *r, qn_buf *out, qn_value v); // str()
bool qn_v_repr(qn_jrun *r, qn_buf *out, qn_value v);
qn_value qn_v_to_str(qn_jrun *r, qn_value v); // strings stay as they are, marked or not
qn_value qn_filter_tojson(qn_jrun *r, qn_value v, const qn_value *a);
void qn_html_escape(qn_buf *out, const char *s, size_t n);
qn_value qn_v_escaped(qn_jrun *r, qn_value v); // Markup: marked strings as they are
// printf-style: format % args
qn_value qn_v_format(qn_jrun *r, qn_value format, qn_value args);

// ---- evaluation (jinja_eval.c), statements (jinja_exec.c) ----

qn_value qn_jinja_eval(qn_jrun *r, const qn_jnode *n);
typedef enum qn_jflow { QN_FLOW_ON, QN_FLOW_BREAK, QN_FLOW_CONTINUE } qn_jflow;
qn_jflow qn_jinja_exec(qn_jrun *r, const qn_jlist *body);
void qn_jinja_assign(qn_jrun *r, const qn_jnode *target, qn_value v);
void qn_jinja_scope_enter(qn_jrun *r, const qn_jscope *s);
void qn_jinja_scope_leave(qn_jrun *r, const qn_jscope *s);
qn_value qn_macro_call(qn_jrun *r, const qn_jinja_macro *m, const qn_jargs *args);
bool qn_loop_next(qn_jrun *r, qn_jinja_loop *l, qn_value *out);
bool qn_loop_peek(qn_jrun *r, qn_jinja_loop *l, qn_value *out);
int64_t qn_loop_length(qn_jrun *r, qn_jinja_loop *l);
qn_value qn_loop_call(qn_jrun *r, const qn_jinja_loop *l, qn_value over); // loop(items)

#endif
