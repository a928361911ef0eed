// Tests: what stands behind `is`.
#include "text/char_case.h"
#include "text/jinja_number.h"
#include "text/jinja_run.h"
#include "text/unicode.h"

#define YES(condition) qn_v_bool(condition)

static qn_value remainder_of(qn_jrun *r, qn_value v, qn_value by) {
    return qn_v_binary(r, '%', v, by);
}

static qn_value is_odd(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return YES(qn_v_equal(r, remainder_of(r, v, qn_v_int(2)), qn_v_int(1)));
}

static qn_value is_even(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return YES(qn_v_equal(r, remainder_of(r, v, qn_v_int(2)), qn_v_int(0)));
}

static qn_value is_divisibleby(qn_jrun *r, qn_value v, const qn_value *a) {
    return YES(qn_v_equal(r, remainder_of(r, v, a[0]), qn_v_int(0)));
}

#define SIMPLE(name, condition)                                                                    \
    static qn_value name(qn_jrun *r, qn_value v, const qn_value *a) {                              \
        (void)r;                                                                                   \
        (void)a;                                                                                   \
        return YES(condition);                                                                     \
    }

SIMPLE(is_defined, v.kind != QN_V_UNDEFINED)
SIMPLE(is_undefined, v.kind == QN_V_UNDEFINED)
SIMPLE(is_none, v.kind == QN_V_NONE)
SIMPLE(is_boolean, v.kind == QN_V_BOOL)
SIMPLE(is_true, v.kind == QN_V_BOOL && v.b)
SIMPLE(is_false, v.kind == QN_V_BOOL && !v.b)
SIMPLE(is_integer, v.kind == QN_V_INT || v.kind == QN_V_BIG)
SIMPLE(is_float, v.kind == QN_V_FLOAT)
SIMPLE(is_string, v.kind == QN_V_STR)
SIMPLE(is_mapping, v.kind == QN_V_DICT)
SIMPLE(is_number, qn_v_is_number(v))
SIMPLE(is_sequence, qn_v_has_length(v) && v.kind != QN_V_VIEW && v.kind != QN_V_LOOP)
SIMPLE(is_iterable, qn_v_iterable(v))
SIMPLE(is_callable, v.kind == QN_V_UNDEFINED || v.kind >= QN_V_MACRO)
SIMPLE(is_escaped, v.kind == QN_V_STR && v.marked)
SIMPLE(is_filter, v.kind == QN_V_STR && qn_filter_find(v.s))
SIMPLE(is_test, v.kind == QN_V_STR && qn_test_find(v.s))
SIMPLE(is_in, qn_v_contains(r, a[0], v))
SIMPLE(is_eq, qn_v_equal(r, v, a[0]))
SIMPLE(is_ne, !qn_v_equal(r, v, a[0]))

static qn_value is_cased(qn_jrun *r, qn_value v, unsigned wanted, unsigned other) {
    v = qn_v_to_str(r, v);
    bool any = false;
    if (r->failed || !qn_run_spend(r, v.s->n / 16)) return qn_v_none();
    for (size_t i = 0, len; i < v.s->n; i += len) {
        uint32_t c = qn_uni_decode(v.s->s + i, &len);
        if (qn_char_is(c, other | QN_CHAR_TITLE)) return YES(false);
        any = any || qn_char_is(c, wanted);
    }
    return YES(any);
}

static qn_value is_lower(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return is_cased(r, v, QN_CHAR_LOWER, QN_CHAR_UPPER);
}

static qn_value is_upper(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return is_cased(r, v, QN_CHAR_UPPER, QN_CHAR_LOWER);
}

// Identity. Equal constants, small numbers and single characters are one object in the original.
static qn_value is_sameas(qn_jrun *r, qn_value v, const qn_value *a) {
    qn_value w = a[0];
    if (v.kind != w.kind) return YES(false);
    switch (v.kind) {
    case QN_V_STR: return YES(v.s->s == w.s->s || (v.s->n < 2 && qn_v_equal(r, v, w)));
    case QN_V_BOOL:
    case QN_V_INT:
    case QN_V_FLOAT:
    case QN_V_NONE: return YES(qn_v_equal(r, v, w));
    default: return YES(v.dict == w.dict);
    }
}

static qn_value is_gt(qn_jrun *r, qn_value v, const qn_value *a) {
    return YES(qn_v_cmp(r, v, a[0]) == 1);
}

static qn_value is_lt(qn_jrun *r, qn_value v, const qn_value *a) {
    return YES(qn_v_cmp(r, v, a[0]) == -1);
}

static qn_value is_ge(qn_jrun *r, qn_value v, const qn_value *a) {
    int c = qn_v_cmp(r, v, a[0]);
    return YES(c == 0 || c == 1);
}

static qn_value is_le(qn_jrun *r, qn_value v, const qn_value *a) {
    return YES(qn_v_cmp(r, v, a[0]) <= 0);
}

#define ONE(name, fn) {name, fn, NULL, "other", 1, false}
#define NO(name, fn) {name, fn, NULL, NULL, 0, false}

const qn_jinja_func *qn_test_find(const qn_vstr *name) {
    static const qn_jinja_func tests[] = {
        NO("defined", is_defined), NO("undefined", is_undefined), NO("none", is_none),
        NO("string", is_string), NO("mapping", is_mapping), NO("sequence", is_sequence),
        NO("iterable", is_iterable), NO("true", is_true), NO("false", is_false),
        NO("boolean", is_boolean), NO("integer", is_integer), NO("float", is_float),
        NO("number", is_number), NO("odd", is_odd), NO("even", is_even),
        {"divisibleby", is_divisibleby, NULL, "num", 1, false}, NO("lower", is_lower),
        NO("upper", is_upper), NO("callable", is_callable), NO("escaped", is_escaped),
        NO("filter", is_filter), NO("test", is_test), ONE("sameas", is_sameas),
        {"in", is_in, NULL, "seq", 1, false}, ONE("==", is_eq), ONE("eq", is_eq),
        ONE("equalto", is_eq), ONE("!=", is_ne), ONE("ne", is_ne), ONE(">", is_gt),
        ONE("gt", is_gt), ONE("greaterthan", is_gt), ONE(">=", is_ge), ONE("ge", is_ge),
        ONE("<", is_lt), ONE("lt", is_lt), ONE("lessthan", is_lt), ONE("<=", is_le),
        ONE("le", is_le)};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (qn_vstr_is(name, tests[i].name)) return &tests[i];
    return NULL;
}
