// Qwen3 with experts: Qwen3-30B-A3B, 235B-A22B, Qwen3-Coder. Releases keep one tensor per expert
// and matrix; re-saves may fuse them.
#include "model/family.h"

extern const qn_family qn_family_qwen3_moe;
const qn_family qn_family_qwen3_moe = {
    .name = "qwen3_moe",
    .architectures = (const char *const[]){"Qwen3MoeForCausalLM", NULL},
    .model_types = (const char *const[]){"qwen3_moe", NULL},
    .prefix = "model.",
    .qk_norm = true,
    .moe = true,
    .norm_topk = false,
    .windows_everywhere = true,
    .partial_rotary_factor = 1,
};
