// Logits of two dumps, position by position: differences, divergence, and whether the same tokens
// are likeliest. The draft layer's are measured like the model's own. Owns also how two tensors of
// a dump are laid over each other: one row against many is the last position against the last.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/compare_parts.h"

enum { ROWS_AT_ONCE = 64 };
static const size_t top_of[QN_N_TOP] = {1, 5, 10};
static const char *const top_key[QN_N_TOP] = {"top1", "top5", "top10"};

bool qn_compare_is_logits(const char *name) {
    return strcmp(name, "logits") == 0 || strcmp(name, "mtp.logits") == 0;
}

// ---- what belongs together ----

static bool is_empty(const char *path, const qn_tensor *t, qn_err *err) {
    if (t->n) return false;
    qn_fail(err, QN_INPUT, "%s: tensor %s is empty", path, t->name);
    return true;
}

// Fewer columns on one side are vocabulary padding on the other, for logits: a few, not most.
static bool pair_columns(qn_comparison *c, qn_array v[2], bool padding, const char *name,
                         qn_err *err) {
    size_t a = v[0].cols, b = v[1].cols, least = a < b ? a : b;
    if (a == b) return true;
    if (!padding || least < (a > b ? a : b) / 2)
        return qn_fail(err, QN_INPUT, "tensor %s: %zu columns in %s, expected the %zu of %s", name,
                       a, c->file[0].path, b, c->file[1].path);
    v[0].cols = v[1].cols = least;
    c->partial = true;
    qn_compare_note(c, qn_strf("%s: A has %zu columns, B has %zu; the first %zu are compared", name,
                               a, b, least),
                    qn_strf("%s：A 有 %zu 列，B 有 %zu 列；只比较前 %zu 列", name, a, b, least));
    return true;
}

static bool pair_rows(qn_comparison *c, const char *name, qn_array v[2], qn_err *err) {
    size_t rows[2] = {v[0].rows, v[1].rows};
    if (rows[0] == rows[1]) return true;
    if (rows[0] != 1 && rows[1] != 1)
        return qn_fail(err, QN_INPUT, "tensor %s: %zu positions in %s, expected the %zu of %s, or "
                       "the last one alone%s", name, rows[0], c->file[0].path, rows[1],
                       c->file[1].path, rows[0] == v[1].cols && rows[1] == v[0].cols ?
                       " (one is the other's shape transposed)" : "");
    int longer = rows[1] > rows[0];
    v[longer].row0 = rows[longer] - 1;
    v[longer].rows = 1;
    c->alone[1 - longer]++;
    c->beside[1 - longer] = rows[longer];
    c->partial = true;
    return true;
}

static void mind_type(qn_comparison *c, const qn_tensor *t) {
    if (qn_tensor_fits_f32(t)) return;
    if (!c->n_wide++) c->wide = t;
    c->partial = true;
}

bool qn_compare_pair(qn_comparison *c, const qn_tensor *a, const qn_tensor *b, qn_array v[2],
                     qn_err *err) {
    if (is_empty(c->file[0].path, a, err) || is_empty(c->file[1].path, b, err)) return false;
    v[0] = qn_array_of_tensor(a);
    v[1] = qn_array_of_tensor(b);
    mind_type(c, a);
    mind_type(c, b);
    if (!pair_rows(c, a->name, v, err)) return false;
    return pair_columns(c, v, qn_compare_is_logits(a->name), a->name, err);
}

// ---- one position ----

typedef struct position {
    qn_diff diff;
    qn_side side[2];
    double kl, top[QN_N_TOP];
    size_t best[2];   // SIZE_MAX: nothing but NaN
    size_t hidden[2]; // a column that is not compared and larger than all that are, or 0
} position;

typedef struct rows {
    qn_array v[2];
    size_t from;      // first position of this round
    position *out;    // per position
    float **row[2];   // per thread
    double **log_p[2];
} rows;

// Engines that pad the vocabulary give -inf to what no token is: equal on both sides, it is fine.
static void find_nonfinite(position *p, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (isfinite(a[i]) && isfinite(b[i])) continue;
        if (a[i] == b[i] && a[i] < 0) continue;
        qn_side_add(&p->side[0], i, a + i, 1);
        qn_side_add(&p->side[1], i, b + i, 1);
    }
}

static size_t largest(const float *x, size_t n) {
    size_t at = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[at] || isnan(x[at])) at = i;
    return isnan(x[at]) ? SIZE_MAX : at;
}

// The columns behind those compared are fewer than they are, so their room will do; x is lost.
static size_t hidden_largest(const qn_array *a, size_t row, size_t best, float *x) {
    size_t n = a->stride - a->cols;
    if (n == 0 || n > a->cols || best == SIZE_MAX) return 0;
    float most = x[best];
    qn_tensor_to_f32(a->tensor, (a->row0 + row) * a->stride + a->cols, n, x);
    size_t at = largest(x, n);
    return at != SIZE_MAX && x[at] > most ? a->cols + at : 0;
}

static void one_position(void *ctx, size_t i, int thread) {
    rows *l = ctx;
    size_t n = l->v[0].cols;
    float *a = l->row[0][thread], *b = l->row[1][thread];
    position *p = &l->out[l->from + i];
    qn_array_rows(&l->v[0], l->from + i, 1, a, NULL); // plain tensors cannot fail
    qn_array_rows(&l->v[1], l->from + i, 1, b, NULL);
    qn_diff_add(&p->diff, a, b, n);
    find_nonfinite(p, a, b, n);
    for (int k = 0; k < QN_N_TOP; k++) p->top[k] = qn_topk_agreement(a, b, n, top_of[k]);
    p->best[0] = largest(a, n);
    p->best[1] = largest(b, n);
    p->kl = NAN;
    if (!p->side[0].n && !p->side[1].n) {
        double *q = l->log_p[0][thread], *r = l->log_p[1][thread];
        qn_log_softmax(a, n, q);
        qn_log_softmax(b, n, r);
        p->kl = qn_kl(r, q, n);
    }
    for (int s = 0; s < 2; s++)
        p->hidden[s] = hidden_largest(&l->v[s], l->from + i, p->best[s], l->row[s][thread]);
}

static void rows_done(rows *l, int threads) {
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < threads; i++) {
            free(l->row[s][i]);
            free(l->log_p[s][i]);
        }
        free(l->row[s]);
        free(l->log_p[s]);
    }
    free(l->out);
}

static void rows_init(rows *l, int threads) {
    size_t n = l->v[0].cols;
    l->out = QN_NEW_ARRAY(position, l->v[0].rows);
    for (int s = 0; s < 2; s++) {
        l->row[s] = QN_NEW_ARRAY(float *, (size_t)threads);
        l->log_p[s] = QN_NEW_ARRAY(double *, (size_t)threads);
        for (int i = 0; i < threads; i++) {
            l->row[s][i] = QN_NEW_ARRAY(float, n);
            l->log_p[s][i] = QN_NEW_ARRAY(double, n);
        }
    }
}

// ---- all positions ----

static bool within(const qn_compare_options *o, const position *p) {
    return !p->side[0].n && !p->side[1].n && qn_compare_cosine(&p->diff) >= o->cosine &&
           p->diff.max_abs <= o->max_abs && (p->top[0] >= 1 || o->top1 < 1);
}

static json_t *index_or_null(bool any, size_t i) {
    return any ? json_integer((json_int_t)i) : json_null();
}

static json_t *position_json(const position *p, size_t at) {
    json_t *o = json_object();
    json_object_set_new(o, "position", json_integer((json_int_t)at));
    qn_compare_add_figures(o, &p->diff);
    json_object_set_new(o, "kl", qn_json_number(p->kl));
    for (int k = 0; k < QN_N_TOP; k++)
        json_object_set_new(o, top_key[k], qn_json_number(p->top[k]));
    json_object_set_new(o, "top1_a", index_or_null(p->best[0] != SIZE_MAX, p->best[0]));
    json_object_set_new(o, "top1_b", index_or_null(p->best[1] != SIZE_MAX, p->best[1]));
    return o;
}

static void add_position(qn_means *m, const position *p) {
    qn_diff_merge(&m->diff, &p->diff);
    for (int k = 0; k < QN_N_TOP; k++) m->top[k] += p->top[k];
    m->n++;
    if (isnan(p->kl)) return;
    m->kl += p->kl;
    m->n_kl++;
    if (p->kl > m->kl_max) m->kl_max = p->kl;
}

void qn_compare_add_means(json_t *o, const qn_means *m) {
    bool kl = m->n_kl > 0;
    json_object_set_new(o, "kl", kl ? qn_json_number(m->kl / (double)m->n_kl) : json_null());
    json_object_set_new(o, "kl_max", kl ? qn_json_number(m->kl_max) : json_null());
    for (int k = 0; k < QN_N_TOP; k++)
        json_object_set_new(o, top_key[k], m->n ? qn_json_number(m->top[k] / (double)m->n)
                                                : json_null());
}

// Whoever does not leave those columns out chooses something that is no token.
static void note_hidden(qn_comparison *c, const rows *l, size_t base) {
    for (int s = 0; s < 2; s++) {
        char letter = s ? 'B' : 'A';
        size_t n = 0, first = 0;
        for (size_t i = l->v[0].rows; i-- > 0;)
            if (l->out[i].hidden[s]) n++, first = i;
        if (!n) continue;
        size_t column = l->out[first].hidden[s];
        qn_compare_note(
            c, qn_strf("%c: columns that are not compared hold the largest value at %zu of %zu "
                       "positions, first at position %zu, column %zu", letter, n, l->v[0].rows,
                       base + first, column),
            qn_strf("%c：在 %zu / %zu 个位置上，最大值落在未比较的列中，首见于位置 %zu、第 %zu 列",
                    letter, n, l->v[0].rows, base + first, column));
    }
}

static void publish(qn_comparison *c, const rows *l, qn_logits *out) {
    size_t n = l->v[0].rows, base = l->v[0].row0 + l->v[1].row0; // one of them is 0, or both
    size_t first = n, beyond = n;
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        const position *p = &l->out[i];
        json_array_append_new(list, position_json(p, base + i));
        add_position(&out->means, p);
        if (p->diff.any_differs && first == n) first = i;
        if (!within(c->o, p) && beyond == n) beyond = i;
        for (int s = 0; s < 2; s++) {
            qn_side moved = p->side[s];
            moved.first += i * l->v[s].cols;
            qn_side_merge(&out->side[s], &moved);
        }
    }
    json_object_set_new(out->found, "first_position", index_or_null(first < n, base + first));
    json_object_set_new(out->found, "first_position_beyond",
                        index_or_null(beyond < n, base + beyond));
    json_object_set_new(out->found, "positions", list);
    note_hidden(c, l, base);
}

bool qn_compare_logits(qn_comparison *c, const qn_array v[2], qn_logits *out, qn_err *err) {
    rows l = {.v = {v[0], v[1]}};
    int threads = qn_pool_threads(c->pool);
    size_t n = v[0].rows;
    rows_init(&l, threads);
    bool ok = true;
    for (l.from = 0; ok && l.from < n; l.from += ROWS_AT_ONCE) {
        size_t step = n - l.from < ROWS_AT_ONCE ? n - l.from : ROWS_AT_ONCE;
        qn_pool_run(c->pool, step, one_position, &l);
        ok = qn_compare_progress(c, l.from + step, n, err);
    }
    if (ok) publish(c, &l, out);
    rows_done(&l, threads);
    return ok;
}

// ---- verdict ----

void qn_compare_judge(qn_comparison *c, const char *what, const qn_means *m) {
    const qn_compare_options *o = c->o;
    char x[32], limit[32];
    double cosine = qn_compare_cosine(&m->diff), top1 = m->n ? m->top[0] / (double)m->n : 1;
    const char *sep = what[0] ? ": " : "", *sep_zh = what[0] ? "：" : "";
    qn_compare_digits(cosine, x);
    qn_compare_digits(o->cosine, limit);
    if (!(cosine >= o->cosine))
        qn_compare_reason(
            c, qn_strf("%s%scosine %s, expected at least %s", what, sep, x, limit),
            qn_strf("%s%s余弦相似度 %s，应不低于 %s", what, sep_zh, x, limit));
    qn_compare_digits(m->diff.max_abs, x);
    qn_compare_digits(o->max_abs, limit);
    if (!(m->diff.max_abs <= o->max_abs))
        qn_compare_reason(
            c, qn_strf("%s%smax abs error %s, expected at most %s", what, sep, x, limit),
            qn_strf("%s%s最大绝对误差 %s，应不高于 %s", what, sep_zh, x, limit));
    qn_compare_digits(top1, x);
    qn_compare_digits(o->top1, limit);
    if (!(top1 >= o->top1))
        qn_compare_reason(
            c, qn_strf("%s%stop-1 agreement %s, expected at least %s", what, sep, x, limit),
            qn_strf("%s%sTop-1 一致率 %s，应不低于 %s", what, sep_zh, x, limit));
}
