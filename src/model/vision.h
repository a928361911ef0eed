// The vision tower of the conditional-generation families (Qwen3-VL's encoder without deepstack):
// patch vectors to embedding rows, and image placeholders of a prompt to tokens with 3-D positions.
#ifndef QN_MODEL_VISION_H
#define QN_MODEL_VISION_H

#include "kernel/matmul.h"
#include "model/image.h"
#include "store/weight.h"

typedef struct qn_vision qn_vision;

// Reads vision_config (config is the whole config.json) and preprocessor_config.json of the folder,
// and packs the weights under "model.visual." (or "visual."). out_hidden_size must be hidden_size.
// *out stays NULL without error when the config has no vision_config or the tensors are missing
// (noted once: text still runs).
bool qn_vision_load(qn_ckpt *ckpt, const json_t *config, size_t hidden_size, qn_pool *pool,
                    qn_vision **out, qn_err *err);
void qn_vision_free(qn_vision *v);
size_t qn_vision_bytes(const qn_vision *v);
const qn_image_config *qn_vision_image_config(const qn_vision *v);

// Patch vectors [t * h * w][patch_dim] to rows [t * h * w / merge^2][hidden_size], allocated.
bool qn_vision_encode(const qn_vision *v, qn_compute *c, const float *patches, const int grid[3],
                      float **rows, size_t *n_rows, qn_err *err);

// What a prompt says about images: which token stands for one, and how they are framed.
typedef struct qn_image_tokens {
    int32_t image, video; // placeholder ids; -1: none
    int merge_size;
    int32_t vocab_size;
} qn_image_tokens;
// See qn_model_expand_images (model.h). A run of placeholders is one image's: either a single one,
// which is repeated, or already as many as the image has rows.
bool qn_expand_images(const qn_image_tokens *ids, const int32_t *tokens, size_t n,
                      const int (*grids)[3], size_t n_images, int32_t **out, size_t *n_out,
                      int32_t (**rope3)[3], int32_t *delta, qn_err *err);

#endif
