// check: opens a checkpoint in whatever state it is, compares what is there with what its family
// expects, and has every weight read (check_tensor.c). A problem of severity error makes the verdict.
#include "quant/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/progress.h"
#include "base/str.h"
#include "quant/check_siblings.h"
#include "quant/check_suspects.h"
#include "quant/check_tensor.h"
#include "quant/forward_range.h"
#include "quant/source_model.h"
#include "store/label_compare.h"

enum { BATCH = 64 }; // weights

typedef struct check {
    const qn_check_options *o;
    qn_ckpt *ckpt, *reference;
    const qn_weight *weights;
    size_t n;
    qn_config config;
    bool known; // config understood: layout and spelling are valid
    qn_layout layout;
    qn_pool *pool;
    qn_problems problems;
    qn_siblings siblings;
    json_t *summary, *tensors;
} check;

// ---- before the weights ----

static void take_damages(check *c) {
    for (size_t i = 0; i < qn_ckpt_n_damages(c->ckpt); i++) {
        const qn_damage *d = qn_ckpt_damage(c->ckpt, i);
        qn_problem_add(&c->problems, QN_ERROR, d->code, d->tensor, i, "%s", d->message);
    }
}

static void take_labels(check *c) {
    // What quern reads in spite of its label is a warning; what it refuses for it is none.
    const char *fault = qn_ckpt_label_fault(c->ckpt);
    if (fault) qn_problem_add(&c->problems, QN_ERROR, "label-mismatch", NULL, 0, "%s", fault);
    for (size_t i = 0; i < qn_ckpt_n_label_errors(c->ckpt); i++)
        qn_problem_add(&c->problems, QN_WARNING, "label-mismatch", NULL, i, "%s",
                       qn_ckpt_label_error(c->ckpt, i));
}

static void understand(check *c) {
    qn_err err = {0};
    const json_t *config = qn_ckpt_config(c->ckpt);
    const char *path = qn_ckpt_path(c->ckpt);
    if (!config && qn_file_exists(path) && !qn_file_is_dir(path)) {
        qn_problem_add(&c->problems, QN_WARNING, "bad-header", NULL, 0,
                       "a single file is checked without config.json: give the folder to have it "
                       "compared with its architecture");
        return;
    }
    if (!config) {
        qn_problem_add(&c->problems, QN_ERROR, "bad-header", NULL, 0,
                       "config.json is missing or unreadable; tensors are checked without it");
        return;
    }
    if (!qn_config_read(&c->config, config, "config.json", &err)) {
        qn_problem_add(&c->problems, QN_ERROR, "label-mismatch", NULL, 0, "%s", err.text);
        return;
    }
    qn_spelling spelling = qn_spelling_detect(&c->config, c->ckpt);
    qn_layout_build(&c->layout, &c->config, &spelling);
    c->known = true;
}

// Whether something is known to be wrong with the parts of this weight, so that its absence as a
// whole is a consequence: "x.weight" of "x.qweight", "x.scales" and so on.
static bool explained(const check *c, const char *name) {
    size_t stem = strlen(name) - (qn_str_ends(name, ".weight") ? strlen("weight") : 0);
    for (size_t i = 0; i < qn_ckpt_n_damages(c->ckpt); i++) {
        const char *tensor = qn_ckpt_damage(c->ckpt, i)->tensor;
        if (tensor && strncmp(tensor, name, stem) == 0) return true;
    }
    return false;
}

// A file that could not be read says nothing about the tensors it holds.
static bool file_unread(const check *c) {
    for (size_t i = 0; i < qn_ckpt_n_damages(c->ckpt); i++)
        if (!qn_ckpt_damage(c->ckpt, i)->tensor) return true;
    return false;
}

static void compare_with_layout(check *c) {
    bool unread = file_unread(c);
    size_t hidden = 0;
    for (size_t i = 0; i < c->layout.n; i++) {
        const qn_expected *e = &c->layout.tensors[i];
        const qn_weight *w = qn_ckpt_weight(c->ckpt, e->name);
        qn_err err = {0};
        if (!w && unread)
            hidden++;
        else if (!w && !explained(c, e->name))
            qn_problem_add(&c->problems, QN_ERROR, "missing-tensor", e->name, i,
                           "%s expects it", c->config.architecture);
        else if (w && !qn_expected_matches(e, w, &err))
            qn_problem_add(&c->problems, QN_ERROR, "shape-mismatch", e->name, i, "%s", err.text);
    }
    if (hidden)
        qn_problem_add(&c->problems, QN_ERROR, "missing-tensor", NULL, 0,
                       "%zu tensor%s that %s expects %s not in what could be read", hidden,
                       qn_plural_s(hidden), c->config.architecture, hidden == 1 ? "is" : "are");
}

static const qn_weight *embedding(const check *c) {
    for (size_t i = 0; i < c->layout.n; i++)
        if (c->layout.tensors[i].role == QN_ROLE_EMBED)
            return qn_ckpt_weight(c->ckpt, c->layout.tensors[i].name);
    return NULL;
}

static bool same_bytes(const qn_weight *a, const qn_weight *b) {
    const qn_tensor *s = a->parts[0], *t = b->parts[0];
    return !a->scheme && !b->scheme && s->data && t->data && s->dtype == t->dtype &&
           s->bytes == t->bytes && memcmp(s->data, t->data, s->bytes) == 0;
}

static bool judge_tied_head(check *c, const qn_weight *w, size_t order) {
    const qn_weight *e = embedding(c);
    if (!e || !c->config.tie_word_embeddings || strcmp(w->name, "lm_head.weight") != 0)
        return false;
    qn_problem_add(&c->problems, QN_WARNING, "unexpected-tensor", w->name, order,
                   same_bytes(e, w)
                       ? "a copy of the embedding, to which config.json ties the head (harmless; "
                         "convert leaves it out)"
                       : "config.json ties the head to the embedding, but this head differs from "
                         "it; most loaders ignore it without a word");
    return true;
}

static void judge_unexpected(check *c, const qn_weight *w, size_t order) {
    if (judge_tied_head(c, w, order)) return;
    bool bias = qn_str_ends(w->name, ".bias"), zero = bias && qn_weight_all_zero(w);
    if (bias)
        qn_problem_add(&c->problems, zero ? QN_WARNING : QN_ERROR, "invented-bias", w->name, order,
                       zero ? "an all-zero bias that %s does not have (harmless; convert leaves it "
                              "out)"
                            : "a bias that %s does not have, and it is not zero",
                       c->config.architecture);
    else
        qn_problem_add(&c->problems, QN_WARNING, "unexpected-tensor", w->name, order,
                       "%s does not have it", c->config.architecture);
}

// ---- all weights ----

static uint64_t stored_bytes(const qn_weight *w) {
    uint64_t n = 0;
    for (int i = 0; i < QN_MAX_PARTS; i++) n += w->parts[i] ? w->parts[i]->bytes : 0;
    return n;
}

static bool progress(check *c, uint64_t done, uint64_t total, qn_err *err) {
    if (!c->o->progress || c->o->progress(c->o->user, "check", done, total)) return true;
    return qn_fail(err, QN_CANCELLED, "check: stopped");
}

// A few weights, one after the other, and then the origins of all of them side by side.
static bool read_some(check *c, qn_survey *survey, size_t from, size_t n, uint64_t *done,
                      uint64_t total, qn_err *err) {
    qn_check_tensor list[BATCH];
    json_t *entries[BATCH];
    for (size_t k = 0; k < n; k++) {
        size_t i = from + k;
        qn_check_tensor *t = &list[k];
        *t = (qn_check_tensor){.w = &c->weights[i], .order = i, .group_hint = c->o->group_size};
        if (c->known) t->expected = qn_layout_find(&c->layout, t->w->name);
        if (c->known && !t->expected) judge_unexpected(c, t->w, i);
        if (c->reference) t->siblings = &c->siblings;
        if (c->reference) t->reference = qn_ckpt_weight(c->reference, t->w->name);
        entries[k] = qn_check_one(c->pool, survey, t, &c->problems, err);
        if (!entries[k]) return false;
        qn_check_suspect(t, entries[k], c->known && c->config.family->zero_centred, &c->problems);
        json_array_append_new(c->tensors, entries[k]);
        *done += stored_bytes(t->w);
        if (!progress(c, *done, total, err)) return false;
    }
    qn_check_origins(c->pool, list, entries, n, &c->problems);
    return true;
}

static bool read_weights(check *c, qn_err *err) {
    uint64_t total = 0, done = 0;
    double started = qn_now();
    bool ok = true;
    qn_survey *survey = qn_survey_new(c->pool);
    for (size_t i = 0; i < c->n; i++) total += stored_bytes(&c->weights[i]);
    for (size_t i = 0; ok && i < c->n; i += BATCH)
        ok = read_some(c, survey, i, c->n - i < BATCH ? c->n - i : BATCH, &done, total, err);
    qn_survey_free(survey);
    if (!ok) return false;
    double seconds = qn_now() - started;
    json_object_set_new(c->summary, "bytes", json_integer((json_int_t)total));
    json_object_set_new(c->summary, "seconds", json_real(seconds));
    json_object_set_new(c->summary, "gb_s",
                        json_real(seconds > 0 ? (double)total / seconds / 1e9 : 0));
    return true;
}

static void report_reference(check *c) {
    const qn_weight *list;
    size_t n;
    if (!c->reference || !qn_ckpt_weights(c->reference, &list, &n, NULL)) return;
    for (size_t i = 0; i < n; i++)
        if (!qn_ckpt_weight(c->ckpt, list[i].name))
            qn_problem_add(&c->problems, QN_ERROR, "missing-tensor", list[i].name, c->n + i,
                           "the reference has it");
}

static int worse(const void *a, const void *b) {
    double x = json_number_value(json_object_get(*(json_t *const *)a, "cosine"));
    double y = json_number_value(json_object_get(*(json_t *const *)b, "cosine"));
    return (x > y) - (x < y);
}

// The ten weights that are farthest from the reference.
static void add_worst(check *c) {
    size_t n = json_array_size(c->tensors), k = 0;
    if (!c->reference) return;
    json_t **list = QN_NEW_ARRAY(json_t *, n), *worst = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *e = json_array_get(c->tensors, i);
        if (json_is_number(json_object_get(e, "cosine"))) list[k++] = e;
    }
    if (k) qsort(list, k, sizeof *list, worse);
    for (size_t i = 0; i < k && i < 10; i++) {
        json_t *o = json_object();
        static const char *const keys[] = {"name", "cosine", "max_abs_error", "relative_rms"};
        for (int j = 0; j < 4; j++) json_object_set(o, keys[j], json_object_get(list[i], keys[j]));
        json_array_append_new(worst, o);
    }
    json_object_set_new(c->summary, "worst", worst);
    free(list);
}

// ---- the model as a whole ----

static size_t group_of_model(const check *c) {
    for (size_t i = 0; i < c->n; i++)
        if (c->weights[i].scheme && c->weights[i].n_groups > 1) return c->weights[i].group;
    return 1;
}

// What makes intermediate sizes divisible: pad writes float, GPTQ and AWQ files.
static const char *cure(const check *c) {
    for (size_t i = 0; i < c->n; i++)
        if (c->weights[i].scheme && !qn_str_starts(c->weights[i].layout, "gptq") &&
            !qn_str_starts(c->weights[i].layout, "awq"))
            return "`quern convert` and then `quern pad` help";
    return "`quern pad` helps";
}

// What tp devices cannot share, as words behind a comma; nothing when all is well. Heads of keys may
// be fewer than devices: engines then repeat them.
static void add_obstacles(const qn_config *g, size_t group, size_t tp, qn_buf *b) {
    const struct width {
        const char *name;
        size_t n, unit;
    } widths[] = {{"intermediate_size", g->intermediate_size, group},
                  {"moe_intermediate_size", g->moe_intermediate_size, group},
                  {"num_attention_heads", g->num_attention_heads, 1}};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        const struct width *w = &widths[i];
        if (w->n % (w->unit * tp) == 0) continue;
        qn_buf_addf(b, "%s%s %zu", b->n ? ", " : "", w->name, w->n);
        if (w->unit > 1) qn_buf_addf(b, " in groups of %zu", w->unit);
    }
    size_t kv = g->num_key_value_heads;
    if (kv && kv % tp != 0 && tp % kv != 0)
        qn_buf_addf(b, "%snum_key_value_heads %zu", b->n ? ", " : "", kv);
}

static void judge_parallel(check *c) {
    const qn_config *g = &c->config;
    size_t group = group_of_model(c);
    json_t *o = json_object();
    for (int tp = 2; tp <= 8; tp *= 2) {
        qn_buf b = {0};
        char key[8];
        add_obstacles(g, group, (size_t)tp, &b);
        snprintf(key, sizeof key, "%d", tp);
        json_object_set_new(o, key, json_boolean(b.n == 0));
        if (b.n) {
            bool pads = strstr(b.data, "intermediate_size") != NULL;
            bool heads = strstr(b.data, "heads") != NULL;
            qn_problem_add(&c->problems, QN_WARNING, "tp-indivisible", NULL, (size_t)tp,
                           "%d devices cannot share %s (%s%s)", tp, b.data,
                           pads ? cure(c) : "padding does not help",
                           pads && heads ? ", with the intermediate size only" : "");
        }
        qn_buf_done(&b);
    }
    json_object_set_new(c->summary, "tp_divisible", o);
}

static void add_model(check *c) {
    json_t *s = c->summary;
    uint64_t nonfinite = 0;
    size_t i;
    json_t *e;
    json_array_foreach(c->tensors, i, e)
        nonfinite += (uint64_t)json_integer_value(json_object_get(e, "nonfinite"));
    json_object_set_new(s, "tensors", json_integer((json_int_t)qn_ckpt_n_tensors(c->ckpt)));
    json_object_set_new(s, "weights", json_integer((json_int_t)c->n));
    json_object_set_new(s, "nonfinite", json_integer((json_int_t)nonfinite));
    if (!c->known) return;
    json_object_set_new(s, "architecture", json_string(c->config.architecture));
    json_object_set_new(s, "family", json_string(c->config.family->name));
    json_object_set_new(s, "tied_embeddings", json_boolean(c->config.tie_word_embeddings));
    json_object_set_new(s, "embedding_rows", json_integer((json_int_t)c->config.vocab_size));
    qn_tokenizer *t = qn_tokenizer_load(qn_ckpt_path(c->ckpt), NULL);
    if (t)
        json_object_set_new(s, "vocabulary_padding",
                            json_integer((json_int_t)c->config.vocab_size - qn_tokenizer_size(t)));
    qn_tokenizer_free(t);
    judge_parallel(c);
}

static bool look(check *c, qn_err *err) {
    qn_err list_err = {0};
    bool listed = qn_ckpt_weights(c->ckpt, &c->weights, &c->n, &list_err);
    if (!listed)
        qn_problem_add(&c->problems, QN_ERROR, "bad-header", NULL, 0, "%s", list_err.text);
    take_damages(c);
    take_labels(c);
    understand(c);
    if (c->known && listed) compare_with_layout(c);
    qn_check_doubles(c->ckpt, &c->problems);
    if (!read_weights(c, err)) return false;
    report_reference(c);
    if (c->reference) qn_check_siblings(c->tensors, &c->problems);
    add_worst(c);
    add_model(c);
    if (c->o->forward) qn_check_forward(qn_ckpt_path(c->ckpt), c->o->n_threads, &c->problems,
                                        c->summary);
    return true;
}

static bool open_all(check *c, const char *model, qn_err *err) {
    char *path = NULL;
    const qn_weight *list;
    size_t n;
    if (!qn_resolve(model, &path, err)) return false;
    c->ckpt = qn_ckpt_open(path, QN_CKPT_TOLERANT, err);
    qn_free(path);
    c->pool = c->ckpt ? qn_pool_new(c->o->n_threads, err) : NULL;
    if (!c->pool || !c->o->against) return c->pool != NULL;
    path = NULL;
    if (!qn_resolve(c->o->against, &path, err)) return qn_err_prefix(err, "reference");
    c->reference = qn_ckpt_open(path, 0, err);
    c->siblings = (qn_siblings){c->reference, 1 << 18};
    qn_free(path);
    return (c->reference && qn_ckpt_weights(c->reference, &list, &n, err)) ||
           qn_err_prefix(err, "reference");
}

bool qn_check(const char *model, const qn_check_options *o, json_t **report, qn_err *err) {
    check c = {.o = o, .summary = json_object(), .tensors = json_array()};
    *report = NULL;
    qn_problems_init(&c.problems);
    bool ok = open_all(&c, model, err) && look(&c, err);
    if (ok) {
        json_t *j = json_object();
        bool bad = qn_problems_errors(&c.problems) > 0;
        json_object_set_new(j, "verdict", json_string(bad ? "problems" : "ok"));
        json_object_set_new(j, "problems", qn_problems_json(&c.problems));
        json_object_set(j, "summary", c.summary);
        json_object_set(j, "tensors", c.tensors);
        *report = j;
    }
    qn_problems_done(&c.problems);
    json_decref(c.summary);
    json_decref(c.tensors);
    qn_layout_done(&c.layout);
    qn_config_done(&c.config);
    qn_pool_free(c.pool);
    qn_ckpt_free(c.ckpt);
    qn_ckpt_free(c.reference);
    return ok;
}
