// A weight beside its reference: how far apart, whether that is what its bit width costs, and if not,
// whether it is a known mix-up: transposed, sign-flipped, shifted, rows or columns in another order.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "quant/check_tensor.h"
#include "quant/measure.h"

enum { PROBES = 16 };

// ---- overall ----

typedef struct job {
    const qn_weight *a, *b;
    size_t rows, cols, block;
    qn_diff *diffs; // per block
    qn_err *errs;   // per block
} job;

static bool fetch(const qn_weight *w, size_t row, size_t n, size_t cols, float *out, qn_err *err) {
    if (w->scheme) return qn_weight_decode(w, row, n, out, err);
    qn_tensor_to_f32(w->parts[0], row * cols, n * cols, out);
    return true;
}

static void diff_block(void *ctx, size_t i, int thread) {
    (void)thread;
    job *j = ctx;
    size_t row = i * j->block, n = j->rows - row < j->block ? j->rows - row : j->block;
    float *a = qn_alloc(n * j->cols * sizeof *a), *b = qn_alloc(n * j->cols * sizeof *b);
    if (fetch(j->a, row, n, j->cols, a, &j->errs[i]) &&
        fetch(j->b, row, n, j->cols, b, &j->errs[i]))
        qn_diff_add(&j->diffs[i], a, b, n * j->cols);
    free(a);
    free(b);
}

static bool measure(qn_pool *pool, job *j, qn_diff *sum, qn_err *err) {
    j->block = ((size_t)1 << 18) / j->cols;
    if (j->block == 0) j->block = 1;
    size_t n = (j->rows + j->block - 1) / j->block;
    j->diffs = QN_NEW_ARRAY(qn_diff, n);
    j->errs = QN_NEW_ARRAY(qn_err, n);
    qn_pool_run(pool, n, diff_block, j);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        if (ok && j->errs[i].code) {
            *err = j->errs[i];
            ok = false;
        }
        qn_diff_merge(sum, &j->diffs[i]);
    }
    free(j->diffs);
    free(j->errs);
    return ok;
}

// ---- mix-ups ----

// Both matrices whole; only looked at when they differ a lot.
typedef struct both {
    float *a, *b;
    size_t rows, cols;
} both;

static double cosine(const float *x, size_t x_step, const float *y, size_t y_step, size_t n) {
    double xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < n; i++) {
        double p = x[i * x_step], q = y[i * y_step];
        if (!isfinite(p) || !isfinite(q)) continue;
        xy += p * q;
        xx += p * p;
        yy += q * q;
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
}

// The line of b that is most like line i of a; lines are rows (step 1) or columns.
static size_t best_line(const both *m, bool by_rows, size_t i, double *best) {
    size_t lines = by_rows ? m->rows : m->cols, n = by_rows ? m->cols : m->rows, at = 0;
    size_t step = by_rows ? 1 : m->cols, jump = by_rows ? m->cols : 1;
    *best = -2;
    for (size_t k = 0; k < lines; k++) {
        double c = cosine(m->a + i * jump, step, m->b + k * jump, step, n);
        if (c > *best) *best = c, at = k;
    }
    return at;
}

// Whether probed lines of a are lines of b elsewhere; *shift gets a common distance, or 0.
static bool lines_moved(const both *m, bool by_rows, size_t *shift) {
    size_t lines = by_rows ? m->rows : m->cols, moved = 0, same_shift = 0, first = 0, probes = 0;
    for (size_t p = 0; p < PROBES && p < lines; p++, probes++) {
        size_t i = (p * lines + lines / 2) / (PROBES < lines ? PROBES : lines) % lines;
        double c;
        size_t k = best_line(m, by_rows, i, &c), distance = (i + lines - k) % lines;
        if (c < 0.97) return false;
        moved += distance != 0;
        if (p == 0) first = distance;
        same_shift += distance == first;
    }
    *shift = same_shift == probes ? first : 0;
    return moved * 2 > probes;
}

static bool is_transposed(const both *m) {
    if (m->rows != m->cols) return false;
    double sum = 0;
    for (size_t p = 0; p < PROBES; p++) {
        size_t i = p * m->rows / PROBES;
        sum += cosine(m->a + i * m->cols, 1, m->b + i, m->cols, m->cols);
    }
    return sum / PROBES > 0.97;
}

static void name_mixup(const both *m, double overall, char text[128]) {
    size_t shift;
    text[0] = 0;
    if (overall < -0.97) {
        snprintf(text, 128, "; it is the reference with its sign flipped");
    } else if (is_transposed(m)) {
        snprintf(text, 128, "; it is the reference transposed");
    } else if (lines_moved(m, true, &shift)) {
        if (shift)
            snprintf(text, 128, "; it is the reference shifted down by %zu rows", shift);
        else
            snprintf(text, 128, "; its rows are the reference's in another order (row-shuffled)");
    } else if (lines_moved(m, false, &shift)) {
        if (shift)
            snprintf(text, 128, "; it is the reference shifted right by %zu columns", shift);
        else
            snprintf(text, 128, "; its columns are the reference's in another order (permuted)");
    }
}

static bool find_mixup(const job *j, double overall, char text[128], qn_err *err) {
    size_t bytes = j->rows * j->cols * sizeof(float);
    both m = {qn_big_alloc(bytes, j->a->name, err), NULL, j->rows, j->cols};
    if (m.a) m.b = qn_big_alloc(bytes, j->b->name, err);
    bool ok = m.b && fetch(j->a, 0, j->rows, j->cols, m.a, err) &&
              fetch(j->b, 0, j->rows, j->cols, m.b, err);
    if (ok) name_mixup(&m, overall, text);
    qn_big_free(m.a, bytes);
    qn_big_free(m.b, bytes);
    return ok;
}

// ---- verdict ----

// Cosine below which a bit width cannot be the reason (facts: Gaussian groups give 0.99998 at 8
// bits, 0.994 at 4, 0.975 at 3; GPTQ's error shifting was seen down to 0.959 and 0.84).
static double limit(const qn_weight *w) {
    if (!w->scheme) return 0.9999;
    if (w->bits >= 8) return 0.999;
    return w->bits >= 4 ? 0.90 : w->bits == 3 ? 0.75 : 0.55;
}

static size_t rows_of(const qn_weight *w) { return qn_weight_count(w) / qn_weight_columns(w); }

static bool say_transposed_shape(const qn_weight *a, const qn_weight *b) {
    return qn_weight_columns(a) == rows_of(b) && qn_weight_columns(b) == rows_of(a);
}

bool qn_check_against(qn_pool *pool, const qn_check_tensor *t, json_t *entry,
                      qn_problems *problems, qn_err *err) {
    const qn_weight *a = t->w, *b = t->reference;
    job j = {.a = a, .b = b, .cols = qn_weight_columns(a)};
    if (qn_weight_count(a) != qn_weight_count(b) || qn_weight_columns(a) != qn_weight_columns(b)) {
        qn_problem_add(problems, QN_ERROR, "differs-from-reference", a->name, t->order,
                       "[%zu, %zu], but the reference has [%zu, %zu]%s", rows_of(a),
                       qn_weight_columns(a), rows_of(b), qn_weight_columns(b),
                       say_transposed_shape(a, b) ? " (transposed)" : "");
        return true;
    }
    j.rows = qn_weight_count(a) / j.cols;
    qn_diff d = {0};
    if (!measure(pool, &j, &d, err)) return false;
    double c = qn_diff_cosine(&d), least = fmin(limit(a), limit(b));
    json_object_set_new(entry, "cosine", qn_json_number(c));
    json_object_set_new(entry, "max_abs_error", qn_json_number(d.max_abs));
    json_object_set_new(entry, "relative_rms", qn_json_number(qn_diff_rel_rms(&d)));
    if (c >= least) return true;
    char mixup[128] = "";
    bool matrix = j.rows > 1 && j.rows * j.cols <= ((size_t)1 << 28);
    if (matrix && !find_mixup(&j, c, mixup, err)) return false;
    qn_problem_add(problems, QN_ERROR, "differs-from-reference", a->name, t->order,
                   "cosine %.6f, expected at least %.4f; relative rms %.3g, max error %.3g%s", c,
                   least, qn_diff_rel_rms(&d), d.max_abs, mixup);
    return true;
}
