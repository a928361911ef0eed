// Causal attention with grouped key/value heads over the paged cache: biases, per-head norms, a
// sliding window, partial rotation and an output gate as the plan and the config say.
//   q, k, v = Wq x, Wk x, Wv x;  q, k = rotate(norm(q)), rotate(norm(k))
//   out = Wo( softmax(q k^T / sqrt(d)) v [* sigmoid(gate)] )
// With a gate, q_proj holds per head d rows of q, then d of the gate; they are pulled apart at load
// so that both lie together: [all q heads | all gates].
#include <math.h>

#include "base/mem.h"
#include "model/block.h"

typedef struct attention {
    size_t hidden, n_heads, n_kv, d, window;
    bool gated;
    qn_mat q, k, v, o; // q: [n_heads * d (+ n_heads * d of the gate)]
    float *q_norm, *k_norm; // or NULL
} attention;

// Row of q_proj that becomes row i of q: heads first, gates behind.
static size_t *gate_order(const attention *a) {
    size_t half = a->n_heads * a->d, *order = qn_alloc(2 * half * sizeof *order);
    for (size_t i = 0; i < half; i++) {
        order[i] = i / a->d * 2 * a->d + i % a->d;
        order[half + i] = order[i] + a->d;
    }
    return order;
}

static bool bind_q(attention *a, qn_binder *b, qn_err *err) {
    size_t rows = a->n_heads * a->d * (a->gated ? 2 : 1);
    size_t *order = a->gated ? gate_order(a) : NULL;
    const qn_cut cut = {&a->q, 0, rows, order};
    bool ok = qn_bind_cuts(b, "self_attn.q_proj.weight", QN_ROLE_LINEAR,
                           (const size_t[3]){0, rows, a->hidden}, &cut, 1, err) &&
              (!b->config->qkv_bias ||
               qn_bind_bias(b, "self_attn.q_proj.bias", rows, &cut, 1, err));
    qn_free(order);
    return ok;
}

typedef struct projection {
    const char *weight, *bias; // bias NULL: it has none
    size_t rows, cols;
    qn_mat *out;
} projection;

static bool bind_projection(qn_binder *b, const projection *p, qn_err *err) {
    const qn_cut all = {p->out, 0, p->rows, NULL};
    return qn_bind_matrix(b, p->weight, QN_ROLE_LINEAR, p->rows, p->cols, p->out, err) &&
           (!p->bias || qn_bind_bias(b, p->bias, p->rows, &all, 1, err));
}

static bool attention_bind(qn_binder *b, const qn_layer_plan *plan, void **block, qn_err *err) {
    const qn_config *c = b->config;
    attention *a = *block = QN_NEW(attention);
    *a = (attention){.hidden = c->hidden_size, .n_heads = c->num_attention_heads,
                     .n_kv = c->num_key_value_heads, .d = c->head_dim, .window = plan->window,
                     .gated = c->output_gate};
    bool bias = c->qkv_bias, zero = c->family->zero_centred;
    size_t kv = a->n_kv * a->d, q = a->n_heads * a->d;
    const projection k = {"self_attn.k_proj.weight", bias ? "self_attn.k_proj.bias" : NULL, kv,
                          a->hidden, &a->k};
    const projection v = {"self_attn.v_proj.weight", bias ? "self_attn.v_proj.bias" : NULL, kv,
                          a->hidden, &a->v};
    const projection o = {"self_attn.o_proj.weight", c->o_bias ? "self_attn.o_proj.bias" : NULL,
                          a->hidden, q, &a->o};
    return bind_q(a, b, err) && bind_projection(b, &k, err) && bind_projection(b, &v, err) &&
           bind_projection(b, &o, err) &&
           (!c->family->qk_norm ||
            (qn_bind_norm(b, "self_attn.q_norm.weight", a->d, zero, &a->q_norm, err) &&
             qn_bind_norm(b, "self_attn.k_norm.weight", a->d, zero, &a->k_norm, err)));
}

static void attention_free(void *block) {
    attention *a = block;
    if (!a) return;
    qn_mat_done(&a->q);
    qn_mat_done(&a->k);
    qn_mat_done(&a->v);
    qn_mat_done(&a->o);
    free(a->q_norm);
    free(a->k_norm);
    free(a);
}

static size_t attention_weight_bytes(const void *block) {
    const attention *a = block;
    return qn_mat_bytes(&a->q) + qn_mat_bytes(&a->k) + qn_mat_bytes(&a->v) + qn_mat_bytes(&a->o);
}

static size_t attention_weights_per_token(const void *block) {
    const attention *a = block;
    return qn_mat_count(&a->q) + qn_mat_count(&a->k) + qn_mat_count(&a->v) + qn_mat_count(&a->o);
}

static size_t attention_kv_bytes(const void *block, size_t block_tokens, qn_kv_type type) {
    const attention *a = block;
    const qn_kv_view v = {.block_tokens = block_tokens, .n_kv_heads = a->n_kv, .head_dim = a->d,
                          .type = type};
    return qn_kv_layer_bytes(&v);
}

static size_t q_width(const attention *a) { return a->n_heads * a->d * (a->gated ? 2 : 1); }

static size_t attention_scratch(const void *block, size_t m) {
    const attention *a = block;
    return qn_pass_round(m * q_width(a) * sizeof(float)) +
           2 * qn_pass_round(m * a->n_kv * a->d * sizeof(float)) +
           qn_pass_round(m * a->n_heads * a->d * sizeof(float));
}

static void attention_run(const void *block, qn_pass *p) {
    const attention *a = block;
    size_t m = p->m, d = a->d, nq = a->n_heads * d, nkv = a->n_kv * d, ldq = q_width(a);
    float *q = qn_pass_take(p, m * ldq * sizeof *q);
    float *k = qn_pass_take(p, m * nkv * sizeof *k);
    float *v = qn_pass_take(p, m * nkv * sizeof *v);
    float *mix = qn_pass_take(p, m * nq * sizeof *mix);
    qn_acts_set(p->acts, p->in, m, a->hidden, a->hidden);
    qn_pass_matmul(p, "self_attn.q_proj", &a->q, m, q, ldq);
    qn_pass_matmul(p, "self_attn.k_proj", &a->k, m, k, nkv);
    qn_pass_matmul(p, "self_attn.v_proj", &a->v, m, v, nkv);
    if (a->q_norm) qn_headnorm(p->pool, q, ldq, a->q_norm, p->eps, m, a->n_heads, d);
    if (a->k_norm) qn_headnorm(p->pool, k, nkv, a->k_norm, p->eps, m, a->n_kv, d);
    if (a->q_norm) qn_pass_show(p, "self_attn.q_norm", q, ldq, nq);
    if (a->k_norm) qn_pass_show(p, "self_attn.k_norm", k, nkv, nkv);
    qn_rope(p->pool, q, ldq, p->rope, m, a->n_heads, d, p->rope_dims / 2);
    qn_rope(p->pool, k, nkv, p->rope, m, a->n_kv, d, p->rope_dims / 2);
    qn_pass_show(p, "self_attn.q_rotated", q, ldq, nq);
    qn_pass_show(p, "self_attn.k_rotated", k, nkv, nkv);

    const qn_kv_view view = {p->arena + p->kv_at, p->block_bytes, p->block_tokens, a->n_kv, d,
                             p->kv_type};
    qn_kv_store(p->pool, &view, p->rows, m, k, v, nkv);
    qn_attention(p->pool, &view, p->rows, m, q, ldq, a->n_heads, 1 / sqrtf((float)d), a->window,
                 mix, nq);
    qn_pass_show(p, "self_attn.attention", mix, nq, nq);
    if (a->gated) qn_sigmoid_mul(p->pool, mix, nq, q + nq, ldq, m, nq);
    qn_pass_look(p, "self_attn", mix, m, nq);
    qn_acts_set(p->acts, mix, m, nq, nq);
    qn_pass_matmul(p, "self_attn.o_proj", &a->o, m, p->out, a->hidden);
}

extern const qn_block_kind qn_block_attention;
const qn_block_kind qn_block_attention = {
    .name = "attention",
    .bind = attention_bind,
    .free = attention_free,
    .weight_bytes = attention_weight_bytes,
    .weights_per_token = attention_weights_per_token,
    .kv_bytes = attention_kv_bytes,
    .scratch = attention_scratch,
    .run = attention_run,
};
