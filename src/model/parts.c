// Owns the layers of a model and walks the plan once to name their tensors.
#include "model/parts.h"

#include "base/mem.h"
#include "base/str.h"

static bool bind_layer(qn_layer *l, qn_binder *b, const qn_layer_plan *plan, qn_err *err) {
    const qn_config *c = b->config;
    bool zero = c->family->zero_centred;
    l->mixer = qn_mixers[plan->mixer];
    l->ffn = qn_ffns[plan->ffn];
    return qn_bind_norm(b, "input_layernorm.weight", c->hidden_size, zero, &l->input_norm, err) &&
           l->mixer->bind(b, plan, &l->mixer_block, err) &&
           qn_bind_norm(b, "post_attention_layernorm.weight", c->hidden_size, zero, &l->post_norm,
                        err) &&
           l->ffn->bind(b, plan, &l->ffn_block, err);
}

static bool bind_draft(qn_draft *d, qn_binder *b, qn_err *err) {
    const qn_config *c = b->config;
    size_t h = c->hidden_size;
    bool zero = c->family->zero_centred;
    qn_binder_enter(b, QN_PART_MTP, -1, "mtp.");
    if (!qn_bind_matrix(b, "fc.weight", QN_ROLE_LINEAR, h, 2 * h, &d->fc, err) ||
        !qn_bind_norm(b, "pre_fc_norm_embedding.weight", h, zero, &d->norm_embedding, err) ||
        !qn_bind_norm(b, "pre_fc_norm_hidden.weight", h, zero, &d->norm_hidden, err))
        return false;
    qn_binder_enter(b, QN_PART_MTP, 0, "mtp.layers.0.");
    if (!bind_layer(&d->layer, b, &c->mtp_layer, err)) return false;
    qn_binder_enter(b, QN_PART_MTP, -1, "mtp.");
    d->present = qn_bind_norm(b, "norm.weight", h, zero, &d->norm, err);
    return d->present;
}

bool qn_parts_bind(qn_parts *p, qn_binder *b, qn_err *err) {
    const qn_config *c = b->config;
    const char *prefix = b->spelling.prefix;
    size_t h = c->hidden_size, v = c->vocab_size;
    qn_binder_enter(b, QN_PART_TEXT, -1, "%s", prefix);
    if (!qn_bind_matrix(b, "embed_tokens.weight", QN_ROLE_EMBED, v, h, &p->embed, err))
        return false;
    p->layers = QN_NEW_ARRAY(qn_layer, c->num_hidden_layers);
    p->n_layers = c->num_hidden_layers;
    for (size_t i = 0; i < p->n_layers; i++) {
        p->layers[i].index = (int)i;
        qn_binder_enter(b, QN_PART_TEXT, (int)i, "%slayers.%zu.", prefix, i);
        if (!bind_layer(&p->layers[i], b, &c->layers[i], err)) return false;
    }
    qn_binder_enter(b, QN_PART_TEXT, -1, "%s", prefix);
    if (!qn_bind_norm(b, "norm.weight", h, c->family->zero_centred, &p->norm, err)) return false;
    qn_binder_enter(b, QN_PART_TEXT, -1, "%s", "");
    if (!c->tie_word_embeddings &&
        !qn_bind_matrix(b, "lm_head.weight", QN_ROLE_HEAD, v, h, &p->head, err))
        return false;
    return !b->spelling.mtp || bind_draft(&p->draft, b, err);
}

static void layer_done(qn_layer *l) {
    if (l->mixer) l->mixer->free(l->mixer_block);
    if (l->ffn) l->ffn->free(l->ffn_block);
    free(l->input_norm);
    free(l->post_norm);
}

void qn_parts_done(qn_parts *p) {
    for (size_t i = 0; p->layers && i < p->n_layers; i++) layer_done(&p->layers[i]);
    layer_done(&p->draft.layer);
    qn_mat_done(&p->draft.fc);
    qn_mat_done(&p->embed);
    qn_mat_done(&p->head);
    free(p->draft.norm_embedding);
    free(p->draft.norm_hidden);
    free(p->draft.norm);
    free(p->layers);
    free(p->norm);
    *p = (qn_parts){0};
}

// ---- caches ----------------------------------------------------------------------------------

static void place_layer(qn_layer *l, qn_kv_type type, qn_cache_spec *s) {
    l->kv_at = s->block_bytes;
    l->state_at = s->state_bytes;
    if (l->mixer->kv_bytes)
        s->block_bytes += l->mixer->kv_bytes(l->mixer_block, s->block_tokens, type);
    if (l->mixer->state_bytes)
        s->state_bytes += qn_pass_round(l->mixer->state_bytes(l->mixer_block));
}

void qn_parts_place(qn_parts *p, qn_kv_type type, size_t block_tokens, qn_cache_spec *s) {
    *s = (qn_cache_spec){.block_tokens = block_tokens};
    for (size_t i = 0; i < p->n_layers; i++) place_layer(&p->layers[i], type, s);
    if (p->draft.present) place_layer(&p->draft.layer, type, s);
}

static size_t layer_bytes(const qn_layer *l) {
    return l->mixer->weight_bytes(l->mixer_block) + l->ffn->weight_bytes(l->ffn_block);
}

size_t qn_parts_bytes(const qn_parts *p) {
    size_t n = qn_mat_bytes(&p->embed) + qn_mat_bytes(&p->head);
    for (size_t i = 0; i < p->n_layers; i++) n += layer_bytes(&p->layers[i]);
    if (p->draft.present) n += qn_mat_bytes(&p->draft.fc) + layer_bytes(&p->draft.layer);
    return n;
}

size_t qn_parts_weights_per_token(const qn_parts *p) {
    size_t n = qn_mat_count(qn_parts_head(p));
    for (size_t i = 0; i < p->n_layers; i++) {
        const qn_layer *l = &p->layers[i];
        n += l->mixer->weights_per_token(l->mixer_block) + l->ffn->weights_per_token(l->ffn_block);
    }
    return n;
}
