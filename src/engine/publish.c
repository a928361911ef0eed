// From logits to events. Drawing runs in parallel, a task per request; everything that touches
// shared things or calls the user back is done in order afterwards.
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/engine.h"

// ---- drawing ----

// Draws row after row as long as the drafts agree: the rows behind a wrong draft were computed
// from a token that is not there.
static void draw(qn_request *r, qn_sampler *s) {
    const qn_engine *e = r->engine;
    bool penalties = qn_sampling_has_penalties(&r->sampling);
    qn_draw d = {&r->sampling, penalties ? &r->counts : NULL, r->seed, r->n - r->n_prompt};
    size_t rows = qn_work_n_rows(e->work, r->segment);
    for (size_t row = 0; row < rows; row++, d.counter++) {
        int32_t id = qn_sample(s, qn_work_logits(e->work, r->segment, row), &d);
        if (id < 0) {
            r->fault = true;
            return;
        }
        r->sampled[r->n_sampled++] = id;
        if (penalties) qn_counts_add(&r->counts, id, false);
        if (row + 1 < rows && id != r->drafts[row]) return;
    }
}

static void draw_task(void *ctx, size_t task, int thread) {
    qn_engine *e = ctx;
    qn_sampler *s = &e->samplers[thread];
    s->choices = &e->choices;
    if (!e->segments[task].no_logits) draw(e->batch[task], s);
}

static void find_fault(qn_request *r) {
    if (qn_work_fault(r->engine->work, r->segment, &r->err)) return;
    qn_fail(&r->err, QN_NONFINITE, "logits: inf or nan at position %zu",
            r->computed + (size_t)r->n_sampled);
}

void qn_sample_step(qn_engine *e) {
    qn_pool_run(e->pool, e->n_batch, draw_task, e);
    for (size_t i = 0; i < e->n_batch; i++) {
        qn_request *r = e->batch[i];
        if (r->fault) find_fault(r);
        int drafts = r->decodes ? (int)r->step_n - 1 : 0;
        if (!drafts) continue;
        int accepted = r->n_sampled > 0 ? r->n_sampled - 1 : 0;
        e->stats.drafted_tokens += (uint64_t)drafts;
        e->stats.accepted_tokens += (uint64_t)accepted;
        qn_speculator_saw_drafts(&e->speculator, drafts, accepted);
    }
}

// ---- taking tokens ----

static void tokens_grow(qn_request *r) {
    size_t want = r->n + 1 + QN_MAX_DRAFTS + 1;
    if (want <= r->cap) return;
    r->cap = 2 * want;
    r->tokens = qn_realloc(r->tokens, r->cap * sizeof *r->tokens);
    if (!r->rope3) return;
    r->rope3 = qn_realloc(r->rope3, r->cap * sizeof *r->rope3);
    for (size_t i = r->n; i < r->cap; i++)
        for (int k = 0; k < 3; k++) r->rope3[i][k] = (int32_t)i + r->rope_delta;
}

static bool is_eos(const qn_engine *e, int32_t id) {
    for (int i = 0; i < e->info->n_eos; i++)
        if (e->info->eos[i] == id) return true;
    return false;
}

static qn_finish take_token(qn_request *r, int32_t id) {
    qn_engine *e = r->engine;
    tokens_grow(r);
    r->tokens[r->n++] = id;
    e->stats.generated_tokens++;
    if (!r->sampling.ignore_eos && is_eos(e, id)) return QN_FINISH_STOP;
    if (!qn_output_push(&r->output, id, &r->err)) return QN_FINISH_ERROR;
    if (r->output.stopped) return QN_FINISH_STOP;
    return r->n >= r->max_n ? QN_FINISH_LENGTH : QN_FINISH_NONE;
}

// ---- caches follow ----

static void note_hidden(qn_request *r, size_t n) {
    if (!r->drafting) return;
    if (r->decodes)
        for (size_t i = 0; i < n && i < qn_work_n_rows(r->engine->work, r->segment); i++)
            qn_draft_note(r, r->computed + i, qn_work_hidden(r->engine->work, r->segment, i));
    r->n_pending += n;
}

// Of a segment, the first n tokens turned out to be the sequence's. The state is taken back to
// behind them; keys and values behind them are overwritten later.
static void advance(qn_request *r, size_t n) {
    size_t from = r->computed;
    note_hidden(r, n);
    if (r->state && n < r->step_n) {
        uint8_t *t = r->state;
        r->state = r->after[n - 1];
        r->after[n - 1] = t;
    }
    r->computed = from + n;
    if (r->probed < r->computed) r->probed = r->computed;
    qn_prefix_publish(r, from);
}

// ---- events ----

static void emit(qn_request *r, qn_finish finish, size_t n_new) {
    qn_event event = {.tokens = r->tokens + r->n - n_new, .n_tokens = n_new, .finish = finish};
    qn_output_next(&r->output, &event.text, &event.n_text);
    if (finish == QN_FINISH_ERROR) event.err = &r->err;
    if (r->on_event) r->on_event(r->user, r, &event);
}

void qn_request_end(qn_request *r, qn_finish finish, size_t n_new) {
    qn_engine *e = r->engine;
    qn_queue_remove(&e->running, r);
    qn_queue_remove(&e->waiting, r);
    qn_request_release(r);
    qn_output_finish(&r->output);
    if (r->output.stopped && finish == QN_FINISH_LENGTH) finish = QN_FINISH_STOP;
    emit(r, finish, n_new);
    qn_request_free(r);
}

static void settle(qn_request *r) {
    r->finish = QN_FINISH_NONE;
    r->n_new = 0;
    while (r->n_new < (size_t)r->n_sampled && r->finish == QN_FINISH_NONE)
        r->finish = take_token(r, r->sampled[r->n_new++]);
    if (r->fault && r->finish == QN_FINISH_NONE) r->finish = QN_FINISH_ERROR;
    if (!r->decodes || r->no_output) advance(r, r->step_n);
    else if (r->n_new) advance(r, r->n_new);
    if (r->no_output && r->computed == r->n) r->finish = QN_FINISH_LENGTH;
    r->n_drafts = 0;
}

void qn_settle_step(qn_engine *e) {
    for (size_t i = 0; i < e->n_batch; i++) settle(e->batch[i]);
}

void qn_publish_step(qn_engine *e) {
    for (size_t i = 0; i < e->n_batch; i++) {
        qn_request *r = e->batch[i];
        if (r->finish != QN_FINISH_NONE) qn_request_end(r, r->finish, r->n_new);
        else if (r->n_new) emit(r, QN_FINISH_NONE, r->n_new);
    }
}
