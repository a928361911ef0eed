// config.json, read once and checked as a whole, so that nothing behind it meets a size that does
// not fit. Keys drifted over the years (facts beside each reader); text keys may be nested in
// text_config. A key gets a default only where the original has a useful one; otherwise it is
// required. What the tensors say is compared later (load.c).
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "kernel/ops.h"
#include "model/family.h"
#include "model/rope.h"

#define MAX_WIDTH (1 << 24)

typedef struct reader {
    const json_t *top, *text; // text is top itself in flat configs
    const char *what;
    qn_err *err;
} reader;

static bool read_size(const reader *r, const char *key, int64_t hi, size_t *out) {
    int64_t x = -1;
    if (!qn_json_int(r->text, key, 1, hi, &x, r->what, r->err)) return false;
    if (x > 0) *out = (size_t)x;
    return true;
}

// The same for a key that has to be there.
static bool need_size(const reader *r, const char *key, int64_t hi, size_t *out) {
    const json_t *v = json_object_get(r->text, key);
    if (!v || json_is_null(v))
        return qn_fail(r->err, QN_INPUT, "%s: %s is missing, expected an integer from 1 to %lld",
                       r->what, key, (long long)hi);
    return read_size(r, key, hi, out);
}

// ---- family ----------------------------------------------------------------------------------

static bool in_list(const char *const *list, const char *word) {
    for (; word && *list; list++)
        if (!strcmp(*list, word)) return true;
    return false;
}

static bool unknown_family(const reader *r, const char *key, const char *found) {
    qn_buf known = {0};
    for (const qn_family *const *f = qn_families; *f; f++)
        for (const char *const *a = (*f)->architectures; *a; a++)
            qn_buf_addf(&known, "%s%s", known.n ? ", " : "", *a);
    qn_fail(r->err, QN_UNSUPPORTED, "%s: %s is %s, expected one of %s", r->what, key,
            found ? found : "missing", known.data);
    qn_buf_done(&known);
    return false;
}

// The architecture decides; configs without one are known by their model_type.
static bool read_family(qn_config *c, const reader *r) {
    const char *type = NULL, *arch = NULL;
    if (!qn_json_str(r->top, "model_type", &type, r->what, r->err)) return false;
    const json_t *list = json_object_get(r->top, "architectures");
    if (list && !json_is_null(list)) {
        arch = json_string_value(json_array_get(list, 0));
        if (!arch)
            return qn_fail(r->err, QN_INPUT, "%s: architectures is not a list of strings", r->what);
    }
    for (const qn_family *const *f = qn_families; *f && !c->family; f++)
        if (arch ? in_list((*f)->architectures, arch) : in_list((*f)->model_types, type))
            c->family = *f;
    if (!c->family)
        return arch ? unknown_family(r, "architecture", arch)
                    : unknown_family(r, "model_type", type);
    c->architecture = qn_strdup(arch ? arch : c->family->architectures[0]);
    c->model_type = qn_strdup(type ? type : c->family->model_types[0]);
    return true;
}

// ---- sizes -----------------------------------------------------------------------------------

static bool read_heads(qn_config *c, const reader *r) {
    if (!need_size(r, "num_attention_heads", 1 << 12, &c->num_attention_heads)) return false;
    c->num_key_value_heads = c->num_attention_heads;
    c->head_dim = (size_t)c->family->head_dim;
    if (!read_size(r, "num_key_value_heads", 1 << 12, &c->num_key_value_heads) ||
        !read_size(r, "head_dim", 1 << 12, &c->head_dim))
        return false;
    if (c->num_attention_heads % c->num_key_value_heads)
        return qn_fail(r->err, QN_INPUT, "%s: num_key_value_heads is %zu, expected a divisor of "
                       "num_attention_heads (%zu)", r->what, c->num_key_value_heads,
                       c->num_attention_heads);
    if (!c->head_dim && c->hidden_size % c->num_attention_heads)
        return qn_fail(r->err, QN_INPUT, "%s: num_attention_heads is %zu, expected a divisor of "
                       "hidden_size (%zu)", r->what, c->num_attention_heads, c->hidden_size);
    if (!c->head_dim) c->head_dim = c->hidden_size / c->num_attention_heads;
    if (c->head_dim > QN_MAX_HEAD_DIM)
        return qn_fail(r->err, QN_UNSUPPORTED, "%s: head_dim is %zu, expected at most %d", r->what,
                       c->head_dim, QN_MAX_HEAD_DIM);
    return true;
}

static bool read_sizes(qn_config *c, const reader *r) {
    double eps = 1e-6;
    c->max_position_embeddings = 32768;
    if (!need_size(r, "hidden_size", MAX_WIDTH, &c->hidden_size) ||
        !need_size(r, "num_hidden_layers", QN_MAX_LAYERS, &c->num_hidden_layers) ||
        !need_size(r, "vocab_size", MAX_WIDTH, &c->vocab_size) ||
        !read_size(r, "intermediate_size", MAX_WIDTH, &c->intermediate_size) ||
        !read_size(r, "max_position_embeddings", 1 << 30, &c->max_position_embeddings) ||
        !qn_json_real(r->text, "rms_norm_eps", &eps, r->what, r->err) || !read_heads(c, r))
        return false;
    if (!(eps > 0 && eps < 1))
        return qn_fail(r->err, QN_INPUT, "%s: rms_norm_eps is %g, expected a small positive number",
                       r->what, eps);
    c->rms_norm_eps = (float)eps;
    return true;
}

static bool read_flags(qn_config *c, const reader *r) {
    bool bias = false, gate = c->family->output_gate;
    const char *act = "silu";
    // Nested configs may say it at either level; the outer one is the whole model's.
    if (!qn_json_bool(r->text, "tie_word_embeddings", &c->tie_word_embeddings, r->what, r->err) ||
        !qn_json_bool(r->top, "tie_word_embeddings", &c->tie_word_embeddings, r->what, r->err) ||
        !qn_json_bool(r->text, "attention_bias", &bias, r->what, r->err) ||
        !qn_json_str(r->text, "hidden_act", &act, r->what, r->err) ||
        (gate && !qn_json_bool(r->text, "attn_output_gate", &gate, r->what, r->err)))
        return false;
    if (strcmp(act, "silu") != 0)
        return qn_fail(r->err, QN_UNSUPPORTED, "%s: hidden_act is \"%s\", expected \"silu\"",
                       r->what, act);
    c->qkv_bias = c->family->qkv_bias || bias;
    c->o_bias = !c->family->qkv_bias && bias;
    c->output_gate = gate;
    return true;
}

static bool read_linear(qn_config *c, const reader *r) {
    size_t kernel = 4;
    c->linear_key_head_dim = c->linear_value_head_dim = 128;
    c->linear_num_key_heads = 16;
    c->linear_num_value_heads = 32;
    if (!read_size(r, "linear_conv_kernel_dim", 1 << 10, &kernel) ||
        !read_size(r, "linear_num_key_heads", 1 << 10, &c->linear_num_key_heads) ||
        !read_size(r, "linear_num_value_heads", 1 << 10, &c->linear_num_value_heads) ||
        !read_size(r, "linear_key_head_dim", 1 << 10, &c->linear_key_head_dim) ||
        !read_size(r, "linear_value_head_dim", 1 << 10, &c->linear_value_head_dim))
        return false;
    if (kernel != 4)
        return qn_fail(r->err, QN_UNSUPPORTED, "%s: linear_conv_kernel_dim is %zu, expected 4",
                       r->what, kernel);
    if (c->linear_num_value_heads % c->linear_num_key_heads)
        return qn_fail(r->err, QN_INPUT, "%s: linear_num_value_heads is %zu, expected a multiple "
                       "of linear_num_key_heads (%zu)", r->what, c->linear_num_value_heads,
                       c->linear_num_key_heads);
    return true;
}

static bool read_experts(qn_config *c, const reader *r) {
    const json_t *o = r->text;
    const char *key = json_object_get(o, "num_experts") ? "num_experts" : "num_local_experts";
    c->norm_topk_prob = c->family->norm_topk;
    if (!need_size(r, key, 1 << 14, &c->num_experts) ||
        !need_size(r, "num_experts_per_tok", 1 << 10, &c->num_experts_per_tok) ||
        !need_size(r, "moe_intermediate_size", MAX_WIDTH, &c->moe_intermediate_size) ||
        !qn_json_bool(o, "norm_topk_prob", &c->norm_topk_prob, r->what, r->err))
        return false;
    if (c->family->shared_expert &&
        !need_size(r, "shared_expert_intermediate_size", MAX_WIDTH,
                   &c->shared_expert_intermediate_size))
        return false;
    if (c->num_experts_per_tok > c->num_experts)
        return qn_fail(r->err, QN_INPUT, "%s: num_experts_per_tok is %zu, expected at most "
                       "%s (%zu)", r->what, c->num_experts_per_tok, key, c->num_experts);
    return true;
}

// ---- layer plan ------------------------------------------------------------------------------

static bool read_layer_type(qn_config *c, const reader *r, size_t i, const json_t *v,
                            size_t window) {
    const char *t = json_string_value(v);
    qn_layer_plan *l = &c->layers[i];
    if (t && !strcmp(t, "full_attention")) return true;
    if (t && !strcmp(t, "linear_attention") && c->family->hybrid) {
        l->mixer = QN_MIXER_DELTANET;
        return true;
    }
    if (t && !strcmp(t, "sliding_attention") && !c->family->hybrid) {
        l->window = window;
        return true;
    }
    return qn_fail(r->err, QN_INPUT, "%s: layer_types[%zu] is %s%s%s, expected full_attention or "
                   "%s", r->what, i, t ? "\"" : "", t ? t : "not a string", t ? "\"" : "",
                   c->family->hybrid ? "linear_attention" : "sliding_attention");
}

// A window counts only where use_sliding_window says so: releases carry a number without it.
static bool read_window(const reader *r, size_t *window) {
    bool use = false;
    *window = 4096;
    if (!qn_json_bool(r->text, "use_sliding_window", &use, r->what, r->err)) return false;
    const json_t *v = json_object_get(r->text, "sliding_window");
    if (!use || (v && json_is_null(v))) {
        *window = 0;
        return true;
    }
    return read_size(r, "sliding_window", 1 << 30, window);
}

static bool read_mixers(qn_config *c, const reader *r) {
    size_t n = c->num_hidden_layers, window = 0, interval = 4;
    int64_t from = 28; // max_window_layers of the original
    const json_t *types = json_object_get(r->text, "layer_types");
    if ((!c->family->hybrid && !read_window(r, &window)) ||
        !qn_json_int(r->text, "max_window_layers", 0, MAX_WIDTH, &from, r->what, r->err) ||
        !read_size(r, "full_attention_interval", QN_MAX_LAYERS, &interval))
        return false;
    if (types && !json_is_null(types)) {
        if (!json_is_array(types) || json_array_size(types) != n)
            return qn_fail(r->err, QN_INPUT, "%s: layer_types has %zu entries, expected "
                           "num_hidden_layers (%zu)", r->what, json_array_size(types), n);
        for (size_t i = 0; i < n; i++)
            if (!read_layer_type(c, r, i, json_array_get(types, i), window)) return false;
        if (!c->family->windows_everywhere) return true;
    }
    for (size_t i = 0; i < n; i++) {
        if (c->family->hybrid && (i + 1) % interval) c->layers[i].mixer = QN_MIXER_DELTANET;
        if (c->family->windows_everywhere || (int64_t)i >= from) c->layers[i].window = window;
    }
    return true;
}

static bool read_ffns(qn_config *c, const reader *r) {
    size_t step = 1;
    const json_t *dense = json_object_get(r->text, "mlp_only_layers"), *v;
    if (!c->family->moe) return true;
    if (!read_size(r, "decoder_sparse_step", QN_MAX_LAYERS, &step)) return false;
    for (size_t i = 0; i < c->num_hidden_layers; i++)
        if ((i + 1) % step == 0) c->layers[i].ffn = QN_FFN_MOE;
    size_t at;
    json_array_foreach(dense, at, v) {
        if (!json_is_integer(v))
            return qn_fail(r->err, QN_INPUT, "%s: mlp_only_layers[%zu] is not an integer", r->what,
                           at);
        json_int_t i = json_integer_value(v);
        if (i >= 0 && (size_t)i < c->num_hidden_layers) c->layers[i].ffn = QN_FFN_MLP;
    }
    c->mtp_layer.ffn = QN_FFN_MOE;
    return true;
}

static bool read_plan(qn_config *c, const reader *r) {
    c->layers = QN_NEW_ARRAY(qn_layer_plan, c->num_hidden_layers);
    if (!read_mixers(c, r) || !read_ffns(c, r)) return false;
    bool dense = c->mtp_layer.ffn == QN_FFN_MLP;
    for (size_t i = 0; i < c->num_hidden_layers; i++) dense |= c->layers[i].ffn == QN_FFN_MLP;
    return !dense || c->intermediate_size || need_size(r, "intermediate_size", MAX_WIDTH,
                                                       &c->intermediate_size);
}

// ---- the rest --------------------------------------------------------------------------------

bool qn_eos_read(const json_t *o, int32_t eos[8], int *n, const char *what, qn_err *err) {
    const json_t *v = json_object_get(o, "eos_token_id");
    if (!v || json_is_null(v)) return true;
    size_t count = json_is_array(v) ? json_array_size(v) : 1;
    if (count > 8)
        return qn_fail(err, QN_INPUT, "%s: eos_token_id has %zu entries, expected at most 8", what,
                       count);
    for (size_t i = 0; i < count; i++) {
        const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;
        json_int_t id = json_integer_value(e);
        if (!json_is_integer(e) || id < 0 || id >= MAX_WIDTH)
            return qn_fail(err, QN_INPUT, "%s: eos_token_id is not a token id or a list of them",
                           what);
        eos[i] = (int32_t)id;
    }
    *n = (int)count;
    return true;
}

static bool read_token(const reader *r, const char *key, int32_t *out) {
    int64_t id = -1;
    if (!qn_json_int(r->top, key, 0, MAX_WIDTH, &id, r->what, r->err)) return false;
    *out = (int32_t)id;
    return true;
}

static bool read_tokens(qn_config *c, const reader *r) {
    return qn_eos_read(r->text, c->eos, &c->n_eos, r->what, r->err) &&
           qn_eos_read(r->top, c->eos, &c->n_eos, r->what, r->err) &&
           read_token(r, "image_token_id", &c->image_token_id) &&
           read_token(r, "video_token_id", &c->video_token_id);
}

static bool read_mtp(qn_config *c, const reader *r) {
    int64_t n = 0;
    bool own = false;
    if (!c->family->mtp) return true;
    if (!qn_json_int(r->text, "mtp_num_hidden_layers", 0, 64, &n, r->what, r->err) ||
        !qn_json_bool(r->text, "mtp_use_dedicated_embeddings", &own, r->what, r->err))
        return false;
    c->mtp_num_hidden_layers = (size_t)n;
    c->mtp_usable = n <= 1 && !own;
    return true;
}

// Only for the list of tensors; the tower's own reader is the judge of these keys.
static void read_vision(qn_config *c, const reader *r) {
    const json_t *v = json_object_get(r->top, "vision_config");
    qn_vision_shape *s = &c->vision;
    const struct {
        const char *key;
        size_t *out;
    } keys[] = {
        {"depth", &s->depth}, {"hidden_size", &s->hidden},
        {"intermediate_size", &s->intermediate}, {"patch_size", &s->patch},
        {"temporal_patch_size", &s->temporal}, {"in_channels", &s->channels},
        {"spatial_merge_size", &s->merge}, {"num_position_embeddings", &s->positions},
        {"out_hidden_size", &s->out_hidden},
    };
    s->channels = 3;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_int_t x = json_integer_value(json_object_get(v, keys[i].key));
        if (x > 0 && x <= MAX_WIDTH) *keys[i].out = (size_t)x;
        if (!*keys[i].out || (keys[i].out == &s->depth && x > QN_MAX_LAYERS)) {
            *s = (qn_vision_shape){0};
            return;
        }
    }
}

bool qn_config_read(qn_config *c, const json_t *config, const char *what, qn_err *err) {
    *c = (qn_config){.image_token_id = -1, .video_token_id = -1};
    reader r = {config, json_object_get(config, "text_config"), what, err};
    if (!json_is_object(config)) return qn_fail(err, QN_INPUT, "%s: not a JSON object", what);
    if (!json_is_object(r.text)) r.text = config;
    if (!read_family(c, &r) || !read_sizes(c, &r) || !read_flags(c, &r)) return false;
    if (c->family->hybrid && !read_linear(c, &r)) return false;
    if (c->family->moe && !read_experts(c, &r)) return false;
    if (!read_plan(c, &r) || !read_tokens(c, &r) || !read_mtp(c, &r)) return false;
    read_vision(c, &r);
    return qn_rope_read(c, r.text, what, err);
}

void qn_config_done(qn_config *c) {
    qn_free(c->architecture);
    qn_free(c->model_type);
    free(c->layers);
    *c = (qn_config){0};
}
