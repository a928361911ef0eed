// Qwen3 dense: norms on q and k instead of biases, a head_dim of its own.
#include "model/family.h"

extern const qn_family qn_family_qwen3;
const qn_family qn_family_qwen3 = {
    .name = "qwen3",
    .architectures = (const char *const[]){"Qwen3ForCausalLM", NULL},
    .model_types = (const char *const[]){"qwen3", NULL},
    .prefix = "model.",
    .qk_norm = true,
    .head_dim = 128,
    .partial_rotary_factor = 1,
};
