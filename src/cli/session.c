// Load once, answer often.
#include "cli/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "cli/output.h"

bool qn_session_open(qn_session *s, const qn_args *a, const qn_session_options *o, qn_err *err) {
    *s = (qn_session){0};
    qn_progress bar = {0};
    double started = qn_now();
    qn_model_options m = {.precision = qn_args_precision(a, o->precision),
                          .weights = qn_args_weights(a),
                          .n_threads = qn_args_threads(a),
                          .dummy = o->dummy,
                          .no_vision = o->text_only,
                          .progress = qn_progress_show,
                          .user = &bar};
    qn_engine_options e = {.max_num_batched_tokens =
                               (size_t)qn_args_int(a, "max-num-batched-tokens", 0),
                           .max_num_seqs = (size_t)qn_args_int(a, "max-num-seqs",
                                                               (int64_t)o->seqs),
                           .kv_cache_bytes = (size_t)qn_args_int(a, "kv-cache-memory-bytes", 0),
                           .max_model_len = (size_t)qn_args_int(a, "max-model-len", 0),
                           .no_prefix_cache = o->no_prefix_cache,
                           .speculative_config = qn_args_text(a, "speculative-config", NULL)};
    s->path = qn_find_model(qn_args_at(a, 0), err);
    if (s->path) s->model = qn_model_load(s->path, &m, err);
    if (s->model) {
        s->info = qn_model_get_info(s->model);
        s->engine = qn_engine_new(s->model, &e, err);
    }
    s->load_s = qn_now() - started;
    qn_progress_clear_line();
    if (s->engine) return true;
    qn_session_close(s);
    return false;
}

void qn_session_close(qn_session *s) {
    qn_engine_free(s->engine);
    qn_model_free(s->model);
    free(s->path);
    *s = (qn_session){0};
}

bool qn_session_sampling(const qn_session *s, const qn_args *a, qn_sampling *out, qn_err *err) {
    qn_sampling_default(s->model, out);
    out->temperature = (float)qn_args_real(a, "temperature", (double)out->temperature);
    out->top_p = (float)qn_args_real(a, "top-p", (double)out->top_p);
    out->top_k = (int)qn_args_int(a, "top-k", out->top_k);
    out->min_p = (float)qn_args_real(a, "min-p", (double)out->min_p);
    out->repetition_penalty =
        (float)qn_args_real(a, "repetition-penalty", (double)out->repetition_penalty);
    out->presence_penalty =
        (float)qn_args_real(a, "presence-penalty", (double)out->presence_penalty);
    out->frequency_penalty =
        (float)qn_args_real(a, "frequency-penalty", (double)out->frequency_penalty);
    out->seeded = qn_args_has(a, "seed");
    if (out->seeded) out->seed = (uint64_t)qn_args_int(a, "seed", 0);
    out->ignore_eos = qn_args_has(a, "ignore-eos");
    out->max_tokens = (size_t)qn_args_int(a, "max-tokens", (int64_t)out->max_tokens);
    out->stop = qn_args_list(a, "stop", &out->n_stop);
    for (size_t i = 0; i < out->n_stop; i++)
        if (!*out->stop[i]) return qn_fail(err, QN_USAGE, "--stop is empty, expected a text");
    if (out->top_p <= 0)
        return qn_fail(err, QN_USAGE, "--top-p is 0, expected a number above 0, at most 1");
    return true;
}

// ---- one request ----

static void on_event(void *user, qn_request *request, const qn_event *e) {
    (void)request;
    qn_reply *r = user;
    double now = qn_now();
    if (e->n_tokens && !r->n_tokens) r->first = now;
    if (r->n_tokens + e->n_tokens > r->cap_tokens) {
        r->cap_tokens = 2 * (r->n_tokens + e->n_tokens);
        r->tokens = qn_realloc(r->tokens, r->cap_tokens * sizeof *r->tokens);
    }
    if (e->n_tokens) memcpy(r->tokens + r->n_tokens, e->tokens, e->n_tokens * sizeof *r->tokens);
    r->n_tokens += e->n_tokens;
    if (e->n_text) qn_buf_add(&r->text, e->text, e->n_text);
    r->last = now;
    r->finish = e->finish;
    r->done = e->finish != QN_FINISH_NONE;
    if (e->finish == QN_FINISH_ERROR && e->err) r->err = *e->err;
    if (r->show) r->show(r->user, r);
}

void qn_reply_done(qn_reply *r) {
    qn_buf_done(&r->text);
    free(r->tokens);
    *r = (qn_reply){0};
}

bool qn_session_generate(qn_session *s, qn_request_options *o, qn_reply *r, qn_err *err) {
    o->on_event = on_event;
    o->user = r;
    r->prompt_tokens = o->n_tokens;
    r->started = r->first = r->last = qn_now();
    qn_engine_stats before, after;
    qn_engine_get_stats(s->engine, &before);
    qn_request *request = qn_engine_submit(s->engine, o, err);
    if (!request) return false;
    bool busy = true, cancelled = false;
    while (busy && !r->done) {
        if (!cancelled && (qn_interrupted() || qn_out_failed())) {
            qn_request_cancel(request);
            cancelled = true;
            if (r->done) break;
        }
        if (!qn_engine_step(s->engine, &busy, err)) return false;
    }
    qn_engine_get_stats(s->engine, &after);
    if (o->n_images) r->prompt_tokens = (size_t)(after.prompt_tokens - before.prompt_tokens);
    if (!r->done)
        return qn_fail(err, QN_IO, "the engine stopped without finishing the request");
    if (r->finish == QN_FINISH_ERROR) {
        *err = r->err;
        if (err->code == QN_OK) qn_fail(err, QN_IO, "the request failed without a reason");
        return false;
    }
    return true;
}

double qn_reply_prefill_s(const qn_reply *r) { return r->first - r->started; }

double qn_reply_decode_s(const qn_reply *r) { return r->n_tokens ? r->last - r->first : 0; }

double qn_reply_prefill_rate(const qn_reply *r) {
    double s = qn_reply_prefill_s(r);
    return s > 0 ? (double)r->prompt_tokens / s : 0;
}

double qn_reply_decode_rate(const qn_reply *r) {
    double s = qn_reply_decode_s(r);
    return s > 0 && r->n_tokens > 1 ? (double)(r->n_tokens - 1) / s : 0;
}

json_t *qn_reply_timing(const qn_session *s, const qn_reply *r) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "load_s", qn_json_number(s->load_s), "prefill_s",
                     qn_json_number(qn_reply_prefill_s(r)), "decode_s",
                     qn_json_number(qn_reply_decode_s(r)), "prefill_tok_s",
                     qn_json_number(qn_reply_prefill_rate(r)), "decode_tok_s",
                     qn_json_number(qn_reply_decode_rate(r)));
}

void qn_drafts_format(const qn_session *s, char text[128]) {
    qn_engine_stats stats;
    qn_engine_get_stats(s->engine, &stats);
    *text = 0;
    if (!stats.drafted_tokens) return;
    int n = snprintf(text, 128, "%llu of %llu draft%s accepted",
                     (unsigned long long)stats.accepted_tokens,
                     (unsigned long long)stats.drafted_tokens, qn_plural_s(stats.drafted_tokens));
    double saved = stats.draft_saved_seconds; // 0: no step without drafts to compare with
    if (saved < 0 || saved > 0)
        snprintf(text + n, 128 - (size_t)n, ", %.2f s %s", fabs(saved),
                 saved > 0 ? "saved" : "lost");
}

void qn_reply_note(const qn_session *s, const qn_reply *r) {
    char drafts[128];
    qn_drafts_format(s, drafts);
    qn_note_each("load %.2f s; prompt %zu token%s, %.1f tok/s; output %zu token%s, %.1f tok/s "
                 "(%s)%s%s", s->load_s, r->prompt_tokens, qn_plural_s(r->prompt_tokens),
                 qn_reply_prefill_rate(r), r->n_tokens, qn_plural_s(r->n_tokens),
                 qn_reply_decode_rate(r), qn_finish_name(r->finish), *drafts ? "; " : "", drafts);
}
