// Everything on the hot path that is not a weight matrix. All in float with one fixed order of
// every sum (16 lanes, lane = index mod 16, joined in a fixed tree), own exp and no libm on the hot
// path, so that scalar and SIMD agree bit for bit. Threaded where a pool is given; rows are
// independent. Exact formulas stand beside each call; sources: the papers named, docs/numerics.md.
#ifndef QN_KERNEL_OPS_H
#define QN_KERNEL_OPS_H

#include "base/pool.h"
#include "quern.h"

// y = w * x / sqrt(mean(x^2) + eps), rows of n. RMSNorm, Zhang & Sennrich 2019. y may be x.
void qn_rmsnorm(qn_pool *p, const float *x, size_t ldx, const float *w, float eps, float *y,
                size_t ldy, size_t m, size_t n);
// LayerNorm with weight and bias (vision tower).
void qn_layernorm(qn_pool *p, const float *x, size_t ldx, const float *w, const float *b, float eps,
                  float *y, size_t ldy, size_t m, size_t n);
// Per-head RMSNorm in place: heads of d at x + row * ldx + head * d.
void qn_headnorm(qn_pool *p, float *x, size_t ldx, const float *w, float eps, size_t m,
                 size_t n_heads, size_t d);
// Rotates the first 2 * n_freq dimensions of every head, pairs (i, i + n_freq): cos_sin has, per
// row, n_freq cosines then n_freq sines. RoFormer, rotate-half layout.
void qn_rope(qn_pool *p, float *x, size_t ldx, const float *cos_sin, size_t m, size_t n_heads,
             size_t d, size_t n_freq);
// y = silu(gate) * up, silu(v) = v / (1 + exp(-v)).
void qn_silu_mul(qn_pool *p, const float *gate, size_t ldg, const float *up, size_t ldu, float *y,
                 size_t ldy, size_t m, size_t n);
// x += y; x *= sigmoid(g) (output gate); GELU, tanh form and erf form, in place.
void qn_add(qn_pool *p, float *x, size_t ldx, const float *y, size_t ldy, size_t m, size_t n);
void qn_sigmoid_mul(qn_pool *p, float *x, size_t ldx, const float *g, size_t ldg, size_t m,
                    size_t n);
void qn_gelu_tanh(qn_pool *p, float *x, size_t ldx, size_t m, size_t n);
void qn_gelu_erf(qn_pool *p, float *x, size_t ldx, size_t m, size_t n);
// In place over one row of n; the maximum is subtracted first.
void qn_softmax(float *x, size_t n);
float qn_exp(float x);     // own polynomial, ≤ 1 ulp or so, same bits everywhere
float qn_sigmoid(float x);
float qn_softplus(float x); // x for x > 20
// Position of the first largest value (lowest index on ties; NaN never wins).
size_t qn_argmax(const float *x, size_t n);
// Position of the first non-finite value, or n.
size_t qn_first_nonfinite(const float *x, size_t n);

// ---- attention over a paged cache ----

typedef enum qn_kv_type { QN_KV_F32, QN_KV_BF16 } qn_kv_type;

// One layer's keys and values: block b of a sequence lies at base + b * block_stride, first the
// keys of every head, then the values, packed as the kernels want them (attention.c says how: only
// qn_kv_store and qn_attention look inside; a block is copied and shared as bytes).
#define QN_MAX_HEAD_DIM 2048 // users check configurations against these
#define QN_MAX_BLOCK_TOKENS 256
typedef struct qn_kv_view {
    uint8_t *base;
    size_t block_stride;
    size_t block_tokens; // a multiple of 16 (32 or more suits tiles of bf16), at most the maximum
    size_t n_kv_heads, head_dim;
    qn_kv_type type;
} qn_kv_view;
size_t qn_kv_layer_bytes(const qn_kv_view *v); // bytes of one block of one layer

// One query token: where it stands and its sequence's block table (logical block i = blocks[i]).
typedef struct qn_attn_row {
    const uint32_t *blocks;
    size_t position;
} qn_attn_row;

// Writes k and v (each [m][n_kv_heads * head_dim], ld apart) to the rows' positions. Rows of one
// sequence stand together, in rising positions; a block in use is written by one sequence only.
void qn_kv_store(qn_pool *p, const qn_kv_view *v, const qn_attn_row *rows, size_t m, const float *k,
                 const float *val, size_t ld);
// out = softmax(q k^T * scale) v per head over positions max(0, position - window + 1) … position
// (window 0: from 0). Query head h reads kv head h / (n_heads / n_kv_heads). Keys are visited in
// blocks of block_tokens at absolute positions with an online softmax, so the result does not
// depend on how a prompt was chunked. q and out are [m][n_heads * head_dim], ldq / ldo apart.
void qn_attention(qn_pool *p, const qn_kv_view *v, const qn_attn_row *rows, size_t m,
                  const float *q, size_t ldq, size_t n_heads, float scale, size_t window,
                  float *out, size_t ldo);
// Full bidirectional attention inside one image (vision tower): q, k, v, out [n][n_heads * d].
void qn_attention_full(qn_pool *p, const float *q, const float *k, const float *v, size_t ld,
                       size_t n, size_t n_heads, size_t d, float scale, float *out, size_t ldo);

// ---- gated delta rule ----

// One token through n_v_heads recurrent states S [dk][dv] (Yang et al. 2024, Gated DeltaNet):
//   S *= decay; delta = beta * (v - S^T k); S += k delta^T; o = S^T q
// q, k are [n_k_heads][dk], already l2-normalised and scaled; v-head j uses k-head j / (nv / nk).
typedef struct qn_delta_token {
    const float *q, *k, *v, *decay, *beta; // decay = exp(g), beta: one per v-head
    float *out;                            // [n_v_heads][dv]
} qn_delta_token;
typedef struct qn_delta_run { // consecutive tokens of one sequence
    float *state;             // [n_v_heads][dk][dv]
    const qn_delta_token *tokens;
    size_t n;
    float *const *state_after; // NULL, or per token where to copy the state after it
} qn_delta_run;
void qn_delta_rule(qn_pool *p, const qn_delta_run *runs, size_t n_runs, size_t n_k_heads,
                   size_t n_v_heads, size_t dk, size_t dv);

#endif
