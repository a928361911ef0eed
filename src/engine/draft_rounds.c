// The draft layer's side of a step. It wants pairs: the target's hidden state at a position and
// the token that came after it. Pairs wait in `pending` (prompt chunks leave whole runs of them)
// until the layer is run; from its answer at the last one the drafts for the next step are made,
// one round per draft, all sequences together. Drafts are the layer's best guesses. A guess is
// accepted when it equals the token drawn from the target's own logits: for a proposal without
// randomness that is rejection sampling, exactly, and each request keeps the very tokens it would
// have had without speculation.
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/progress.h"
#include "engine/engine.h"

#define MOST_PENDING 32 // pairs of a generating request that may wait when nobody drafts

static size_t width(const qn_request *r) { return (size_t)r->engine->info->hidden_size; }

void qn_draft_forget(qn_request *r) {
    r->n_pending = 0;
    r->n_drafts = 0;
}

void qn_draft_make_room(qn_request *r, size_t n) {
    n += r->n_pending;
    if (n <= r->cap_pending) return;
    r->cap_pending = n > 2 * r->cap_pending ? n : 2 * r->cap_pending;
    r->pending = qn_realloc(r->pending, r->cap_pending * width(r) * sizeof(float));
}

void qn_draft_note(qn_request *r, size_t position, const float *hidden) {
    size_t i = position - r->filled;
    if (position < r->filled || i >= r->cap_pending) return;
    memcpy(r->pending + i * width(r), hidden, width(r) * sizeof(float));
}

static void stop_drafting(qn_request *r) {
    if (r->probe & QN_PROBE_MTP) return;
    r->drafting = false;
    qn_draft_forget(r);
}

static void mark_blocks(qn_request *r, size_t from) {
    qn_blocks *p = &r->engine->blocks;
    for (size_t i = from / p->block_tokens; i < r->filled / p->block_tokens; i++)
        p->info[r->blocks[i]].drafted = true;
}

// ---- filling ----

static bool due(const qn_request *r, int depth) {
    if (!r->drafting || !r->n_pending) return false;
    if (r->finish != QN_FINISH_NONE && !(r->probe & QN_PROBE_MTP)) return false;
    bool decoding = r->n - r->computed == 1;
    return depth > 0 || !decoding || r->n_pending >= MOST_PENDING || r->probe;
}

static void fill_segment(qn_request *r, qn_draft_segment *s) {
    size_t n = r->n_pending, known = r->n - 1 - r->filled; // pairs whose second half is known
    if (n > known) n = known;
    *s = (qn_draft_segment){.tokens = r->tokens + r->filled + 1, .hidden = r->pending, .n = n,
                            .position = r->filled, .blocks = r->blocks,
                            .all_logits = (r->probe & QN_PROBE_MTP) != 0};
    if (r->rope3) s->rope3 = (const int32_t(*)[3])r->rope3 + r->filled;
    qn_batch_clip_spans(r, r->filled + 1, n, &s->spans, &s->n_spans);
}

static void show(qn_request *r, const qn_draft_segment *s, size_t segment) {
    const qn_engine *e = r->engine;
    for (size_t i = 0; i < s->n; i++) {
        size_t position = s->position + i;
        if (position < r->mtp_probed) continue;
        r->on_probe(r->user, "mtp.logits", position, qn_work_logits(e->work, segment, i),
                    e->choices.n_rows);
        r->mtp_probed = position + 1;
    }
}

// Runs the layer over all pairs that wait. e->drafters are those with a result, in order.
static bool fill_pairs(qn_engine *e, int depth, size_t *n, qn_err *err) {
    *n = 0;
    e->n_spans = 0;
    for (size_t i = 0; i < e->n_batch; i++) {
        qn_request *r = e->batch[i];
        if (!due(r, depth)) continue;
        fill_segment(r, &e->draft_segments[*n]);
        if (e->draft_segments[*n].n) e->drafters[(*n)++] = r;
    }
    if (!*n) return true;
    if (!qn_model_draft(e->model, e->work, e->draft_segments, *n, e->blocks.arena, err))
        return false;
    for (size_t i = 0; i < *n; i++) {
        qn_request *r = e->drafters[i];
        size_t from = r->filled;
        if (r->probe & QN_PROBE_MTP) show(r, &e->draft_segments[i], i);
        r->filled += e->draft_segments[i].n;
        r->n_pending = 0;
        mark_blocks(r, from);
    }
    return true;
}

// ---- drafting ----

static bool take_snapshots(qn_request *r, int depth) {
    qn_states *s = &r->engine->states;
    if (!s->bytes) return true;
    for (int i = 0; i < depth; i++) // behind the last token, r->state itself will do
        if (!r->after[i] && !(r->after[i] = qn_states_take(s, NULL))) return false;
    return true;
}

// How many drafts this request can use: not past its end, nor past the memory there is.
static int depth_of(qn_request *r, int depth) {
    if (r->probe || r->no_output || r->finish != QN_FINISH_NONE) return 0;
    if (r->n - r->computed != 1 || r->n + 1 >= r->max_n) return 0;
    if (r->max_n - r->n - 1 < (size_t)depth) depth = (int)(r->max_n - r->n - 1);
    if (!qn_request_reserve(r, r->n + (size_t)depth) || !take_snapshots(r, depth)) return 0;
    return depth;
}

static bool take_draft(qn_request *r, size_t segment) {
    const qn_engine *e = r->engine;
    size_t row = qn_work_n_rows(e->work, segment) - 1;
    int32_t id = qn_greatest_logit(&e->choices, qn_work_logits(e->work, segment, row));
    if (id < 0) return false; // not finite: the target will say so if it is its fault
    r->drafts[r->n_drafts++] = id;
    if (!r->draft_hidden) r->draft_hidden = QN_NEW_ARRAY(float, width(r));
    memcpy(r->draft_hidden, qn_work_hidden(e->work, segment, row), width(r) * sizeof(float));
    return true;
}

static void next_segment(const qn_request *r, qn_draft_segment *s) {
    size_t position = r->computed - 1 + (size_t)r->n_drafts;
    *s = (qn_draft_segment){.tokens = &r->drafts[r->n_drafts - 1], .hidden = r->draft_hidden,
                            .n = 1, .position = position, .blocks = r->blocks};
    if (r->rope3) s->rope3 = (const int32_t(*)[3])r->rope3 + position;
}

// From the results in e->drafters[0..n): first drafts, then round by round those behind them.
static bool make_drafts(qn_engine *e, int depth, size_t n, qn_err *err) {
    for (size_t i = 0; i < n; i++) e->drafters[i]->n_drafts = 0;
    for (int round = 0; round < depth && n; round++) {
        size_t kept = 0;
        for (size_t i = 0; i < n; i++) {
            qn_request *r = e->drafters[i];
            if (depth_of(r, depth) <= round || !take_draft(r, i)) continue;
            if (round + 1 < depth_of(r, depth)) e->drafters[kept++] = r;
        }
        n = kept;
        for (size_t i = 0; i < n; i++) next_segment(e->drafters[i], &e->draft_segments[i]);
        if (n && !qn_model_draft(e->model, e->work, e->draft_segments, n, e->blocks.arena, err))
            return false;
    }
    return true;
}

// ---- what it cost ----

// The depth all drafting requests of the step had, and have for the next; -1 when they differ.
static int common_depth(const qn_engine *e, bool next) {
    int depth = -1;
    for (size_t i = 0; i < e->n_batch; i++) {
        const qn_request *r = e->batch[i];
        if (!r->drafting || (next && r->finish != QN_FINISH_NONE)) continue;
        int d = next ? r->n_drafts : (int)r->step_n - 1;
        if (depth >= 0 && d != depth) return -1;
        depth = d;
    }
    return depth;
}

static double mean_tokens(const qn_engine *e) {
    size_t n = 0, tokens = 0;
    for (size_t i = 0; i < e->n_batch; i++) {
        if (!e->batch[i]->drafting) continue;
        tokens += (size_t)e->batch[i]->n_sampled;
        n++;
    }
    return n ? (double)tokens / (double)n : 1;
}

static void learn(qn_engine *e, double seconds) {
    int before = common_depth(e, false), after = common_depth(e, true);
    if (e->pure_decode && before >= 0 && before == after)
        qn_speculator_saw_step(&e->speculator, e->n_batch, before, mean_tokens(e), seconds);
    else
        qn_speculator_saw_other(&e->speculator, seconds);
}

static size_t count_decoding(const qn_engine *e) {
    size_t n = 0;
    for (size_t i = 0; i < e->running.n; i++) {
        const qn_request *r = e->running.items[i];
        n += r->n - r->computed == 1 && r->finish == QN_FINISH_NONE;
    }
    return n;
}

bool qn_draft_step(qn_engine *e, double step_started, qn_err *err) {
    size_t n, decoding = count_decoding(e);
    int depth = decoding ? qn_speculator_depth(&e->speculator, decoding) : 0;
    if (e->speculator.asleep)
        for (size_t i = 0; i < e->running.n; i++) stop_drafting(e->running.items[i]);
    double started = e->now();
    if (!fill_pairs(e, depth, &n, err)) return false;
    if (!e->pure_decode && n) qn_speculator_saw_fill(&e->speculator, e->now() - started);
    if (!make_drafts(e, depth, n, err)) return false;
    if (e->speculator.most) learn(e, e->now() - step_started);
    return true;
}
