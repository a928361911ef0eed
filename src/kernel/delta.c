// The gated delta rule (Yang et al. 2024), token by token. Columns of a state never meet, so a task
// is (run, v-head, slice of columns) and walks all tokens of the run; sums over dk keep their order
// however the columns are cut.
#include <string.h>

#include "kernel/fp_mode.h"
#include "kernel/ops.h"
#include "kernel/table.h"

#define NEAR_TOKENS 4
#define NEAR_ROWS 128

typedef struct deltas {
    const qn_table *t;
    const qn_delta_run *runs;
    size_t n_k_heads, n_v_heads, dk, dv, slices;
} deltas;

// n columns of a state, from rows of one stride to rows of another.
static void copy(const deltas *d, const float *from, size_t from_stride, float *to,
                 size_t to_stride, size_t n) {
    for (size_t i = 0; i < d->dk; i++)
        memcpy(to + i * to_stride, from + i * from_stride, n * sizeof *to);
}

// A slice stays in the nearest cache while the tokens go by; for more than a few of them it is put
// together first, as rows that lie apart by a power of two push each other out.
static void slice(const deltas *d, const qn_delta_run *run, size_t head, size_t c0) {
    _Alignas(64) float near[NEAR_ROWS * QN_DELTA_COLUMNS];
    size_t n = d->dv - c0 < QN_DELTA_COLUMNS ? d->dv - c0 : QN_DELTA_COLUMNS;
    size_t k_head = head / (d->n_v_heads / d->n_k_heads), at = head * d->dk * d->dv + c0;
    bool together = run->n >= NEAR_TOKENS && d->dk <= NEAR_ROWS;
    float *state = together ? near : run->state + at;
    size_t stride = together ? n : d->dv;
    if (together) copy(d, run->state + at, d->dv, near, n, n);
    for (size_t i = 0; i < run->n; i++) {
        const qn_delta_token *tok = run->tokens + i;
        const float *q = tok->q + k_head * d->dk, *k = tok->k + k_head * d->dk;
        size_t v = head * d->dv + c0;
        d->t->delta(&(qn_delta_slice){.state = state, .dk = d->dk, .dv = stride, .n = n,
                                      .q = q, .k = k, .v = tok->v + v,
                                      .decay = tok->decay[head], .beta = tok->beta[head],
                                      .kq = d->t->dot_lanes(k, q, d->dk), .out = tok->out + v});
        if (run->state_after && run->state_after[i])
            copy(d, state, stride, run->state_after[i] + at, d->dv, n);
    }
    if (together) copy(d, near, n, run->state + at, d->dv, n);
}

static void run_task(void *ctx, size_t task, int thread) {
    (void)thread;
    const deltas *d = ctx;
    size_t per_run = d->n_v_heads * d->slices, in_run = task % per_run;
    uint64_t mode = qn_fp_pin();
    slice(d, d->runs + task / per_run, in_run / d->slices, in_run % d->slices * QN_DELTA_COLUMNS);
    qn_fp_restore(mode);
}

void qn_delta_rule(qn_pool *p, const qn_delta_run *runs, size_t n_runs, size_t n_k_heads,
                   size_t n_v_heads, size_t dk, size_t dv) {
    deltas d = {qn_table_get(), runs, n_k_heads, n_v_heads, dk, dv,
                (dv + QN_DELTA_COLUMNS - 1) / QN_DELTA_COLUMNS};
    qn_pool_run(p, n_runs * n_v_heads * d.slices, run_task, &d);
}
