// Byte-level BPE: merge rules, and their application to one piece of text.
#ifndef QN_TEXT_BPE_H
#define QN_TEXT_BPE_H

#include <stdatomic.h>

#include "text/json_scan.h"
#include "text/vocab.h"

#define QN_NO_RANK INT32_MAX

typedef struct qn_merge { // left and right become id; the lowest rank goes first
    int32_t left, right, rank, id;
} qn_merge;

typedef struct qn_bpe {
    qn_vocab vocab;
    qn_merge *slots;    // open addressing by (left, right); left -1 is free
    size_t mask, n, n_rules;
    qn_merge *pairs;    // [256][256]: the rules between single bytes, without hashing
    bool ignore_merges; // a whole piece that is a token is taken as it is
    // What is known about each token's bytes as a piece of their own: see bpe.c. Written by
    // encoding threads, each time with the same value.
    _Atomic uint8_t *whole;
} qn_bpe;

// Arrays for one encoding thread; {0} is ready.
typedef struct qn_bpe_work {
    struct bpe_node *nodes;
    uint64_t *heap;
    size_t n_nodes, n_heap, cap_heap;
} qn_bpe_work;

// The growing list of ids.
typedef struct qn_ids {
    int32_t *data;
    size_t n, cap;
} qn_ids;

void qn_ids_reserve(qn_ids *ids, size_t more);
static inline void qn_ids_add(qn_ids *ids, int32_t id) {
    if (ids->n == ids->cap) qn_ids_reserve(ids, 1);
    ids->data[ids->n++] = id;
}

void qn_bpe_init(qn_bpe *b);
void qn_bpe_done(qn_bpe *b);
// The vocabulary has to be complete before the first rule; rules come in order of rank. where says
// which rule of which file it is.
bool qn_bpe_add_merge(qn_bpe *b, qn_span left, qn_span right, const char *what, qn_err *err);
void qn_bpe_ready(qn_bpe *b); // after the last rule
// The ids of a piece of n > 0 bytes; hash is its qn_hash_bytes. QN_NOMEM for a monster.
bool qn_bpe_encode(const qn_bpe *b, qn_bpe_work *w, const char *s, size_t n, qn_ids *ids,
                   qn_err *err);
// The token that is the whole piece, if encoding the piece gives just that; else -1.
int32_t qn_bpe_whole(const qn_bpe *b, qn_bpe_work *w, const char *s, size_t n, uint64_t hash);
void qn_bpe_work_done(qn_bpe_work *w);

#endif
