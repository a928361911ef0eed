// Calling: arguments to parameters, and the functions that the environment offers to templates.
#include <string.h>
#include <time.h>

#include "text/jinja_number.h"
#include "text/jinja_run.h"

// ---- binding ----

typedef struct param_names {
    const char *name[QN_JINJA_MAX_PARAMS];
    size_t len[QN_JINJA_MAX_PARAMS];
    size_t n;
} param_names;

static param_names split_params(const char *s) {
    param_names p = {.n = 0};
    while (s && *s && p.n < QN_JINJA_MAX_PARAMS) {
        size_t len = strcspn(s, ",");
        p.name[p.n] = s;
        p.len[p.n++] = len;
        s += len + (s[len] == ',');
    }
    return p;
}

static bool bind_keyword(qn_jrun *r, const qn_jinja_func *f, const param_names *p,
                         const qn_ventry *e, qn_value *out) {
    const qn_vstr *key = e->key.s;
    size_t k = 0;
    while (k < p->n && (p->len[k] != key->n || memcmp(p->name[k], key->s, key->n) != 0)) k++;
    if (f->positional || k == p->n)
        return qn_run_fail(r, "%s() got an unexpected keyword argument '%.*s'", f->name,
                           (int)qn_vstr_offset(key, 60), key->s);
    if (out[k].kind != QN_V_ABSENT)
        return qn_run_fail(r, "%s() got multiple values for argument '%.*s'", f->name,
                           (int)p->len[k], p->name[k]);
    out[k] = e->value;
    return true;
}

qn_value qn_func_call(qn_jrun *r, const qn_jinja_func *f, qn_value self, const qn_jargs *args) {
    if (!qn_run_spend(r, 1)) return qn_v_none();
    if (f->call_any) return f->call_any(r, self, args);
    param_names p = split_params(f->params);
    qn_value a[QN_JINJA_MAX_PARAMS];
    for (size_t i = 0; i < QN_JINJA_MAX_PARAMS; i++) a[i] = qn_v_absent();
    if (args->n > p.n) {
        qn_run_fail(r, "%s() takes at most %zu arguments (%zu given)", f->name, p.n, args->n);
        return qn_v_none();
    }
    for (size_t i = 0; i < args->n; i++) a[i] = args->v[i];
    for (size_t i = 0; args->kw && i < args->kw->n; i++)
        if (!bind_keyword(r, f, &p, &args->kw->e[i], a)) return qn_v_none();
    for (size_t i = 0; i < f->required; i++)
        if (a[i].kind == QN_V_ABSENT)
            qn_run_fail(r, "%s() is missing the argument '%.*s'", f->name, (int)p.len[i],
                        p.name[i]);
    return r->failed ? qn_v_none() : f->call(r, self, a);
}

qn_value qn_value_call(qn_jrun *r, qn_value callee, const qn_jargs *args) {
    switch (callee.kind) {
    case QN_V_METHOD:
        return qn_func_call(r, callee.method->func, callee.method->self, args);
    case QN_V_GLOBAL: return qn_func_call(r, callee.func, qn_v_none(), args);
    case QN_V_MACRO: return qn_macro_call(r, callee.macro, args);
    case QN_V_LOOP:
        if (args->n == 1 && !args->kw) return qn_loop_call(r, callee.loop, args->v[0]);
        qn_run_fail(r, "loop() takes one argument");
        return qn_v_none();
    default:
        if (qn_run_use(r, callee))
            qn_run_fail(r, "'%s' object is not callable", qn_v_type(callee));
        return qn_v_none();
    }
}

// ---- dict and namespace ----

static bool fill_from_pairs(qn_jrun *r, qn_vdict *d, qn_value from) {
    qn_vlist *pairs = qn_v_items(r, from);
    for (size_t i = 0; pairs && i < pairs->n && !r->failed; i++) {
        qn_vlist *pair = qn_v_items(r, pairs->v[i]);
        if (!pair) return false;
        if (pair->n != 2)
            return qn_run_fail(r, "dictionary update sequence element #%zu has length %zu; 2 is "
                                  "required", i, pair->n);
        if (!qn_v_hashable(pair->v[0]))
            return qn_run_fail(r, "unhashable type: '%s'", qn_v_type(pair->v[0]));
        if (qn_run_spend(r, qn_v_weight(pair->v[0])))
            qn_vdict_set(r->arena, d, pair->v[0], pair->v[1]);
    }
    return !r->failed;
}

static bool fill(qn_jrun *r, qn_vdict *d, const qn_vdict *from) {
    for (size_t i = 0; i < from->n && qn_run_spend(r, 1); i++)
        qn_vdict_set(r->arena, d, from->e[i].key, from->e[i].value);
    return !r->failed;
}

static qn_vdict *make_dict(qn_jrun *r, const qn_jargs *args) {
    qn_vdict *d = qn_vdict_new(r->arena);
    if (args->n > 1) qn_run_fail(r, "dict expected at most 1 argument, got %zu", args->n);
    if (args->n == 1 && !r->failed) {
        if (args->v[0].kind == QN_V_DICT) fill(r, d, args->v[0].dict);
        else fill_from_pairs(r, d, args->v[0]);
    }
    if (args->kw) fill(r, d, args->kw);
    return d;
}

static qn_value global_dict(qn_jrun *r, qn_value self, const qn_jargs *args) {
    (void)self;
    return qn_v_of_dict(make_dict(r, args));
}

static qn_value global_namespace(qn_jrun *r, qn_value self, const qn_jargs *args) {
    (void)self;
    qn_vdict *d = make_dict(r, args);
    for (size_t i = 0; i < d->n && !r->failed; i++) {
        qn_value k = d->e[i].key;
        if (k.kind == QN_V_STR && k.s->n && k.s->s[0] == '_')
            qn_run_fail(r, "templates cannot store underscore-prefixed attributes on a namespace");
    }
    return (qn_value){.kind = QN_V_NAMESPACE, .dict = d};
}

// ---- the others ----

static qn_value global_range(qn_jrun *r, qn_value self, const qn_value *a) {
    (void)self;
    int64_t v[3] = {0, 0, 1};
    int n = 0;
    while (n < 3 && a[n].kind != QN_V_ABSENT) n++;
    for (int i = 0; i < n; i++) v[n == 1 ? 1 : i] = qn_v_index(r, a[i], "range()'s argument");
    if (!v[2]) qn_run_fail(r, "range() arg 3 must not be zero");
    if (r->failed) return qn_v_none();
    uint64_t span = 0, stride = v[2] > 0 ? (uint64_t)v[2] : 0 - (uint64_t)v[2];
    if (v[2] > 0 && v[0] < v[1]) span = (uint64_t)v[1] - (uint64_t)v[0];
    if (v[2] < 0 && v[0] > v[1]) span = (uint64_t)v[0] - (uint64_t)v[1];
    uint64_t count = span ? (span - 1) / stride + 1 : 0;
    if (count > QN_JINJA_RANGE) return qn_run_limit(r, "a range's size (100000)"), qn_v_none();
    qn_vrange *g = qn_arena_alloc(r->arena, sizeof *g);
    *g = (qn_vrange){v[0], v[2], (int64_t)count};
    return (qn_value){.kind = QN_V_RANGE, .range = g};
}

static qn_value global_raise(qn_jrun *r, qn_value self, const qn_value *a) {
    (void)self;
    qn_run_raise(r, a[0]);
    return qn_v_none();
}

// One conversion at a time keeps strftime's buffer small and %f (microseconds) ours.
static bool time_part(qn_buf *out, const char *spec, size_t n, const struct timespec *now,
                      const struct tm *tm) {
    char format[8], text[256];
    if (n == 2 && spec[1] == 'f') {
        qn_buf_addf(out, "%06ld", now->tv_nsec / 1000);
        return true;
    }
    memcpy(format, spec, n);
    format[n] = 0;
    size_t len = strftime(text, sizeof text, format, tm);
    if (qn_utf8_valid(text, len) < len) return false;
    qn_buf_add(out, text, len);
    return true;
}

static qn_value global_strftime_now(qn_jrun *r, qn_value self, const qn_value *a) {
    (void)self;
    struct timespec now;
    struct tm tm;
    if (a[0].kind != QN_V_STR) {
        qn_run_fail(r, "strftime() argument 1 must be str, not %s", qn_v_type(a[0]));
        return qn_v_none();
    }
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &tm);
    qn_buf out = {0};
    const char *p = a[0].s->s, *end = p + a[0].s->n;
    while (p < end && qn_run_spend(r, 1)) {
        size_t n = 1;
        if (*p == '%' && p + 1 < end) n = (p[1] == '-' || p[1] == 'E' || p[1] == 'O') && p + 2 < end
                                              ? 3 : 2;
        if (n == 1) qn_buf_addc(&out, *p);
        else if (!time_part(&out, p, n, &now, &tm)) qn_run_fail(r, "time format is not UTF-8");
        p += n;
    }
    if (out.n && qn_utf8_valid(out.data, out.n) < out.n) qn_run_fail(r, "invalid time format");
    return qn_run_text(r, &out);
}

static qn_value global_unsupported(qn_jrun *r, qn_value self, const qn_jargs *args) {
    (void)self;
    (void)args;
    qn_run_unsupported(r, "a function of lipsum, cycler, joiner");
    return qn_v_none();
}

qn_value qn_global_find(const qn_vstr *name) {
    static const qn_jinja_func globals[] = {
        {"range", global_range, NULL, "start,stop,step", 1, true},
        {"namespace", NULL, global_namespace, NULL, 0, false},
        {"raise_exception", global_raise, NULL, "message", 1, false},
        {"strftime_now", global_strftime_now, NULL, "format", 1, false},
        {"dict", NULL, global_dict, NULL, 0, false},
        {"lipsum", NULL, global_unsupported, NULL, 0, false},
        {"cycler", NULL, global_unsupported, NULL, 0, false},
        {"joiner", NULL, global_unsupported, NULL, 0, false},
    };
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (qn_vstr_is(name, globals[i].name))
            return (qn_value){.kind = QN_V_GLOBAL, .func = &globals[i]};
    return qn_v_absent();
}
