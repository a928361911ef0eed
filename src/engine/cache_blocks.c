// Owns the arena and who holds which block. What a block means is its holders' business.
#include "engine/cache_blocks.h"

#include <assert.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"

static void queue_remove(qn_blocks *p, uint32_t b) {
    qn_block *x = &p->info[b];
    if (x->prev == QN_NO_BLOCK) p->head = x->next;
    else p->info[x->prev].next = x->next;
    if (x->next == QN_NO_BLOCK) p->tail = x->prev;
    else p->info[x->next].prev = x->prev;
    p->n_free--;
}

// Blocks with findable content wait at the tail, worthless ones are used up first.
static void queue_add(qn_blocks *p, uint32_t b) {
    qn_block *x = &p->info[b];
    bool last = x->known;
    x->prev = last ? p->tail : QN_NO_BLOCK;
    x->next = last ? QN_NO_BLOCK : p->head;
    if (x->prev == QN_NO_BLOCK) p->head = b;
    else p->info[x->prev].next = b;
    if (x->next == QN_NO_BLOCK) p->tail = b;
    else p->info[x->next].prev = b;
    p->n_free++;
}

bool qn_blocks_init(qn_blocks *p, size_t n, size_t block_bytes, size_t block_tokens, qn_err *err) {
    *p = (qn_blocks){.block_bytes = block_bytes, .block_tokens = block_tokens};
    p->head = p->tail = QN_NO_BLOCK;
    if (n >= QN_NO_BLOCK || !qn_mul(n, block_bytes, &p->arena_bytes))
        return qn_fail(err, QN_NOMEM, "kv cache: %zu blocks are more than can be addressed", n);
    p->arena = qn_big_alloc(p->arena_bytes, "kv cache", err);
    if (!p->arena) return false;
    p->n = (uint32_t)n;
    p->info = QN_NEW_ARRAY(qn_block, n);
    for (p->n_buckets = 16; p->n_buckets < n && p->n_buckets < 1u << 30;) p->n_buckets *= 2;
    p->buckets = QN_NEW_ARRAY(uint32_t, p->n_buckets);
    for (uint32_t i = 0; i < p->n_buckets; i++) p->buckets[i] = QN_NO_BLOCK;
    for (uint32_t b = p->n; b-- > 0;) queue_add(p, b); // low addresses first: they stay warm
    return true;
}

void qn_blocks_done(qn_blocks *p) {
    qn_big_free(p->arena, p->arena_bytes);
    free(p->info);
    free(p->buckets);
    *p = (qn_blocks){0};
}

static uint32_t *bucket(const qn_blocks *p, qn_digest d) {
    return &p->buckets[d.a & (p->n_buckets - 1)];
}

static void forget(qn_blocks *p, uint32_t b) {
    uint32_t *at = bucket(p, p->info[b].digest);
    while (*at != b) at = &p->info[*at].chain;
    *at = p->info[b].chain;
    p->info[b].known = false;
}

uint32_t qn_blocks_take(qn_blocks *p) {
    uint32_t b = p->head;
    if (b == QN_NO_BLOCK) return b;
    queue_remove(p, b);
    if (p->info[b].known) forget(p, b);
    p->info[b].drafted = false;
    p->info[b].refs = 1;
    return b;
}

void qn_blocks_hold(qn_blocks *p, uint32_t b) {
    if (p->info[b].refs++ == 0) queue_remove(p, b);
}

void qn_blocks_drop(qn_blocks *p, uint32_t b) {
    assert(p->info[b].refs > 0);
    if (--p->info[b].refs == 0) queue_add(p, b);
}

uint32_t qn_blocks_find(const qn_blocks *p, qn_digest d) {
    uint32_t b = *bucket(p, d);
    while (b != QN_NO_BLOCK && !qn_digest_equal(p->info[b].digest, d)) b = p->info[b].chain;
    return b;
}

void qn_blocks_publish(qn_blocks *p, uint32_t b, qn_digest d) {
    if (p->info[b].known || qn_blocks_find(p, d) != QN_NO_BLOCK) return;
    uint32_t *at = bucket(p, d);
    p->info[b].digest = d;
    p->info[b].known = true;
    p->info[b].chain = *at;
    *at = b;
}
