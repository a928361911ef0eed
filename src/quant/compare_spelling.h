// Which weights of two checkpoints are the same, though they are named or cut otherwise.
#ifndef QN_QUANT_COMPARE_SPELLING_H
#define QN_QUANT_COMPARE_SPELLING_H

#include "store/weight.h"

typedef struct qn_piece {
    char *key;          // the same on both sides
    const qn_weight *w; // what it is taken from:
    size_t row0, rows;  // these rows,
    size_t *order;      // or, unless NULL, [rows] of them in this order
    bool part;          // not just the weight under its own name
} qn_piece;

typedef struct qn_pieces {
    qn_piece *list; // in file order
    size_t n, cap;
    size_t *by_key;
    const char *prefix;     // of the text tensors; NULL: the family is not known
    const qn_weight *split; // the first weight that was cut, or NULL
    size_t n_split;
    bool tied;              // the embedding stands for the other side's head
} qn_pieces;

// All weights of both. A weight is cut up only where the other side has its parts and not it: fused
// experts into single ones, interleaved delta rule projections into plain ones. Families are known
// by the configs; without one on either side only names and shapes count. Release with
// qn_pieces_done, also after a failure.
bool qn_pieces_match(qn_ckpt *const ckpt[2], qn_pieces out[2], qn_err *err);
void qn_pieces_done(qn_pieces *p);
const qn_piece *qn_pieces_find(const qn_pieces *p, const char *key); // NULL: none
// As this side would call it; allocated.
char *qn_piece_name(const qn_pieces *p, const qn_piece *piece);

#endif
