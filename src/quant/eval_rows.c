// Model and reference run the same windows in lock-step: whichever is behind takes the next step, and
// a row of logits is kept only until its counterpart is there. So memory holds about one step of rows
// on either side, however long the text. Every result has its place by its number; threads and the
// order of steps change nothing.
#include "quant/eval_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "quant/measure.h"

enum { MODEL, REFERENCE };

typedef struct lane lane;

typedef struct slot { // one window on one side
    lane *lane;
    const qn_eval_window *window;
    size_t index; // of the window
} slot;

struct lane {
    const qn_model *model;
    qn_engine *engine;
    size_t vocab, produced;
    float **rows; // by result number within the group; NULL: not there, or used
    bool *seen;   // the same; a position that is computed twice counts once
    slot *slots;
    bool failed;
    qn_err err;
};

typedef struct scored { // a row whose counterpart is there too
    size_t number;      // of the result
    size_t window, position;
    float *row[2];
} scored;

typedef struct work {
    qn_eval_rows *r;
    lane lane[2];
    int n_lanes;
    size_t group, base, n_group; // windows at once; first result of the group and their count
    scored *ready;
    size_t n_ready, done;
    float **dumped; // per thread: a row of the dump
    double **log_p[2];
} work;

// ---- rows come in ----

static void on_probe(void *user, const char *name, size_t position, const float *data, size_t n) {
    slot *s = user;
    lane *l = s->lane;
    size_t target = s->window->begin + position + 1;
    if (strcmp(name, "logits") != 0 || target < s->window->score || target >= s->window->end) return;
    // Numbers within the group: windows of a group follow each other.
    size_t at = s->window->first + (target - s->window->score) - l->slots[0].window->first;
    if (n != l->vocab || l->seen[at]) return;
    l->seen[at] = true;
    l->rows[at] = qn_alloc(n * sizeof *data);
    memcpy(l->rows[at], data, n * sizeof *data);
    l->produced++;
}

static void on_event(void *user, qn_request *request, const qn_event *e) {
    (void)request;
    lane *l = ((slot *)user)->lane;
    if (e->finish != QN_FINISH_ERROR || l->failed) return;
    l->failed = true;
    if (e->err) l->err = *e->err;
    else qn_fail(&l->err, QN_IO, "the request failed without a reason");
}

static bool submit_group(work *w, lane *l, size_t from, size_t n, qn_err *err) {
    for (size_t i = 0; i < n; i++) {
        const qn_eval_window *v = &w->r->windows[from + i];
        l->slots[i] = (slot){l, v, from + i};
        qn_request_options o = {.tokens = w->r->tokens + v->begin, .n_tokens = v->end - v->begin,
                                .no_output = true, .probe = QN_PROBE_LOGITS, .on_probe = on_probe,
                                .on_event = on_event, .user = &l->slots[i]};
        o.sampling.max_tokens = 1;
        if (!qn_engine_submit(l->engine, &o, err)) return false;
    }
    return true;
}

// ---- rows are scored ----

static size_t largest(const float *x, size_t n) {
    size_t at = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[at]) at = i;
    return at;
}

static const float *reference_row(work *w, const scored *s, int thread) {
    if (!w->r->dump) return s->row[REFERENCE];
    size_t v = w->lane[REFERENCE].vocab;
    qn_tensor_to_f32(w->r->dump, (s->window * w->r->context + s->position) * v, v,
                     w->dumped[thread]);
    return w->dumped[thread];
}

// Over all of a model's vocabulary; the divergence over what both have.
static void score(void *ctx, size_t i, int thread) {
    work *w = ctx;
    qn_eval_rows *r = w->r;
    const scored *s = &w->ready[i];
    const qn_eval_window *v = &r->windows[s->window];
    size_t target = (size_t)r->tokens[v->begin + s->position + 1], n = w->lane[MODEL].vocab;
    double *q = w->log_p[MODEL][thread], *p = w->log_p[REFERENCE][thread];
    qn_log_softmax(s->row[MODEL], n, q);
    r->nll[s->number] = -q[target];
    if (w->n_lanes == 1) return;
    const float *row = reference_row(w, s, thread);
    size_t m = w->lane[REFERENCE].vocab, common = n < m ? n : m;
    qn_log_softmax(row, m, p);
    r->reference_nll[s->number] = target < m ? -p[target] : INFINITY;
    if (n > common) qn_log_softmax(s->row[MODEL], common, q);
    if (m > common) qn_log_softmax(row, common, p);
    r->kl[s->number] = isnan(p[0]) ? NAN : qn_kl(p, q, common);
    r->agree[s->number] = largest(s->row[MODEL], common) == largest(row, common);
}

static void take_ready(work *w) {
    w->n_ready = 0;
    for (size_t i = 0, k = 0; i < w->group && k < w->n_group; i++) {
        const qn_eval_window *v = w->lane[MODEL].slots[i].window;
        for (size_t t = v->score; t < v->end; t++, k++) {
            float **a = &w->lane[MODEL].rows[k], **b = &w->lane[REFERENCE].rows[k];
            bool from_lane = w->n_lanes == 2 && !w->r->dump;
            if (!*a || (from_lane && !*b)) continue;
            w->ready[w->n_ready++] = (scored){w->base + k, w->lane[MODEL].slots[i].index,
                                              t - 1 - v->begin, {*a, from_lane ? *b : NULL}};
            *a = NULL;
            if (from_lane) *b = NULL;
        }
    }
}

// A row with a NaN or an inf gives nothing but NaN.
static bool all_are_numbers(const work *w, qn_err *err) {
    for (size_t i = 0; i < w->n_ready; i++) {
        const scored *s = &w->ready[i];
        bool own = isnan(w->r->nll[s->number]);
        if (own || (w->n_lanes == 2 && isnan(w->r->kl[s->number])))
            return qn_fail(err, QN_NONFINITE, "logits of the %s are not finite, expected numbers: "
                           "window %zu, position %zu", own ? "model" : "reference", s->window,
                           s->position);
    }
    return true;
}

static bool score_ready(work *w, qn_err *err) {
    take_ready(w);
    if (!w->n_ready) return true;
    qn_pool_run(w->r->pool, w->n_ready, score, w);
    for (size_t i = 0; i < w->n_ready; i++)
        for (int s = 0; s < 2; s++) free(w->ready[i].row[s]);
    w->done += w->n_ready;
    if (!all_are_numbers(w, err)) return false;
    if (!w->r->progress || w->r->progress(w->r->user, "eval", w->done, w->r->n_scored)) return true;
    return qn_fail(err, QN_CANCELLED, "eval: stopped");
}

// ---- steps ----

static bool step(lane *l, bool *busy, qn_err *err) {
    if (!qn_engine_step(l->engine, busy, err)) return false;
    if (l->failed && err) *err = l->err;
    return !l->failed;
}

static bool run_group(work *w, size_t from, size_t n, qn_err *err) {
    const qn_eval_window *first = &w->r->windows[from], *last = first + n - 1;
    bool two = w->n_lanes == 2 && !w->r->dump, busy[2] = {true, two};
    w->base = first->first;
    w->n_group = last->first + (last->end - last->score) - w->base;
    for (int s = 0; s < 1 + two; s++) {
        lane *l = &w->lane[s];
        l->produced = 0;
        memset(l->seen, 0, w->n_group * sizeof *l->seen);
        if (!submit_group(w, l, from, n, err)) return false;
    }
    size_t before = w->done;
    while (busy[MODEL] || busy[REFERENCE]) {
        bool behind = w->lane[REFERENCE].produced <= w->lane[MODEL].produced;
        int s = busy[REFERENCE] && (behind || !busy[MODEL]) ? REFERENCE : MODEL;
        if (!step(&w->lane[s], &busy[s], err)) return false;
        if (!score_ready(w, err)) return false;
    }
    if (w->done - before == w->n_group) return true;
    return qn_fail(err, QN_IO, "only %zu of %zu tokens were computed", w->done - before,
                   w->n_group);
}

static size_t windows_at_once(const qn_eval_rows *r) {
    size_t n = r->engine.max_num_batched_tokens / r->context;
    if (n > r->engine.max_num_seqs) n = r->engine.max_num_seqs;
    return n ? n : 1;
}

static bool open_lanes(work *w, qn_err *err) {
    size_t numbers = w->group * w->r->context;
    const qn_model *models[2] = {w->r->model, w->r->reference};
    for (int s = 0; s < 2; s++) {
        lane *l = &w->lane[s];
        l->rows = QN_NEW_ARRAY(float *, numbers);
        l->seen = QN_NEW_ARRAY(bool, numbers);
        l->slots = QN_NEW_ARRAY(slot, w->group);
        if (w->r->dump && s == REFERENCE)
            l->vocab = w->r->dump->shape[w->r->dump->n_dims - 1];
        if (!models[s]) continue;
        l->model = models[s];
        l->vocab = (size_t)qn_model_get_info(l->model)->vocab_size;
        l->engine = qn_engine_new(l->model, &w->r->engine, err);
        if (!l->engine) return false;
    }
    w->ready = QN_NEW_ARRAY(scored, numbers);
    return true;
}

static void open_buffers(work *w) {
    size_t threads = (size_t)qn_pool_threads(w->r->pool);
    w->dumped = QN_NEW_ARRAY(float *, threads);
    for (int s = 0; s < 2; s++) w->log_p[s] = QN_NEW_ARRAY(double *, threads);
    for (size_t i = 0; i < threads; i++) {
        for (int s = 0; s < w->n_lanes; s++)
            w->log_p[s][i] = QN_NEW_ARRAY(double, w->lane[s].vocab);
        if (w->r->dump) w->dumped[i] = QN_NEW_ARRAY(float, w->lane[REFERENCE].vocab);
    }
}

static void work_done(work *w) {
    for (int s = 0; s < 2; s++) {
        lane *l = &w->lane[s];
        qn_engine_free(l->engine);
        for (size_t i = 0; l->rows && i < w->group * w->r->context; i++) free(l->rows[i]);
        free(l->rows);
        free(l->seen);
        free(l->slots);
        for (int i = 0; w->log_p[s] && i < qn_pool_threads(w->r->pool); i++) free(w->log_p[s][i]);
        free(w->log_p[s]);
    }
    for (int i = 0; w->dumped && i < qn_pool_threads(w->r->pool); i++) free(w->dumped[i]);
    free(w->dumped);
    free(w->ready);
}

bool qn_eval_rows_run(qn_eval_rows *r, qn_err *err) {
    work w = {.r = r, .group = windows_at_once(r), .n_lanes = r->reference || r->dump ? 2 : 1};
    bool ok = open_lanes(&w, err);
    if (ok) open_buffers(&w);
    for (size_t i = 0; ok && i < r->n_windows; i += w.group)
        ok = run_group(&w, i, r->n_windows - i < w.group ? r->n_windows - i : w.group, err);
    work_done(&w);
    return ok;
}
