// The arena of keys and values: blocks of equal size, counted references, one queue of blocks
// nobody holds. A block that left the queue's head loses its content; until then its digest finds
// it (prefix reuse), so the queue is the LRU list of the prefix cache.
#ifndef QN_ENGINE_CACHE_BLOCKS_H
#define QN_ENGINE_CACHE_BLOCKS_H

#include "engine/content_hash.h"
#include "quern.h"

#define QN_NO_BLOCK UINT32_MAX

typedef struct qn_block {
    qn_digest digest;    // of everything up to the block's end, when known
    uint32_t refs;       // sequences that hold it; 0: in the queue
    uint32_t prev, next; // neighbours in the queue
    uint32_t chain;      // next block in the same hash bucket
    bool known, drafted; // findable by digest; the draft layer's part is filled too
} qn_block;

typedef struct qn_blocks {
    uint8_t *arena;
    size_t arena_bytes, block_bytes, block_tokens;
    qn_block *info;
    uint32_t *buckets;
    uint32_t n, n_buckets, n_free, head, tail;
} qn_blocks;

bool qn_blocks_init(qn_blocks *p, size_t n, size_t block_bytes, size_t block_tokens, qn_err *err);
void qn_blocks_done(qn_blocks *p);

uint32_t qn_blocks_take(qn_blocks *p);          // a block with one reference, or QN_NO_BLOCK
void qn_blocks_hold(qn_blocks *p, uint32_t b);  // one more reference
void qn_blocks_drop(qn_blocks *p, uint32_t b);  // one less
uint32_t qn_blocks_find(const qn_blocks *p, qn_digest d);
// Makes b findable; does nothing when d is already known (equal digests mean equal bits).
void qn_blocks_publish(qn_blocks *p, uint32_t b, qn_digest d);

static inline size_t qn_blocks_for(const qn_blocks *p, size_t tokens) {
    return tokens / p->block_tokens + (tokens % p->block_tokens != 0);
}

#endif
