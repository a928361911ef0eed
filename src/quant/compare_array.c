// Two matrices walked side by side in blocks of rows; blocks are measured in parallel and merged
// in order, so a figure does not depend on the thread count. A plain vector is cut like a matrix of
// one column, so that no row is too long for a buffer.
#include "quant/compare_array.h"

#include <math.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "quant/compare_file.h"

#define BLOCK_FLOATS ((size_t)1 << 18)

qn_array qn_array_of_tensor(const qn_tensor *t) {
    size_t cols = qn_tensor_cols(t);
    return (qn_array){.tensor = t, .rows = qn_tensor_rows(t), .cols = cols, .stride = cols};
}

qn_array qn_array_of_weight(const qn_weight *w) {
    if (!w->scheme) return qn_array_of_tensor(w->parts[0]);
    return (qn_array){.weight = w, .rows = w->rows, .cols = w->cols, .stride = w->cols};
}

// Rows that follow each other where they are stored.
static bool stored_rows(const qn_array *a, size_t row, size_t n, float *out, qn_err *err) {
    if (a->weight) return qn_weight_decode(a->weight, row, n, out, err);
    if (a->cols == a->stride)
        qn_tensor_to_f32(a->tensor, row * a->stride, n * a->cols, out);
    for (size_t i = 0; a->cols != a->stride && i < n; i++)
        qn_tensor_to_f32(a->tensor, (row + i) * a->stride, a->cols, out + i * a->cols);
    return true;
}

bool qn_array_rows(const qn_array *a, size_t row, size_t n, float *out, qn_err *err) {
    if (!a->order) return stored_rows(a, a->row0 + row, n, out, err);
    for (size_t i = 0, step; i < n; i += step) {
        size_t from = a->order[row + i];
        for (step = 1; i + step < n && a->order[row + i + step] == from + step;) step++;
        if (!stored_rows(a, from, step, out + i * a->cols, err)) return false;
    }
    return true;
}

void qn_side_add(qn_side *s, uint64_t at, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (isfinite(x[i])) continue;
        if (s->n++) continue;
        s->first = at + i;
        s->value = x[i];
    }
}

void qn_side_merge(qn_side *s, const qn_side *next) {
    if (!s->n && next->n) {
        s->first = next->first;
        s->value = next->value;
    }
    s->n += next->n;
}

const char *qn_side_value(const qn_side *s) {
    return isnan(s->value) ? "nan" : s->value > 0 ? "inf" : "-inf";
}

// ---- two arrays, block by block ----

typedef struct walk walk;
typedef void (*block_fn)(walk *w, size_t block, size_t at, size_t n); // elements at … at + n - 1

struct walk {
    qn_array side[2];
    size_t block, n_blocks; // rows per block
    float **buffer[2];      // per thread
    qn_err *errs;           // per block: the first in order is reported
    block_fn fn;
    void *result;           // per block
    const float *x[2];      // set for the callback: one copy of walk per call
};

static void one_block(void *ctx, size_t i, int thread) {
    walk w = *(const walk *)ctx;
    size_t row = i * w.block, rows = w.side[0].rows - row, cols = w.side[0].cols;
    if (rows > w.block) rows = w.block;
    for (int s = 0; s < 2; s++) {
        float *out = w.buffer[s][thread];
        if (!qn_array_rows(&w.side[s], row, rows, out, &w.errs[i])) return;
        w.x[s] = out;
    }
    w.fn(&w, i, row * cols, rows * cols);
}

// A long plain vector becomes a column, so that it is cut too.
static qn_array stand_up(const qn_array *a, bool both_plain) {
    qn_array v = *a;
    if (both_plain && a->rows == 1)
        v.rows = a->cols, v.cols = v.stride = 1;
    return v;
}

static bool walk_init(walk *w, qn_pool *pool, const qn_array *a, const qn_array *b, qn_err *err) {
    bool plain = a->tensor && b->tensor && a->cols == a->stride && b->cols == b->stride &&
                 a->row0 == 0 && b->row0 == 0 && !a->order && !b->order;
    size_t threads = (size_t)qn_pool_threads(pool);
    w->side[0] = stand_up(a, plain);
    w->side[1] = stand_up(b, plain);
    size_t cols = w->side[0].cols ? w->side[0].cols : 1;
    w->block = BLOCK_FLOATS / cols ? BLOCK_FLOATS / cols : 1;
    if (w->block > w->side[0].rows) w->block = w->side[0].rows ? w->side[0].rows : 1;
    w->n_blocks = (w->side[0].rows + w->block - 1) / w->block;
    w->errs = QN_NEW_ARRAY(qn_err, w->n_blocks);
    for (int s = 0; s < 2; s++) {
        w->buffer[s] = QN_NEW_ARRAY(float *, threads);
        for (size_t i = 0; i < threads; i++)
            if (!(w->buffer[s][i] = qn_big_alloc(w->block * cols * sizeof(float), "comparing",
                                                 err)))
                return false;
    }
    return true;
}

static void walk_done(walk *w, qn_pool *pool) {
    size_t cols = w->side[0].cols ? w->side[0].cols : 1;
    for (int s = 0; s < 2; s++) {
        for (int i = 0; w->buffer[s] && i < qn_pool_threads(pool); i++)
            qn_big_free(w->buffer[s][i], w->block * cols * sizeof(float));
        free(w->buffer[s]);
    }
    free(w->errs);
}

static bool walk_run(walk *w, qn_pool *pool, qn_err *err) {
    qn_pool_run(pool, w->n_blocks, one_block, w);
    for (size_t i = 0; i < w->n_blocks; i++)
        if (w->errs[i].code) {
            if (err) *err = w->errs[i];
            return false;
        }
    return true;
}

// ---- figures ----

static void figure_block(walk *w, size_t block, size_t at, size_t n) {
    qn_array_figures *f = (qn_array_figures *)w->result + block;
    qn_diff_add(&f->diff, w->x[0], w->x[1], n);
    for (int s = 0; s < 2; s++) qn_side_add(&f->side[s], at, w->x[s], n);
}

bool qn_array_compare(qn_pool *pool, const qn_array *a, const qn_array *b, qn_array_figures *out,
                      qn_err *err) {
    walk w = {.fn = figure_block};
    *out = (qn_array_figures){0};
    bool ok = walk_init(&w, pool, a, b, err);
    qn_array_figures *all = QN_NEW_ARRAY(qn_array_figures, w.n_blocks);
    w.result = all;
    ok = ok && walk_run(&w, pool, err);
    for (size_t i = 0; ok && i < w.n_blocks; i++) {
        qn_diff_merge(&out->diff, &all[i].diff);
        for (int s = 0; s < 2; s++) qn_side_merge(&out->side[s], &all[i].side[s]);
    }
    free(all);
    walk_done(&w, pool);
    return ok;
}

// ---- histogram ----

static void stats_block(walk *w, size_t block, size_t at, size_t n) {
    (void)at;
    qn_stats *s = (qn_stats *)w->result + 2 * block;
    for (int i = 0; i < 2; i++) qn_stats_add(&s[i], w->x[i], n);
}

static void count_block(walk *w, size_t block, size_t at, size_t n) {
    (void)at;
    qn_histogram *h = (qn_histogram *)w->result + block;
    double scale = h->high > h->low ? QN_BINS / (h->high - h->low) : 0;
    for (int s = 0; s < 2; s++)
        for (size_t i = 0; i < n; i++) {
            if (!isfinite(w->x[s][i])) continue;
            double at_bin = ((double)w->x[s][i] - h->low) * scale;
            int bin = at_bin < 0 ? 0 : at_bin >= QN_BINS ? QN_BINS - 1 : (int)at_bin;
            h->count[s][bin]++;
        }
}

static void choose_range(const qn_stats s[2], qn_histogram *h) {
    double low[2], high[2];
    for (int i = 0; i < 2; i++) {
        double reach = 5 * qn_stats_std(&s[i]);
        low[i] = fmax(s[i].min, s[i].mean - reach);
        high[i] = fmin(s[i].max, s[i].mean + reach);
        if (s[i].n == s[i].n_nonfinite) low[i] = high[i] = NAN; // fmin, fmax: the other side counts
    }
    h->low = fmin(low[0], low[1]);
    h->high = fmax(high[0], high[1]);
    if (isnan(h->low)) h->low = h->high = 0;
    if (h->high > h->low) return;
    h->low -= 0.5; // one value only: it stands in the middle
    h->high += 0.5;
}

bool qn_array_histogram(qn_pool *pool, const qn_array *a, const qn_array *b, qn_histogram *out,
                        qn_err *err) {
    walk w = {.fn = stats_block};
    qn_stats sum[2] = {{0}, {0}};
    *out = (qn_histogram){0};
    bool ok = walk_init(&w, pool, a, b, err);
    qn_stats *stats = QN_NEW_ARRAY(qn_stats, 2 * w.n_blocks);
    qn_histogram *parts = QN_NEW_ARRAY(qn_histogram, w.n_blocks);
    w.result = stats;
    ok = ok && walk_run(&w, pool, err);
    for (size_t i = 0; ok && i < 2 * w.n_blocks; i++) qn_stats_merge(&sum[i % 2], &stats[i]);
    if (ok) choose_range(sum, out);
    for (size_t i = 0; i < w.n_blocks; i++) parts[i] = *out;
    w.fn = count_block;
    w.result = parts;
    ok = ok && walk_run(&w, pool, err);
    for (size_t i = 0; ok && i < w.n_blocks; i++)
        for (int k = 0; k < 2 * QN_BINS; k++)
            out->count[k / QN_BINS][k % QN_BINS] += parts[i].count[k / QN_BINS][k % QN_BINS];
    free(parts);
    free(stats);
    walk_done(&w, pool);
    return ok;
}
