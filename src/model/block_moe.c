// Mixture of experts: a router picks a few gated feed-forward parts per token.
//   p = softmax(Wr x) over all experts;  the top k, renormalised if the config says so
//   out = sum over the picks in order of rank of p_e expert_e(x)  [+ sigmoid(ws x) shared(x)]
// Rows are sorted by expert so that every expert's weights are read once for all of its tokens; the
// results are summed in each token's own order of picks, so that company changes nothing.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/block.h"

typedef struct moe {
    size_t hidden, inner, n_experts, top_k, shared_inner; // shared_inner 0: none
    bool renormalise;
    qn_mat router;
    qn_mat *gate, *up, *down; // [n_experts]
    qn_mat shared_gate, shared_up, shared_down, shared_weight;
} moe;

// ---- weights ---------------------------------------------------------------------------------

static bool bind_fused(moe *l, qn_binder *b, qn_err *err) {
    size_t e = l->n_experts, n = l->inner, h = l->hidden;
    qn_cut *in = QN_NEW_ARRAY(qn_cut, 2 * e), *out = QN_NEW_ARRAY(qn_cut, e);
    for (size_t i = 0; i < e; i++) {
        in[2 * i] = (qn_cut){&l->gate[i], 2 * i * n, n, NULL};
        in[2 * i + 1] = (qn_cut){&l->up[i], (2 * i + 1) * n, n, NULL};
        out[i] = (qn_cut){&l->down[i], i * h, h, NULL};
    }
    bool ok = qn_bind_cuts(b, "mlp.experts.gate_up_proj", QN_ROLE_EXPERTS,
                           (const size_t[3]){e, 2 * n, h}, in, 2 * e, err) &&
              qn_bind_cuts(b, "mlp.experts.down_proj", QN_ROLE_EXPERTS,
                           (const size_t[3]){e, h, n}, out, e, err);
    free(in);
    free(out);
    return ok;
}

static bool bind_one(moe *l, qn_binder *b, size_t i, qn_err *err) {
    char *gate = qn_strf("mlp.experts.%zu.gate_proj.weight", i);
    char *up = qn_strf("mlp.experts.%zu.up_proj.weight", i);
    char *down = qn_strf("mlp.experts.%zu.down_proj.weight", i);
    bool ok = qn_bind_matrix(b, gate, QN_ROLE_LINEAR, l->inner, l->hidden, &l->gate[i], err) &&
              qn_bind_matrix(b, up, QN_ROLE_LINEAR, l->inner, l->hidden, &l->up[i], err) &&
              qn_bind_matrix(b, down, QN_ROLE_LINEAR, l->hidden, l->inner, &l->down[i], err);
    qn_free(gate);
    qn_free(up);
    qn_free(down);
    return ok;
}

static bool bind_experts(moe *l, qn_binder *b, qn_err *err) {
    bool fused = b->part == QN_PART_MTP ? b->spelling.fused_mtp_experts
                                        : b->spelling.fused_experts;
    l->gate = QN_NEW_ARRAY(qn_mat, l->n_experts);
    l->up = QN_NEW_ARRAY(qn_mat, l->n_experts);
    l->down = QN_NEW_ARRAY(qn_mat, l->n_experts);
    if (fused) return bind_fused(l, b, err);
    for (size_t i = 0; i < l->n_experts; i++)
        if (!bind_one(l, b, i, err)) return false;
    return true;
}

static bool bind_shared(moe *l, qn_binder *b, qn_err *err) {
    size_t n = l->shared_inner, h = l->hidden;
    return qn_bind_matrix(b, "mlp.shared_expert.gate_proj.weight", QN_ROLE_LINEAR, n, h,
                          &l->shared_gate, err) &&
           qn_bind_matrix(b, "mlp.shared_expert.up_proj.weight", QN_ROLE_LINEAR, n, h,
                          &l->shared_up, err) &&
           qn_bind_matrix(b, "mlp.shared_expert.down_proj.weight", QN_ROLE_LINEAR, h, n,
                          &l->shared_down, err) &&
           qn_bind_matrix(b, "mlp.shared_expert_gate.weight", QN_ROLE_SMALL, 1, h,
                          &l->shared_weight, err);
}

static bool moe_bind(qn_binder *b, const qn_layer_plan *plan, void **block, qn_err *err) {
    const qn_config *c = b->config;
    moe *l = *block = QN_NEW(moe);
    (void)plan;
    *l = (moe){.hidden = c->hidden_size, .inner = c->moe_intermediate_size,
               .n_experts = c->num_experts, .top_k = c->num_experts_per_tok,
               .shared_inner = c->family->shared_expert ? c->shared_expert_intermediate_size : 0,
               .renormalise = c->norm_topk_prob};
    return qn_bind_matrix(b, "mlp.gate.weight", QN_ROLE_SMALL, l->n_experts, l->hidden, &l->router,
                          err) &&
           bind_experts(l, b, err) && (!l->shared_inner || bind_shared(l, b, err));
}

static void moe_free(void *block) {
    moe *l = block;
    if (!l) return;
    for (size_t i = 0; l->down && i < l->n_experts; i++) {
        qn_mat_done(&l->gate[i]);
        qn_mat_done(&l->up[i]);
        qn_mat_done(&l->down[i]);
    }
    free(l->gate);
    free(l->up);
    free(l->down);
    qn_mat *rest[] = {&l->router, &l->shared_gate, &l->shared_up, &l->shared_down,
                      &l->shared_weight};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) qn_mat_done(rest[i]);
    free(l);
}

static size_t moe_weight_bytes(const void *block) {
    const moe *l = block;
    size_t n = qn_mat_bytes(&l->router) + qn_mat_bytes(&l->shared_gate) +
               qn_mat_bytes(&l->shared_up) + qn_mat_bytes(&l->shared_down) +
               qn_mat_bytes(&l->shared_weight);
    for (size_t i = 0; i < l->n_experts; i++)
        n += qn_mat_bytes(&l->gate[i]) + qn_mat_bytes(&l->up[i]) + qn_mat_bytes(&l->down[i]);
    return n;
}

static size_t moe_weights_per_token(const void *block) {
    const moe *l = block;
    return qn_mat_count(&l->router) + qn_mat_count(&l->shared_gate) +
           qn_mat_count(&l->shared_up) + qn_mat_count(&l->shared_down) +
           qn_mat_count(&l->shared_weight) +
           l->top_k * (qn_mat_count(&l->gate[0]) + qn_mat_count(&l->up[0]) +
                       qn_mat_count(&l->down[0]));
}

// ---- routing ---------------------------------------------------------------------------------

// A pick is one (token, rank) pair; its place is where its row lies once sorted by expert.
typedef struct picks {
    float *probs;    // [m][n_experts]
    uint32_t *expert; // [m][top_k]
    float *weight;    // [m][top_k]
    uint32_t *place;  // [m][top_k]
    uint32_t *token;  // [m * top_k] the row of a place
    uint32_t *first;  // [n_experts + 1] places of an expert
} picks;

static picks take_picks(const moe *l, qn_pass *p) {
    size_t n = p->m * l->top_k;
    return (picks){
        .probs = qn_pass_take(p, p->m * l->n_experts * sizeof(float)),
        .expert = qn_pass_take(p, n * sizeof(uint32_t)),
        .weight = qn_pass_take(p, n * sizeof(float)),
        .place = qn_pass_take(p, n * sizeof(uint32_t)),
        .token = qn_pass_take(p, n * sizeof(uint32_t)),
        .first = qn_pass_take(p, (l->n_experts + 1) * sizeof(uint32_t)),
    };
}

typedef struct route_job {
    const moe *l;
    const picks *k;
} route_job;

// The top k of one row; of equal probabilities the lower expert goes first.
static void route_row(void *ctx, size_t row, int thread) {
    const route_job *j = ctx;
    const moe *l = j->l;
    float *probs = j->k->probs + row * l->n_experts, *weight = j->k->weight + row * l->top_k;
    uint32_t *expert = j->k->expert + row * l->top_k;
    float sum = 0;
    (void)thread;
    qn_softmax(probs, l->n_experts);
    for (size_t s = 0; s < l->top_k; s++) {
        size_t best = qn_argmax(probs, l->n_experts);
        expert[s] = (uint32_t)best;
        weight[s] = probs[best];
        sum += probs[best];
        probs[best] = -1; // below every probability
    }
    for (size_t s = 0; l->renormalise && s < l->top_k; s++) weight[s] /= sum;
}

static void sort_picks(const moe *l, const picks *k, size_t m) {
    size_t n = m * l->top_k;
    memset(k->first, 0, (l->n_experts + 1) * sizeof *k->first);
    for (size_t i = 0; i < n; i++) k->first[k->expert[i] + 1]++;
    for (size_t e = 0; e < l->n_experts; e++) k->first[e + 1] += k->first[e];
    for (size_t i = 0; i < n; i++) {
        uint32_t place = k->first[k->expert[i]]++;
        k->place[i] = place;
        k->token[place] = (uint32_t)(i / l->top_k);
    }
    for (size_t e = l->n_experts; e > 0; e--) k->first[e] = k->first[e - 1];
    k->first[0] = 0;
}

// ---- computing -------------------------------------------------------------------------------

static size_t moe_scratch(const void *block, size_t m) {
    const moe *l = block;
    size_t n = m * l->top_k, f = sizeof(float);
    return qn_pass_round(m * l->n_experts * f) + 4 * qn_pass_round(n * f) +
           qn_pass_round((l->n_experts + 1) * f) + 2 * qn_pass_round(n * l->hidden * f) +
           2 * qn_pass_round(n * l->inner * f) +
           qn_pass_round(2 * l->n_experts * sizeof(qn_matmul_job)) +
           2 * qn_pass_round(m * l->shared_inner * f) + qn_pass_round(m * l->hidden * f) +
           qn_pass_round(m * f);
}

typedef struct move_job {
    const moe *l;
    const qn_pass *p;
    const picks *k;
    float *sorted; // [m * top_k][hidden]
} move_job;

static void gather_row(void *ctx, size_t place, int thread) {
    const move_job *j = ctx;
    size_t h = j->l->hidden;
    (void)thread;
    memcpy(j->sorted + place * h, j->p->in + j->k->token[place] * h, h * sizeof(float));
}

static void sum_row(void *ctx, size_t row, int thread) {
    const move_job *j = ctx;
    size_t h = j->l->hidden, k = j->l->top_k;
    float *out = j->p->out + row * h;
    (void)thread;
    memset(out, 0, h * sizeof *out);
    for (size_t s = 0; s < k; s++) {
        const float *y = j->sorted + j->k->place[row * k + s] * h;
        float w = j->k->weight[row * k + s];
        for (size_t i = 0; i < h; i++) out[i] += w * y[i];
    }
}

// One job per expert that has rows, for one or two matrices of each.
static void run_jobs(const moe *l, qn_pass *p, const picks *k, qn_matmul_job *jobs,
                     const qn_mat *const mats[2], float *const y[2], size_t width) {
    size_t n = 0;
    for (size_t e = 0; e < l->n_experts; e++) {
        size_t from = k->first[e], rows = k->first[e + 1] - from;
        for (int i = 0; rows && i < 2 && mats[i]; i++)
            jobs[n++] = (qn_matmul_job){&mats[i][e], from, rows, y[i] + from * width, width};
    }
    qn_matmul_jobs(p->acts, jobs, n);
}

// Rows y [places][n] as those of their tokens, under the experts' names.
static void show_experts(const moe *l, const qn_pass *p, const picks *k, const char *name,
                         const float *y, size_t n) {
    char full[64];
    for (size_t e = 0; p->watched && e < l->n_experts; e++) {
        snprintf(full, sizeof full, "mlp.experts.%zu.%s", e, name);
        for (size_t i = k->first[e]; i < k->first[e + 1]; i++)
            qn_pass_show_row(p, full, k->token[i], y + i * n, n);
    }
}

static void run_experts(const moe *l, qn_pass *p, const picks *k) {
    size_t n = p->m * l->top_k, h = l->hidden, w = l->inner;
    float *x = qn_pass_take(p, n * h * sizeof *x), *y = qn_pass_take(p, n * h * sizeof *y);
    float *gate = qn_pass_take(p, n * w * sizeof *gate), *up = qn_pass_take(p, n * w * sizeof *up);
    qn_matmul_job *jobs = qn_pass_take(p, 2 * l->n_experts * sizeof *jobs);
    move_job move = {l, p, k, x};
    qn_pool_run(p->pool, n, gather_row, &move);
    qn_acts_set(p->acts, x, n, h, h);
    run_jobs(l, p, k, jobs, (const qn_mat *const[2]){l->gate, l->up},
             (float *const[2]){gate, up}, w);
    qn_pass_look(p, "mlp.experts.gate_proj", gate, n, w);
    qn_pass_look(p, "mlp.experts.up_proj", up, n, w);
    show_experts(l, p, k, "gate_proj", gate, w);
    show_experts(l, p, k, "up_proj", up, w);
    qn_silu_mul(p->pool, gate, w, up, w, gate, w, n, w);
    show_experts(l, p, k, "down_proj.input", gate, w);
    qn_acts_set(p->acts, gate, n, w, w);
    run_jobs(l, p, k, jobs, (const qn_mat *const[2]){l->down, NULL}, (float *const[2]){y, NULL}, h);
    qn_pass_look(p, "mlp.experts.down_proj", y, n, h);
    show_experts(l, p, k, "down_proj", y, h);
    move.sorted = y;
    qn_pool_run(p->pool, p->m, sum_row, &move);
    qn_pass_show(p, "mlp.experts", p->out, h, h);
}

// out += sigmoid(ws x) shared(x).
static void run_shared(const moe *l, qn_pass *p) {
    size_t m = p->m, h = l->hidden, w = l->shared_inner;
    float *gate = qn_pass_take(p, m * w * sizeof *gate), *up = qn_pass_take(p, m * w * sizeof *up);
    float *y = qn_pass_take(p, m * h * sizeof *y), *weight = qn_pass_take(p, m * sizeof *weight);
    qn_acts_set(p->acts, p->in, m, h, h);
    qn_pass_matmul(p, "mlp.shared_expert.gate_proj", &l->shared_gate, m, gate, w);
    qn_pass_matmul(p, "mlp.shared_expert.up_proj", &l->shared_up, m, up, w);
    qn_pass_matmul(p, "mlp.shared_expert_gate", &l->shared_weight, m, weight, 1);
    qn_silu_mul(p->pool, gate, w, up, w, gate, w, m, w);
    qn_pass_show(p, "mlp.shared_expert.down_proj.input", gate, w, w);
    qn_acts_set(p->acts, gate, m, w, w);
    qn_pass_matmul(p, "mlp.shared_expert.down_proj", &l->shared_down, m, y, h);
    for (size_t r = 0; r < m; r++) {
        float s = qn_sigmoid(weight[r]);
        for (size_t i = 0; i < h; i++) y[r * h + i] *= s;
    }
    qn_add(p->pool, p->out, h, y, h, m, h);
}

static void moe_run(const void *block, qn_pass *p) {
    const moe *l = block;
    picks k = take_picks(l, p);
    route_job route = {l, &k};
    qn_acts_set(p->acts, p->in, p->m, l->hidden, l->hidden);
    qn_pass_matmul(p, "mlp.gate", &l->router, p->m, k.probs, l->n_experts);
    qn_pool_run(p->pool, p->m, route_row, &route);
    sort_picks(l, &k, p->m);
    run_experts(l, p, &k);
    if (l->shared_inner) run_shared(l, p);
    qn_pass_show(p, "mlp", p->out, l->hidden, l->hidden);
}

extern const qn_block_kind qn_block_moe;
const qn_block_kind qn_block_moe = {
    .name = "moe",
    .bind = moe_bind,
    .free = moe_free,
    .weight_bytes = moe_weight_bytes,
    .weights_per_token = moe_weights_per_token,
    .scratch = moe_scratch,
    .run = moe_run,
};
