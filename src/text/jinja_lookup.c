// Looking into values: attributes, items, slices, lengths, and walking through them. The sandbox
// stands here: names that begin with an underscore and methods that would change a value give an
// undefined value, whose use is an error.
#include <string.h>

#include "text/jinja_number.h"
#include "text/jinja_run.h"
#include "text/unicode.h"

// ---- undefined ----

static qn_value undefined(qn_jrun *r, qn_vundefined u) {
    qn_vundefined *p = qn_arena_alloc(r->arena, sizeof *p);
    *p = u;
    return (qn_value){.kind = QN_V_UNDEFINED, .undefined = p};
}

static const qn_value *keep(qn_jrun *r, qn_value v) {
    qn_value *p = qn_arena_alloc(r->arena, sizeof *p);
    *p = v;
    return p;
}

qn_value qn_v_undefined(qn_jrun *r, qn_value obj, qn_value name) {
    const qn_value *of = obj.kind == QN_V_ABSENT ? NULL : keep(r, obj);
    return undefined(r, (qn_vundefined){.obj = of, .name = keep(r, name)});
}

qn_value qn_v_undefined_hint(qn_jrun *r, const char *hint) {
    return undefined(r, (qn_vundefined){.hint = hint});
}

// ---- attributes ----

static qn_value loop_attribute(qn_jrun *r, qn_jinja_loop *l, const qn_vstr *name) {
    static const char *const names[] = {"index",  "index0",   "revindex", "revindex0", "first",
                                        "last",   "length",   "depth",    "depth0",    "previtem",
                                        "nextitem"};
    size_t which = 0;
    while (which < sizeof names / sizeof *names && !qn_vstr_is(name, names[which])) which++;
    qn_value v = qn_v_absent();
    switch (which) {
    case 0: return qn_v_int(l->index0 + 1);
    case 1: return qn_v_int(l->index0);
    case 2: return qn_v_int(qn_loop_length(r, l) - l->index0);
    case 3: return qn_v_int(qn_loop_length(r, l) - l->index0 - 1);
    case 4: return qn_v_bool(l->index0 == 0);
    case 5: return qn_v_bool(!qn_loop_peek(r, l, &v));
    case 6: return qn_v_int(qn_loop_length(r, l));
    case 7: return qn_v_int(l->depth0 + 1);
    case 8: return qn_v_int(l->depth0);
    case 9:
        return l->index0 == 0 ? qn_v_undefined_hint(r, "there is no previous item") : l->before;
    case 10:
        return qn_loop_peek(r, l, &v) ? v : qn_v_undefined_hint(r, "there is no next item");
    default: return v;
    }
}

static qn_value macro_attribute(qn_jrun *r, const qn_jinja_macro *m, const qn_vstr *name) {
    const qn_jnode *n = m->node;
    if (qn_vstr_is(name, "name")) return n->name ? qn_v_of_str(n->name) : qn_v_none();
    if (qn_vstr_is(name, "catch_kwargs")) return qn_v_bool(n->compiled->catches_kwargs);
    if (qn_vstr_is(name, "catch_varargs")) return qn_v_bool(n->compiled->catches_varargs);
    if (qn_vstr_is(name, "caller")) return qn_v_bool(n->compiled->catches_caller);
    if (!qn_vstr_is(name, "arguments")) return qn_v_absent();
    qn_value names[256];
    for (uint32_t i = 0; i < n->list.n; i++) names[i] = qn_v_of_str(n->list.v[i]->name);
    return qn_v_tuple(r, names, n->list.n);
}

static qn_value number_attribute(qn_value v, const qn_vstr *name) {
    bool real = qn_vstr_is(name, "real"), whole = v.kind != QN_V_FLOAT;
    if (real || (whole && qn_vstr_is(name, "numerator")))
        return v.kind == QN_V_BOOL ? qn_v_int(v.b) : v;
    if (qn_vstr_is(name, "imag")) return whole ? qn_v_int(0) : qn_v_float(0);
    return whole && qn_vstr_is(name, "denominator") ? qn_v_int(1) : qn_v_absent();
}

static bool dunder(const qn_vstr *name) { // attributes that every Python object has
    static const char *const names[] = {
        "__class__", "__delattr__", "__dir__", "__doc__", "__eq__", "__format__", "__ge__",
        "__getattribute__", "__getstate__", "__gt__", "__hash__", "__init__",
        "__init_subclass__", "__le__", "__lt__", "__ne__", "__new__", "__reduce__",
        "__reduce_ex__", "__repr__", "__setattr__", "__sizeof__", "__str__", "__subclasshook__",
        "__len__", "__iter__", "__contains__", "__getitem__"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (qn_vstr_is(name, names[i])) return true;
    return false;
}

// The attribute of the Python object: ABSENT when it has none, undefined when it is not safe.
qn_value qn_v_attribute(qn_jrun *r, qn_value v, const qn_vstr *name) {
    qn_value found = qn_v_absent();
    if (v.kind == QN_V_NAMESPACE) {
        qn_value *own = qn_vdict_get(v.dict, qn_v_of_str(name));
        if (own) return *own;
    }
    if (name->n && name->s[0] == '_') {
        if (!dunder(name)) return found;
        return undefined(r, (qn_vundefined){.obj = keep(r, v), .name = keep(r, qn_v_of_str(name)),
                                            .unsafe = true});
    }
    if (qn_method_modifies(v, name))
        return undefined(r, (qn_vundefined){.obj = keep(r, v), .name = keep(r, qn_v_of_str(name)),
                                            .unsafe = true});
    if (v.kind == QN_V_LOOP) found = loop_attribute(r, v.loop, name);
    if (v.kind == QN_V_MACRO) found = macro_attribute(r, v.macro, name);
    if (qn_v_is_number(v)) found = number_attribute(v, name);
    if (v.kind == QN_V_TUPLE && v.marked && qn_vstr_is(name, "grouper")) found = v.list->v[0];
    if (v.kind == QN_V_TUPLE && v.marked && qn_vstr_is(name, "list")) found = v.list->v[1];
    if (found.kind != QN_V_ABSENT) return found;
    const qn_jinja_func *f = qn_method_find(v, name);
    if (!f) return found;
    qn_vmethod *m = qn_arena_alloc(r->arena, sizeof *m);
    *m = (qn_vmethod){v, f};
    return (qn_value){.kind = QN_V_METHOD, .method = m};
}

// ---- items ----

static qn_value character(qn_jrun *r, const qn_vstr *s, size_t at) {
    size_t from = qn_vstr_offset(s, at), len;
    if (s->n != s->chars) qn_run_spend(r, from / 16);
    qn_uni_decode(s->s + from, &len);
    return qn_v_part(r->arena, s->s + from, len);
}

// The item of the Python object, or ABSENT.
static qn_value item(qn_jrun *r, qn_value v, qn_value key) {
    if (v.kind == QN_V_DICT) {
        if (!qn_v_hashable(key) || !qn_run_spend(r, qn_v_weight(key))) return qn_v_absent();
        qn_value *found = qn_vdict_get(v.dict, key);
        return found ? *found : qn_v_absent();
    }
    bool sequence = v.kind == QN_V_STR || v.kind == QN_V_LIST || v.kind == QN_V_TUPLE ||
                    v.kind == QN_V_RANGE;
    if (!sequence || !qn_v_is_int(key)) return qn_v_absent();
    int64_t n = qn_v_length(r, v), i = qn_v_index(r, key, "index");
    if (i < 0 && i >= -n) i += n;
    if (i < 0 || i >= n) return qn_v_absent();
    if (v.kind == QN_V_STR) return character(r, v.s, (size_t)i);
    if (v.kind == QN_V_RANGE) return qn_v_int(v.range->start + i * v.range->step);
    return v.list->v[i];
}

qn_value qn_v_getattr(qn_jrun *r, qn_value v, const qn_vstr *name) {
    if (v.kind == QN_V_UNDEFINED && dunder(name)) return qn_v_attribute(r, v, name);
    if (!qn_run_use(r, v)) return qn_v_none();
    qn_value found = qn_v_attribute(r, v, name);
    if (found.kind == QN_V_ABSENT) found = item(r, v, qn_v_of_str(name));
    return found.kind == QN_V_ABSENT ? qn_v_undefined(r, v, qn_v_of_str(name)) : found;
}

qn_value qn_v_getitem(qn_jrun *r, qn_value v, qn_value key) {
    if (!qn_run_use(r, v)) return qn_v_none();
    qn_value found = item(r, v, key);
    if (found.kind == QN_V_ABSENT && key.kind == QN_V_STR) found = qn_v_attribute(r, v, key.s);
    return found.kind == QN_V_ABSENT ? qn_v_undefined(r, v, key) : found;
}

qn_value qn_v_path(qn_jrun *r, qn_value v, qn_value path) {
    if (path.kind == QN_V_NONE || path.kind == QN_V_ABSENT) return v;
    if (path.kind != QN_V_STR) return qn_v_getitem(r, v, path);
    const char *p = path.s->s, *end = p + path.s->n;
    for (bool more = true; more && !r->failed;) {
        const char *dot = memchr(p, '.', (size_t)(end - p));
        size_t n = (size_t)((dot ? dot : end) - p), digits = 0;
        while (digits < n && p[digits] >= '0' && p[digits] <= '9') digits++;
        qn_value part = qn_v_part(r->arena, p, n);
        if (n && n < 300 && digits == n) qn_int_parse(r->arena, p, n, false, &part);
        v = qn_v_getitem(r, v, part);
        more = dot;
        p = dot ? dot + 1 : end;
    }
    return v;
}

// ---- slices ----

typedef struct bounds {
    int64_t start, step, n;
} bounds;

static int64_t clamp(int64_t i, int64_t n, int64_t lo, int64_t hi) {
    if (i < 0) i = i < -n ? -1 : i + n; // -1 stands for "in front of everything"
    return i < lo ? lo : i > hi ? hi : i;
}

static bool slice_bounds(qn_jrun *r, const qn_value part[3], int64_t n, bounds *out) {
    static const char what[] = "a slice's bound";
    bool given[3];
    for (int i = 0; i < 3; i++) given[i] = part[i].kind != QN_V_NONE && part[i].kind != QN_V_ABSENT;
    int64_t step = given[2] ? qn_v_index(r, part[2], what) : 1;
    if (step == 0) return qn_run_fail(r, "slice step cannot be zero");
    int64_t lo = step < 0 ? -1 : 0, hi = step < 0 ? n - 1 : n;
    int64_t start = step < 0 ? hi : lo, stop = step < 0 ? lo : hi;
    if (given[0]) start = clamp(qn_v_index(r, part[0], what), n, lo, hi);
    if (given[1]) stop = clamp(qn_v_index(r, part[1], what), n, lo, hi);
    if (step < -INT64_MAX) step = -INT64_MAX;
    int64_t span = step < 0 ? start - stop : stop - start, stride = step < 0 ? -step : step;
    *out = (bounds){start, step, span > 0 ? (span - 1) / stride + 1 : 0};
    return !r->failed;
}

static qn_value slice_text(qn_jrun *r, qn_value v, bounds b) {
    qn_value part;
    if (!qn_run_spend(r, v.s->n / 16 + (uint64_t)b.n / 4)) return qn_v_none();
    if (b.step == 1) {
        size_t from = qn_vstr_offset(v.s, (size_t)b.start);
        size_t to = qn_vstr_offset(v.s, (size_t)(b.start + b.n));
        part = qn_v_part(r->arena, v.s->s + from, b.n ? to - from : 0);
    } else {
        // Where every character begins, so that walking backwards costs no search.
        size_t *at = qn_arena_alloc(r->arena, (v.s->chars + 1) * sizeof *at), k = 0;
        if (!at) return qn_run_limit(r, "memory a template may use"), qn_v_none();
        for (size_t i = 0; i < v.s->n; i++)
            if (((unsigned char)v.s->s[i] & 0xC0) != 0x80) at[k++] = i;
        at[k] = v.s->n;
        qn_buf out = {0};
        for (int64_t i = 0; i < b.n; i++) {
            int64_t c = b.start + i * b.step;
            qn_buf_add(&out, v.s->s + at[c], at[c + 1] - at[c]);
        }
        part = qn_run_text(r, &out);
    }
    part.marked = v.marked;
    return part;
}

qn_value qn_v_slice(qn_jrun *r, qn_value v, const qn_value part[3]) {
    bounds b = {0};
    if (!qn_run_use(r, v)) return qn_v_none();
    bool list = v.kind == QN_V_LIST || v.kind == QN_V_TUPLE;
    if (!list && v.kind != QN_V_STR && v.kind != QN_V_RANGE)
        return qn_run_fail(r, "'%s' object cannot be sliced", qn_v_type(v)), qn_v_none();
    if (!slice_bounds(r, part, qn_v_length(r, v), &b)) return qn_v_none();
    if (v.kind == QN_V_STR) return slice_text(r, v, b);
    if (v.kind == QN_V_RANGE) {
        qn_vrange *g = qn_arena_alloc(r->arena, sizeof *g);
        *g = (qn_vrange){v.range->start, v.range->step, b.n};
        if (b.n) g->start += b.start * v.range->step;
        if (b.n > 1) g->step *= b.step;
        return (qn_value){.kind = QN_V_RANGE, .range = g};
    }
    if (!qn_run_spend(r, (uint64_t)b.n)) return qn_v_none();
    qn_vlist *l = qn_vlist_new(r->arena, (size_t)b.n);
    for (int64_t i = 0; i < b.n; i++)
        qn_vlist_push(r->arena, l, v.list->v[b.start + i * b.step]);
    return (qn_value){.kind = v.kind, .list = l};
}

// ---- lengths and walks ----

bool qn_v_has_length(qn_value v) {
    return v.kind == QN_V_UNDEFINED || v.kind == QN_V_STR || v.kind == QN_V_LIST ||
           v.kind == QN_V_TUPLE || v.kind == QN_V_DICT || v.kind == QN_V_RANGE ||
           v.kind == QN_V_VIEW || v.kind == QN_V_LOOP;
}

int64_t qn_v_length(qn_jrun *r, qn_value v) {
    switch (v.kind) {
    case QN_V_UNDEFINED: return 0;
    case QN_V_STR: return (int64_t)v.s->chars;
    case QN_V_LIST:
    case QN_V_TUPLE:
    case QN_V_VIEW: return (int64_t)v.list->n;
    case QN_V_DICT: return (int64_t)v.dict->n;
    case QN_V_RANGE: return v.range->n;
    case QN_V_LOOP: return qn_loop_length(r, v.loop);
    default:
        qn_run_fail(r, "object of type '%s' has no len()", qn_v_type(v));
        return 0;
    }
}

bool qn_v_iterable(qn_value v) { return v.kind == QN_V_ITER || qn_v_has_length(v); }

bool qn_iter_open(qn_jrun *r, qn_value v, qn_jiter *it) {
    *it = (qn_jiter){.over = v};
    if (r->failed || qn_v_iterable(v)) return !r->failed;
    return qn_run_fail(r, "'%s' object is not iterable", qn_v_type(v));
}

static bool next_plain(qn_jrun *r, qn_jiter *it, qn_value *out) {
    qn_value v = it->over;
    switch (v.kind) {
    case QN_V_LIST:
    case QN_V_TUPLE:
    case QN_V_VIEW:
        if (it->at == v.list->n) return false;
        *out = v.list->v[it->at++];
        return true;
    case QN_V_DICT:
        if (it->at == v.dict->n) return false;
        *out = v.dict->e[it->at++].key;
        return true;
    case QN_V_RANGE:
        if ((int64_t)it->at == v.range->n) return false;
        *out = qn_v_int(v.range->start + (int64_t)it->at++ * v.range->step);
        return true;
    case QN_V_ITER:
        if (v.iter->at == v.iter->items->n) return false;
        *out = v.iter->items->v[v.iter->at++];
        return true;
    case QN_V_STR: {
        if (it->at == v.s->n) return false;
        size_t len;
        qn_uni_decode(v.s->s + it->at, &len);
        *out = qn_v_part(r->arena, v.s->s + it->at, len);
        it->at += len;
        return true;
    }
    case QN_V_LOOP: { // walking through `loop` itself takes its items, as (item, loop)
        qn_value pair[2] = {qn_v_none(), v};
        if (!qn_loop_next(r, v.loop, &pair[0])) return false;
        *out = qn_v_tuple(r, pair, 2);
        return true;
    }
    default: return false;
    }
}

static qn_value regroup(qn_jrun *r, const qn_jnode *target) { // what a filtered loop yields
    if (target->kind == QN_N_NAME) return r->act->slot[target->slot.index];
    qn_vlist *l = qn_vlist_new(r->arena, target->list.n);
    for (uint32_t i = 0; i < target->list.n; i++)
        qn_vlist_push(r->arena, l, regroup(r, target->list.v[i]));
    return (qn_value){.kind = QN_V_TUPLE, .list = l};
}

// Whether the loop's filter lets *v through; *v becomes what the filter yields.
static bool passes(qn_jrun *r, qn_jiter *it, qn_value *v) {
    const qn_jnode *target = it->loop->list.v[0];
    qn_jact *outside = r->act;
    r->act = it->act;
    qn_jinja_assign(r, target, *v);
    bool pass = qn_v_true(r, qn_jinja_eval(r, it->loop->c)) && !r->failed;
    if (pass) *v = regroup(r, target);
    r->act = outside;
    return pass;
}

bool qn_iter_next(qn_jrun *r, qn_jiter *it, qn_value *out) {
    while (qn_run_spend(r, 1) && next_plain(r, it, out))
        if (!it->loop || passes(r, it, out)) return !r->failed;
    return false;
}

qn_vlist *qn_v_items(qn_jrun *r, qn_value v) {
    if (v.kind == QN_V_LIST || v.kind == QN_V_TUPLE || v.kind == QN_V_VIEW) return v.list;
    qn_jiter it;
    qn_value x;
    if (!qn_iter_open(r, v, &it)) return NULL;
    qn_vlist *l = qn_vlist_new(r->arena, qn_v_has_length(v) ? (size_t)qn_v_length(r, v) : 0);
    while (qn_iter_next(r, &it, &x)) qn_vlist_push(r->arena, l, x);
    return r->failed ? NULL : l;
}

// ---- making containers ----

qn_value qn_v_iter(qn_jrun *r, qn_vlist *items, const char *shown) {
    qn_viter *it = qn_arena_alloc(r->arena, sizeof *it);
    *it = (qn_viter){items, 0, shown};
    return (qn_value){.kind = QN_V_ITER, .iter = it};
}

qn_value qn_v_tuple(qn_jrun *r, const qn_value *v, size_t n) {
    qn_vlist *l = qn_vlist_new(r->arena, n);
    for (size_t i = 0; i < n; i++) qn_vlist_push(r->arena, l, v[i]);
    return (qn_value){.kind = QN_V_TUPLE, .list = l};
}

qn_value qn_v_fresh_list(qn_jrun *r, qn_vlist *l) { // a list of its own, from shared items
    if (!l || !qn_run_spend(r, l->n)) return qn_v_none();
    qn_vlist *copy = qn_vlist_new(r->arena, l->n);
    for (size_t i = 0; i < l->n; i++) qn_vlist_push(r->arena, copy, l->v[i]);
    return qn_v_of_list(copy);
}
