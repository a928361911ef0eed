// A checkpoint folder, opened: its configs, its shards (mapped, never copied) and its tensors.
#ifndef QN_STORE_CHECKPOINT_H
#define QN_STORE_CHECKPOINT_H

#include <jansson.h>

#include "base/file.h"
#include "quern.h"

typedef enum qn_dtype {
    QN_DT_F64, QN_DT_F32, QN_DT_F16, QN_DT_BF16, QN_DT_F8_E4M3, QN_DT_F8_E5M2,
    QN_DT_I64, QN_DT_I32, QN_DT_I16, QN_DT_I8, QN_DT_U8, QN_DT_BOOL,
    QN_DT_U16, QN_DT_U32, QN_DT_U64,
    QN_N_DTYPES
} qn_dtype;
const char *qn_dtype_name(qn_dtype d);  // as safetensors spells it: "BF16", "F8_E4M3", …
size_t qn_dtype_bytes(qn_dtype d);
bool qn_dtype_is_float(qn_dtype d);

#define QN_MAX_DIMS 8

typedef struct qn_tensor {
    char *name;
    qn_dtype dtype;
    int n_dims;
    size_t shape[QN_MAX_DIMS];
    size_t n;            // elements
    const uint8_t *data; // in the mapping; not aligned. NULL (tolerant): the file ends before it
    size_t bytes;
    size_t offset;       // in the file, from its start
    int shard;
} qn_tensor;

// One damage found in a tolerant opening; codes as in `quern check`: bad-header, truncated,
// overlap, duplicate-key, missing-tensor, shape-mismatch
typedef struct qn_damage {
    const char *code;
    char *tensor; // or NULL
    char *message;
} qn_damage;

typedef struct qn_ckpt qn_ckpt;

enum {
    QN_CKPT_TOLERANT = 1, // report damage instead of failing, read what can be read (check)
    QN_CKPT_NO_WEIGHTS = 2, // configs only
};
// A folder, or one .safetensors file (then without configs). Strict by default: every rule of the
// safetensors format is checked before anything is used.
qn_ckpt *qn_ckpt_open(const char *path, unsigned flags, qn_err *err);
void qn_ckpt_free(qn_ckpt *c);

const char *qn_ckpt_path(const qn_ckpt *c);
const json_t *qn_ckpt_config(const qn_ckpt *c);            // config.json; NULL: none
const json_t *qn_ckpt_generation_config(const qn_ckpt *c); // NULL: none
// From config.json, else quantize_config.json, quant_config.json, quantization_config.json.
const json_t *qn_ckpt_quant_config(const qn_ckpt *c);
const char *qn_ckpt_quant_config_file(const qn_ckpt *c); // "config.json", …

size_t qn_ckpt_n_shards(const qn_ckpt *c);
const char *qn_ckpt_shard_name(const qn_ckpt *c, size_t shard); // file name in the folder
const qn_map *qn_ckpt_shard_map(const qn_ckpt *c, size_t shard);
size_t qn_ckpt_n_tensors(const qn_ckpt *c);
const qn_tensor *qn_ckpt_tensor(const qn_ckpt *c, size_t i); // in file order, shard by shard
const qn_tensor *qn_ckpt_find(const qn_ckpt *c, const char *name); // NULL: none
size_t qn_ckpt_n_damages(const qn_ckpt *c);
const qn_damage *qn_ckpt_damage(const qn_ckpt *c, size_t i);

// Elements [from, from + n) of a float or integer tensor as float (exact for 16- and 8-bit).
void qn_tensor_to_f32(const qn_tensor *t, size_t from, size_t n, float *out);

#endif
