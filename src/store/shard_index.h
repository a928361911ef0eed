// Which files of a folder are shards: those that model.safetensors.index.json names, or
// model.safetensors. Other files beside them are not touched.
#ifndef QN_STORE_SHARD_INDEX_H
#define QN_STORE_SHARD_INDEX_H

#include <jansson.h>

#include "store/damage.h"

#define QN_SHARD_INDEX "model.safetensors.index.json"

typedef struct qn_shard_list { // {0} is empty
    char **names; // sorted, without folder
    size_t n;
    json_t *weight_map; // NULL: a single file
} qn_shard_list;

// The list alone; whether the files are there is not looked at. No shards at all is QN_NOT_FOUND.
bool qn_shard_list_read(const char *dir, qn_damages *d, qn_shard_list *out, qn_err *err);
void qn_shard_list_done(qn_shard_list *l);

#endif
