// What a block kind is: a mixer (attention, deltanet) or a feed-forward part (mlp, moe). Each kind
// is one file that names its tensors and computes; blocks.c lists them. What a block keeps between
// tokens is described by sizes, so that neither forward.c nor the engine knows the kinds.
#ifndef QN_MODEL_BLOCK_H
#define QN_MODEL_BLOCK_H

#include "kernel/ops.h"
#include "model/binder.h"
#include "model/pass.h"

typedef struct qn_block_kind {
    const char *name;
    // Allocates the block and names its tensors. *block is set also when it fails half-way.
    bool (*bind)(qn_binder *b, const qn_layer_plan *plan, void **block, qn_err *err);
    void (*free)(void *block);
    size_t (*weight_bytes)(const void *block);
    size_t (*weights_per_token)(const void *block); // that one token is multiplied with
    // Bytes of one block of block_tokens positions in the paged cache; NULL: keeps none.
    size_t (*kv_bytes)(const void *block, size_t block_tokens, qn_kv_type type);
    size_t (*state_bytes)(const void *block); // per sequence; NULL: keeps none
    size_t (*scratch)(const void *block, size_t m); // bytes that run takes for m rows
    // p->in [m][hidden] to p->out [m][hidden]. Rows depend on each other only through the caches.
    void (*run)(const void *block, qn_pass *p);
} qn_block_kind;

static inline size_t qn_mat_count(const qn_mat *m) { return m->rows * m->cols; }

extern const qn_block_kind *const qn_mixers[]; // by qn_mixer_id
extern const qn_block_kind *const qn_ffns[];   // by qn_ffn_id

#endif
