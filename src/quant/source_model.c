// Opening a checkpoint for surgery: everything that its family expects is there, and everything that
// is there is explained.
#include "quant/source_model.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "quant/wrong_codes.h"

static bool plain_rows(void *user, size_t row0, size_t n, float *out, qn_err *err) {
    (void)err;
    const qn_tensor *t = ((const qn_weight *)user)->parts[0];
    size_t cols = t->n_dims > 1 && t->shape[0] ? t->n / t->shape[0] : t->n;
    qn_tensor_to_f32(t, row0 * cols, n * cols, out);
    return true;
}

void qn_source_float(qn_out_tensor *t, const qn_weight *w) {
    t->source = w;
    t->user = (void *)(uintptr_t)w; // both callbacks only read it
    if (w->scheme) {
        t->n_dims = 2;
        t->shape[0] = w->rows;
        t->shape[1] = w->cols;
        t->rows = qn_decoded_rows;
    } else {
        t->n_dims = w->parts[0]->n_dims;
        memcpy(t->shape, w->parts[0]->shape, sizeof t->shape);
        t->rows = plain_rows;
    }
}

bool qn_weight_all_zero(const qn_weight *w) {
    if (w->scheme || !w->parts[0]->data) return false;
    const qn_tensor *t = w->parts[0];
    float x[256];
    for (size_t at = 0; at < t->n; at += 256) {
        size_t n = t->n - at < 256 ? t->n - at : 256;
        qn_tensor_to_f32(t, at, n, x);
        for (size_t i = 0; i < n; i++)
            if (x[i] != 0) return false;
    }
    return true;
}

static void note(json_t *notes, const char *text) {
    qn_note("%s", text);
    json_array_append_new(notes, json_string(text));
}

// A head stored beside a tied embedding is a copy; loaders tie again and never read it.
static bool is_tied_copy(const qn_source_model *m, const qn_weight *w) {
    if (!m->config.tie_word_embeddings || strcmp(w->name, "lm_head.weight") != 0 || w->scheme)
        return false;
    for (size_t i = 0; i < m->layout.n; i++) {
        if (m->layout.tensors[i].role != QN_ROLE_EMBED) continue;
        const qn_weight *e = qn_ckpt_weight(m->ckpt, m->layout.tensors[i].name);
        return e && !e->scheme && e->parts[0]->bytes == w->parts[0]->bytes &&
               memcmp(e->parts[0]->data, w->parts[0]->data, w->parts[0]->bytes) == 0;
    }
    return false;
}

static bool explain_extra(qn_source_model *m, const qn_weight *w, bool keep_extra, json_t *notes,
                          qn_err *err) {
    char text[512];
    bool bias = qn_str_ends(w->name, ".bias");
    if (bias && qn_weight_all_zero(w)) {
        snprintf(text, sizeof text, "left out %s: an all-zero bias that %s does not have", w->name,
                 m->config.architecture);
        note(notes, text);
        return true;
    }
    if (is_tied_copy(m, w)) {
        snprintf(text, sizeof text, "left out %s: a copy of the tied embedding", w->name);
        note(notes, text);
        return true;
    }
    if (keep_extra) {
        snprintf(text, sizeof text, "kept %s, which %s does not have", w->name,
                 m->config.architecture);
        note(notes, text);
        m->weights[m->n_weights++] = w;
        return true;
    }
    return qn_fail(err, QN_INPUT, "tensor %s: %s does not have it (--keep-extra carries it over)",
                   w->name, m->config.architecture);
}

static bool take_weights(qn_source_model *m, bool keep_extra, json_t *notes, qn_err *err) {
    const qn_weight *all;
    size_t n;
    if (!qn_ckpt_weights(m->ckpt, &all, &n, err)) return false;
    qn_spelling spelling = qn_spelling_detect(&m->config, m->ckpt);
    qn_layout_build(&m->layout, &m->config, &spelling);
    m->weights = QN_NEW_ARRAY(const qn_weight *, m->layout.n + n);
    for (size_t i = 0; i < m->layout.n; i++) {
        const qn_expected *e = &m->layout.tensors[i];
        const qn_weight *w = qn_ckpt_weight(m->ckpt, e->name);
        if (!w)
            return qn_fail(err, QN_NOT_FOUND, "%s: tensor %s is missing", qn_ckpt_path(m->ckpt),
                           e->name);
        if (!qn_expected_matches(e, w, err)) return false;
        m->weights[m->n_weights++] = w;
    }
    for (size_t i = 0; i < n; i++)
        if (!qn_layout_find(&m->layout, all[i].name) &&
            !explain_extra(m, &all[i], keep_extra, notes, err))
            return false;
    return true;
}

bool qn_source_model_open(qn_source_model *m, const char *model, bool keep_extra, json_t *notes,
                          qn_err *err) {
    char *path = NULL;
    *m = (qn_source_model){0};
    if (!qn_resolve(model, &path, err)) return false;
    m->ckpt = qn_ckpt_open(path, 0, err);
    free(path);
    if (!m->ckpt) return false;
    const json_t *config = qn_ckpt_config(m->ckpt);
    if (!config)
        return qn_fail(err, QN_INPUT, "%s: config.json is missing", qn_ckpt_path(m->ckpt));
    return qn_config_read(&m->config, config, "config.json", err) &&
           take_weights(m, keep_extra, notes, err);
}

void qn_source_model_close(qn_source_model *m) {
    free(m->weights);
    qn_layout_done(&m->layout);
    qn_config_done(&m->config);
    qn_ckpt_free(m->ckpt);
    *m = (qn_source_model){0};
}

// ---- wrongly read codes ----

typedef struct suspects {
    const qn_source_model *m;
    qn_wrong_finding *findings; // per weight
} suspects;

static void suspect_one(void *ctx, size_t i, int thread) {
    (void)thread;
    suspects *s = ctx;
    const qn_weight *w = s->m->weights[i];
    const qn_expected *e = qn_layout_find(&s->m->layout, w->name);
    if (w->scheme || w->parts[0]->n_dims < 2 || !qn_dtype_is_float(w->parts[0]->dtype)) return;
    if (e && !qn_role_is_layer(e->role)) return;
    if (!qn_wrong_codes_find(w, 0, &s->findings[i], NULL)) s->findings[i].kind = QN_RIGHT;
}

static bool judge(const suspects *s, bool as_is, json_t *notes, qn_err *err) {
    const char *path = qn_ckpt_path(s->m->ckpt);
    size_t n = 0, first = 0;
    bool certain = false;
    for (size_t i = 0; i < s->m->n_weights; i++) {
        const qn_wrong_finding *f = &s->findings[i];
        if (f->kind == QN_RIGHT) continue;
        if (n++ == 0 || (f->certain && !certain)) first = i;
        certain |= f->certain;
    }
    if (n == 0) return true;
    const qn_wrong_finding *f = &s->findings[first];
    if (certain && !as_is)
        return qn_fail(err, QN_INPUT, "%s: tensor %s is %s, expected right values (%zu such "
                       "%s; `quern check` shows the evidence, `quern repair` undoes it, "
                       "--as-is carries it over)", path, s->m->weights[first]->name,
                       qn_wrong_name(f->kind), n, n == 1 ? "matrix" : "matrices");
    char text[1024];
    snprintf(text, sizeof text, "%zu %s of the source look%s %s (%s%s), carried over all the same: "
             "`quern check` shows the evidence", n, n == 1 ? "matrix" : "matrices",
             n == 1 ? "s" : "", qn_wrong_name(f->kind), s->m->weights[first]->name,
             n == 1 ? "" : ", …");
    note(notes, text);
    return true;
}

bool qn_source_model_sound(const qn_source_model *m, int n_threads, bool as_is, json_t *notes,
                           qn_err *err) {
    qn_pool *pool = qn_pool_new(n_threads, err);
    if (!pool) return false;
    suspects s = {m, QN_NEW_ARRAY(qn_wrong_finding, m->n_weights)};
    qn_pool_run(pool, m->n_weights, suspect_one, &s);
    bool ok = judge(&s, as_is, notes, err);
    free(s.findings);
    qn_pool_free(pool);
    return ok;
}
