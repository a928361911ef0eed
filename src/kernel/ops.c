// Threaded drivers of the row operations. Rows are independent; a task is a run of rows, large
// enough to be worth waking a thread for, and small steps run on the caller.
#include "kernel/ops.h"

#include "base/f16.h"
#include "kernel/fp_mode.h"
#include "kernel/row_math.h"

typedef struct rows {
    const qn_table *t;
    float *x, *y;
    const float *a, *w, *b;
    size_t ldx, ldy, lda, m, n, heads;
    float eps;
    size_t per_task;
    void (*one)(const struct rows *r, size_t row);
} rows;

static void run_rows(void *ctx, size_t task, int thread) {
    (void)thread;
    const rows *r = ctx;
    size_t end = (task + 1) * r->per_task < r->m ? (task + 1) * r->per_task : r->m;
    uint64_t mode = qn_fp_pin();
    for (size_t i = task * r->per_task; i < end; i++) r->one(r, i);
    qn_fp_restore(mode);
}

#define WORTH 16384 // floats per task
static void run(qn_pool *p, rows *r, size_t width) {
    r->t = qn_table_get();
    r->per_task = width >= WORTH ? 1 : WORTH / (width ? width : 1);
    qn_pool_run(p, (r->m + r->per_task - 1) / r->per_task, run_rows, r);
}

static void rmsnorm_one(const rows *r, size_t i) {
    r->t->rmsnorm(r->a + i * r->lda, r->w, r->eps, r->y + i * r->ldy, r->n);
}

void qn_rmsnorm(qn_pool *p, const float *x, size_t ldx, const float *w, float eps, float *y,
                size_t ldy, size_t m, size_t n) {
    rows r = {.a = x, .lda = ldx, .w = w, .eps = eps, .y = y, .ldy = ldy, .m = m, .n = n,
              .one = rmsnorm_one};
    run(p, &r, n);
}

static void layernorm_one(const rows *r, size_t i) {
    r->t->layernorm(r->a + i * r->lda, r->w, r->b, r->eps, r->y + i * r->ldy, r->n);
}

void qn_layernorm(qn_pool *p, const float *x, size_t ldx, const float *w, const float *b, float eps,
                  float *y, size_t ldy, size_t m, size_t n) {
    rows r = {.a = x, .lda = ldx, .w = w, .b = b, .eps = eps, .y = y, .ldy = ldy, .m = m, .n = n,
              .one = layernorm_one};
    run(p, &r, n);
}

static void headnorm_one(const rows *r, size_t i) {
    for (size_t h = 0; h < r->heads; h++) {
        float *x = r->x + i * r->ldx + h * r->n;
        r->t->rmsnorm(x, r->w, r->eps, x, r->n);
    }
}

void qn_headnorm(qn_pool *p, float *x, size_t ldx, const float *w, float eps, size_t m,
                 size_t n_heads, size_t d) {
    rows r = {.x = x, .ldx = ldx, .w = w, .eps = eps, .m = m, .n = d, .heads = n_heads,
              .one = headnorm_one};
    run(p, &r, n_heads * d);
}

static void rope_one(const rows *r, size_t i) {
    for (size_t h = 0; h < r->heads; h++)
        r->t->rope(r->x + i * r->ldx + h * r->n, r->a + i * r->lda, r->lda / 2);
}

void qn_rope(qn_pool *p, float *x, size_t ldx, const float *cos_sin, size_t m, size_t n_heads,
             size_t d, size_t n_freq) {
    rows r = {.x = x, .ldx = ldx, .a = cos_sin, .lda = 2 * n_freq, .m = m, .n = d,
              .heads = n_heads, .one = rope_one};
    run(p, &r, n_heads * d);
}

static void silu_mul_one(const rows *r, size_t i) {
    r->t->silu_mul(r->a + i * r->lda, r->b + i * r->ldx, r->y + i * r->ldy, r->n);
}

void qn_silu_mul(qn_pool *p, const float *gate, size_t ldg, const float *up, size_t ldu, float *y,
                 size_t ldy, size_t m, size_t n) {
    rows r = {.a = gate, .lda = ldg, .b = up, .ldx = ldu, .y = y, .ldy = ldy, .m = m, .n = n,
              .one = silu_mul_one};
    run(p, &r, n);
}

static void add_one(const rows *r, size_t i) {
    r->t->add(r->x + i * r->ldx, r->a + i * r->lda, r->n);
}

void qn_add(qn_pool *p, float *x, size_t ldx, const float *y, size_t ldy, size_t m, size_t n) {
    rows r = {.x = x, .ldx = ldx, .a = y, .lda = ldy, .m = m, .n = n, .one = add_one};
    run(p, &r, n);
}

static void sigmoid_mul_one(const rows *r, size_t i) {
    r->t->sigmoid_mul(r->x + i * r->ldx, r->a + i * r->lda, r->n);
}

void qn_sigmoid_mul(qn_pool *p, float *x, size_t ldx, const float *g, size_t ldg, size_t m,
                    size_t n) {
    rows r = {.x = x, .ldx = ldx, .a = g, .lda = ldg, .m = m, .n = n, .one = sigmoid_mul_one};
    run(p, &r, n);
}

static void gelu_tanh_one(const rows *r, size_t i) { r->t->gelu_tanh(r->x + i * r->ldx, r->n); }

void qn_gelu_tanh(qn_pool *p, float *x, size_t ldx, size_t m, size_t n) {
    rows r = {.x = x, .ldx = ldx, .m = m, .n = n, .one = gelu_tanh_one};
    run(p, &r, n);
}

static void gelu_erf_one(const rows *r, size_t i) { r->t->gelu_erf(r->x + i * r->ldx, r->n); }

void qn_gelu_erf(qn_pool *p, float *x, size_t ldx, size_t m, size_t n) {
    rows r = {.x = x, .ldx = ldx, .m = m, .n = n, .one = gelu_erf_one};
    run(p, &r, n);
}

void qn_softmax(float *x, size_t n) {
    uint64_t mode = qn_fp_pin();
    qn_table_get()->softmax(x, n);
    qn_fp_restore(mode);
}

float qn_exp(float x) { return exp_one(x); }
float qn_sigmoid(float x) { return sigmoid_one(x); }

// max(x, 0) + log(1 + exp(-|x|)); beyond 20 the second term is below half an ulp.
float qn_softplus(float x) {
    if (x > 20) return x;
    return (x > 0 ? x : 0) + log1p_one(exp_one(x > 0 ? -x : x));
}

size_t qn_argmax(const float *x, size_t n) {
    size_t best = 0;
    bool any = false;
    for (size_t i = 0; i < n; i++)
        if (any ? x[i] > x[best] : x[i] == x[i]) {
            best = i;
            any = true;
        }
    return best;
}

size_t qn_first_nonfinite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((qn_f32_bits(x[i]) & 0x7F800000u) == 0x7F800000u) return i;
    return n;
}
