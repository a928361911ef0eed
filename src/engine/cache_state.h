// Recurrent states: one slot per running sequence (more while it speculates), and checkpoints of
// states at block bounds, kept under their block's digest within a budget, least recently used out
// first. For models without recurrent state everything here is empty.
#ifndef QN_ENGINE_CACHE_STATE_H
#define QN_ENGINE_CACHE_STATE_H

#include "engine/content_hash.h"
#include "quern.h"

typedef struct qn_checkpoint {
    qn_digest digest;
    uint8_t *state; // NULL: the entry is empty
    uint64_t used;  // clock of the last use
} qn_checkpoint;

typedef struct qn_states {
    size_t bytes;           // of one state; 0: the model has none
    uint8_t **spare;        // slots given back, for the next taker
    size_t n_spare, n_slots; // n_slots: allocated in all
    qn_checkpoint *kept;
    size_t n_kept, max_kept; // entries in use; as many as the budget pays for
    uint64_t clock;
} qn_states;

void qn_states_init(qn_states *s, size_t bytes, size_t budget);
void qn_states_done(qn_states *s); // every slot must have been given back
uint8_t *qn_states_take(qn_states *s, qn_err *err); // contents undefined
void qn_states_give(qn_states *s, uint8_t *slot);   // NULL is fine

// Copies a state away; with no memory or no budget nothing is kept, which only costs time later.
void qn_states_keep(qn_states *s, qn_digest d, const uint8_t *state);
bool qn_states_has(const qn_states *s, qn_digest d);
bool qn_states_restore(qn_states *s, qn_digest d, uint8_t *state); // and marks it as used
void qn_states_forget(qn_states *s, qn_digest d);

#endif
