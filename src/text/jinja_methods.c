// Methods of lists, tuples, mappings and `loop`, and what the sandbox forbids.
#include <string.h>

#include "text/jinja_text.h"

static bool is_list(qn_value v) { return v.kind == QN_V_LIST || v.kind == QN_V_TUPLE; }

// ---- lists and tuples ----

static qn_value list_index(qn_jrun *r, qn_value v, const qn_value *a) {
    int64_t n = (int64_t)v.list->n, from = 0, to = n;
    if (a[1].kind != QN_V_ABSENT) from = qn_v_index(r, a[1], "a position");
    if (a[2].kind != QN_V_ABSENT) to = qn_v_index(r, a[2], "a position");
    if (from < 0) from = from < -n ? 0 : from + n;
    if (to < 0) to = to < -n ? 0 : to + n;
    for (int64_t i = from; i < to && i < n && qn_run_spend(r, 1); i++)
        if (qn_v_equal(r, v.list->v[i], a[0])) return qn_v_int(i);
    qn_run_fail(r, "value is not in the %s", qn_v_type(v));
    return qn_v_none();
}

static qn_value list_count(qn_jrun *r, qn_value v, const qn_value *a) {
    int64_t n = 0;
    for (size_t i = 0; i < v.list->n && qn_run_spend(r, 1); i++)
        n += qn_v_equal(r, v.list->v[i], a[0]);
    return qn_v_int(n);
}

static qn_value list_copy(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return qn_v_fresh_list(r, v.list);
}

static qn_value range_list(qn_jrun *r, qn_value v) {
    qn_vlist *l = qn_v_items(r, v);
    return qn_v_of_list(l ? l : qn_vlist_new(r->arena, 0));
}

static qn_value range_index(qn_jrun *r, qn_value v, const qn_value *a) {
    qn_value args[3] = {a[0], qn_v_absent(), qn_v_absent()};
    return list_index(r, range_list(r, v), args);
}

static qn_value range_count(qn_jrun *r, qn_value v, const qn_value *a) {
    return list_count(r, range_list(r, v), a);
}

// ---- mappings ----

static qn_value dict_get(qn_jrun *r, qn_value v, const qn_value *a) {
    if (!qn_v_hashable(a[0])) qn_run_fail(r, "unhashable type: '%s'", qn_v_type(a[0]));
    if (!qn_run_spend(r, qn_v_weight(a[0]))) return qn_v_none();
    qn_value *found = qn_vdict_get(v.dict, a[0]);
    if (found) return *found;
    return a[1].kind == QN_V_ABSENT ? qn_v_none() : a[1];
}

static qn_value view(qn_jrun *r, qn_value v, char what) {
    qn_vlist *l = qn_vlist_new(r->arena, v.dict->n);
    for (size_t i = 0; i < v.dict->n && qn_run_spend(r, 1); i++) {
        const qn_ventry *e = &v.dict->e[i];
        qn_value pair[2] = {e->key, e->value};
        qn_vlist_push(r->arena, l, what == 'k' ? e->key : what == 'v' ? e->value
                                                                       : qn_v_tuple(r, pair, 2));
    }
    return (qn_value){.kind = QN_V_VIEW, .marked = (uint8_t)what, .list = l};
}

static qn_value dict_keys(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return view(r, v, 'k');
}

static qn_value dict_values(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return view(r, v, 'v');
}

static qn_value dict_items(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    return view(r, v, 'i');
}

static qn_value dict_copy(qn_jrun *r, qn_value v, const qn_value *a) {
    (void)a;
    qn_vdict *d = qn_vdict_new(r->arena);
    for (size_t i = 0; i < v.dict->n && qn_run_spend(r, 1); i++)
        qn_vdict_set(r->arena, d, v.dict->e[i].key, v.dict->e[i].value);
    return qn_v_of_dict(d);
}

// ---- loop ----

static qn_value loop_cycle(qn_jrun *r, qn_value v, const qn_jargs *args) {
    if (args->n && !args->kw) return args->v[(size_t)v.loop->index0 % args->n];
    qn_run_fail(r, "no items for cycling given");
    return qn_v_none();
}

static qn_value loop_changed(qn_jrun *r, qn_value v, const qn_jargs *args) {
    qn_value now = qn_v_tuple(r, args->v, args->n), before = v.loop->changed;
    if (before.kind != QN_V_ABSENT && qn_v_equal(r, before, now)) return qn_v_bool(false);
    v.loop->changed = now;
    return qn_v_bool(true);
}

// ---- look-up ----

static const qn_jinja_func *find(const qn_jinja_func *f, size_t n, const qn_vstr *name) {
    for (size_t i = 0; i < n; i++)
        if (qn_vstr_is(name, f[i].name)) return &f[i];
    return NULL;
}

const qn_jinja_func *qn_method_find(qn_value self, const qn_vstr *name) {
    static const qn_jinja_func list[] = {{"index", list_index, NULL, "value,start,stop", 1, true},
                                         {"count", list_count, NULL, "value", 1, true},
                                         {"copy", list_copy, NULL, NULL, 0, true}};
    static const qn_jinja_func range[] = {{"index", range_index, NULL, "value", 1, true},
                                          {"count", range_count, NULL, "value", 1, true}};
    static const qn_jinja_func dict[] = {{"get", dict_get, NULL, "key,default", 1, true},
                                         {"keys", dict_keys, NULL, NULL, 0, true},
                                         {"values", dict_values, NULL, NULL, 0, true},
                                         {"items", dict_items, NULL, NULL, 0, true},
                                         {"copy", dict_copy, NULL, NULL, 0, true}};
    static const qn_jinja_func loop[] = {{"cycle", NULL, loop_cycle, NULL, 0, true},
                                         {"changed", NULL, loop_changed, NULL, 0, true}};
    if (self.kind == QN_V_STR) return qn_str_method_find(name);
    if (self.kind == QN_V_RANGE) return find(range, 2, name);
    if (is_list(self)) return find(list, self.kind == QN_V_LIST ? 3 : 2, name);
    if (self.kind == QN_V_DICT) return find(dict, 5, name);
    return self.kind == QN_V_LOOP ? find(loop, 2, name) : NULL;
}

bool qn_method_modifies(qn_value self, const qn_vstr *name) {
    static const char *const list[] = {"append", "clear", "pop",    "reverse",
                                       "insert", "sort",  "extend", "remove"};
    static const char *const dict[] = {"clear", "pop", "popitem", "setdefault", "update"};
    bool is_dict = self.kind == QN_V_DICT;
    if (!is_dict && self.kind != QN_V_LIST) return false;
    const char *const *names = is_dict ? dict : list;
    size_t n = is_dict ? sizeof dict / sizeof *dict : sizeof list / sizeof *list;
    for (size_t i = 0; i < n; i++)
        if (qn_vstr_is(name, names[i])) return true;
    return false;
}
