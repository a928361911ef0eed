// Qwen3-Next: three gated delta rule layers to one gated attention layer, experts with a shared one
// in every layer, a draft layer. The linear projections are stored interleaved by key head.
#include "model/family.h"

extern const qn_family qn_family_qwen3_next;
const qn_family qn_family_qwen3_next = {
    .name = "qwen3_next",
    .architectures = (const char *const[]){"Qwen3NextForCausalLM", NULL},
    .model_types = (const char *const[]){"qwen3_next", NULL},
    .prefix = "model.",
    .qk_norm = true,
    .zero_centred = true,
    .output_gate = true,
    .hybrid = true,
    .interleaved = true,
    .moe = true,
    .shared_expert = true,
    .norm_topk = true,
    .mtp = true,
    .head_dim = 256,
    .partial_rotary_factor = 0.25,
};
