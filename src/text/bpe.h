// Byte-level BPE: merge rules, and their application to one piece of text.
#ifndef QN_TEXT_BPE_H
#define QN_TEXT_BPE_H

#include <stdatomic.h>

#include "text/json_scan.h"
#include "text/vocab.h"

#define QN_BPE_MAX_RULES ((1 << 20) - 2) // ranks have 20 bits beside two ids of 22
#define QN_NO_RANK INT32_MAX

typedef struct qn_bpe {
    qn_vocab vocab;
    uint64_t *rules;    // open addressing by pair: left id, right id, rank; all ones is free
    size_t mask, n;     // of the table; n entries
    uint64_t *filter;   // one bit per hash of a pair: most pairs are no rule, and end here
    size_t filter_mask;
    int32_t *products;  // by rank: what the pair becomes
    size_t n_rules, cap_products;
    int32_t *pair_rank; // [256][256]: of two bytes' tokens, without hashing
    int32_t *chars;     // by code point below U+10000: token that it can start as, or -1; or NULL
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
// The vocabulary has to be complete before the first rule; rules come in order of rank. what names
// the file in errors.
bool qn_bpe_add_merge(qn_bpe *b, qn_span left, qn_span right, const char *what, qn_err *err);
void qn_bpe_ready(qn_bpe *b); // after the last rule
int32_t qn_bpe_rank(const qn_bpe *b, int32_t left, int32_t right); // or QN_NO_RANK
// bpe_chars.c: the table of qn_bpe.chars, or NULL.
int32_t *qn_bpe_chars(const qn_bpe *b);
// The ids of a piece of n > 0 bytes of UTF-8. QN_NOMEM for a monster.
bool qn_bpe_encode(const qn_bpe *b, qn_bpe_work *w, const char *s, size_t n, qn_ids *ids,
                   qn_err *err);
// The token that is the whole piece, if encoding the piece gives just that; else -1. hash is the
// piece's qn_hash_bytes.
int32_t qn_bpe_whole(const qn_bpe *b, qn_bpe_work *w, const char *s, size_t n, uint64_t hash);
void qn_bpe_work_done(qn_bpe_work *w);

#endif
