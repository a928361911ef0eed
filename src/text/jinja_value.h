// Values of the template language: what Python's none, bool, int, float, str, list, tuple and dict
// are to a template, and the few objects of Jinja's own. All of it lives in an arena that is
// released as a whole when the render ends; nothing is counted or freed singly.
#ifndef QN_TEXT_JINJA_VALUE_H
#define QN_TEXT_JINJA_VALUE_H

#include "base/str.h"

// ---- arena ----

typedef struct qn_arena_chunk qn_arena_chunk;
typedef struct qn_arena { // {.cap = bytes} is ready to use
    qn_arena_chunk *chunks;
    char *at;
    size_t left, used, cap;
    bool over; // the cap was passed; whoever runs on this arena has to stop soon
    bool deep; // a container was nested deeper than QN_V_DEPTH: the same
} qn_arena;

// Aligned to 16, not zeroed. NULL (and over) when the cap is passed, except that requests of at
// most QN_ARENA_SMALL bytes are always met, so that fixed-size objects need no check.
#define QN_ARENA_SMALL 1024
void *qn_arena_alloc(qn_arena *a, size_t n);
void qn_arena_done(qn_arena *a);

// ---- values ----

typedef enum qn_vkind {
    QN_V_ABSENT, // no value: an argument not given, a variable not yet set
    QN_V_UNDEFINED,
    QN_V_NONE,
    QN_V_BOOL,
    QN_V_INT,
    QN_V_BIG, // an integer past 64 bits
    QN_V_FLOAT,
    QN_V_STR,
    QN_V_LIST,
    QN_V_TUPLE,
    QN_V_DICT,
    QN_V_RANGE,
    QN_V_VIEW, // dict.keys(), .values(), .items(), as a list taken when asked for
    QN_V_ITER, // a generator: can be walked through once
    QN_V_NAMESPACE,
    QN_V_MACRO,
    QN_V_LOOP,
    QN_V_GLOBAL, // a function of the environment
    QN_V_METHOD, // bound: value.name
    QN_N_VKINDS
} qn_vkind;

typedef struct qn_vstr { // valid UTF-8; may hold 0 bytes; not terminated
    const char *s;
    size_t n;     // bytes
    size_t chars; // code points; equal to n when it is ASCII
} qn_vstr;

typedef struct qn_value qn_value;
typedef struct qn_vlist qn_vlist;
typedef struct qn_vdict qn_vdict;
typedef struct qn_big qn_big;
typedef struct qn_jinja_macro qn_jinja_macro;
typedef struct qn_jinja_loop qn_jinja_loop;
typedef struct qn_jinja_func qn_jinja_func;

typedef struct qn_vundefined { // why it is undefined, for the message when somebody uses it
    const char *hint; // a whole message, or NULL
    const qn_value *obj; // looked into, or NULL: a variable
    const qn_value *name;
    bool unsafe;
} qn_vundefined;

typedef struct qn_vrange {
    int64_t start, step, n;
} qn_vrange;

typedef struct qn_viter {
    qn_vlist *items;
    size_t at;
    const char *shown; // what printing it gives
} qn_viter;

struct qn_value {
    uint8_t kind;   // qn_vkind
    uint8_t marked; // STR: came out of |safe (Markup); TUPLE: a group of |groupby;
                    // VIEW: 'k', 'v' or 'i'
    union {
        bool b;
        int64_t i;
        double f;
        const qn_big *big;
        const qn_vstr *s;
        qn_vlist *list; // LIST, TUPLE, VIEW
        qn_vdict *dict; // DICT, NAMESPACE
        const qn_vrange *range;
        qn_viter *iter;
        const qn_vundefined *undefined;
        qn_jinja_macro *macro;
        qn_jinja_loop *loop;
        const qn_jinja_func *func;
        struct qn_vmethod *method;
    };
};

typedef struct qn_vmethod {
    qn_value self;
    const qn_jinja_func *func;
} qn_vmethod;

// Containers know how deep and how heavy (values in all, shared ones counted each time) they are,
// so that whoever walks through one recursively is bounded and can pay beforehand. What is put into
// a container must be complete. Namespaces, which templates change, count as leaves.
#define QN_V_DEPTH 1000

struct qn_vlist {
    qn_value *v;
    size_t n, cap;
    uint32_t depth;
    uint64_t weight;
};

typedef struct qn_ventry {
    qn_value key, value;
    uint64_t hash;
} qn_ventry;

struct qn_vdict { // in order of insertion
    qn_ventry *e;
    size_t n, cap;
    uint32_t *index; // open addressing over e; NULL while small
    size_t slots;
    uint32_t depth;
    uint64_t weight;
};

static inline qn_value qn_v_none(void) { return (qn_value){.kind = QN_V_NONE}; }
static inline qn_value qn_v_absent(void) { return (qn_value){.kind = QN_V_ABSENT}; }
static inline qn_value qn_v_bool(bool b) { return (qn_value){.kind = QN_V_BOOL, .b = b}; }
static inline qn_value qn_v_int(int64_t i) { return (qn_value){.kind = QN_V_INT, .i = i}; }
static inline qn_value qn_v_float(double f) { return (qn_value){.kind = QN_V_FLOAT, .f = f}; }
static inline qn_value qn_v_of_str(const qn_vstr *s) {
    return (qn_value){.kind = QN_V_STR, .s = s};
}
static inline qn_value qn_v_of_list(qn_vlist *l) {
    return (qn_value){.kind = QN_V_LIST, .list = l};
}
static inline qn_value qn_v_of_dict(qn_vdict *d) {
    return (qn_value){.kind = QN_V_DICT, .dict = d};
}

// ---- strings ----

// Strings: s must be valid UTF-8. An allocation past the cap gives the empty string.
qn_value qn_v_str(qn_arena *a, const char *s, size_t n);     // copies
qn_value qn_v_cstr(qn_arena *a, const char *s);              // s outlives the arena; not copied
qn_value qn_v_part(qn_arena *a, const char *s, size_t n);    // shares memory already in the arena
size_t qn_utf8_count(const char *s, size_t n);               // code points of valid UTF-8
size_t qn_vstr_offset(const qn_vstr *s, size_t chars);       // byte offset of a code point
bool qn_vstr_is(const qn_vstr *s, const char *text);
int qn_vstr_cmp(const qn_vstr *a, const qn_vstr *b);         // by code points

// ---- lists and dicts ----

qn_vlist *qn_vlist_new(qn_arena *a, size_t cap);
bool qn_vlist_push(qn_arena *a, qn_vlist *l, qn_value v); // false: past the cap
qn_vdict *qn_vdict_new(qn_arena *a);
// The key must be hashable (qn_v_hashable). Replacing keeps the old key and place, as Python does.
bool qn_vdict_set(qn_arena *a, qn_vdict *d, qn_value key, qn_value value);
bool qn_vdict_set_name(qn_arena *a, qn_vdict *d, const char *name, qn_value value);
qn_value *qn_vdict_get(const qn_vdict *d, qn_value key); // NULL when it is not there
qn_value *qn_vdict_get_name(const qn_vdict *d, const char *name);
uint64_t qn_v_weight(qn_value v);
bool qn_v_hashable(qn_value v);
bool qn_v_same_key(qn_value a, qn_value b); // equality of hashable values

#endif
