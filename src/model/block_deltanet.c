// The gated delta rule layer (Yang et al. 2024, Gated DeltaNet), per token:
//   m = Wqkv x;  z = Wz x;  b = Wb x;  a = Wa x
//   q, k, v = silu(short convolution of m);  q, k to unit length per head, q / sqrt(dk)
//   beta = sigmoid(b);  decay = exp(-exp(A_log) softplus(a + dt_bias))
//   S *= decay;  delta = beta (v - S^T k);  S += k delta^T;  o = S^T q
//   out = Wo( norm(o) * silu(z) )
// A sequence keeps the last three m and S, all in float. Qwen3-Next stores the projections
// interleaved by key head; they are put in the order above at load, so there is one way to compute.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/block.h"

#define TAPS 4 // of the convolution; the config reader insists
#define L2_EPS 1e-6f

typedef struct deltanet {
    size_t hidden, n_k, n_v, dk, dv;
    size_t k_dim, v_dim, channels; // n_k * dk, n_v * dv, 2 * k_dim + v_dim
    float eps;
    qn_mat qkv, z, b, a, out;
    float *taps;    // [TAPS][channels], oldest first
    float *rate;    // [n_v]: -exp(A_log)
    float *dt_bias; // [n_v]
    float *norm;    // [dv], never zero-centred
    float *unit_q, *unit_k; // [dk]: what turns a mean-square norm into length 1 (and 1 / sqrt(dk))
    float *ones;    // [channels]
} deltanet;

// ---- weights ---------------------------------------------------------------------------------

// Key head g of in_proj_qkvz is [q(dk) | k(dk) | v(r dv) | z(r dv)], of in_proj_ba [b(r) | a(r)].
// Appends to order the rows that make up part `at` with `n` rows per key head.
static size_t *group_order(const deltanet *l, size_t stride, size_t at, size_t n, size_t *order) {
    for (size_t g = 0; g < l->n_k; g++)
        for (size_t i = 0; i < n; i++) *order++ = g * stride + at + i;
    return order;
}

static bool bind_interleaved(deltanet *l, qn_binder *b, qn_err *err) {
    size_t r = l->n_v / l->n_k, rv = r * l->dv, stride = 2 * l->dk + 2 * rv, h = l->hidden;
    size_t rows = l->channels + l->v_dim;
    size_t *order = qn_alloc((rows + 2 * l->n_v) * sizeof *order);
    size_t *z = group_order(l, stride, 0, l->dk, order);
    z = group_order(l, stride, l->dk, l->dk, z);
    z = group_order(l, stride, 2 * l->dk, rv, z);
    size_t *beta = group_order(l, stride, 2 * l->dk + rv, rv, z);
    size_t *a = group_order(l, 2 * r, 0, r, beta);
    group_order(l, 2 * r, r, r, a);
    const qn_cut wide[] = {{&l->qkv, 0, l->channels, order}, {&l->z, 0, l->v_dim, z}};
    const qn_cut slim[] = {{&l->b, 0, l->n_v, beta}, {&l->a, 0, l->n_v, a}};
    bool ok = qn_bind_cuts(b, "linear_attn.in_proj_qkvz.weight", QN_ROLE_LINEAR,
                           (const size_t[3]){0, rows, h}, wide, 2, err) &&
              qn_bind_cuts(b, "linear_attn.in_proj_ba.weight", QN_ROLE_SMALL,
                           (const size_t[3]){0, 2 * l->n_v, h}, slim, 2, err);
    qn_free(order);
    return ok;
}

static bool bind_projections(deltanet *l, qn_binder *b, qn_err *err) {
    size_t h = l->hidden, nv = l->n_v;
    if (b->spelling.interleaved) return bind_interleaved(l, b, err);
    return qn_bind_matrix(b, "linear_attn.in_proj_qkv.weight", QN_ROLE_LINEAR, l->channels, h,
                          &l->qkv, err) &&
           qn_bind_matrix(b, "linear_attn.in_proj_z.weight", QN_ROLE_LINEAR, l->v_dim, h, &l->z,
                          err) &&
           qn_bind_matrix(b, "linear_attn.in_proj_b.weight", QN_ROLE_SMALL, nv, h, &l->b, err) &&
           qn_bind_matrix(b, "linear_attn.in_proj_a.weight", QN_ROLE_SMALL, nv, h, &l->a, err);
}

static bool bind_conv(deltanet *l, qn_binder *b, qn_err *err) {
    const size_t shape[] = {l->channels, 1, TAPS};
    float *stored = NULL;
    bool ok = qn_bind_floats(b, "linear_attn.conv1d.weight", QN_ROLE_CONV, shape, 3, &stored, err);
    l->taps = QN_NEW_ARRAY(float, l->channels * TAPS);
    for (size_t c = 0; c < l->channels; c++)
        for (size_t j = 0; j < TAPS; j++) l->taps[j * l->channels + c] = stored[c * TAPS + j];
    free(stored);
    return ok;
}

static float *filled(size_t n, double value) {
    float *p = QN_NEW_ARRAY(float, n);
    for (size_t i = 0; i < n; i++) p[i] = (float)value;
    return p;
}

static void deltanet_sizes(deltanet *l, const qn_config *c) {
    l->hidden = c->hidden_size;
    l->n_k = c->linear_num_key_heads;
    l->n_v = c->linear_num_value_heads;
    l->dk = c->linear_key_head_dim;
    l->dv = c->linear_value_head_dim;
    l->k_dim = l->n_k * l->dk;
    l->v_dim = l->n_v * l->dv;
    l->channels = 2 * l->k_dim + l->v_dim;
    l->eps = c->rms_norm_eps;
    // x / sqrt(sum + e) = (1 / sqrt(n)) x / sqrt(mean + e / n); q is also divided by sqrt(dk).
    l->unit_k = filled(l->dk, 1 / sqrt((double)l->dk));
    l->unit_q = filled(l->dk, 1 / (double)l->dk);
    l->ones = filled(l->channels, 1);
}

static bool deltanet_bind(qn_binder *b, const qn_layer_plan *plan, void **block, qn_err *err) {
    deltanet *l = *block = QN_NEW(deltanet);
    (void)plan;
    deltanet_sizes(l, b->config);
    if (!bind_projections(l, b, err) || !bind_conv(l, b, err) ||
        !qn_bind_floats(b, "linear_attn.A_log", QN_ROLE_DECAY, &l->n_v, 1, &l->rate, err) ||
        !qn_bind_floats(b, "linear_attn.dt_bias", QN_ROLE_DECAY, &l->n_v, 1, &l->dt_bias, err) ||
        !qn_bind_norm(b, "linear_attn.norm.weight", l->dv, false, &l->norm, err))
        return false;
    for (size_t i = 0; i < l->n_v; i++) l->rate[i] = (float)-exp((double)l->rate[i]);
    return qn_bind_matrix(b, "linear_attn.out_proj.weight", QN_ROLE_LINEAR, l->hidden, l->v_dim,
                          &l->out, err);
}

static void deltanet_free(void *block) {
    deltanet *l = block;
    if (!l) return;
    qn_mat *mats[] = {&l->qkv, &l->z, &l->b, &l->a, &l->out};
    float *floats[] = {l->taps, l->rate, l->dt_bias, l->norm, l->unit_q, l->unit_k, l->ones};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++) qn_mat_done(mats[i]);
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) free(floats[i]);
    free(l);
}

static size_t deltanet_weight_bytes(const void *block) {
    const deltanet *l = block;
    return qn_mat_bytes(&l->qkv) + qn_mat_bytes(&l->z) + qn_mat_bytes(&l->b) +
           qn_mat_bytes(&l->a) + qn_mat_bytes(&l->out) + TAPS * l->channels * sizeof(float);
}

static size_t deltanet_weights_per_token(const void *block) {
    const deltanet *l = block;
    return qn_mat_count(&l->qkv) + qn_mat_count(&l->z) + qn_mat_count(&l->b) +
           qn_mat_count(&l->a) + qn_mat_count(&l->out);
}

// ---- state -----------------------------------------------------------------------------------

// [TAPS - 1][channels] last inputs of the convolution, oldest first; behind them S [n_v][dk][dv].
static size_t conv_floats(const deltanet *l) { return (TAPS - 1) * l->channels; }

static size_t deltanet_state_bytes(const void *block) {
    const deltanet *l = block;
    return (conv_floats(l) + l->n_v * l->dk * l->dv) * sizeof(float);
}

static float *conv_state(const qn_pass *p, uint8_t *state) {
    return (float *)(void *)(state + p->state_at);
}

// ---- computing -------------------------------------------------------------------------------

typedef struct buffers {
    float *raw;   // [m][channels] what the convolution reads
    float *conv;  // [m][channels] q, k, v
    float *z, *o; // [m][v_dim]
    float *b, *a; // [m][n_v]: become beta and decay
    size_t *run_of; // [m]
    qn_delta_token *tokens; // [m]
    qn_delta_run *runs;     // [m]
    float **after;          // [m]
} buffers;

static size_t deltanet_scratch(const void *block, size_t m) {
    const deltanet *l = block;
    return 2 * qn_pass_round(m * l->channels * sizeof(float)) +
           2 * qn_pass_round(m * l->v_dim * sizeof(float)) +
           2 * qn_pass_round(m * l->n_v * sizeof(float)) +
           qn_pass_round(m * sizeof(size_t)) + qn_pass_round(m * sizeof(qn_delta_token)) +
           qn_pass_round(m * sizeof(qn_delta_run)) + qn_pass_round(m * sizeof(float *));
}

static buffers take_buffers(const deltanet *l, qn_pass *p) {
    size_t m = p->m;
    return (buffers){
        .raw = qn_pass_take(p, m * l->channels * sizeof(float)),
        .conv = qn_pass_take(p, m * l->channels * sizeof(float)),
        .z = qn_pass_take(p, m * l->v_dim * sizeof(float)),
        .o = qn_pass_take(p, m * l->v_dim * sizeof(float)),
        .b = qn_pass_take(p, m * l->n_v * sizeof(float)),
        .a = qn_pass_take(p, m * l->n_v * sizeof(float)),
        .run_of = qn_pass_take(p, m * sizeof(size_t)),
        .tokens = qn_pass_take(p, m * sizeof(qn_delta_token)),
        .runs = qn_pass_take(p, m * sizeof(qn_delta_run)),
        .after = qn_pass_take(p, m * sizeof(float *)),
    };
}

typedef struct row_job {
    const deltanet *l;
    const qn_pass *p;
    const buffers *s;
} row_job;

// The input of the convolution `back` tokens before row i of a run: this step's, or the state's.
static const float *conv_input(const row_job *j, const qn_run *run, size_t i, size_t back) {
    size_t c = j->l->channels;
    if (i >= back) return j->s->raw + (run->row + i - back) * c;
    return conv_state(j->p, run->state) + (TAPS - 1 + i - back) * c;
}

// One row: the convolution's sums (silu follows for all rows at once), beta and decay.
static void row_task(void *ctx, size_t row, int thread) {
    const row_job *j = ctx;
    const deltanet *l = j->l;
    const qn_run *run = &j->p->runs[j->s->run_of[row]];
    size_t i = row - run->row, c = l->channels;
    const float *x0 = conv_input(j, run, i, 3), *x1 = conv_input(j, run, i, 2);
    const float *x2 = conv_input(j, run, i, 1), *x3 = conv_input(j, run, i, 0);
    const float *w0 = l->taps, *w1 = w0 + c, *w2 = w1 + c, *w3 = w2 + c;
    float *restrict y = j->s->conv + row * c;
    (void)thread;
    for (size_t n = 0; n < c; n++)
        y[n] = ((w0[n] * x0[n] + w1[n] * x1[n]) + w2[n] * x2[n]) + w3[n] * x3[n];
    float *beta = j->s->b + row * l->n_v, *decay = j->s->a + row * l->n_v;
    for (size_t h = 0; h < l->n_v; h++) {
        beta[h] = qn_sigmoid(beta[h]);
        decay[h] = qn_exp(l->rate[h] * qn_softplus(decay[h] + l->dt_bias[h]));
    }
}

// The convolution's state after row i of a run, written to `to` (which may be the run's own: it
// is read from the oldest on).
static void put_conv_state(const row_job *j, const qn_run *run, size_t i, float *to) {
    size_t c = j->l->channels;
    for (size_t back = TAPS - 1; back-- > 0; to += c) {
        const float *from = conv_input(j, run, i, back);
        if (from != to) memmove(to, from, c * sizeof *to);
    }
}

static void describe_tokens(const deltanet *l, const qn_pass *p, const buffers *s) {
    for (size_t r = 0; r < p->n_runs; r++) {
        const qn_run *run = &p->runs[r];
        for (size_t i = 0; i < run->n; i++) {
            size_t row = run->row + i;
            const float *q = s->conv + row * l->channels;
            s->run_of[row] = r;
            s->tokens[row] = (qn_delta_token){q, q + l->k_dim, q + 2 * l->k_dim,
                                              s->a + row * l->n_v, s->b + row * l->n_v,
                                              s->o + row * l->v_dim};
            uint8_t *after = run->state_after ? run->state_after[i] : NULL;
            s->after[row] = after ? conv_state(p, after) + conv_floats(l) : NULL;
        }
        s->runs[r] = (qn_delta_run){conv_state(p, run->state) + conv_floats(l),
                                    s->tokens + run->row, run->n,
                                    run->state_after ? s->after + run->row : NULL};
    }
}

static void keep_conv_states(const row_job *j) {
    for (size_t r = 0; r < j->p->n_runs; r++) {
        const qn_run *run = &j->p->runs[r];
        for (size_t i = 0; run->state_after && i < run->n; i++)
            if (run->state_after[i])
                put_conv_state(j, run, i, conv_state(j->p, run->state_after[i]));
        put_conv_state(j, run, run->n - 1, conv_state(j->p, run->state));
    }
}

static void deltanet_run(const void *block, qn_pass *p) {
    const deltanet *l = block;
    size_t m = p->m, c = l->channels, nv = l->n_v, v = l->v_dim;
    buffers s = take_buffers(l, p);
    qn_acts_set(p->acts, p->in, m, l->hidden, l->hidden);
    qn_pass_matmul(p, "linear_attn.in_proj_qkv", &l->qkv, m, s.raw, c);
    qn_pass_matmul(p, "linear_attn.in_proj_z", &l->z, m, s.z, v);
    qn_pass_matmul(p, "linear_attn.in_proj_b", &l->b, m, s.b, nv);
    qn_pass_matmul(p, "linear_attn.in_proj_a", &l->a, m, s.a, nv);

    row_job job = {l, p, &s};
    describe_tokens(l, p, &s);
    qn_pool_run(p->pool, m, row_task, &job);
    keep_conv_states(&job);
    qn_pass_show(p, "linear_attn.conv1d", s.conv, c, c);
    qn_silu_mul(p->pool, s.conv, c, l->ones, 0, s.conv, c, m, c);
    qn_headnorm(p->pool, s.conv, c, l->unit_q, L2_EPS / (float)l->dk, m, l->n_k, l->dk);
    qn_headnorm(p->pool, s.conv + l->k_dim, c, l->unit_k, L2_EPS / (float)l->dk, m, l->n_k, l->dk);
    qn_pass_look(p, "linear_attn.conv1d", s.conv, m, c);

    qn_delta_rule(p->pool, s.runs, p->n_runs, l->n_k, nv, l->dk, l->dv);
    qn_pass_look(p, "linear_attn.A_log", s.a, m, nv);
    qn_pass_look(p, "linear_attn", s.o, m, v);
    qn_pass_show(p, "linear_attn.norm.input", s.o, v, v);
    qn_headnorm(p->pool, s.o, v, l->norm, l->eps, m, nv, l->dv);
    qn_pass_look(p, "linear_attn.norm", s.o, m, v);
    qn_pass_show(p, "linear_attn.norm", s.o, v, v);
    qn_silu_mul(p->pool, s.z, v, s.o, v, s.o, v, m, v);
    qn_pass_show(p, "linear_attn.out_proj.input", s.o, v, v);
    qn_acts_set(p->acts, s.o, m, v, v);
    qn_pass_matmul(p, "linear_attn.out_proj", &l->out, m, p->out, l->hidden);
}

extern const qn_block_kind qn_block_deltanet;
const qn_block_kind qn_block_deltanet = {
    .name = "deltanet",
    .bind = deltanet_bind,
    .free = deltanet_free,
    .weight_bytes = deltanet_weight_bytes,
    .weights_per_token = deltanet_weights_per_token,
    .state_bytes = deltanet_state_bytes,
    .scratch = deltanet_scratch,
    .run = deltanet_run,
};
