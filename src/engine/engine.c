// An engine: a step is schedule, batch, forward, sample, settle, draft, publish. It knows sizes
// and segments; what a layer is, only the model knows.
#include "engine/engine.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/progress.h"
#include "base/rng.h"

#define PICTURE_BYTES ((size_t)256 << 20) // embedding rows of images kept for the next turn

const char *qn_finish_name(qn_finish f) {
    switch (f) {
    case QN_FINISH_STOP: return "stop";
    case QN_FINISH_LENGTH: return "length";
    case QN_FINISH_ERROR: return "error";
    case QN_FINISH_CANCELLED: return "cancelled";
    case QN_FINISH_NONE: break;
    }
    return "none";
}

// ---- life ----

static bool make_parts(qn_engine *e, const qn_engine_options *o, qn_err *err) {
    qn_model_cache_spec(e->model, &e->spec);
    if (!qn_speculator_init(&e->speculator, o->speculative_config, e->info->has_mtp, err) ||
        !qn_limits_choose(&e->limits, e->info, &e->spec, o, err))
        return false;
    if (!(e->pool = qn_pool_new(qn_model_threads(e->model), err))) return false;
    e->compute = qn_compute_new(e->pool, qn_model_precision(e->model));
    if (!e->compute) return qn_fail(err, QN_NOMEM, "engine: no memory for its scratch");
    if (!(e->work = qn_work_new(e->model, e->compute, err))) return false;
    return qn_blocks_init(&e->blocks, e->limits.n_blocks, e->spec.block_bytes,
                          e->spec.block_tokens, err);
}

static void make_arrays(qn_engine *e) {
    size_t n = e->limits.step_seqs;
    e->samplers = QN_NEW_ARRAY(qn_sampler, (size_t)qn_pool_threads(e->pool));
    e->batch = QN_NEW_ARRAY(qn_request *, n);
    e->segments = QN_NEW_ARRAY(qn_segment, n);
    e->draft_segments = QN_NEW_ARRAY(qn_draft_segment, n);
    e->drafters = QN_NEW_ARRAY(qn_request *, n);
}

qn_engine *qn_engine_new(const qn_model *m, const qn_engine_options *o, qn_err *err) {
    static const qn_engine_options defaults = {0};
    qn_engine *e = QN_NEW(qn_engine);
    e->model = m;
    e->info = qn_model_get_info(m);
    e->now = qn_now;
    if (!make_parts(e, o ? o : &defaults, err)) {
        qn_engine_free(e);
        return NULL;
    }
    make_arrays(e);
    for (int i = 0; i < 2; i++) e->hash_key[i] = qn_rng_system();
    qn_states_init(&e->states, e->spec.state_bytes, e->limits.state_budget);
    qn_pictures_init(&e->pictures, e->hash_key, PICTURE_BYTES);
    size_t rows = e->info->vocab_size > 0 ? (size_t)e->info->vocab_size : 0;
    qn_choices_init(&e->choices, rows, qn_model_tokenizer(m));
    return e;
}

static void free_queue(qn_queue *q) {
    for (size_t i = 0; i < q->n; i++) {
        qn_request_release(q->items[i]);
        qn_request_free(q->items[i]);
    }
    qn_queue_done(q);
}

void qn_engine_free(qn_engine *e) {
    if (!e) return;
    free_queue(&e->running);
    free_queue(&e->waiting);
    if (e->samplers)
        for (int i = 0; i < qn_pool_threads(e->pool); i++) qn_sampler_done(&e->samplers[i]);
    free(e->samplers);
    free(e->batch);
    free(e->segments);
    free(e->draft_segments);
    free(e->drafters);
    free(e->spans);
    qn_choices_done(&e->choices);
    qn_pictures_done(&e->pictures);
    qn_states_done(&e->states);
    qn_blocks_done(&e->blocks);
    qn_work_free(e->work);
    qn_compute_free(e->compute);
    qn_pool_free(e->pool);
    free(e);
}

// ---- a step ----

static void end_cancelled(qn_queue *q) {
    for (size_t i = q->n; i-- > 0;) {
        if (i >= q->n) continue; // a callback may have changed the queue
        if (q->items[i]->cancelled) qn_request_end(q->items[i], QN_FINISH_CANCELLED, 0);
    }
}

static void count_time(qn_engine *e, double seconds) {
    size_t decode = 0, all = 0;
    for (size_t i = 0; i < e->n_batch; i++) {
        all += e->batch[i]->step_n;
        if (e->batch[i]->decodes) decode += e->batch[i]->step_n;
    }
    double share = all ? (double)decode / (double)all : 0;
    e->stats.decode_seconds += share * seconds;
    e->stats.prefill_seconds += (1 - share) * seconds;
    e->stats.steps++;
}

static bool run_batch(qn_engine *e, qn_err *err) {
    double started = e->now();
    qn_batch_build(e);
    qn_step step = {e->segments, e->n_batch, e->blocks.arena};
    if (!qn_model_forward(e->model, e->work, &step, err)) return false;
    qn_sample_step(e);
    qn_settle_step(e);
    if (!qn_draft_step(e, started, err)) return false;
    count_time(e, e->now() - started);
    qn_publish_step(e);
    return true;
}

bool qn_engine_step(qn_engine *e, bool *busy, qn_err *err) {
    end_cancelled(&e->running);
    end_cancelled(&e->waiting);
    qn_schedule(e);
    bool ok = !e->n_batch || run_batch(e, err);
    if (busy) *busy = e->running.n + e->waiting.n > 0;
    return ok;
}

void qn_engine_get_stats(const qn_engine *e, qn_engine_stats *s) {
    *s = e->stats;
    s->running = e->running.n;
    s->waiting = e->waiting.n;
    s->kv_blocks_total = e->blocks.n;
    s->kv_blocks_free = e->blocks.n_free;
    s->kv_bytes = e->blocks.arena_bytes;
    s->state_bytes = e->states.n_slots * e->states.bytes;
    s->max_model_len = e->limits.model_len;
    s->draft_saved_seconds = e->speculator.saved;
}
