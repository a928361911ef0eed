// Filters of sequences and mappings. What the original makes lazily (map, select, unique …) is
// made at once here but can be walked through only once, as there.
#include <string.h>

#include "text/jinja_text.h"

static const char generator[] = "generator";

static bool given(qn_value v) { return v.kind != QN_V_ABSENT && v.kind != QN_V_NONE; }

static bool push(qn_jrun *r, qn_vlist *l, qn_value v) {
    return qn_run_spend(r, 1) && qn_vlist_push(r->arena, l, v);
}

// What items are compared by: an attribute, strings in lower case unless told otherwise.
typedef struct order {
    qn_value attribute;
    bool cased;
} order;

static qn_value fold(qn_jrun *r, qn_value v, bool cased) {
    static const qn_vstr lower = {"lower", 5, 5};
    if (cased || v.kind != QN_V_STR || r->failed) return v;
    return qn_str_method_find(&lower)->call(r, v, NULL);
}

static qn_value key_of(qn_jrun *r, qn_value v, order by) {
    return fold(r, qn_v_path(r, v, by.attribute), by.cased);
}

// sort's key: a list, one item for each attribute of "a,b".
static qn_value keys_of(qn_jrun *r, qn_value v, order by) {
    qn_vlist *l = qn_vlist_new(r->arena, 1);
    if (by.attribute.kind != QN_V_STR) {
        push(r, l, key_of(r, v, by));
        return qn_v_of_list(l);
    }
    const char *p = by.attribute.s->s, *end = p + by.attribute.s->n;
    for (bool more = true; more && !r->failed;) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        qn_value path = qn_v_part(r->arena, p, (size_t)((comma ? comma : end) - p));
        push(r, l, fold(r, qn_v_path(r, v, path), by.cased));
        more = comma;
        p = comma ? comma + 1 : end;
    }
    return qn_v_of_list(l);
}

typedef struct keyed {
    qn_value key, value;
} keyed;

static void merge_sort(qn_jrun *r, keyed *v, keyed *spare, size_t n, bool reverse) { // stable
    if (n < 2 || r->failed) return;
    size_t half = n / 2, a = 0, b = half;
    merge_sort(r, v, spare, half, reverse);
    merge_sort(r, v + half, spare, n - half, reverse);
    for (size_t k = 0; k < n; k++) {
        bool second = a == half;
        if (!second && b < n) second = reverse ? qn_v_cmp(r, v[a].key, v[b].key) == -1
                                               : qn_v_cmp(r, v[b].key, v[a].key) == -1;
        spare[k] = v[second ? b++ : a++];
    }
    memcpy(v, spare, n * sizeof *v);
}

// A new sorted list. keys: the items' keys, as many.
static qn_vlist *sorted(qn_jrun *r, const qn_vlist *items, const qn_vlist *keys, bool reverse) {
    qn_vlist *l = qn_vlist_new(r->arena, items->n);
    if (!qn_run_spend(r, items->n) || !items->n) return l;
    keyed *v = qn_arena_alloc(r->arena, 2 * items->n * sizeof *v);
    if (!v) return qn_run_limit(r, "memory a template may use"), l;
    for (size_t i = 0; i < items->n; i++) v[i] = (keyed){keys->v[i], items->v[i]};
    merge_sort(r, v, v + items->n, items->n, reverse);
    for (size_t i = 0; i < items->n; i++) qn_vlist_push(r->arena, l, v[i].value);
    return l;
}

// ---- order ----

static qn_value filter_sort(qn_jrun *r, qn_value v, const qn_value *a) {
    order by = {a[2], qn_v_true(r, a[1])};
    qn_vlist *items = qn_v_items(r, v), *keys = qn_vlist_new(r->arena, 0);
    for (size_t i = 0; items && i < items->n && !r->failed; i++)
        push(r, keys, keys_of(r, items->v[i], by));
    return r->failed ? v : qn_v_of_list(sorted(r, items, keys, qn_v_true(r, a[0])));
}

static qn_value filter_dictsort(qn_jrun *r, qn_value v, const qn_value *a) {
    bool by_value = a[1].kind == QN_V_STR && qn_vstr_is(a[1].s, "value");
    bool by_key = a[1].kind == QN_V_ABSENT ||
                  (a[1].kind == QN_V_STR && qn_vstr_is(a[1].s, "key"));
    if (!by_value && !by_key) qn_run_fail(r, "dictsort sorts by \"key\" or \"value\"");
    if (v.kind != QN_V_DICT && qn_run_use(r, v))
        qn_run_fail(r, "'%s' object has no attribute 'items'", qn_v_type(v));
    if (r->failed) return v;
    bool cased = qn_v_true(r, a[0]);
    qn_vlist *items = qn_vlist_new(r->arena, v.dict->n), *keys = qn_vlist_new(r->arena, v.dict->n);
    for (size_t i = 0; i < v.dict->n && !r->failed; i++) {
        qn_value pair[2] = {v.dict->e[i].key, v.dict->e[i].value};
        push(r, items, qn_v_tuple(r, pair, 2));
        push(r, keys, fold(r, pair[by_value], cased));
    }
    return r->failed ? v : qn_v_of_list(sorted(r, items, keys, qn_v_true(r, a[2])));
}

static qn_value filter_unique(qn_jrun *r, qn_value v, const qn_value *a) {
    order by = {a[1], qn_v_true(r, a[0])};
    qn_vlist *items = qn_v_items(r, v), *out = qn_vlist_new(r->arena, 0);
    qn_vdict *seen = qn_vdict_new(r->arena);
    for (size_t i = 0; items && i < items->n && qn_run_spend(r, 1); i++) {
        qn_value key = key_of(r, items->v[i], by);
        if (!qn_v_hashable(key)) qn_run_fail(r, "unhashable type: '%s'", qn_v_type(key));
        if (!qn_run_spend(r, qn_v_weight(key)) || qn_vdict_get(seen, key)) continue;
        qn_vdict_set(r->arena, seen, key, qn_v_none());
        push(r, out, items->v[i]);
    }
    return qn_v_iter(r, out, generator);
}

static qn_value extreme(qn_jrun *r, qn_value v, const qn_value *a, int wanted) {
    order by = {a[1], qn_v_true(r, a[0])};
    qn_vlist *items = qn_v_items(r, v);
    if (!items) return v;
    if (!items->n) return qn_v_undefined_hint(r, "No aggregated item, sequence was empty.");
    qn_value best = items->v[0], best_key = key_of(r, best, by);
    for (size_t i = 1; i < items->n && !r->failed; i++) {
        qn_value key = key_of(r, items->v[i], by);
        if (r->failed || qn_v_cmp(r, key, best_key) != wanted) continue;
        best = items->v[i];
        best_key = key;
    }
    return best;
}

static qn_value filter_max(qn_jrun *r, qn_value v, const qn_value *a) {
    return extreme(r, v, a, 1);
}

static qn_value filter_min(qn_jrun *r, qn_value v, const qn_value *a) {
    return extreme(r, v, a, -1);
}

static qn_value group_value(qn_jrun *r, qn_value v, qn_value path, qn_value or_else) {
    v = qn_v_path(r, v, path);
    return v.kind == QN_V_UNDEFINED && given(or_else) ? or_else : v;
}

static qn_value filter_groupby(qn_jrun *r, qn_value v, const qn_value *a) {
    bool cased = qn_v_true(r, a[2]);
    qn_vlist *items = qn_v_items(r, v), *keys = qn_vlist_new(r->arena, 0);
    for (size_t i = 0; items && i < items->n && !r->failed; i++)
        push(r, keys, fold(r, group_value(r, items->v[i], a[0], a[1]), cased));
    qn_vlist *out = qn_vlist_new(r->arena, 0), *group = NULL;
    if (r->failed) return v;
    items = sorted(r, items, keys, false);
    for (size_t i = 0; i < items->n && !r->failed;) {
        qn_value shown = group_value(r, items->v[i], a[0], a[1]), key = fold(r, shown, cased);
        group = qn_vlist_new(r->arena, 0);
        do push(r, group, items->v[i++]);
        while (i < items->n && !r->failed &&
               qn_v_equal(r, fold(r, group_value(r, items->v[i], a[0], a[1]), cased), key));
        qn_value pair[2] = {shown, qn_v_of_list(group)}, tuple = qn_v_tuple(r, pair, 2);
        tuple.marked = true; // .grouper and .list
        push(r, out, tuple);
    }
    return qn_v_of_list(out);
}

// ---- ends, sums, text ----

static qn_value filter_first(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    qn_jiter it;
    qn_value out;
    if (!qn_iter_open(r, v, &it)) return v;
    if (qn_iter_next(r, &it, &out)) return out;
    return qn_v_undefined_hint(r, "No first item, sequence was empty.");
}

static qn_value filter_last(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    if (v.kind == QN_V_ITER || v.kind == QN_V_LOOP)
        return qn_run_fail(r, "'%s' object is not reversible", qn_v_type(v)), v;
    if (v.kind == QN_V_STR && v.s->chars) {
        v.marked = false;
        return qn_v_getitem(r, v, qn_v_int(-1));
    }
    qn_vlist *l = qn_v_items(r, v);
    if (l && l->n) return l->v[l->n - 1];
    return qn_v_undefined_hint(r, "No last item, sequence was empty.");
}

static qn_value filter_reverse(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    qn_value parts[3] = {qn_v_absent(), qn_v_absent(), qn_v_int(-1)};
    if (v.kind == QN_V_STR) return qn_v_slice(r, v, parts);
    qn_vlist *l = qn_v_items(r, v), *out = qn_vlist_new(r->arena, l ? l->n : 0);
    for (size_t i = l ? l->n : 0; i-- > 0 && !r->failed;) push(r, out, l->v[i]);
    return v.kind == QN_V_ITER ? qn_v_of_list(out) : qn_v_iter(r, out, "list_reverseiterator");
}

static qn_value filter_sum(qn_jrun *r, qn_value v, const qn_value *a) {
    qn_value sum = a[1].kind == QN_V_ABSENT ? qn_v_int(0) : a[1];
    qn_vlist *items = qn_v_items(r, v);
    if (sum.kind == QN_V_STR) qn_run_fail(r, "sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; items && i < items->n && !r->failed; i++)
        sum = qn_v_binary(r, '+', sum, qn_v_path(r, items->v[i], a[0]));
    return sum;
}

static qn_value filter_join(qn_jrun *r, qn_value v, const qn_value *a) {
    qn_value d = a[0].kind == QN_V_ABSENT ? qn_v_cstr(r->arena, "") : qn_v_to_str(r, a[0]);
    qn_vlist *items = qn_v_items(r, v);
    qn_buf out = {0};
    for (size_t i = 0; items && i < items->n && !r->failed; i++) {
        if (i) qn_v_print(r, &out, d);
        qn_v_print(r, &out, qn_v_path(r, items->v[i], a[1]));
    }
    return qn_run_text(r, &out);
}

static qn_value filter_list(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return qn_v_fresh_list(r, qn_v_items(r, v));
}

static qn_value filter_items(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    qn_vlist *l = qn_vlist_new(r->arena, v.kind == QN_V_DICT ? v.dict->n : 0);
    if (v.kind != QN_V_DICT && v.kind != QN_V_UNDEFINED)
        qn_run_fail(r, "Can only get item pairs from a mapping.");
    for (size_t i = 0; v.kind == QN_V_DICT && i < v.dict->n && !r->failed; i++) {
        qn_value pair[2] = {v.dict->e[i].key, v.dict->e[i].value};
        push(r, l, qn_v_tuple(r, pair, 2));
    }
    return qn_v_iter(r, l, generator);
}

// ---- cutting up ----

static qn_value filter_batch(qn_jrun *r, qn_value v, const qn_value *a) {
    int64_t n = qn_v_index(r, a[0], "linecount");
    qn_vlist *items = qn_v_items(r, v), *out = qn_vlist_new(r->arena, 0), *row = NULL;
    for (size_t i = 0; items && i < items->n && !r->failed; i++) {
        if (row && (int64_t)row->n == n) {
            push(r, out, qn_v_of_list(row));
            row = NULL;
        }
        if (!row) row = qn_vlist_new(r->arena, 0);
        push(r, row, items->v[i]);
    }
    while (row && given(a[1]) && (int64_t)row->n < n && push(r, row, a[1])) continue;
    if (row) push(r, out, qn_v_of_list(row));
    return qn_v_iter(r, out, generator);
}

static qn_value filter_slice(qn_jrun *r, qn_value v, const qn_value *a) {
    int64_t n = qn_v_index(r, a[0], "slices");
    qn_vlist *items = qn_v_items(r, v), *out = qn_vlist_new(r->arena, 0);
    if (!n) qn_run_fail(r, "integer division or modulo by zero");
    if (r->failed || n < 0) return qn_v_iter(r, out, generator);
    size_t each = items->n / (size_t)n, more = items->n % (size_t)n, at = 0;
    for (size_t i = 0; i < (size_t)n && !r->failed; i++) {
        qn_vlist *row = qn_vlist_new(r->arena, each + 1);
        for (size_t end = at + each + (i < more); at < end; at++) push(r, row, items->v[at]);
        if (given(a[1]) && i >= more) push(r, row, a[1]);
        push(r, out, qn_v_of_list(row));
    }
    return qn_v_iter(r, out, generator);
}

// ---- map and select ----

static const qn_jinja_func *named(qn_jrun *r, qn_value name, bool filter) {
    const qn_jinja_func *f = NULL;
    if (name.kind == QN_V_STR) f = filter ? qn_filter_find(name.s) : qn_test_find(name.s);
    if (!f) qn_run_fail(r, "no %s of this name found", filter ? "filter" : "test");
    return f;
}

static qn_value map_attribute(qn_jrun *r, qn_vlist *items, const qn_jargs *args) {
    qn_value *path = qn_vdict_get_name(args->kw, "attribute");
    qn_value *or_else = qn_vdict_get_name(args->kw, "default");
    qn_vlist *out = qn_vlist_new(r->arena, items->n);
    if (args->kw->n > (or_else ? 2u : 1u)) qn_run_fail(r, "map: unexpected keyword argument");
    for (size_t i = 0; i < items->n && !r->failed; i++)
        push(r, out, group_value(r, items->v[i], *path, or_else ? *or_else : qn_v_none()));
    return qn_v_iter(r, out, generator);
}

static qn_value filter_map(qn_jrun *r, qn_value v, const qn_jargs *args) {
    qn_vlist *items = qn_v_true(r, v) ? qn_v_items(r, v) : qn_vlist_new(r->arena, 0);
    if (!items) return v;
    if (!args->n && args->kw && qn_vdict_get_name(args->kw, "attribute"))
        return map_attribute(r, items, args);
    qn_vlist *out = qn_vlist_new(r->arena, items->n);
    if (!items->n) return qn_v_iter(r, out, generator);
    if (!args->n) return qn_run_fail(r, "map requires a filter argument"), v;
    const qn_jinja_func *f = named(r, args->v[0], true);
    qn_jargs rest = {args->v + 1, args->n - 1, args->kw};
    for (size_t i = 0; i < items->n && !r->failed; i++)
        push(r, out, qn_func_call(r, f, items->v[i], &rest));
    return qn_v_iter(r, out, generator);
}

static qn_value pick(qn_jrun *r, qn_value v, const qn_jargs *args, bool by_attribute, bool wanted) {
    qn_vlist *items = qn_v_true(r, v) ? qn_v_items(r, v) : qn_vlist_new(r->arena, 0);
    qn_vlist *out = qn_vlist_new(r->arena, 0);
    size_t skip = by_attribute;
    if (!items || !items->n) return qn_v_iter(r, out, generator);
    if (args->n < skip) return qn_run_fail(r, "missing parameter for attribute name"), v;
    const qn_jinja_func *f = args->n > skip ? named(r, args->v[skip], false) : NULL;
    qn_jargs rest = {0};
    if (f) rest = (qn_jargs){args->v + skip + 1, args->n - skip - 1, args->kw};
    for (size_t i = 0; i < items->n && !r->failed; i++) {
        qn_value x = by_attribute ? qn_v_path(r, items->v[i], args->v[0]) : items->v[i];
        if (f) x = qn_func_call(r, f, x, &rest);
        if (qn_v_true(r, x) == wanted) push(r, out, items->v[i]);
    }
    return qn_v_iter(r, out, generator);
}

static qn_value filter_select(qn_jrun *r, qn_value v, const qn_jargs *args) {
    return pick(r, v, args, false, true);
}

static qn_value filter_reject(qn_jrun *r, qn_value v, const qn_jargs *args) {
    return pick(r, v, args, false, false);
}

static qn_value filter_selectattr(qn_jrun *r, qn_value v, const qn_jargs *args) {
    return pick(r, v, args, true, true);
}

static qn_value filter_rejectattr(qn_jrun *r, qn_value v, const qn_jargs *args) {
    return pick(r, v, args, true, false);
}

// ---- the list ----

const qn_jinja_func *qn_sequence_filter_find(const qn_vstr *name) {
    static const char by_params[] = "case_sensitive,attribute";
    static const qn_jinja_func filters[] = {
        {"items", filter_items, NULL, NULL, 0, false},
        {"list", filter_list, NULL, NULL, 0, false},
        {"join", filter_join, NULL, "d,attribute", 0, false},
        {"first", filter_first, NULL, NULL, 0, false},
        {"last", filter_last, NULL, NULL, 0, false},
        {"reverse", filter_reverse, NULL, NULL, 0, false},
        {"sum", filter_sum, NULL, "attribute,start", 0, false},
        {"max", filter_max, NULL, by_params, 0, false},
        {"min", filter_min, NULL, by_params, 0, false},
        {"sort", filter_sort, NULL, "reverse,case_sensitive,attribute", 0, false},
        {"dictsort", filter_dictsort, NULL, "case_sensitive,by,reverse", 0, false},
        {"unique", filter_unique, NULL, by_params, 0, false},
        {"groupby", filter_groupby, NULL, "attribute,default,case_sensitive", 1, false},
        {"batch", filter_batch, NULL, "linecount,fill_with", 1, false},
        {"slice", filter_slice, NULL, "slices,fill_with", 1, false},
        {"map", NULL, filter_map, NULL, 0, false},
        {"select", NULL, filter_select, NULL, 0, false},
        {"reject", NULL, filter_reject, NULL, 0, false},
        {"selectattr", NULL, filter_selectattr, NULL, 0, false},
        {"rejectattr", NULL, filter_rejectattr, NULL, 0, false},
    };
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (qn_vstr_is(name, filters[i].name)) return &filters[i];
    return NULL;
}
