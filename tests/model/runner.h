// Runs a model without an engine: sequences with their own blocks and state, and what they give.
#ifndef TESTS_MODEL_RUNNER_H
#define TESTS_MODEL_RUNNER_H

#include "model/model.h"
#include "store/checkpoint.h"

#define RUNNER_MAX_SEQUENCES 8

typedef struct runner {
    qn_model *model;
    const qn_model_info *info;
    qn_pool *pool;
    qn_compute *compute;
    qn_work *work;
    qn_cache_spec spec;
    uint8_t *arena;
    size_t arena_bytes, blocks_per_sequence;
    uint32_t *blocks; // [RUNNER_MAX_SEQUENCES][blocks_per_sequence], in no order
    uint8_t *states[RUNNER_MAX_SEQUENCES];
} runner;

// Room for sequences of max_tokens. Fails the test when the model does not load.
void runner_open(runner *r, const char *path, const qn_model_options *o, size_t max_tokens);
void runner_close(runner *r);
void runner_reset(runner *r, size_t sequence); // a fresh recurrent state
// A segment of a sequence, caches filled in.
qn_segment runner_segment(const runner *r, size_t sequence, const int32_t *tokens, size_t position,
                          size_t n);
void runner_step(runner *r, const qn_segment *segments, size_t n);

// Tokens 0 … n - 1 in chunks; logits of all of them, allocated [n][vocab_size]. When seen is given
// it is called as on_probe for hidden states.
float *runner_logits(runner *r, size_t sequence, const int32_t *tokens, size_t n, size_t chunk);

// ---- references ----

typedef struct reference {
    qn_ckpt *ckpt;
    const int32_t *tokens;
    int32_t *memory;
    size_t n;
} reference;
void reference_open(reference *r, const char *path, const char *tokens);
void reference_close(reference *r);
// A tensor as floats, allocated; NULL when it is not there.
float *reference_floats(const reference *r, const char *name, size_t *n);
int32_t *reference_ints(const reference *r, const char *name, size_t *n);

// The largest ‖a - b‖ / ‖b‖ over rows of width n.
double worst_row(const float *a, const float *b, size_t rows, size_t n, size_t *row);

#endif
