// Made-up prompts on the real engine. Prefill: from submitting to the last prompt token. Decode:
// the clock runs from the step in which every sequence has its first token, for n steps, so that
// prompts never count.
#include "cli/bench_rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/interrupt.h"
#include "base/mem.h"
#include "base/progress.h"
#include "base/rng.h"

typedef struct member { // one sequence
    qn_request *request;
    size_t n_tokens;
    bool done, failed;
    qn_err err;
} member;

typedef struct sample { // one repeat
    double seconds;
    size_t tokens, steps;
} sample;

static void on_event(void *user, qn_request *r, const qn_event *e) {
    (void)r;
    member *m = user;
    m->n_tokens += e->n_tokens;
    m->done = e->finish != QN_FINISH_NONE;
    if (e->finish != QN_FINISH_ERROR) return;
    m->failed = true;
    if (e->err) m->err = *e->err;
}

// Ids from the lower half of the vocabulary: special tokens and placeholders live at its end.
static int32_t *make_prompt(const qn_session *s, size_t n, uint64_t stream) {
    uint64_t range = (uint64_t)(s->info->vocab_size > 3 ? s->info->vocab_size / 2 : 1);
    int32_t *ids = QN_NEW_ARRAY(int32_t, n);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)(qn_rng_u64(1, stream, i) % range);
    return ids;
}

static bool submit_all(qn_session *s, const qn_bench_work *w, member *members, qn_err *err) {
    for (size_t i = 0; i < w->batch; i++) {
        int32_t *ids = make_prompt(s, w->prompt, i);
        qn_request_options o = {.tokens = ids, .n_tokens = w->prompt, .on_event = on_event,
                                .user = &members[i], .no_output = !w->decode};
        // Sequences whose prompts come first generate while others still read theirs.
        o.sampling = (qn_sampling){.top_p = 1, .repetition_penalty = 1, .ignore_eos = true,
                                   .max_tokens = w->decode ? w->n + w->batch * w->prompt + 8 : 1};
        if (w->decode && s->info->context_length > 0) {
            size_t room = (size_t)s->info->context_length;
            if (room > w->prompt && o.sampling.max_tokens > room - w->prompt)
                o.sampling.max_tokens = room - w->prompt;
        }
        members[i].request = qn_engine_submit(s->engine, &o, err);
        free(ids);
        if (!members[i].request) return false;
    }
    return true;
}

static size_t count(const member *m, size_t n, size_t *started, size_t *done) {
    size_t tokens = 0;
    *started = *done = 0;
    for (size_t i = 0; i < n; i++) {
        tokens += m[i].n_tokens;
        *started += m[i].n_tokens > 0;
        *done += m[i].done;
    }
    return tokens;
}

static bool check(const member *m, size_t n, qn_err *err) {
    for (size_t i = 0; i < n; i++) {
        if (!m[i].failed) continue;
        *err = m[i].err;
        return err->code != QN_OK || qn_fail(err, QN_IO, "a request failed without a reason");
    }
    return !qn_interrupted() || qn_fail(err, QN_CANCELLED, "interrupted");
}

static bool step_all(qn_session *s, const qn_bench_work *w, member *m, sample *out, qn_err *err) {
    double from = qn_now();
    size_t started, done, before = 0, timed = w->decode ? 0 : 1;
    bool busy = true;
    *out = (sample){0};
    while (busy) {
        if (!qn_engine_step(s->engine, &busy, err) || !check(m, w->batch, err)) return false;
        size_t tokens = count(m, w->batch, &started, &done);
        if (timed) out->steps++;
        if (w->decode && timed && out->steps == w->n) break;
        if (done && w->decode) break;
        if (done == w->batch) break;
        if (!timed && started == w->batch) {
            timed = 1;
            before = tokens;
            from = qn_now();
        }
    }
    out->seconds = qn_now() - from;
    out->tokens = w->decode ? count(m, w->batch, &started, &done) - before : w->batch * w->prompt;
    return true;
}

static bool drain(qn_session *s, const qn_bench_work *w, member *m, qn_err *err) {
    bool busy = true;
    for (size_t i = 0; i < w->batch; i++)
        if (m[i].request && !m[i].done) qn_request_cancel(m[i].request);
    while (busy)
        if (!qn_engine_step(s->engine, &busy, err)) return false;
    return true;
}

static bool run_once(qn_session *s, const qn_bench_work *w, sample *out, qn_err *err) {
    qn_err ignored = {0};
    member *m = QN_NEW_ARRAY(member, w->batch);
    bool ok = submit_all(s, w, m, err) && step_all(s, w, m, out, err);
    ok = drain(s, w, m, ok ? err : &ignored) && ok;
    free(m);
    if (ok && (out->seconds <= 0 || !out->tokens || !out->steps))
        return qn_fail(err, QN_LIMIT, "nothing could be measured: %zu sequences of %zu tokens "
                       "leave no room to decode within the context", w->batch, w->prompt);
    return ok;
}

static double rate(const sample *s) { return (double)s->tokens / s->seconds; }

static int by_rate(const void *a, const void *b) {
    double x = rate(a), y = rate(b);
    return (x > y) - (x < y);
}

bool qn_bench_measure(qn_session *s, const qn_bench_work *w, int repeats, qn_bench_times *out,
                      qn_err *err) {
    sample *all = QN_NEW_ARRAY(sample, (size_t)repeats);
    bool ok = true;
    for (int i = 0; ok && i < repeats; i++) ok = run_once(s, w, &all[i], err);
    if (ok) {
        qsort(all, (size_t)repeats, sizeof *all, by_rate);
        const sample *mid = &all[repeats / 2];
        *out = (qn_bench_times){.tok_s = rate(mid), .tok_s_min = rate(&all[0]),
                                .tok_s_max = rate(&all[repeats - 1]),
                                .step_s = mid->seconds / (double)mid->steps,
                                .steps = (double)mid->steps};
    }
    free(all);
    return ok;
}
