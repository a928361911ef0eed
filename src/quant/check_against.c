// A weight beside its reference: how far apart, and whether that is what its bit width costs. If not,
// check_against_mixups.c looks whether it is a known mix-up.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "quant/check_against_codes.h"
#include "quant/check_against_mixups.h"
#include "quant/check_tensor.h"
#include "quant/measure.h"
#include "quant/wrong_codes.h"
#include "store/schemes.h"

// ---- overall ----

typedef struct job {
    const qn_weight *a, *b;
    size_t rows, cols, block;
    double line_least; // cosine of a row below which it is not the reference's row
    qn_diff *diffs; // per block
    struct local {
        size_t bad_rows;
        double in_step, all; // squares of the differences: of the means of short runs, of all
    } *locals;      // per block
    qn_err *errs;   // per block
} job;

// What is lost in the figures of a whole: single rows that are no rows of the reference (tiny ones do
// not count), and differences that go the same way throughout short runs.
static void look_closer(struct local *l, const job *j, const float *a, const float *b, size_t n,
                        double typical) {
    enum { RUN = 32 };
    for (size_t r = 0; r < n; r++, a += j->cols, b += j->cols) {
        double ab = 0, aa = 0, bb = 0;
        for (size_t i = 0; i < j->cols; i++) {
            ab += (double)a[i] * (double)b[i];
            aa += (double)a[i] * (double)a[i];
            bb += (double)b[i] * (double)b[i];
        }
        l->bad_rows += bb > 0.01 * typical && !(ab >= j->line_least * sqrt(aa * bb) && aa > 0);
        for (size_t at = 0; at + RUN <= j->cols; at += RUN) {
            double sum = 0;
            for (size_t i = at; i < at + RUN; i++) {
                double d = (double)a[i] - (double)b[i];
                sum += d;
                l->all += d * d;
            }
            l->in_step += sum * sum / RUN;
        }
    }
}

static void diff_block(void *ctx, size_t i, int thread) {
    (void)thread;
    job *j = ctx;
    size_t row = i * j->block, n = j->rows - row < j->block ? j->rows - row : j->block;
    float *a = qn_alloc(n * j->cols * sizeof *a), *b = qn_alloc(n * j->cols * sizeof *b);
    if (qn_weight_rows(j->a, row, n, a, &j->errs[i]) &&
        qn_weight_rows(j->b, row, n, b, &j->errs[i])) {
        qn_diff_add(&j->diffs[i], a, b, n * j->cols);
        if (j->cols >= 32)
            look_closer(&j->locals[i], j, a, b, n, j->diffs[i].bb / (double)n);
    }
    free(a);
    free(b);
}

typedef struct verdict {
    double cosine, norm; // norm: of a over that of b
    size_t bad_rows;
    double in_step;      // share of the difference that goes the same way in short runs
} verdict;

static bool measure(qn_pool *pool, job *j, qn_diff *sum, verdict *v, qn_err *err) {
    j->block = ((size_t)1 << 18) / j->cols;
    if (j->block == 0) j->block = 1;
    size_t n = (j->rows + j->block - 1) / j->block;
    j->diffs = QN_NEW_ARRAY(qn_diff, n);
    j->locals = QN_NEW_ARRAY(struct local, n);
    j->errs = QN_NEW_ARRAY(qn_err, n);
    qn_pool_run(pool, n, diff_block, j);
    bool ok = true;
    struct local all = {0};
    for (size_t i = 0; i < n; i++) {
        if (ok && j->errs[i].code) {
            if (err) *err = j->errs[i];
            ok = false;
        }
        all.bad_rows += j->locals[i].bad_rows;
        all.in_step += j->locals[i].in_step;
        all.all += j->locals[i].all;
        qn_diff_merge(sum, &j->diffs[i]);
    }
    *v = (verdict){qn_diff_cosine(sum), sum->bb > 0 ? sqrt(sum->aa / sum->bb) : 1, all.bad_rows,
                   all.all > 0 ? all.in_step / all.all : 0};
    free(j->diffs);
    free(j->locals);
    free(j->errs);
    return ok;
}

// ---- mix-ups ----

// Rows of q and k belong to heads, whose dimensions are rotated in pairs.
static bool has_heads(const char *name) {
    static const char *const projections[] = {"q_proj", "k_proj", "qkv"};
    for (size_t i = 0; i < sizeof projections / sizeof *projections; i++)
        if (strstr(name, projections[i])) return true;
    return false;
}

// Both matrices whole; only looked at when they differ a lot.
static bool find_mixup(const job *j, double enough, char text[QN_MIXUP_TEXT], qn_err *err) {
    size_t bytes = j->rows * j->cols * sizeof(float);
    float *a = qn_big_alloc(bytes, j->a->name, err), *b = NULL;
    if (a) b = qn_big_alloc(bytes, j->b->name, err);
    bool ok = b && qn_weight_rows(j->a, 0, j->rows, a, err) &&
              qn_weight_rows(j->b, 0, j->rows, b, err);
    qn_two_matrices m = {a, b, j->rows, j->cols, has_heads(j->b->name), enough};
    if (ok) qn_mixup_name(&m, text);
    qn_big_free(a, bytes);
    qn_big_free(b, bytes);
    return ok;
}

// The same rows of two matrices; false when they cannot be read.
static bool rows_alike(const job *j, const qn_weight *other, double *cosine) {
    float *a = QN_NEW_ARRAY(float, j->cols), *b = QN_NEW_ARRAY(float, j->cols);
    qn_diff d = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < 3; i++) {
        size_t row = i * (j->rows - 1) / 2;
        ok = qn_weight_rows(j->a, row, 1, a, NULL) && qn_weight_rows(other, row, 1, b, NULL);
        if (ok) qn_diff_add(&d, a, b, j->cols);
    }
    *cosine = qn_diff_cosine(&d);
    free(a);
    free(b);
    return ok;
}

static bool is_sibling(const job *j, const qn_weight *w) {
    const qn_tensor *t = w->parts[0];
    return w != j->b && (w->scheme || qn_dtype_is_float(t->dtype)) && t->data &&
           qn_weight_count(w) == j->rows * j->cols && qn_weight_columns(w) == j->cols;
}

// Another weight of the reference, of the same shape, that it is instead. Few rows are looked at of
// most; the budget keeps thousands of wrong experts from being held against thousands of others.
static const char *find_sibling(qn_pool *pool, const job *j, qn_siblings *s, double enough) {
    const qn_weight *list;
    size_t n;
    if (!s || !qn_ckpt_weights(s->model, &list, &n, NULL)) return NULL;
    for (size_t i = 0; i < n && s->left > 0; i++) {
        double cosine;
        if (!is_sibling(j, &list[i]) || !s->left--) continue;
        if (!rows_alike(j, &list[i], &cosine) || cosine < 0.6) continue;
        job other = {.a = j->a, .b = &list[i], .rows = j->rows, .cols = j->cols};
        qn_diff d = {0};
        verdict v;
        if (measure(pool, &other, &d, &v, NULL) && v.cosine >= enough) return list[i].name;
    }
    return NULL;
}

// ---- verdict ----

// What a bit width may cost: the least cosine, of the whole and of a row, and how far the norm may be
// off. Facts: Gaussian groups of 128 give 0.99998 at 8 bits, 0.994 at 4, 0.975 at 3; outliers cost more
// in whole rows and in fp8; GPTQ's error shifting was seen down to 0.959 and 0.84; a clipped scale
// shortens low-bit weights.
typedef struct allowance {
    double cosine, row, norm;
} allowance;

typedef struct outcome {
    qn_diff d;
    verdict v;
    allowance may;
} outcome;

static allowance allowed_bits(int bits, bool fine) {
    static const allowance low[] = {{0.55, 0.2, 0.4}, {0.75, 0.3, 0.25}, {0.90, 0.5, 0.15}};
    if (bits >= 2 && bits <= 4) return low[bits - 2];
    return fine ? (allowance){0.9999, 0.9, 0.01} : (allowance){0.999, 0.9, 0.03};
}

// e4m3 keeps four digits of a value: its error is 2.6 % on the average of all and 3.6 % where every
// value lies just above a power of two, which is a cosine of 0.99935.
static const allowance allowed_fp8 = {0.9993, 0.9, 0.03};

static allowance allowed(const qn_weight *w) {
    bool fp8 = w->scheme && strncmp(w->layout, "fp8", 3) == 0;
    bool fine = !w->scheme || (w->bits == 8 && w->group <= 128 && w->n_groups > 1 && !fp8);
    return allowed_bits(w->scheme ? w->bits : 16, fine);
}

// A plain matrix may have been dequantized; then its codes tell of how many bits, or its values that
// they were e4m3.
static allowance allowed_by_codes(const qn_weight *w) {
    size_t group = 0;
    int bits = w->scheme ? 0 : qn_wrong_codes_bits(w, &group);
    if (bits) return allowed_bits(bits, group <= 128);
    return !w->scheme && qn_looks_fp8(w) ? allowed_fp8 : allowed(w);
}

static allowance looser(allowance a, allowance b) {
    return (allowance){fmin(a.cosine, b.cosine), fmin(a.row, b.row), fmax(a.norm, b.norm)};
}

// Rounding goes either way: what goes one way for long, beyond the rounding of the file, is a shift.
static bool within(const verdict *v, allowance may) {
    return v->cosine >= may.cosine && v->bad_rows == 0 && fabs(v->norm - 1) <= may.norm &&
           (v->in_step < 0.6 || v->cosine > 0.99999);
}

static size_t rows_of(const qn_weight *w) { return qn_weight_count(w) / qn_weight_columns(w); }

static bool say_transposed_shape(const qn_weight *a, const qn_weight *b) {
    return qn_weight_columns(a) == rows_of(b) && qn_weight_columns(b) == rows_of(a);
}

// The right codes with the scales of other groups: fitted to the reference, their scales would leave
// far less of a difference than the stored ones do. For a low width that is near enough otherwise.
static bool wrong_scales(qn_pool *pool, const qn_check_tensor *t, double rms, double *fitted) {
    static const double usual[] = {[3] = 0.24, [4] = 0.11, [5] = 0.06, [6] = 0.03, [7] = 0.015,
                                   [8] = 0.0065};
    const qn_weight *w = t->w;
    if (!w->scheme || w->scheme->floats || w->bits < 3 || rms < 1.4 * usual[w->bits]) return false;
    *fitted = qn_fitted_rms(pool, w, t->reference);
    return *fitted >= 0 && rms >= 1.5 * *fitted && *fitted < 2 * usual[w->bits];
}

static void judge_scales(qn_pool *pool, const qn_check_tensor *t, double rms,
                         qn_problems *problems) {
    double fitted;
    if (!wrong_scales(pool, t, rms, &fitted)) return;
    qn_problem_add(problems, QN_ERROR, "differs-from-reference", t->w->name, t->order,
                   "relative rms %.3g; its codes fit the reference, but not with the scales of their "
                   "groups (best ones: %.3g)", rms, fitted);
}

// A norm of a family that stores them as they are, written as one that stores w - 1, or the reverse.
static bool name_norm(const job *j, char *text) {
    float *a = QN_NEW_ARRAY(float, j->cols), *b = QN_NEW_ARRAY(float, j->cols);
    size_t less = 0, more = 0;
    if (qn_weight_rows(j->a, 0, 1, a, NULL) && qn_weight_rows(j->b, 0, 1, b, NULL))
        for (size_t i = 0; i < j->cols; i++) {
            less += fabs((double)a[i] - (double)b[i] + 1) < 0.01;
            more += fabs((double)a[i] - (double)b[i] - 1) < 0.01;
        }
    free(a);
    free(b);
    if (less * 50 < j->cols * 49 && more * 50 < j->cols * 49) return false;
    snprintf(text, QN_MIXUP_TEXT, "; it is the reference %s 1", more > less ? "plus" : "minus");
    return true;
}

// Low widths have a low limit; what is put right has to be better than that.
static double enough_of(allowance may) { return may.cosine < 0.9 ? may.cosine : 0.9; }

// What happened to it, as words behind the figures. Vectors are too alike for anything but a sibling.
static bool explain(qn_pool *pool, const qn_check_tensor *t, const job *j, const outcome *o,
                    char text[QN_MIXUP_TEXT], qn_err *err) {
    const verdict *v = &o->v;
    allowance may = o->may;
    double fitted;
    bool matrix = j->rows > 1 && j->rows * j->cols <= ((size_t)1 << 28);
    bool scaled = v->cosine >= may.cosine && v->bad_rows == 0 && fabs(v->norm - 1) > may.norm;
    if (scaled)
        snprintf(text, QN_MIXUP_TEXT, "; it is the reference scaled by %.6g", v->norm);
    else if (matrix && !find_mixup(j, enough_of(may), text, err))
        return false;
    if (text[0] || (j->rows == 1 && name_norm(j, text))) return true;
    double enough = matrix ? enough_of(may) : 0.9999;
    const char *sibling = find_sibling(pool, j, t->siblings, enough);
    if (sibling)
        snprintf(text, QN_MIXUP_TEXT, "; it is the reference's %.200s", sibling);
    else if (matrix && wrong_scales(pool, t, qn_diff_rel_rms(&o->d), &fitted))
        snprintf(text, QN_MIXUP_TEXT, "; its codes fit the reference, but not with the scales of their "
                 "groups (relative rms with the best ones: %.3g)", fitted);
    else if (v->bad_rows)
        snprintf(text, QN_MIXUP_TEXT, "; %zu of its rows are quite different", v->bad_rows);
    return true;
}

static bool report(qn_pool *pool, const qn_check_tensor *t, const job *j, const outcome *o,
                   qn_problems *problems, qn_err *err) {
    char text[QN_MIXUP_TEXT] = "";
    if (!explain(pool, t, j, o, text, err)) return false;
    qn_problem_add(problems, QN_ERROR, "differs-from-reference", t->w->name, t->order,
                   "cosine %.6f, expected at least %.4f; relative rms %.3g, max error %.3g%s",
                   o->v.cosine, o->may.cosine, qn_diff_rel_rms(&o->d), o->d.max_abs, text);
    return true;
}

// Codes are looked for only where a plain matrix differs by more than plain ones may.
static bool judge(qn_pool *pool, const qn_check_tensor *t, job *j, json_t *entry,
                  qn_problems *problems, qn_err *err) {
    const qn_weight *a = t->w, *b = t->reference;
    allowance may = looser(allowed(a), allowed(b));
    for (int pass = 0; pass < 2; pass++) {
        outcome o = {.may = may};
        j->line_least = may.row;
        if (!measure(pool, j, &o.d, &o.v, err)) return false;
        double rms = qn_diff_rel_rms(&o.d);
        json_object_set_new(entry, "cosine", qn_json_number(o.v.cosine));
        json_object_set_new(entry, "max_abs_error", qn_json_number(o.d.max_abs));
        json_object_set_new(entry, "relative_rms", qn_json_number(rms));
        if (within(&o.v, may)) {
            judge_scales(pool, t, rms, problems);
            return true;
        }
        if (pass == 1 || (a->scheme && b->scheme)) return report(pool, t, j, &o, problems, err);
        may = looser(allowed_by_codes(a), allowed_by_codes(b));
    }
    return true;
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
    return judge(pool, t, &j, entry, problems, err);
}
