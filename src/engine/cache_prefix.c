// Prefix reuse. A block's digest covers its tokens, the images in them, and the digest of the
// block before it, from a root made of the request's salt: equal digests mean equal beginnings,
// and equal beginnings mean equal bits, because no result depends on how a prompt was batched.
// A recurrent model can go on only where its state was kept. That is every so many positions, at
// the end of a prompt, and wherever another request is seen to branch off.
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/engine.h"

#define STATE_EVERY 256 // positions between kept states of a prompt
#define ROLL_EVERY 64   // positions between states kept while generating; only the latest stays

static size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }

qn_digest qn_prefix_root(const qn_engine *e, const char *salt) {
    qn_hasher h;
    qn_hash_init(&h, e->hash_key);
    if (salt) qn_hash_add(&h, salt, strlen(salt) + 1);
    return qn_hash_finish(&h);
}

static qn_digest block_digest(const qn_request *r, size_t i) {
    size_t tokens = r->engine->blocks.block_tokens, from = i * tokens, to = from + tokens;
    qn_hasher h;
    qn_hash_init(&h, r->engine->hash_key);
    qn_hash_add(&h, i ? &r->digests[i - 1] : &r->root, sizeof(qn_digest));
    qn_hash_add(&h, r->tokens + from, tokens * sizeof *r->tokens);
    for (size_t s = 0; s < r->n_pictures; s++) {
        if (r->spans[s].at >= to || r->spans[s].at + r->spans[s].n <= from) continue;
        qn_hash_add(&h, &r->spans[s].at, sizeof(size_t));
        qn_hash_add(&h, &r->pictures[s]->digest, sizeof(qn_digest));
    }
    return qn_hash_finish(&h);
}

// Makes sure the first n blocks have digests (their tokens are known).
static void digest_up_to(qn_request *r, size_t n) {
    if (n > r->cap_digests) {
        r->cap_digests = n > 2 * r->cap_digests ? n : 2 * r->cap_digests;
        r->digests = qn_realloc(r->digests, r->cap_digests * sizeof *r->digests);
    }
    for (; r->n_digests < n; r->n_digests++)
        r->digests[r->n_digests] = block_digest(r, r->n_digests);
}

// Blocks of r that could come from the cache: full ones, and a token must be left to compute.
static size_t candidates(const qn_request *r) {
    if (!r->engine->limits.prefix_cache || r->probe) return 0;
    return (r->n - 1) / r->engine->blocks.block_tokens;
}

qn_prefix_hit qn_prefix_look_up(qn_request *r) {
    qn_engine *e = r->engine;
    size_t most = candidates(r), n = 0;
    digest_up_to(r, most);
    while (n < most && qn_blocks_find(&e->blocks, r->digests[n]) != QN_NO_BLOCK) n++;
    qn_prefix_hit hit = {n, n};
    if (e->states.bytes)
        while (hit.blocks && !qn_states_has(&e->states, r->digests[hit.blocks - 1])) hit.blocks--;
    return hit;
}

static void make_wish(qn_request *r, size_t block) {
    if (block >= r->n_wish) {
        size_t n = r->n / r->engine->blocks.block_tokens + 1;
        if (block >= n) return;
        r->wish = qn_realloc(r->wish, n);
        memset(r->wish + r->n_wish, 0, n - r->n_wish);
        r->n_wish = n;
    }
    r->wish[block] = 1;
}

static size_t in_common(const qn_request *a, const qn_request *b, size_t from) {
    size_t most = a->n_digests < b->n_digests ? a->n_digests : b->n_digests;
    while (from < most && qn_digest_equal(a->digests[from], b->digests[from])) from++;
    return from;
}

bool qn_prefix_is_coming(qn_request *r, const qn_prefix_hit *hit) {
    qn_engine *e = r->engine;
    if (!candidates(r) || (e->states.bytes && !e->states.max_kept)) return false;
    for (size_t i = 0; i < e->running.n; i++) {
        qn_request *o = e->running.items[i]; // digests of what it will compute, so far as known
        size_t common = in_common(o, r, hit->blocks);
        if (common <= hit->blocks || o->computed >= common * e->blocks.block_tokens) continue;
        if (e->states.bytes) make_wish(o, common);
        return true;
    }
    return false;
}

void qn_prefix_adopt(qn_request *r, const qn_prefix_hit *hit) {
    qn_engine *e = r->engine;
    bool drafted = true;
    for (size_t i = 0; i < hit->blocks; i++) {
        uint32_t b = qn_blocks_find(&e->blocks, r->digests[i]);
        qn_blocks_hold(&e->blocks, b);
        r->blocks[r->n_blocks++] = b;
        drafted = drafted && e->blocks.info[b].drafted;
    }
    r->computed = r->filled = hit->blocks * e->blocks.block_tokens;
    r->n_published = hit->blocks;
    if (!drafted) r->drafting = false; // holes in the draft layer's cache: it would guess badly
    if (e->states.bytes && hit->matched > hit->blocks) make_wish(r, hit->matched);
}

static size_t state_interval(const qn_engine *e) {
    return round_up(STATE_EVERY, e->blocks.block_tokens);
}

// The last block bound before the end: where the next request with this prompt goes on.
static size_t last_bound(const qn_request *r) {
    size_t tokens = r->engine->blocks.block_tokens;
    return (r->n - 1) / tokens * tokens;
}

size_t qn_prefix_next_bound(const qn_request *r) {
    const qn_engine *e = r->engine;
    size_t tokens = e->blocks.block_tokens, interval = state_interval(e);
    if (!e->states.max_kept || !e->limits.prefix_cache) return SIZE_MAX;
    size_t bound = (r->computed / interval + 1) * interval, last = last_bound(r);
    if (last > r->computed && last < bound) bound = last;
    for (size_t i = r->computed / tokens + 1; i < r->n_wish && i * tokens < bound; i++)
        if (r->wish[i]) bound = i * tokens;
    return bound;
}

static void keep_prompt_state(qn_request *r) {
    qn_engine *e = r->engine;
    size_t at = r->computed, block = at / e->blocks.block_tokens;
    bool wished = block < r->n_wish && r->wish[block];
    if (at && (at % state_interval(e) == 0 || at == last_bound(r) || wished))
        qn_states_keep(&e->states, r->digests[block - 1], r->state);
}

// While generating, the latest state replaces the one before: it serves the conversation's next
// turn, not strangers.
static void keep_rolling_state(qn_request *r, size_t position, const uint8_t *state) {
    qn_engine *e = r->engine;
    if (position % round_up(ROLL_EVERY, e->blocks.block_tokens)) return;
    qn_digest d = r->digests[position / e->blocks.block_tokens - 1];
    if (r->has_rolling) qn_states_forget(&e->states, r->rolling);
    qn_states_keep(&e->states, d, state);
    r->rolling = d;
    r->has_rolling = true;
}

static void keep_states(qn_request *r, size_t from) {
    qn_engine *e = r->engine;
    if (!e->states.max_kept) return;
    size_t tokens = e->blocks.block_tokens;
    if (!r->decodes) {
        if (r->computed % tokens == 0) keep_prompt_state(r);
        return;
    }
    for (size_t p = from + 1; p <= r->computed; p++)
        if (p % tokens == 0)
            keep_rolling_state(r, p, p == r->computed ? r->state : r->after[p - from - 1]);
}

void qn_prefix_publish(qn_request *r, size_t from) {
    qn_engine *e = r->engine;
    if (!e->limits.prefix_cache) return;
    size_t full = r->computed / e->blocks.block_tokens;
    digest_up_to(r, full);
    for (; r->n_published < full; r->n_published++)
        qn_blocks_publish(&e->blocks, r->blocks[r->n_published], r->digests[r->n_published]);
    keep_states(r, from);
}
