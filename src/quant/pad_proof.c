// Proving a padded checkpoint. What was not padded is a copy, byte for byte; a padded matrix holds
// the old values at their new places and zeros elsewhere; and each MLP, fed the same input, gives the
// same output: y = down (silu(gate x) * (up x)), summed in input order with fused multiply-add as
// exact precision does, so that tail padding must agree bit for bit. Streamed: one row at a time of
// each matrix. Running the whole models is pad_forward.c's.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "quant/pad_plan.h"

typedef struct proof {
    const qn_pad_subject *subject;
    qn_ckpt *written;
    qn_pool *pool;
    uint64_t identical, rows, mismatches, mlps;
    uint64_t zero_scales, old_zero_scales; // in all that was written; of those, the source's own
    const char *first_zero_scale;          // a weight of the source that has one
    double worst; // of the MLP outputs, relative to their largest
    bool bit_equal;
} proof;

// What has been compared need not stay in this process's memory; the page cache keeps it.
static void let_go(const qn_ckpt *c, const qn_weight *w) {
    for (int i = 0; i < QN_MAX_PARTS; i++) {
        const qn_tensor *t = w->parts[i];
        if (t) qn_map_dont_need(qn_ckpt_shard_map(c, (size_t)t->shard), t->offset, t->bytes);
    }
}

// ---- scales ----

static bool zero_scales_of(const qn_weight *w, uint64_t *n, qn_err *err) {
    if (!w->scheme) return true;
    enum { AT_ONCE = 256 };
    float *scales = QN_NEW_ARRAY(float, AT_ONCE * w->n_groups);
    bool ok = true;
    for (size_t r = 0, rows; ok && r < w->rows; r += rows) {
        rows = w->rows - r < AT_ONCE ? w->rows - r : AT_ONCE;
        ok = qn_weight_codes(w, r, rows, NULL, scales, NULL, err);
        for (size_t i = 0; ok && i < rows * w->n_groups; i++) *n += scales[i] == 0;
    }
    free(scales);
    return ok;
}

static bool count_zero_scales(proof *v, const qn_weight *before, const qn_weight *after,
                              qn_err *err) {
    uint64_t old = 0;
    if (!zero_scales_of(before, &old, err) || !zero_scales_of(after, &v->zero_scales, err))
        return false;
    if (old && !v->first_zero_scale) v->first_zero_scale = before->name;
    v->old_zero_scales += old;
    return true;
}

// ---- copies ----

static bool same_tensor(const qn_tensor *a, const qn_tensor *b) {
    return a->dtype == b->dtype && a->n_dims == b->n_dims && a->bytes == b->bytes &&
           memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof *a->shape) == 0 &&
           memcmp(a->data, b->data, a->bytes) == 0;
}

// The parts of a weight that was not padded.
static bool compare_copy(proof *v, const qn_weight *before, qn_err *err) {
    const qn_weight *after = qn_ckpt_weight(v->written, before->name);
    for (int i = 0; i < QN_MAX_PARTS; i++) {
        const qn_tensor *a = before->parts[i], *b = after ? after->parts[i] : NULL;
        if (a && (!b || !same_tensor(a, b)))
            return qn_fail(err, QN_INPUT, "proof: tensor %s is not the copy that it should be",
                           a->name);
        v->identical += a != NULL;
    }
    bool ok = count_zero_scales(v, before, after, err);
    let_go(v->subject->source->ckpt, before);
    let_go(v->written, after);
    return ok;
}

// +0 and -0 are one value; anything else has to agree in every bit.
static bool same(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0 || (a == 0 && b == 0);
}

// ---- values at their places ----

typedef struct pair {
    const qn_weight *before, *after;
    qn_pad_axis axis;
    const qn_pad_size *size;
    uint64_t *bad; // per row of `after`
    qn_err *errs;  // per thread
} pair;

static size_t old_row(const pair *p, size_t row) {
    const qn_pad_size *z = p->size;
    if (p->axis == QN_PAD_ROWS) return qn_pad_source(z, row);
    if (p->axis != QN_PAD_FUSED_ROWS) return row;
    size_t k = qn_pad_source(z, row % z->to);
    return k == SIZE_MAX ? SIZE_MAX : row / z->to * z->from + k;
}

static void compare_row(void *ctx, size_t row, int thread) {
    pair *p = ctx;
    size_t from = old_row(p, row), cols = p->after->cols;
    bool wide = p->axis == QN_PAD_COLS || p->axis == QN_PAD_FUSED_COLS;
    float *after = QN_NEW_ARRAY(float, cols), *before = QN_NEW_ARRAY(float, p->before->cols);
    qn_err *err = &p->errs[thread];
    if (!err->code && qn_weight_decode(p->after, row, 1, after, err) &&
        (from == SIZE_MAX || qn_weight_decode(p->before, from, 1, before, err)))
        for (size_t c = 0; c < cols; c++) {
            size_t k = wide ? qn_pad_source(p->size, c) : c;
            float expected = from == SIZE_MAX || k == SIZE_MAX ? 0 : before[k];
            p->bad[row] += !same(after[c], expected);
        }
    free(after);
    free(before);
}

static bool compare_values(proof *v, const qn_weight *before, const qn_weight *after,
                           qn_pad_axis axis, const qn_pad_size *size, qn_err *err) {
    pair p = {before, after, axis, size, QN_NEW_ARRAY(uint64_t, after->rows),
              QN_NEW_ARRAY(qn_err, (size_t)qn_pool_threads(v->pool))};
    qn_pool_run(v->pool, after->rows, compare_row, &p);
    bool ok = true;
    for (int i = 0; ok && i < qn_pool_threads(v->pool); i++)
        if (p.errs[i].code) {
            *err = p.errs[i];
            ok = false;
        }
    for (size_t r = 0; r < after->rows; r++) v->mismatches += p.bad[r];
    v->rows += after->rows;
    free(p.bad);
    free(p.errs);
    return ok;
}

// ---- one MLP ----

typedef struct slice { // rows of a weight: a matrix, or one expert's of a fused tensor
    const qn_weight *w;
    size_t row0, rows;
} slice;

typedef struct mlp {
    slice gate, up, down;
} mlp;

typedef struct product {
    slice s;
    const float *x;
    float *y;
    qn_err *errs;
} product;

static void dot_row(void *ctx, size_t row, int thread) {
    product *p = ctx;
    const qn_weight *w = p->s.w;
    float *line = QN_NEW_ARRAY(float, w->cols), acc = 0;
    if (!p->errs[thread].code && qn_weight_decode(w, p->s.row0 + row, 1, line, &p->errs[thread]))
        for (size_t i = 0; i < w->cols; i++) acc = fmaf(p->x[i], line[i], acc);
    p->y[row] = acc;
    free(line);
}

static bool multiply(proof *v, slice s, const float *x, float *y, qn_err *err) {
    product p = {s, x, y, QN_NEW_ARRAY(qn_err, (size_t)qn_pool_threads(v->pool))};
    qn_pool_run(v->pool, s.rows, dot_row, &p);
    bool ok = true;
    for (int i = 0; ok && i < qn_pool_threads(v->pool); i++)
        if (p.errs[i].code) {
            *err = p.errs[i];
            ok = false;
        }
    free(p.errs);
    return ok;
}

// y [hidden] of one MLP.
static bool run_mlp(proof *v, const mlp *m, const float *x, float *y, qn_err *err) {
    size_t n = m->gate.rows;
    float *gate = QN_NEW_ARRAY(float, n), *up = QN_NEW_ARRAY(float, n);
    bool ok = multiply(v, m->gate, x, gate, err) && multiply(v, m->up, x, up, err);
    for (size_t i = 0; ok && i < n; i++) gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
    ok = ok && multiply(v, m->down, gate, y, err);
    free(gate);
    free(up);
    return ok;
}

static bool compare_mlp(proof *v, const mlp *before, const mlp *after, qn_err *err) {
    size_t hidden = v->subject->source->config.hidden_size;
    float *x = QN_NEW_ARRAY(float, 3 * hidden), *a = x + hidden, *b = a + hidden;
    for (size_t i = 0; i < hidden; i++) x[i] = (float)qn_rng_normal(7, v->mlps, i);
    bool ok = run_mlp(v, before, x, a, err) && run_mlp(v, after, x, b, err);
    double largest = 0, off = 0;
    for (size_t i = 0; ok && i < hidden; i++) {
        largest = fmax(largest, fabs((double)a[i]));
        off = fmax(off, fabs((double)a[i] - (double)b[i]));
        v->bit_equal &= same(a[i], b[i]);
    }
    if (largest > 0 && off / largest > v->worst) v->worst = off / largest;
    v->mlps++;
    free(x);
    return ok;
}

static const qn_weight *sibling(qn_ckpt *c, const qn_weight *down, const char *end,
                                const char *name, qn_err *err) {
    char *full = qn_strf("%.*s%s", (int)(strlen(down->name) - strlen(end)), down->name, name);
    const qn_weight *w = qn_ckpt_weight(c, full);
    if (!w) qn_fail(err, QN_NOT_FOUND, "proof: tensor %s is missing", full);
    free(full);
    return w;
}

// The MLP that `down` closes; of a fused tensor its e-th expert.
static bool mlp_of(qn_ckpt *c, const qn_weight *down, size_t e, mlp *m, qn_err *err) {
    const char *end = "down_proj.weight";
    if (!qn_str_ends(down->name, end)) {
        const qn_weight *both = sibling(c, down, "down_proj", "gate_up_proj", err);
        size_t n = down->cols, hidden = down->parts[0]->shape[1];
        if (both)
            *m = (mlp){{both, 2 * e * n, n}, {both, (2 * e + 1) * n, n}, {down, e * hidden, hidden}};
        return both != NULL;
    }
    const qn_weight *gate = sibling(c, down, end, "gate_proj.weight", err);
    const qn_weight *up = gate ? sibling(c, down, end, "up_proj.weight", err) : NULL;
    if (up) *m = (mlp){{gate, 0, gate->rows}, {up, 0, up->rows}, {down, 0, down->rows}};
    return up != NULL;
}

static bool compare_mlps(proof *v, const qn_weight *before, const qn_weight *after, qn_err *err) {
    size_t n = qn_str_ends(before->name, ".weight") ? 1 : before->parts[0]->shape[0];
    for (size_t e = 0; e < n; e++) {
        mlp a, b;
        if (!mlp_of(v->subject->source->ckpt, before, e, &a, err) ||
            !mlp_of(v->written, after, e, &b, err) || !compare_mlp(v, &a, &b, err))
            return false;
    }
    return true;
}

// ---- all of it ----

static bool compare_padded(proof *v, const qn_weight *before, qn_pad_axis axis,
                           const qn_pad_size *size, qn_err *err) {
    const qn_weight *after = qn_ckpt_weight(v->written, before->name);
    if (!after) return qn_fail(err, QN_NOT_FOUND, "proof: tensor %s is missing", before->name);
    bool closes = axis == QN_PAD_COLS || axis == QN_PAD_FUSED_COLS; // down_proj does
    bool ok = compare_values(v, before, after, axis, size, err) &&
              count_zero_scales(v, before, after, err) &&
              (!closes || compare_mlps(v, before, after, err));
    let_go(v->subject->source->ckpt, before);
    let_go(v->written, after);
    return ok;
}

static bool prove_all(proof *v, qn_err *err) {
    const qn_source_model *m = v->subject->source;
    for (size_t i = 0; i < m->n_weights; i++) {
        const qn_expected *e = qn_layout_find(&m->layout, m->weights[i]->name);
        const qn_pad_size *size = NULL;
        qn_pad_axis axis = e ? qn_pad_axis_of(e, v->subject->sizes, &size) : QN_PAD_NONE;
        if (axis == QN_PAD_NONE ? !compare_copy(v, m->weights[i], err)
                                : !compare_padded(v, m->weights[i], axis, size, err))
            return false;
    }
    return true;
}

static bool judge(const proof *v, qn_err *err) {
    bool tail = v->subject->sizes[0].layout == QN_PAD_TAIL;
    if (v->mismatches)
        return qn_fail(err, QN_INPUT, "proof: %llu value%s not where %s should be",
                       (unsigned long long)v->mismatches, v->mismatches == 1 ? " is" : "s are",
                       v->mismatches == 1 ? "it" : "they");
    if (v->zero_scales > v->old_zero_scales)
        return qn_fail(err, QN_INPUT, "proof: %llu padded group%s scale 0",
                       (unsigned long long)(v->zero_scales - v->old_zero_scales),
                       v->zero_scales - v->old_zero_scales == 1 ? " has" : "s have");
    if ((tail && !v->bit_equal) || v->worst > 1e-5)
        return qn_fail(err, QN_INPUT, "proof: an MLP's output changed by %g of its largest value",
                       v->worst);
    return true;
}

static void add(json_t *o, const char *key, uint64_t n) {
    json_object_set_new(o, key, json_integer((json_int_t)n));
}

static json_t *told(const proof *v) {
    json_t *o = json_object();
    bool padded = v->rows > 0;
    json_object_set_new(o, "decoder", json_string(padded ?
        "every padded row against its source, copied bytes, and every MLP's output on a random "
        "input" : "every byte of every tensor against the source"));
    add(o, "tensors_identical", v->identical);
    if (padded) add(o, "rows_checked", v->rows);
    add(o, "mismatches", v->mismatches);
    if (!padded) return o;
    add(o, "mlps_compared", v->mlps);
    json_object_set_new(o, "mlp_outputs_bit_equal", json_boolean(v->bit_equal));
    json_object_set_new(o, "mlp_max_relative_difference", json_real(v->worst));
    if (v->subject->n_quantized) add(o, "zero_scales", v->zero_scales);
    if (v->old_zero_scales) add(o, "zero_scales_of_the_source", v->old_zero_scales);
    return o;
}

// The last part: nothing that was opened for the others is held meanwhile.
static bool run_models(const qn_pad_subject *s, bool fits, const char *dir, json_t *told,
                       qn_err *err) {
    json_t *result = NULL;
    if (!fits && !s->forward)
        result = json_string("not made: it would take more memory than padding may (the largest "
                             "tensor as float and 256 MB); --forward makes it");
    bool ok = result || qn_pad_forward(s, dir, &result, err);
    if (result) json_object_set_new(told, "forward", result);
    return ok;
}

bool qn_pad_prove(void *subject, const char *dir, json_t *report, qn_err *err) {
    proof v = {.subject = subject, .bit_equal = true};
    const qn_weight *list;
    size_t n;
    v.written = qn_ckpt_open(dir, 0, err);
    v.pool = qn_pool_new(v.subject->n_threads, err);
    bool ok = v.written && v.pool && qn_ckpt_weights(v.written, &list, &n, err) &&
              prove_all(&v, err) && judge(&v, err);
    bool fits = ok && qn_pad_forward_fits(list, n, v.subject->source->config.vocab_size);
    qn_pool_free(v.pool);
    qn_ckpt_free(v.written);
    if (!ok) return false;
    if (v.old_zero_scales)
        qn_note("%llu groups of the source have scale 0 and were left so, the first in %s; kernels "
                "that divide by scales make nan of them",
                (unsigned long long)v.old_zero_scales, v.first_zero_scale);
    json_t *o = told(&v), *summary = json_object_get(report, "summary");
    json_object_set_new(report, "independent_check", o);
    add(summary, "quantized", v.subject->n_quantized);
    add(summary, "padded", v.subject->n_padded);
    return v.rows == 0 || run_models(v.subject, fits, dir, o, err);
}
