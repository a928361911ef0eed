// Slots come one by one from the system, because a state may be tens of megabytes and most
// engines never run as many sequences as they may. The checkpoints are few (a budget divided by
// such sizes), so looking one up is a scan.
#include "engine/cache_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define MAX_SPARE 16
#define MAX_KEPT 4096

void qn_states_init(qn_states *s, size_t bytes, size_t budget) {
    *s = (qn_states){.bytes = bytes};
    if (!bytes) return;
    s->max_kept = budget / bytes;
    if (s->max_kept > MAX_KEPT) s->max_kept = MAX_KEPT;
    s->spare = QN_NEW_ARRAY(uint8_t *, MAX_SPARE);
    s->kept = QN_NEW_ARRAY(qn_checkpoint, s->max_kept);
}

static void release(qn_states *s, uint8_t *slot) {
    qn_big_free(slot, s->bytes);
    s->n_slots--;
}

void qn_states_done(qn_states *s) {
    for (size_t i = 0; i < s->n_kept; i++) release(s, s->kept[i].state);
    while (s->n_spare) release(s, s->spare[--s->n_spare]);
    assert(s->n_slots == 0);
    free(s->spare);
    free(s->kept);
    *s = (qn_states){0};
}

uint8_t *qn_states_take(qn_states *s, qn_err *err) {
    if (s->n_spare) return s->spare[--s->n_spare];
    uint8_t *slot = qn_big_alloc(s->bytes, "recurrent state of a sequence", err);
    if (slot) s->n_slots++;
    return slot;
}

void qn_states_give(qn_states *s, uint8_t *slot) {
    if (!slot) return;
    if (s->n_spare < MAX_SPARE) s->spare[s->n_spare++] = slot;
    else release(s, slot);
}

static qn_checkpoint *look_up(const qn_states *s, qn_digest d) {
    for (size_t i = 0; i < s->n_kept; i++)
        if (qn_digest_equal(s->kept[i].digest, d)) return &s->kept[i];
    return NULL;
}

static qn_checkpoint *oldest(qn_states *s) {
    qn_checkpoint *c = &s->kept[0];
    for (size_t i = 1; i < s->n_kept; i++)
        if (s->kept[i].used < c->used) c = &s->kept[i];
    return c;
}

void qn_states_keep(qn_states *s, qn_digest d, const uint8_t *state) {
    if (!s->max_kept) return;
    qn_checkpoint *c = look_up(s, d);
    if (!c) {
        if (s->n_kept < s->max_kept) {
            uint8_t *slot = qn_states_take(s, NULL);
            if (!slot) return;
            c = &s->kept[s->n_kept++];
            c->state = slot;
        } else {
            c = oldest(s);
        }
        c->digest = d;
        memcpy(c->state, state, s->bytes);
    }
    c->used = ++s->clock;
}

bool qn_states_has(const qn_states *s, qn_digest d) { return look_up(s, d) != NULL; }

bool qn_states_restore(qn_states *s, qn_digest d, uint8_t *state) {
    qn_checkpoint *c = look_up(s, d);
    if (!c) return false;
    c->used = ++s->clock;
    memcpy(state, c->state, s->bytes);
    return true;
}

void qn_states_forget(qn_states *s, qn_digest d) {
    qn_checkpoint *c = look_up(s, d);
    if (!c) return;
    qn_states_give(s, c->state);
    *c = s->kept[--s->n_kept];
}
