// Qwen2, Qwen2.5, QwQ and what was distilled into them.
#include "model/family.h"

extern const qn_family qn_family_qwen2;
const qn_family qn_family_qwen2 = {
    .name = "qwen2",
    .architectures = (const char *const[]){"Qwen2ForCausalLM", NULL},
    .model_types = (const char *const[]){"qwen2", NULL},
    .prefix = "model.",
    .qkv_bias = true,
    .partial_rotary_factor = 1,
};
