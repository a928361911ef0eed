// The inside of a model: its layers, in memory. Shared by the files that build it and the forward
// pass; other rooms see model.h.
#ifndef QN_MODEL_PARTS_H
#define QN_MODEL_PARTS_H

#include "model/block.h"
#include "model/model.h"
#include "model/vision.h"

typedef struct qn_layer {
    int index;
    float *input_norm, *post_norm; // [hidden_size]
    const qn_block_kind *mixer, *ffn;
    void *mixer_block, *ffn_block;
    size_t kv_at, state_at; // its place in a block of the paged cache, in the recurrent state
} qn_layer;

// The draft layer (multi-token prediction): fc joins the next token's embedding and the hidden
// state, one attention layer follows.
typedef struct qn_draft {
    bool present;
    float *norm_embedding, *norm_hidden, *norm;
    qn_mat fc; // [hidden_size, 2 * hidden_size], embedding first
    qn_layer layer;
} qn_draft;

typedef struct qn_parts {
    qn_mat embed, head; // a tied head stays empty: see qn_parts_head
    float *norm;
    qn_layer *layers;
    size_t n_layers;
    qn_draft draft;
} qn_parts;

// Names every tensor of text and draft layer to the binder, in the order of the modules, and
// builds the layers. Release with qn_parts_done, also after a failure.
bool qn_parts_bind(qn_parts *p, qn_binder *b, qn_err *err);
void qn_parts_done(qn_parts *p);
// Gives every layer its place in the caches.
void qn_parts_place(qn_parts *p, qn_kv_type type, size_t block_tokens, qn_cache_spec *spec);
size_t qn_parts_bytes(const qn_parts *p);
size_t qn_parts_weights_per_token(const qn_parts *p); // head counted, embedding and drafts not
static inline const qn_mat *qn_parts_head(const qn_parts *p) {
    return p->head.rows ? &p->head : &p->embed;
}

struct qn_model {
    qn_config config;
    qn_parts parts;
    qn_model_info info;
    char *path;
    qn_cache_spec cache;
    qn_kv_type kv_type;
    double *rope; // [rope.dims / 2]
    qn_precision precision;
    int n_threads;
    qn_tokenizer *tokenizer;
    qn_template *template;
    qn_vision *vision;
    qn_sampling sampling;
};

// Listeners (binder.h). The loader takes weights from ckpt and packs them as `want` says; its
// strays are found afterwards.
typedef struct qn_loader {
    qn_binder binder;
    qn_ckpt *ckpt;
    qn_weights want;
    qn_pool *pool;
    bool *used; // per weight
    uint64_t done, total; // bytes
    qn_progress_fn progress;
    void *user;
} qn_loader;
bool qn_loader_init(qn_loader *l, qn_ckpt *ckpt, const qn_config *c, qn_err *err);
// What no block asked for: a bias that is not zero is an error, anything else is noted.
bool qn_loader_check_strays(const qn_loader *l, qn_err *err);
void qn_loader_done(qn_loader *l);

typedef struct qn_dummy {
    qn_binder binder;
    qn_weights want;
    qn_pool *pool;
    float *noise;
    uint16_t *halves;
    uint8_t *codes8, *codes4;
    size_t n_noise;
} qn_dummy;
bool qn_dummy_init(qn_dummy *d, const qn_config *c, qn_err *err);
void qn_dummy_done(qn_dummy *d);

#endif
