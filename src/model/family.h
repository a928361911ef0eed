// Families: what a checkpoint of some architecture is made of, known from its config alone.
// A family declares (family_*.c, listed in families.c); config.c reads the numbers; layout.c turns
// both into the list of tensors that a checkpoint of it has. Reading weights is not needed for it.
#ifndef QN_MODEL_FAMILY_H
#define QN_MODEL_FAMILY_H

#include <jansson.h>

#include "store/weight.h"

typedef struct qn_family {
    const char *name;                 // "qwen3_5"
    const char *const *architectures; // NULL-terminated; these decide first
    const char *const *model_types;   // NULL-terminated; for configs without architectures
    const char *prefix;               // of the text tensors in releases: "model."
    bool qkv_bias;        // q, k and v projections always have biases (else attention_bias decides)
    bool qk_norm;         // per-head norms of q and k before the rotation
    bool zero_centred;    // norms are stored as w - 1
    bool output_gate;     // q_proj holds q and a gate, per head
    bool hybrid;          // some layers are gated delta rule layers
    bool interleaved;     // their projections are stored as in_proj_qkvz and in_proj_ba
    bool moe, shared_expert;
    bool fused_experts;   // releases keep all experts of a layer in one tensor
    bool norm_topk;       // what an absent norm_topk_prob means
    bool windows_everywhere; // use_sliding_window concerns every layer
    bool mtp;             // may carry a draft layer
    int head_dim;         // when the config has none; 0: hidden_size / num_attention_heads
    double partial_rotary_factor; // when the config has none
} qn_family;

extern const qn_family *const qn_families[]; // NULL-terminated

#define QN_MAX_LAYERS 1024

typedef enum qn_mixer_id { QN_MIXER_ATTENTION, QN_MIXER_DELTANET } qn_mixer_id;
typedef enum qn_ffn_id { QN_FFN_MLP, QN_FFN_MOE } qn_ffn_id;

typedef struct qn_layer_plan {
    qn_mixer_id mixer;
    qn_ffn_id ffn;
    size_t window; // tokens that attention sees, itself included; 0: all
} qn_layer_plan;

typedef struct qn_rope_config {
    double theta;
    size_t dims;           // rotated dimensions of a head, even
    bool yarn, truncate;
    double factor; // that stretches positions, linear or YaRN's; 1 without
    double original_length, beta_fast, beta_slow;
    double attention_factor; // multiplies cos and sin; 1 without YaRN
    bool mrope;            // frequencies are dealt out to three positions
    int mrope_section[3];
} qn_rope_config;

typedef struct qn_vision_shape { // what the list of tensors needs; depth 0: no tower
    size_t depth, hidden, intermediate, patch, temporal, channels, merge, positions, out_hidden;
} qn_vision_shape;

// config.json, understood and checked. Field names are the checkpoint's own.
typedef struct qn_config {
    const qn_family *family;
    char *architecture, *model_type;
    size_t hidden_size, intermediate_size, vocab_size;
    size_t num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim;
    size_t max_position_embeddings;
    float rms_norm_eps;
    bool tie_word_embeddings;
    bool qkv_bias, o_bias, output_gate;
    qn_rope_config rope;
    size_t linear_num_key_heads, linear_num_value_heads, linear_key_head_dim,
        linear_value_head_dim;
    size_t num_experts, num_experts_per_tok, moe_intermediate_size,
        shared_expert_intermediate_size;
    bool norm_topk_prob;
    size_t mtp_num_hidden_layers; // as the config says; Qwen3-Next's says nothing
    bool mtp_usable;              // one layer, no embeddings of its own
    int32_t image_token_id, video_token_id; // -1: none
    int n_eos;
    int32_t eos[8];
    qn_vision_shape vision;
    qn_layer_plan *layers; // [num_hidden_layers]
    qn_layer_plan mtp_layer;
} qn_config;

// what names the source in errors ("…/config.json"). Release with qn_config_done, also after a
// failure.
bool qn_config_read(qn_config *c, const json_t *config, const char *what, qn_err *err);
void qn_config_done(qn_config *c);
// eos ids (an integer or a list) of a config or generation_config; absent: untouched.
bool qn_eos_read(const json_t *o, int32_t eos[8], int *n, const char *what, qn_err *err);

// ---- the tensors of a checkpoint ---------------------------------------------------------------

typedef enum qn_role {
    QN_ROLE_EMBED,   // token embedding
    QN_ROLE_HEAD,    // output head
    QN_ROLE_LINEAR,  // a matrix that may be quantized
    QN_ROLE_SMALL,   // a matrix that always stays as stored: router, in_proj_a, in_proj_b, gates
    QN_ROLE_EXPERTS, // 3-D: matrices of all experts
    QN_ROLE_NORM,    // a norm's weight, also the vision tower's
    QN_ROLE_BIAS,
    QN_ROLE_CONV,    // short convolution [channels, 1, 4]
    QN_ROLE_DECAY,   // A_log, dt_bias
    QN_ROLE_VISION,  // the tower's matrices and tables
    QN_N_ROLES
} qn_role;
const char *qn_role_name(qn_role r); // "embedding", "linear", …
bool qn_role_is_matrix(qn_role r);   // of weights, wherever: whoever quantizes may quantize it
bool qn_role_is_layer(qn_role r);    // of these, what is usually quantized: linear, experts, head

typedef enum qn_part { // which part of the model a tensor belongs to
    QN_PART_TEXT,
    QN_PART_MTP,   // optional: text runs without it
    QN_PART_VISION, // optional
    QN_N_PARTS
} qn_part;
const char *qn_part_name(qn_part p); // "text", "mtp", "vision"

typedef struct qn_expected {
    char *name;
    qn_role role;
    qn_part part;
    int layer; // -1: outside the layers
    int n_dims;
    size_t shape[QN_MAX_DIMS]; // logical: [out, in] for a quantized matrix too
} qn_expected;

// How a checkpoint spells what its family leaves open.
typedef struct qn_spelling {
    const char *prefix;                    // of the text tensors: "model.language_model."
    bool fused_experts, fused_mtp_experts; // experts as 3-D tensors
    bool interleaved;                      // in_proj_qkvz rather than in_proj_qkv
    bool mtp, vision;                      // these parts are there
} qn_spelling;
// As the releases do it.
qn_spelling qn_spelling_release(const qn_config *c);
// As these weights (qn_ckpt_weights must have been called) do it; parts of which no tensor is
// there count as absent.
qn_spelling qn_spelling_detect(const qn_config *c, qn_ckpt *ckpt);

typedef struct qn_layout {
    qn_expected *tensors; // in the order of the modules, as releases list them
    size_t n, cap;
    size_t *by_name; // for qn_layout_find
} qn_layout;
void qn_layout_build(qn_layout *l, const qn_config *c, const qn_spelling *s);
void qn_layout_done(qn_layout *l);
const qn_expected *qn_layout_find(const qn_layout *l, const char *name); // NULL: none
// Whether a weight has the expected shape; else the error names both.
bool qn_expected_matches(const qn_expected *e, const qn_weight *w, qn_err *err);

#endif
