// What runs in a step. Sequences that generate go first, a row each (and their drafts); what is
// left of the step's tokens goes to prompts, half of it to the oldest and the rest to those that
// are nearly done, so neither a long prompt nor many short ones can hold the others up. A request
// starts when all blocks for its tokens are there. When a running one needs a block and none is
// left, the latest one gives its blocks up and computes again later, to the same bits.
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/engine.h"

static bool goes_before(const qn_request *a, const qn_request *b) {
    if (a->priority != b->priority) return a->priority > b->priority;
    return a->arrival < b->arrival;
}

void qn_queue_add(qn_queue *q, qn_request *r) {
    if (q->n == q->cap) {
        q->cap = q->cap ? 2 * q->cap : 16;
        q->items = qn_realloc(q->items, q->cap * sizeof *q->items);
    }
    size_t i = q->n++;
    for (; i > 0 && goes_before(r, q->items[i - 1]); i--) q->items[i] = q->items[i - 1];
    q->items[i] = r;
}

void qn_queue_remove(qn_queue *q, const qn_request *r) {
    for (size_t i = 0; i < q->n; i++)
        if (q->items[i] == r) {
            memmove(q->items + i, q->items + i + 1, (q->n - i - 1) * sizeof *q->items);
            q->n--;
            return;
        }
}

void qn_queue_done(qn_queue *q) {
    free(q->items);
    *q = (qn_queue){0};
}

// ---- blocks and states of one request ----

static void table_grow(qn_request *r, size_t n) {
    if (n <= r->cap_blocks) return;
    r->cap_blocks = n > 2 * r->cap_blocks ? n : 2 * r->cap_blocks;
    r->blocks = qn_realloc(r->blocks, r->cap_blocks * sizeof *r->blocks);
}

bool qn_request_reserve(qn_request *r, size_t tokens) {
    qn_blocks *p = &r->engine->blocks;
    size_t need = qn_blocks_for(p, tokens);
    if (need <= r->n_blocks) return true;
    if (need - r->n_blocks > p->n_free) return false;
    table_grow(r, need);
    while (r->n_blocks < need) r->blocks[r->n_blocks++] = qn_blocks_take(p);
    return true;
}

void qn_request_release(qn_request *r) {
    qn_engine *e = r->engine;
    // The last block first: the beginning of a sequence is the likelier one to be needed again.
    while (r->n_blocks) qn_blocks_drop(&e->blocks, r->blocks[--r->n_blocks]);
    qn_states_give(&e->states, r->state);
    r->state = NULL;
    for (int i = 0; i <= QN_MAX_DRAFTS; i++) {
        qn_states_give(&e->states, r->after[i]);
        r->after[i] = NULL;
    }
    qn_draft_forget(r);
    r->computed = r->n_published = r->filled = 0;
}

// ---- starting ----

typedef enum outcome { STARTED, NOT_NOW, NO_ROOM, FAILED } outcome;

// Free blocks once the hit's blocks, some of which lie in the free queue, are held.
static size_t free_after(const qn_request *r, const qn_prefix_hit *hit) {
    const qn_blocks *p = &r->engine->blocks;
    size_t n = p->n_free;
    for (size_t i = 0; i < hit->blocks; i++)
        if (!p->info[qn_blocks_find(p, r->digests[i])].refs) n--;
    return n;
}

static void count_start(qn_request *r) {
    if (r->admitted_before) return;
    r->admitted_before = true;
    r->engine->stats.prompt_tokens += r->n_prompt;
    r->engine->stats.cached_tokens += r->computed;
}

static outcome start(qn_request *r) {
    qn_engine *e = r->engine;
    qn_prefix_hit hit = qn_prefix_look_up(r);
    if (qn_prefix_is_coming(r, &hit)) return NOT_NOW;
    size_t need = qn_blocks_for(&e->blocks, r->n) - hit.blocks;
    size_t spare = e->running.n; // a block each for those who are on their way
    if (need + spare > free_after(r, &hit)) return NO_ROOM;
    if (e->states.bytes) {
        r->state = qn_states_take(&e->states, &r->err);
        if (!r->state) return e->running.n ? NO_ROOM : FAILED;
        if (!hit.blocks) memset(r->state, 0, e->states.bytes);
        else qn_states_restore(&e->states, r->digests[hit.blocks - 1], r->state);
    }
    r->drafting = (r->probe & QN_PROBE_MTP) ||
                  (!r->probe && !r->no_output && qn_speculator_admit(&e->speculator));
    table_grow(r, qn_blocks_for(&e->blocks, r->n));
    qn_prefix_adopt(r, &hit);
    qn_request_reserve(r, r->n);
    count_start(r);
    return STARTED;
}

static void admit(qn_engine *e) {
    for (size_t i = 0; i < e->waiting.n && e->running.n < e->limits.step_seqs;) {
        qn_request *r = e->waiting.items[i];
        outcome o = start(r);
        if (o == NO_ROOM) return; // nobody overtakes: long requests would starve
        if (o == NOT_NOW) {
            i++;
            continue;
        }
        qn_queue_remove(&e->waiting, r);
        qn_queue_add(&e->running, r);
        if (o == FAILED) qn_request_end(r, QN_FINISH_ERROR, 0);
    }
}

// ---- preemption ----

static void preempt(qn_request *r) {
    qn_engine *e = r->engine;
    qn_request_release(r);
    qn_queue_remove(&e->running, r);
    qn_queue_add(&e->waiting, r);
}

static bool decoding(const qn_request *r) { return r->n - r->computed == 1; }

// Every generating request gets the block its next token needs, in order; who comes last pays.
static void secure_blocks(qn_engine *e) {
    for (size_t i = 0; i < e->running.n; i++) {
        qn_request *r = e->running.items[i];
        if (!decoding(r)) continue;
        if (r->n_drafts && !qn_request_reserve(r, r->n + (size_t)r->n_drafts)) r->n_drafts = 0;
        while (!qn_request_reserve(r, r->n)) {
            qn_request *last = e->running.items[e->running.n - 1];
            preempt(last);
            if (last == r) return;
        }
    }
}

// ---- filling the step ----

static void put(qn_engine *e, qn_request *r, size_t n) {
    r->step_n = n;
    r->decodes = decoding(r);
    if (!r->decodes) e->pure_decode = false;
    e->batch[e->n_batch++] = r;
}

// Up to `budget` tokens of generating requests, starting with another one each time it is short.
static size_t put_decodes(qn_engine *e, size_t budget) {
    size_t n = e->running.n, used = 0, from = n ? (size_t)(e->turn % n) : 0;
    for (size_t j = 0; j < n && used < budget; j++) {
        qn_request *r = e->running.items[(from + j) % n];
        if (!decoding(r)) continue;
        size_t room = budget - used - 1;
        if ((size_t)r->n_drafts > room) r->n_drafts = (int)room;
        put(e, r, 1 + (size_t)r->n_drafts);
        used += r->step_n;
    }
    return used;
}

static size_t chunk(const qn_request *r, size_t most) {
    size_t n = r->n - r->computed;
    if (n > most) n = most;
    size_t bound = qn_prefix_next_bound(r);
    return bound - r->computed < n ? bound - r->computed : n;
}

static qn_request *oldest_prompt(const qn_engine *e, size_t *n) {
    qn_request *first = NULL;
    *n = 0;
    for (size_t i = 0; i < e->running.n; i++) {
        if (decoding(e->running.items[i])) continue;
        if (!first) first = e->running.items[i];
        (*n)++;
    }
    return first;
}

// The prompt not yet in this step with the least left to do.
static qn_request *shortest_prompt(const qn_engine *e) {
    qn_request *best = NULL;
    for (size_t i = 0; i < e->running.n; i++) {
        qn_request *r = e->running.items[i];
        if (decoding(r) || r->step_n) continue;
        if (!best || r->n - r->computed < best->n - best->computed) best = r;
    }
    return best;
}

static void put_prompts(qn_engine *e, size_t budget) {
    size_t n;
    qn_request *r = oldest_prompt(e, &n);
    if (!r || !budget) return;
    size_t share = n > 1 && budget > 1 ? budget / 2 : budget;
    put(e, r, chunk(r, share));
    qn_request *oldest = r;
    budget -= r->step_n;
    while (budget && (r = shortest_prompt(e)) != NULL) {
        put(e, r, chunk(r, budget));
        budget -= r->step_n;
    }
    oldest->step_n = chunk(oldest, oldest->step_n + budget);
}

static bool decode_is_due(const qn_engine *e) {
    size_t n_prompts;
    return !oldest_prompt(e, &n_prompts) || e->turn % 2;
}

void qn_schedule(qn_engine *e) {
    secure_blocks(e);
    admit(e);
    e->n_batch = 0;
    e->pure_decode = true;
    e->turn++;
    for (size_t i = 0; i < e->running.n; i++) e->running.items[i]->step_n = 0;
    size_t budget = e->limits.step_tokens, n_prompts, used = 0;
    bool prompts = oldest_prompt(e, &n_prompts) != NULL;
    // Prompts get an eighth even when generation could fill the step; of a step of one token,
    // every other one.
    size_t decodes = prompts ? budget - (budget + 7) / 8 : budget;
    if (!decodes && decode_is_due(e)) decodes = budget;
    used = put_decodes(e, decodes);
    put_prompts(e, budget - used);
}
