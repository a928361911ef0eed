// Two dumps. Logits position by position: differences, divergence, and whether the same tokens are
// likeliest. Hidden states layer by layer: the first one that falls below the cosine threshold is
// where the two computations part. One row against many is the last position against the last.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/compare_parts.h"

enum { N_TOP = 3, MOST_PICTURES = 6, ROWS_AT_ONCE = 64 };
static const size_t top_of[N_TOP] = {1, 5, 10};
static const char *const top_key[N_TOP] = {"top1", "top5", "top10"};

// ---- what belongs together ----

static bool same_tokens(qn_comparison *c, const int64_t *const ids[2], const size_t n[2],
                        qn_err *err) {
    size_t longest = n[0] > n[1] ? n[0] : n[1];
    if (n[0] != n[1] && n[0] != 1 && n[1] != 1)
        return qn_fail(err, QN_INPUT, "tokens differ: %s has %zu, %s has %zu", c->file[0].path,
                       n[0], c->file[1].path, n[1]);
    size_t from = n[0] == n[1] ? 0 : longest - 1;
    for (size_t i = from; i < longest; i++) {
        int64_t a = ids[0][n[0] - longest + i], b = ids[1][n[1] - longest + i];
        if (a != b)
            return qn_fail(err, QN_INPUT, "tokens differ first at position %zu: %s has %lld, %s "
                           "has %lld", i, c->file[0].path, (long long)a, c->file[1].path,
                           (long long)b);
    }
    return true;
}

static bool check_tokens(qn_comparison *c, qn_err *err) {
    int64_t *ids[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    bool ok = qn_compare_file_tokens(&c->file[0], &ids[0], &n[0], err) &&
              qn_compare_file_tokens(&c->file[1], &ids[1], &n[1], err);
    if (ok && n[0] && n[1]) {
        ok = same_tokens(c, (const int64_t *const *)ids, n, err);
    } else if (ok) {
        const char *who = n[0] ? "B has" : n[1] ? "A has" : "neither side has";
        const char *who_zh = n[0] ? "B 没有" : n[1] ? "A 没有" : "双方都没有";
        qn_compare_note(c, qn_strf("%s no tokens: that both sides read the same text is not "
                                   "checked", who),
                        qn_strf("%s tokens:未核对两侧的输入是否相同", who_zh));
    }
    free(ids[0]);
    free(ids[1]);
    return ok;
}

static bool is_empty(const char *path, const qn_tensor *t, qn_err *err) {
    if (t->n) return false;
    qn_fail(err, QN_INPUT, "%s: tensor %s is empty", path, t->name);
    return true;
}

// Fewer columns on one side are vocabulary padding on the other, for logits.
static bool pair_columns(qn_comparison *c, qn_array v[2], bool padding, const char *name,
                         qn_err *err) {
    size_t a = v[0].cols, b = v[1].cols, least = a < b ? a : b;
    if (a == b) return true;
    if (!padding)
        return qn_fail(err, QN_INPUT, "tensor %s: %zu columns in %s, expected the %zu of %s", name,
                       a, c->file[0].path, b, c->file[1].path);
    v[0].cols = v[1].cols = least;
    qn_compare_note(c, qn_strf("%s: A has %zu columns, B has %zu; the first %zu are compared", name,
                               a, b, least),
                    qn_strf("%s:A 有 %zu 列,B 有 %zu 列;只比较前 %zu 列", name, a, b, least));
    return true;
}

static bool pair_up(qn_comparison *c, const qn_tensor *a, const qn_tensor *b, qn_array v[2],
                    qn_err *err) {
    if (is_empty(c->file[0].path, a, err) || is_empty(c->file[1].path, b, err)) return false;
    v[0] = qn_array_of_tensor(a);
    v[1] = qn_array_of_tensor(b);
    size_t rows[2] = {v[0].rows, v[1].rows};
    if (rows[0] != rows[1] && rows[0] != 1 && rows[1] != 1)
        return qn_fail(err, QN_INPUT, "tensor %s: %zu positions in %s, expected the %zu of %s, or "
                       "the last one alone", a->name, rows[0], c->file[0].path, rows[1],
                       c->file[1].path);
    if (rows[0] != rows[1]) {
        int longer = rows[1] > rows[0];
        v[longer].row0 = rows[longer] - 1;
        v[longer].rows = 1;
    }
    bool padding = strcmp(a->name, "logits") == 0 || strcmp(a->name, "mtp.logits") == 0;
    return pair_columns(c, v, padding, a->name, err);
}

// ---- logits ----

typedef struct position {
    qn_diff diff;
    qn_side side[2];
    double kl, top[N_TOP];
    size_t best[2];
} position;

typedef struct logits {
    qn_array v[2];
    size_t from;      // first position of this round
    position *out;    // per position
    float **row[2];   // per thread
    double **log_p[2];
} logits;

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
    return at;
}

static void one_position(void *ctx, size_t i, int thread) {
    logits *l = ctx;
    size_t n = l->v[0].cols;
    float *a = l->row[0][thread], *b = l->row[1][thread];
    position *p = &l->out[l->from + i];
    qn_array_rows(&l->v[0], l->from + i, 1, a, NULL); // plain tensors cannot fail
    qn_array_rows(&l->v[1], l->from + i, 1, b, NULL);
    qn_diff_add(&p->diff, a, b, n);
    find_nonfinite(p, a, b, n);
    for (int k = 0; k < N_TOP; k++) p->top[k] = qn_topk_agreement(a, b, n, top_of[k]);
    p->best[0] = largest(a, n);
    p->best[1] = largest(b, n);
    p->kl = NAN;
    if (p->side[0].n || p->side[1].n) return;
    double *q = l->log_p[0][thread], *r = l->log_p[1][thread];
    qn_log_softmax(a, n, q);
    qn_log_softmax(b, n, r);
    p->kl = qn_kl(r, q, n);
}

static void logits_done(logits *l, int threads) {
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

static void logits_init(logits *l, int threads) {
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

static bool within(const qn_compare_options *o, const position *p) {
    return !p->side[0].n && !p->side[1].n && qn_compare_cosine(&p->diff) >= o->cosine &&
           p->diff.max_abs <= o->max_abs && (p->top[0] >= 1 || o->top1 < 1);
}

static json_t *position_json(const position *p, size_t at) {
    json_t *o = json_object();
    json_object_set_new(o, "position", json_integer((json_int_t)at));
    qn_compare_add_figures(o, &p->diff);
    json_object_set_new(o, "kl", qn_json_number(p->kl));
    for (int k = 0; k < N_TOP; k++)
        json_object_set_new(o, top_key[k], qn_json_number(p->top[k]));
    json_object_set_new(o, "top1_a", json_integer((json_int_t)p->best[0]));
    json_object_set_new(o, "top1_b", json_integer((json_int_t)p->best[1]));
    return o;
}

static json_t *index_or_null(bool any, size_t i) {
    return any ? json_integer((json_int_t)i) : json_null();
}

typedef struct means {
    qn_diff diff;
    double kl, kl_max, top[N_TOP];
    size_t n, n_kl;
} means;

static void add_position(means *m, const position *p) {
    qn_diff_merge(&m->diff, &p->diff);
    for (int k = 0; k < N_TOP; k++) m->top[k] += p->top[k];
    m->n++;
    if (isnan(p->kl)) return;
    m->kl += p->kl;
    m->n_kl++;
    if (p->kl > m->kl_max) m->kl_max = p->kl;
}

static json_t *overall_json(const means *m) {
    json_t *o = json_object();
    qn_compare_add_figures(o, &m->diff);
    bool kl = m->n_kl > 0;
    json_object_set_new(o, "kl", kl ? qn_json_number(m->kl / (double)m->n_kl) : json_null());
    json_object_set_new(o, "kl_max", kl ? qn_json_number(m->kl_max) : json_null());
    for (int k = 0; k < N_TOP; k++)
        json_object_set_new(o, top_key[k], m->n ? qn_json_number(m->top[k] / (double)m->n)
                                                : json_null());
    return o;
}

static void publish_logits(qn_comparison *c, const logits *l, means *m) {
    size_t rows = l->v[0].rows, base = l->v[0].row0 + l->v[1].row0; // one of them is 0, or both
    size_t first = rows, beyond = rows;
    qn_side side[2] = {{0}, {0}};
    json_t *list = json_array();
    for (size_t i = 0; i < rows; i++) {
        const position *p = &l->out[i];
        json_array_append_new(list, position_json(p, base + i));
        add_position(m, p);
        if (p->diff.any_differs && first == rows) first = i;
        if (!within(c->o, p) && beyond == rows) beyond = i;
        for (int s = 0; s < 2; s++) {
            qn_side moved = p->side[s];
            moved.first += i * l->v[s].cols;
            qn_side_merge(&side[s], &moved);
        }
    }
    for (int s = 0; s < 2; s++)
        qn_compare_add_nonfinite(c, s, "logits", &side[s], base, l->v[s].cols);
    json_object_set_new(c->report, "first_position", index_or_null(first < rows, base + first));
    json_object_set_new(c->report, "first_position_beyond",
                        index_or_null(beyond < rows, base + beyond));
    json_object_set_new(c->report, "positions", list);
}

static bool compare_logits(qn_comparison *c, const qn_tensor *a, const qn_tensor *b, means *m,
                           qn_err *err) {
    logits l = {0};
    int threads = qn_pool_threads(c->pool);
    if (!pair_up(c, a, b, l.v, err)) return false;
    size_t rows = l.v[0].rows;
    logits_init(&l, threads);
    bool ok = true;
    for (l.from = 0; ok && l.from < rows; l.from += ROWS_AT_ONCE) {
        size_t n = rows - l.from < ROWS_AT_ONCE ? rows - l.from : ROWS_AT_ONCE;
        qn_pool_run(c->pool, n, one_position, &l);
        ok = qn_compare_progress(c, l.from + n, rows, err);
    }
    if (ok) publish_logits(c, &l, m);
    if (ok && c->o->page) ok = qn_compare_add_histogram(c, "logits", &l.v[0], &l.v[1], err);
    logits_done(&l, threads);
    return ok;
}

// ---- layers and the rest ----

typedef struct layer {
    const qn_tensor *t[2];
    qn_array v[2];
    qn_array_figures f;
} layer;

typedef struct layers {
    layer *list;
    size_t n;
} layers;

// hidden.0, hidden.1, …, hidden.final, then anything else.
static unsigned long order_of(const char *name) {
    if (!qn_str_starts(name, "hidden.")) return 3000000000ul;
    if (strcmp(name, "hidden.final") == 0) return 2000000000ul;
    char *end;
    unsigned long i = strtoul(name + 7, &end, 10);
    return end != name + 7 && !*end && i < 1000000000ul ? i : 1000000000ul;
}

static int by_order(const void *a, const void *b) {
    const char *x = ((const layer *)a)->t[0]->name, *y = ((const layer *)b)->t[0]->name;
    unsigned long i = order_of(x), k = order_of(y);
    return i != k ? (i > k) - (i < k) : strcmp(x, y);
}

static layers common_tensors(const qn_comparison *c) {
    size_t n = qn_compare_file_n(&c->file[0]);
    layers l = {QN_NEW_ARRAY(layer, n), 0};
    for (size_t i = 0; i < n; i++) {
        const qn_tensor *a = qn_compare_file_at(&c->file[0], i);
        const qn_tensor *b = qn_compare_file_find(&c->file[1], a->name);
        if (!b || strcmp(a->name, "tokens") == 0 || strcmp(a->name, "logits") == 0) continue;
        l.list[l.n].t[0] = a;
        l.list[l.n++].t[1] = b;
    }
    if (l.n) qsort(l.list, l.n, sizeof *l.list, by_order);
    return l;
}

static bool is_hidden(const layer *y) { return qn_str_starts(y->t[0]->name, "hidden."); }

static bool measure_layers(qn_comparison *c, layers *l, qn_err *err) {
    for (size_t i = 0; i < l->n; i++) {
        layer *y = &l->list[i];
        if (!pair_up(c, y->t[0], y->t[1], y->v, err) ||
            !qn_array_compare(c->pool, &y->v[0], &y->v[1], &y->f, err) ||
            !qn_compare_progress(c, i + 1, l->n, err))
            return false;
        size_t base = y->v[0].row0 + y->v[1].row0;
        for (int s = 0; s < 2; s++)
            qn_compare_add_nonfinite(c, s, y->t[0]->name, &y->f.side[s], base, y->v[s].cols);
        c->differs |= y->f.diff.any_differs;
    }
    return true;
}

static bool parted(const qn_comparison *c, const layer *y) {
    return y->f.side[0].n || y->f.side[1].n || !(qn_compare_cosine(&y->f.diff) >= c->o->cosine);
}

static void publish_layers(qn_comparison *c, const layers *l) {
    json_t *hidden = json_array(), *rest = json_array(), *first = json_null();
    for (size_t i = 0; i < l->n; i++) {
        const layer *y = &l->list[i];
        const char *name = y->t[0]->name;
        char digits[32], least[32];
        json_t *o = json_object();
        json_object_set_new(o, "name", json_string(name));
        qn_compare_add_figures(o, &y->f.diff);
        json_array_append_new(is_hidden(y) ? hidden : rest, o);
        if (!parted(c, y) || (is_hidden(y) && json_is_string(first))) continue;
        if (is_hidden(y)) first = json_string(name);
        qn_compare_digits(qn_compare_cosine(&y->f.diff), digits);
        qn_compare_digits(c->o->cosine, least);
        qn_compare_reason(
            c,
            qn_strf(is_hidden(y) ? "%s is where the two part: cosine %s, expected at least %s"
                                 : "%s: cosine %s, expected at least %s", name, digits, least),
            qn_strf(is_hidden(y) ? "两侧从 %s 开始分歧:余弦相似度 %s,应不低于 %s"
                                 : "%s:余弦相似度 %s,应不低于 %s", name, digits, least));
    }
    json_object_set_new(c->report, "first_layer", first);
    json_object_set_new(c->report, "layers", hidden);
    json_object_set_new(c->report, "tensors", rest);
}

static int by_error(const void *a, const void *b) {
    double x = qn_diff_rel_rms(&((const layer *)a)->f.diff);
    double y = qn_diff_rel_rms(&((const layer *)b)->f.diff);
    return (x < y) - (x > y);
}

static bool draw_worst(qn_comparison *c, layers *l, qn_err *err) {
    if (!l->n || !c->o->page) return true;
    qsort(l->list, l->n, sizeof *l->list, by_error);
    for (size_t i = 0; i < l->n && i + 1 < MOST_PICTURES; i++) {
        layer *y = &l->list[i];
        if (qn_diff_rel_rms(&y->f.diff) > 0 &&
            !qn_compare_add_histogram(c, y->t[0]->name, &y->v[0], &y->v[1], err))
            return false;
    }
    return true;
}

// ---- verdict ----

static void judge(qn_comparison *c, const means *m) {
    const qn_compare_options *o = c->o;
    char x[32], limit[32];
    double cosine = qn_compare_cosine(&m->diff), top1 = m->n ? m->top[0] / (double)m->n : 1;
    qn_compare_digits(cosine, x);
    qn_compare_digits(o->cosine, limit);
    if (!(cosine >= o->cosine))
        qn_compare_reason(c, qn_strf("cosine %s, expected at least %s", x, limit),
                          qn_strf("余弦相似度 %s,应不低于 %s", x, limit));
    qn_compare_digits(m->diff.max_abs, x);
    qn_compare_digits(o->max_abs, limit);
    if (!(m->diff.max_abs <= o->max_abs))
        qn_compare_reason(c, qn_strf("max abs error %s, expected at most %s", x, limit),
                          qn_strf("最大绝对误差 %s,应不高于 %s", x, limit));
    qn_compare_digits(top1, x);
    qn_compare_digits(o->top1, limit);
    if (!(top1 >= o->top1))
        qn_compare_reason(c, qn_strf("top-1 agreement %s, expected at least %s", x, limit),
                          qn_strf("Top-1 一致率 %s,应不低于 %s", x, limit));
}

static void list_only(qn_comparison *c) {
    for (int s = 0; s < 2; s++) {
        json_t *list = json_array();
        for (size_t i = 0; i < qn_compare_file_n(&c->file[s]); i++) {
            const char *name = qn_compare_file_at(&c->file[s], i)->name;
            if (!qn_compare_file_find(&c->file[1 - s], name))
                json_array_append_new(list, json_string(name));
        }
        json_object_set_new(c->report, s ? "only_in_b" : "only_in_a", list);
    }
}

// Without logits on both sides the hidden states are all there is.
static void use_layers(const layers *l, means *m) {
    for (size_t i = 0; i < l->n; i++) qn_diff_merge(&m->diff, &l->list[i].f.diff);
}

static void no_logits(qn_comparison *c) {
    json_object_set_new(c->report, "first_position", json_null());
    json_object_set_new(c->report, "first_position_beyond", json_null());
    json_object_set_new(c->report, "positions", json_array());
    qn_compare_note(c, qn_strf("no logits on both sides: the overall figures are those of the "
                               "tensors that both have"),
                    qn_strf("两侧没有共同的 logits:总体指标取自双方共有的张量"));
}

bool qn_compare_dumps(qn_comparison *c, qn_err *err) {
    const qn_tensor *a = qn_compare_file_find(&c->file[0], "logits");
    const qn_tensor *b = qn_compare_file_find(&c->file[1], "logits");
    means m = {0};
    if (!check_tokens(c, err)) return false;
    layers l = common_tensors(c);
    bool ok = (a && b) || l.n > 0 ||
              qn_fail(err, QN_INPUT, "%s and %s have no tensor in common but tokens",
                      c->file[0].path, c->file[1].path);
    ok = ok && (!a || !b || compare_logits(c, a, b, &m, err)) && measure_layers(c, &l, err);
    if (ok) {
        c->differs |= m.diff.any_differs;
        if (!a || !b) no_logits(c);
        if (!a || !b) use_layers(&l, &m);
        json_object_set_new(c->report, "overall", overall_json(&m));
        publish_layers(c, &l);
        judge(c, &m);
        list_only(c);
        ok = draw_worst(c, &l, err);
    }
    free(l.list);
    return ok;
}
