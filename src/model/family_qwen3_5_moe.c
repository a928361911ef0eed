// Qwen3.5 with experts: fused expert tensors, a shared expert, weights always renormalised (the
// config has no norm_topk_prob).
#include "model/family.h"

extern const qn_family qn_family_qwen3_5_moe;
const qn_family qn_family_qwen3_5_moe = {
    .name = "qwen3_5_moe",
    .architectures = (const char *const[]){"Qwen3_5MoeForConditionalGeneration",
                                           "Qwen3_5MoeForCausalLM", NULL},
    .model_types = (const char *const[]){"qwen3_5_moe", "qwen3_5_moe_text", NULL},
    .prefix = "model.language_model.",
    .qk_norm = true,
    .zero_centred = true,
    .output_gate = true,
    .hybrid = true,
    .moe = true,
    .shared_expert = true,
    .fused_experts = true,
    .norm_topk = true,
    .mtp = true,
    .head_dim = 256,
    .partial_rotary_factor = 0.25,
};
