// The gated delta rule (Yang et al. 2024), token by token. Columns of a state never meet, so a task
// is (run, v-head, slice of columns) and walks all tokens of the run; sums over dk keep their order
// however the columns are cut.
#include <string.h>

#include "kernel/fp_mode.h"
#include "kernel/ops.h"
#include "kernel/table.h"

typedef struct deltas {
    const qn_table *t;
    const qn_delta_run *runs;
    size_t n_k_heads, n_v_heads, dk, dv, slices;
} deltas;

static void save(const deltas *d, const float *state, float *to, size_t n) {
    for (size_t i = 0; i < d->dk; i++)
        memcpy(to + i * d->dv, state + i * d->dv, n * sizeof *to);
}

// 128 rows of one slice stay in the nearest cache while the tokens go by.
static void slice(const deltas *d, const qn_delta_run *run, size_t head, size_t c0) {
    size_t n = d->dv - c0 < QN_DELTA_COLUMNS ? d->dv - c0 : QN_DELTA_COLUMNS;
    size_t k_head = head / (d->n_v_heads / d->n_k_heads), at = head * d->dk * d->dv + c0;
    for (size_t i = 0; i < run->n; i++) {
        const qn_delta_token *tok = run->tokens + i;
        const float *q = tok->q + k_head * d->dk, *k = tok->k + k_head * d->dk;
        size_t v = head * d->dv + c0;
        d->t->delta(&(qn_delta_slice){.state = run->state + at, .dk = d->dk, .dv = d->dv, .n = n,
                                      .q = q, .k = k, .v = tok->v + v,
                                      .decay = tok->decay[head], .beta = tok->beta[head],
                                      .kq = d->t->dot_lanes(k, q, d->dk), .out = tok->out + v});
        if (run->state_after && run->state_after[i])
            save(d, run->state + at, run->state_after[i] + at, n);
    }
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
