// Writing safetensors, streamed: declare every tensor first (name, dtype, shape), then add the
// bytes of each in the order declared. One file, or shards with an index when a limit is given.
// Files appear in the folder as they complete; the folder itself should be a qn_outdir.
#ifndef QN_STORE_SHARD_WRITER_H
#define QN_STORE_SHARD_WRITER_H

#include "store/checkpoint.h"

typedef struct qn_shards qn_shards;
// base is "model" for a checkpoint (model.safetensors or model-00001-of-00003.safetensors + index);
// shard_bytes 0: one file. metadata may be NULL ("format": "pt" is always there).
qn_shards *qn_shards_new(const char *dir, const char *base, uint64_t shard_bytes,
                         const json_t *metadata, qn_err *err);
bool qn_shards_declare(qn_shards *s, const char *name, qn_dtype dtype, const size_t *shape,
                       int n_dims, qn_err *err);
bool qn_shards_add(qn_shards *s, const void *data, size_t n, qn_err *err); // next bytes in order
// Or the next tensor whole: reserve it, put its bytes in any order from any thread, release it.
bool qn_shards_reserve(qn_shards *s, qn_err *err);
bool qn_shards_put(qn_shards *s, uint64_t at, const void *data, size_t n, qn_err *err);
bool qn_shards_release(qn_shards *s, qn_err *err);
bool qn_shards_finish(qn_shards *s, qn_err *err); // all bytes must have been added
// Before finish, or left out: from here on the files can be read, while the disk still works.
bool qn_shards_name(qn_shards *s, qn_err *err);
void qn_shards_free(qn_shards *s);
// One standalone file (dumps): the same, to exactly this path, renamed when complete.
qn_shards *qn_shards_new_file(const char *path, const json_t *metadata, qn_err *err);

#endif
