// The threaded driver: blocks of outputs times blocks of rows become tasks. A task computes whole
// sums, so neither the split nor the number of threads can change a bit.
#include "kernel/matmul.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/acts.h"
#include "kernel/fp_mode.h"

struct qn_compute {
    qn_pool *pool;
    qn_precision precision;
    struct part *parts; // scratch of qn_matmul_jobs
    size_t cap;
};

qn_compute *qn_compute_new(qn_pool *pool, qn_precision precision) {
    qn_compute *c = QN_NEW(qn_compute);
    c->pool = pool;
    c->precision = precision;
    qn_table_get();
    return c;
}

void qn_compute_free(qn_compute *c) {
    if (!c) return;
    qn_free(c->parts);
    qn_free(c);
}

qn_pool *qn_compute_pool(const qn_compute *c) { return c->pool; }
qn_precision qn_compute_precision(const qn_compute *c) { return c->precision; }

// A job cut into tasks: first … first + n_blocks * n_chunks - 1.
typedef struct part {
    const qn_matmul_job *job;
    const qn_form *form;
    size_t first;
    size_t panels;   // per task
    size_t n_blocks; // of panels
    size_t rows;     // per task
} part;

typedef struct work {
    const qn_table *table;
    bool exact;
    const part *parts;
    size_t n_parts;
} work;

static size_t divide_up(size_t n, size_t by) { return (n + by - 1) / by; }

// Adds the bias and stores the outputs that exist.
static void store(const qn_matmul_job *job, const qn_dot *d, size_t row) {
    size_t o0 = d->panel * QN_PANEL, n = d->n_panels * QN_PANEL;
    if (o0 + n > job->w->rows) n = job->w->rows - o0;
    for (size_t r = 0; r < d->m; r++) {
        const float *from = d->acc + r * d->ldacc;
        float *to = job->y + (row + r) * job->ldy + o0;
        if (job->w->bias)
            for (size_t o = 0; o < n; o++) to[o] = from[o] + job->w->bias[o0 + o];
        else
            memcpy(to, from, n * sizeof *to);
    }
}

// One block of at most QN_DOT_ROWS x QN_DOT_PANELS panels.
static void block(const work *wk, const part *p, qn_dot *d, size_t row) {
    _Alignas(64) float acc[QN_DOT_ROWS * QN_DOT_PANELS * QN_PANEL];
    const qn_form *f = p->form;
    size_t at = p->job->row + row - f->row;
    d->ldacc = d->n_panels * QN_PANEL;
    d->acc = acc;
    memset(acc, 0, d->m * d->ldacc * sizeof *acc);
    d->x = (const char *)f->data + at * f->ld * (f->kind == QN_ACT_S8 ? 1 : sizeof(float));
    d->ldx = f->ld;
    if (f->kind == QN_ACT_S8) {
        d->x_scale = f->scale + at * d->w->n_groups;
        d->x_sum = f->sum + at * d->w->n_groups;
    }
    if (wk->exact || !d->w->format->dot)
        qn_format_dot_exact(wk->table, d);
    else
        d->w->format->dot(wk->table, d);
    store(p->job, d, row);
}

static const part *part_of(const work *wk, size_t task) {
    size_t lo = 0, hi = wk->n_parts;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (wk->parts[mid].first <= task) lo = mid;
        else hi = mid;
    }
    return wk->parts + lo;
}

static void run_task(void *ctx, size_t task, int thread) {
    (void)thread;
    const work *wk = ctx;
    const part *p = part_of(wk, task);
    const qn_matmul_job *job = p->job;
    size_t block_index = (task - p->first) % p->n_blocks, chunk = (task - p->first) / p->n_blocks;
    size_t all = divide_up(job->w->rows, QN_PANEL), from = block_index * p->panels;
    size_t end = chunk * p->rows + p->rows < job->n ? chunk * p->rows + p->rows : job->n;
    qn_dot d = {.w = job->w, .panel = from,
                .n_panels = all - from < p->panels ? all - from : p->panels};
    uint64_t mode = qn_fp_pin();
    for (size_t row = chunk * p->rows; row < end; row += QN_DOT_ROWS) {
        d.m = end - row < QN_DOT_ROWS ? end - row : QN_DOT_ROWS;
        block(wk, p, &d, row);
    }
    qn_fp_restore(mode);
}

// Fewer panels a task when there are too few for all threads; rows are cut when there are many.
#define ROWS_PER_TASK (4 * QN_DOT_ROWS)
static size_t cut(part *p, const qn_matmul_job *job, size_t first, size_t threads) {
    size_t all = divide_up(job->w->rows, QN_PANEL), panels = divide_up(all, 2 * threads);
    p->job = job;
    p->first = first;
    p->panels = panels < QN_DOT_PANELS ? panels : QN_DOT_PANELS;
    p->n_blocks = divide_up(all, p->panels);
    p->rows = job->n < ROWS_PER_TASK ? job->n : ROWS_PER_TASK;
    return first + p->n_blocks * divide_up(job->n, p->rows);
}

void qn_matmul_jobs(qn_acts *a, const qn_matmul_job *jobs, size_t n_jobs) {
    qn_compute *c = qn_acts_compute(a);
    if (c->cap < n_jobs) {
        c->cap = n_jobs + n_jobs / 2 + 4;
        c->parts = qn_realloc(c->parts, c->cap * sizeof *c->parts);
    }
    size_t n = 0, tasks = 0;
    for (size_t i = 0; i < n_jobs; i++) {
        if (!jobs[i].n) continue;
        part *p = &c->parts[n++];
        p->form = qn_acts_form(a, jobs[i].w, jobs[i].row, jobs[i].n);
        tasks = cut(p, &jobs[i], tasks, (size_t)qn_pool_threads(c->pool));
    }
    work wk = {qn_table_get(), c->precision == QN_EXACT, c->parts, n};
    if (n) qn_pool_run(c->pool, tasks, run_task, &wk);
}

void qn_matmul(qn_acts *a, const qn_mat *w, float *y, size_t ldy) {
    qn_matmul_jobs(a, &(qn_matmul_job){.w = w, .n = qn_acts_rows(a), .y = y, .ldy = ldy}, 1);
}
