// Qwen3.5 dense (3.6 and 3.8 declare the same): the hybrid plan with a plain MLP, a draft layer and
// a vision tower. Text-only re-saves have a flat config.
#include "model/family.h"

extern const qn_family qn_family_qwen3_5;
const qn_family qn_family_qwen3_5 = {
    .name = "qwen3_5",
    .architectures = (const char *const[]){"Qwen3_5ForConditionalGeneration",
                                           "Qwen3_5ForCausalLM", NULL},
    .model_types = (const char *const[]){"qwen3_5", "qwen3_5_text", NULL},
    .prefix = "model.language_model.",
    .qk_norm = true,
    .zero_centred = true,
    .output_gate = true,
    .hybrid = true,
    .mtp = true,
    .head_dim = 256,
    .partial_rotary_factor = 0.25,
};
