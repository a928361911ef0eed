// The gated feed-forward part: down( silu(gate x) * (up x) ) (Shazeer 2020, SwiGLU).
#include "model/block.h"

#include "base/mem.h"

typedef struct mlp {
    size_t hidden, inner;
    qn_mat gate, up, down;
} mlp;

static bool mlp_bind(qn_binder *b, const qn_layer_plan *plan, void **block, qn_err *err) {
    mlp *l = *block = QN_NEW(mlp);
    size_t h = l->hidden = b->config->hidden_size, n = l->inner = b->config->intermediate_size;
    (void)plan;
    return qn_bind_matrix(b, "mlp.gate_proj.weight", QN_ROLE_LINEAR, n, h, &l->gate, err) &&
           qn_bind_matrix(b, "mlp.up_proj.weight", QN_ROLE_LINEAR, n, h, &l->up, err) &&
           qn_bind_matrix(b, "mlp.down_proj.weight", QN_ROLE_LINEAR, h, n, &l->down, err);
}

static void mlp_free(void *block) {
    mlp *l = block;
    if (!l) return;
    qn_mat_done(&l->gate);
    qn_mat_done(&l->up);
    qn_mat_done(&l->down);
    free(l);
}

static size_t mlp_weight_bytes(const void *block) {
    const mlp *l = block;
    return qn_mat_bytes(&l->gate) + qn_mat_bytes(&l->up) + qn_mat_bytes(&l->down);
}

static size_t mlp_weights_per_token(const void *block) {
    const mlp *l = block;
    return qn_mat_count(&l->gate) + qn_mat_count(&l->up) + qn_mat_count(&l->down);
}

static size_t mlp_scratch(const void *block, size_t m) {
    const mlp *l = block;
    return 2 * qn_pass_round(m * l->inner * sizeof(float));
}

static void mlp_run(const void *block, qn_pass *p) {
    const mlp *l = block;
    size_t n = l->inner;
    float *gate = qn_pass_take(p, p->m * n * sizeof *gate);
    float *up = qn_pass_take(p, p->m * n * sizeof *up);
    qn_acts_set(p->acts, p->in, p->m, l->hidden, l->hidden);
    qn_pass_matmul(p, "mlp.gate_proj", &l->gate, p->m, gate, n);
    qn_pass_matmul(p, "mlp.up_proj", &l->up, p->m, up, n);
    qn_silu_mul(p->pool, gate, n, up, n, gate, n, p->m, n);
    qn_pass_show(p, "mlp.down_proj.input", gate, n, n);
    qn_acts_set(p->acts, gate, p->m, n, n);
    qn_pass_matmul(p, "mlp.down_proj", &l->down, p->m, p->out, l->hidden);
}

extern const qn_block_kind qn_block_mlp;
const qn_block_kind qn_block_mlp = {
    .name = "mlp",
    .bind = mlp_bind,
    .free = mlp_free,
    .weight_bytes = mlp_weight_bytes,
    .weights_per_token = mlp_weights_per_token,
    .scratch = mlp_scratch,
    .run = mlp_run,
};
