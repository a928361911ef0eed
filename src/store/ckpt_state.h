// The inside of qn_ckpt, for the files that fill it.
#ifndef QN_STORE_CKPT_STATE_H
#define QN_STORE_CKPT_STATE_H

#include "store/damage.h"
#include "store/label.h"
#include "store/weight.h"

typedef struct qn_ckpt_shard {
    char *name;
    qn_map map;
} qn_ckpt_shard;

struct qn_ckpt {
    char *path;
    bool tolerant;
    json_t *config, *generation_config;
    json_t *quant_config;
    const char *quant_file;

    qn_ckpt_shard *shards;
    size_t n_shards;
    qn_tensor *tensors;
    size_t n_tensors;
    size_t *by_name;
    qn_damages damages;

    bool weights_read; // the rest is filled by qn_ckpt_weights
    qn_label label;
    qn_weight *weights;
    size_t n_weights;
    size_t *weights_by_name;
    char **label_errors;
    size_t n_label_errors;
    char *label_note;  // or NULL
    char *label_fault; // or NULL
    const qn_tensor **doubles;
    size_t n_doubles;
};

// Where damage goes: NULL in strict openings.
static inline qn_damages *qn_ckpt_damages(qn_ckpt *c) { return c->tolerant ? &c->damages : NULL; }

#endif
