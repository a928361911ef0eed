// Owns what the tensors of a checkpoint mean: which of them form one quantized matrix, which stand
// for themselves, and that no part is missing. Names are cut into a prefix and a suffix that some
// scheme uses; what the prefix says (which layer, which projection) does not matter here.
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/ckpt_state.h"
#include "store/label_compare.h"
#include "store/name_order.h"
#include "store/schemes.h"

typedef struct sets {
    qn_ckpt *c;
    bool *used; // per tensor: part of a set
    bool *read; // per tensor: the codes of a set that makes sense
} sets;

// Scales of activations and caches lie beside weights; quern computes with floats there.
static const char *const activation_parts[] = {".input_scale", ".input_zero_point",
                                               ".output_scale", ".k_scale", ".v_scale"};

static const qn_tensor *find_part(const qn_ckpt *c, const char *prefix, const char *suffix) {
    char *name = qn_strf("%s%s", prefix, suffix);
    const qn_tensor *t = qn_ckpt_find(c, name);
    qn_free(name);
    return t;
}

static void gather(const qn_ckpt *c, const qn_scheme *s, const char *prefix, qn_weight *w) {
    w->scheme = s;
    for (int i = 0; i < QN_MAX_PARTS; i++)
        w->parts[i] = s->parts[i] ? find_part(c, prefix, s->parts[i]) : NULL;
}

static bool complete(const qn_weight *w) {
    for (int i = 0; i < QN_MAX_PARTS; i++)
        if (w->scheme->required >> i & 1 && !w->parts[i]) return false;
    return true;
}

static bool is_said(const qn_scheme *s, const qn_label *l) {
    return l->method && strcmp(l->method, s->family) == 0;
}

// The scheme that claims the set around tensor t; the label's family is asked first, so that it
// decides where two fit. Within a family the label's format does.
static const qn_scheme *recognise(const sets *s, const char *prefix, const char *suffix,
                                  qn_weight *w) {
    const qn_label *l = &s->c->label;
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < qn_n_schemes; i++) {
            const qn_scheme *k = qn_schemes[i];
            if (strcmp(k->parts[0], suffix) != 0) continue;
            bool format = l->format && k->format && strcasecmp(l->format, k->format) == 0;
            if (round < 2 && !is_said(k, l)) continue;
            if (round < 1 && !format) continue;
            gather(s->c, k, prefix, w);
            if (complete(w) && k->claims(w)) return k;
        }
    return NULL;
}

static void add_weight(qn_ckpt *c, const qn_weight *w) {
    c->weights[c->n_weights++] = *w;
}

static void mark_used(sets *s, const qn_tensor *t) {
    if (t) s->used[t - s->c->tensors] = true;
}

static void use_parts(sets *s, const qn_weight *w, const char *prefix) {
    bool some = false;
    for (int i = 0; i < QN_MAX_PARTS; i++) mark_used(s, w->parts[i]);
    for (size_t i = 0; i < sizeof activation_parts / sizeof *activation_parts; i++) {
        const qn_tensor *t = find_part(s->c, prefix, activation_parts[i]);
        some = some || t;
        mark_used(s, t);
    }
    if (some && !s->c->tolerant)
        qn_note("%s: scales for quantized activations are not used", s->c->path);
}

static const char *damage_code(const qn_err *err) {
    return err->code == QN_NOT_FOUND ? "missing-tensor" : "shape-mismatch";
}

static bool bind_set(sets *s, qn_weight *w, const char *prefix, qn_err *err) {
    w->name = qn_strf("%s.weight", prefix);
    w->scale_rows = 1;
    qn_label_entry said = qn_label_for(&s->c->label, prefix);
    w->said_group = said.group;
    memcpy(w->said_block, said.block, sizeof w->said_block);
    use_parts(s, w, prefix);
    if (w->scheme->bind(w, &said, err)) {
        s->read[w->parts[0] - s->c->tensors] = true;
        add_weight(s->c, w);
        return true;
    }
    bool on = qn_damage_take(qn_ckpt_damages(s->c), damage_code(err), w->name, err);
    qn_free(w->name);
    return on;
}

// ---- sets that are not whole ----

static bool says_quantized(const qn_label *l, const qn_tensor *t) {
    bool ct = l->method && strcmp(l->method, "compressed-tensors") == 0;
    bool fp8 = l->method && strcmp(l->method, "fp8") == 0;
    if (t->n_dims != 2) return false;
    return (t->dtype == QN_DT_F8_E4M3 && (ct || fp8)) || (t->dtype == QN_DT_I8 && ct);
}

// The first scheme that would want this set, and the first part it lacks.
static const char *lacking_part(const sets *s, const char *prefix, const char *suffix) {
    const char *first = NULL;
    for (int round = 0; round < 2 && !first; round++)
        for (size_t i = 0; i < qn_n_schemes && !first; i++) {
            const qn_scheme *k = qn_schemes[i];
            if (strcmp(k->parts[0], suffix) != 0 || (!round && !is_said(k, &s->c->label))) continue;
            for (int p = 0; p < QN_MAX_PARTS && !first; p++)
                if (k->required >> p & 1 && !find_part(s->c, prefix, k->parts[p]))
                    first = k->parts[p];
        }
    return first;
}

// Everything that lies beside the marking tensor belongs to the same fault.
static void use_all_parts(sets *s, const char *prefix, const char *suffix) {
    for (size_t i = 0; i < qn_n_schemes; i++)
        for (int p = 0; p < QN_MAX_PARTS && strcmp(qn_schemes[i]->parts[0], suffix) == 0; p++)
            if (qn_schemes[i]->parts[p])
                mark_used(s, find_part(s->c, prefix, qn_schemes[i]->parts[p]));
    for (size_t i = 0; i < sizeof activation_parts / sizeof *activation_parts; i++)
        mark_used(s, find_part(s->c, prefix, activation_parts[i]));
}

static bool broken_set(sets *s, const qn_tensor *t, const char *prefix, const char *suffix,
                       qn_err *err) {
    const char *lacks = lacking_part(s, prefix, suffix);
    use_all_parts(s, prefix, suffix);
    if (lacks)
        qn_fail(err, QN_NOT_FOUND, "tensor %s%s is missing, and %s is there", prefix, lacks,
                t->name);
    else if (t->dtype == QN_DT_I16)
        qn_fail(err, QN_UNSUPPORTED, "tensor %s is I16: AWQ's gemv_fast layout, which quern cannot "
                "read (known: gemm, gemv)", t->name);
    else
        qn_part_mismatch(t, err, "the shape and type of gptq, awq or compressed-tensors "
                         "together with the tensors beside it");
    return qn_damage_take(qn_ckpt_damages(s->c), damage_code(err), t->name, err);
}

static bool is_mark(const char *suffix) {
    for (size_t i = 0; i < qn_n_schemes; i++)
        if (strcmp(qn_schemes[i]->parts[0], suffix) == 0) return true;
    return false;
}

// A part that only quantized matrices have, without the tensor it belongs to: *mark is what lacks.
static bool is_orphan(const char *suffix, const char **mark) {
    for (size_t i = 0; i < qn_n_schemes; i++)
        for (int p = 1; p < QN_MAX_PARTS; p++)
            if (qn_schemes[i]->parts[p] && strcmp(qn_schemes[i]->parts[p], suffix) == 0) {
                *mark = qn_schemes[i]->parts[0];
                return true;
            }
    return false;
}

// ---- plain tensors ----

static void add_plain(qn_ckpt *c, const qn_tensor *t) {
    qn_weight w = {.name = qn_strdup(t->name), .parts = {t}, .rows = 1, .cols = 1, .scale_rows = 1,
                   .layout = "plain"};
    for (int i = 0; i + 1 < t->n_dims; i++) w.rows *= t->shape[i];
    if (t->n_dims) w.cols = t->shape[t->n_dims - 1];
    add_weight(c, &w);
}

static bool take_tensor(sets *s, const qn_tensor *t, qn_err *err) {
    const char *suffix = strrchr(t->name, '.');
    if (!suffix || !is_mark(suffix)) return true;
    // Most tensors are plain, and their type says so without any look-up.
    bool own = strcmp(suffix, ".weight") != 0;
    if (!own && t->dtype != QN_DT_F8_E4M3 && t->dtype != QN_DT_I8) return true;
    char *prefix = qn_strndup(t->name, (size_t)(suffix - t->name));
    qn_weight w = {0};
    bool ok = true;
    if (recognise(s, prefix, suffix, &w)) ok = bind_set(s, &w, prefix, err);
    else if (own || says_quantized(&s->c->label, t)) ok = broken_set(s, t, prefix, suffix, err);
    qn_free(prefix);
    return ok;
}

// Parts beside a tensor that is no part of theirs, or beside none. All that lie there are one fault.
static bool check_orphan(sets *s, const qn_tensor *t, qn_err *err) {
    const char *dot = strrchr(t->name, '.'), *mark;
    if (!dot || !is_orphan(dot, &mark)) return true;
    const qn_tensor *owner = NULL;
    char *prefix = qn_strndup(t->name, (size_t)(dot - t->name));
    for (size_t i = 0; i < qn_n_schemes && !owner; i++)
        owner = find_part(s->c, prefix, qn_schemes[i]->parts[0]);
    if (owner)
        qn_fail(err, QN_INPUT, "tensor %s is %s, which does not go with %s", owner->name,
                qn_dtype_name(owner->dtype), t->name);
    else
        qn_fail(err, QN_NOT_FOUND, "tensor %s%s is missing, and %s is there", prefix, mark,
                t->name);
    for (size_t i = 0; i < qn_n_schemes; i++)
        for (int p = 1; p < QN_MAX_PARTS; p++)
            if (qn_schemes[i]->parts[p])
                mark_used(s, find_part(s->c, prefix, qn_schemes[i]->parts[p]));
    qn_free(prefix);
    return qn_damage_take(qn_ckpt_damages(s->c), damage_code(err), t->name, err);
}

// "P.weight" where P's codes have been read already.
static bool is_double(const sets *s, const qn_tensor *t) {
    if (!qn_str_ends(t->name, ".weight")) return false;
    char *prefix = qn_strndup(t->name, strlen(t->name) - strlen(".weight"));
    bool found = false;
    for (size_t i = 0; i < qn_n_schemes && !found; i++) {
        const qn_tensor *codes = find_part(s->c, prefix, qn_schemes[i]->parts[0]);
        found = codes && s->read[codes - s->c->tensors];
    }
    qn_free(prefix);
    return found;
}

static void add_double(qn_ckpt *c, const qn_tensor *t) {
    c->doubles = qn_realloc(c->doubles, (c->n_doubles + 1) * sizeof *c->doubles);
    c->doubles[c->n_doubles++] = t;
    if (!c->tolerant)
        qn_note("%s: %s is stored twice: as codes, which are used, and as it is, which is not",
                c->path, t->name);
}

// Sets first, then what is left, so that a part is never taken for a plain tensor. The list is put
// back into the order of the files afterwards.
static bool read_sets(sets *s, qn_err *err) {
    qn_ckpt *c = s->c;
    for (size_t i = 0; i < c->n_tensors; i++)
        if (!s->used[i] && !take_tensor(s, &c->tensors[i], err)) return false;
    for (size_t i = 0; i < c->n_tensors; i++) {
        if (s->used[i]) continue;
        const qn_tensor *t = &c->tensors[i];
        if (!check_orphan(s, t, err)) return false;
        if (s->used[i]) continue; // damage now
        if (is_double(s, t)) add_double(c, t);
        else add_plain(c, t);
    }
    return true;
}

static int by_place(const void *x, const void *y) {
    const qn_tensor *a = ((const qn_weight *)x)->parts[0], *b = ((const qn_weight *)y)->parts[0];
    return (a > b) - (a < b); // tensors stand in file order in one array
}

static bool settle_all(qn_ckpt *c, qn_err *err) {
    bool ok = true;
    qn_weight **list = QN_NEW_ARRAY(qn_weight *, c->n_weights + 1);
    for (size_t k = 0; ok && k < qn_n_schemes; k++) {
        size_t n = 0;
        for (size_t i = 0; i < c->n_weights; i++)
            if (c->weights[i].scheme == qn_schemes[k]) list[n++] = &c->weights[i];
        if (n && qn_schemes[k]->settle)
            ok = qn_schemes[k]->settle(list, n, &c->label, qn_ckpt_damages(c), err);
    }
    free(list);
    return ok;
}

static void forget_weights(qn_ckpt *c) {
    for (size_t i = 0; i < c->n_weights; i++) qn_free(c->weights[i].name);
    free(c->weights);
    c->weights = NULL;
    c->n_weights = c->n_doubles = 0;
    qn_label_done(&c->label);
}

static bool read_label(qn_ckpt *c, qn_err *err) {
    if (!c->quant_config) return true;
    if (qn_label_read(&c->label, c->quant_config, c->quant_file, err)) return true;
    if (!c->tolerant) return qn_err_prefix(err, "%s", c->path);
    c->label_fault = qn_strdup(err->text);
    *err = (qn_err){0};
    return true;
}

bool qn_ckpt_weights(qn_ckpt *c, const qn_weight **list, size_t *n, qn_err *err) {
    qn_err local = {0};
    if (!err) err = &local;
    if (!c->weights_read) {
        c->weights = QN_NEW_ARRAY(qn_weight, c->n_tensors + 1);
        sets s = {c, QN_NEW_ARRAY(bool, c->n_tensors + 1), QN_NEW_ARRAY(bool, c->n_tensors + 1)};
        bool ok = read_label(c, err) && read_sets(&s, err);
        free(s.used);
        free(s.read);
        if (ok && c->n_weights) qsort(c->weights, c->n_weights, sizeof *c->weights, by_place);
        if (!ok || !settle_all(c, err)) {
            forget_weights(c);
            return false;
        }
        c->weights_by_name = qn_name_order_new(c->weights, c->n_weights, sizeof *c->weights);
        qn_label_compare(c);
        c->weights_read = true;
    }
    if (list) *list = c->weights;
    if (n) *n = c->n_weights;
    return true;
}

const qn_weight *qn_ckpt_weight(qn_ckpt *c, const char *name) {
    if (!c->weights_by_name) return NULL;
    return qn_name_order_find(c->weights_by_name, c->weights, c->n_weights, sizeof *c->weights,
                              name);
}
