// Two dumps, tensor by tensor in the order in which a model computes: hidden states, logits
// (compare_logits.c), the rest. The first hidden state that falls below the cosine threshold is
// where the two computations part; the first one that is not finite is where a computation broke.
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/compare_parts.h"

enum { MOST_PICTURES = 6 };

// ---- tokens ----

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
        const char *who = n[0] ? "B has no" : n[1] ? "A has no" : "neither side has";
        const char *who_zh = n[0] ? "B 没有" : n[1] ? "A 没有" : "双方都没有";
        qn_compare_note(c, qn_strf("%s tokens: that both sides read the same text is not "
                                   "checked", who),
                        qn_strf("%s tokens：未核对两侧的输入是否相同", who_zh));
    }
    free(ids[0]);
    free(ids[1]);
    return ok;
}

// ---- tensors ----

typedef struct entry {
    const qn_tensor *t[2];
    qn_array v[2];
    qn_array_figures f;
    qn_logits logits; // of logits and mtp.logits
} entry;

typedef struct entries {
    entry *list;
    size_t n;
} entries;

static bool is_hidden(const entry *e) { return qn_str_starts(e->t[0]->name, "hidden."); }

static bool is_logits(const entry *e) { return qn_compare_is_logits(e->t[0]->name); }

// hidden.0, hidden.1, …, hidden.final, logits, mtp.logits, then anything else.
static unsigned long order_of(const char *name) {
    static const char *const last[] = {"hidden.final", "logits", "mtp.logits"};
    for (unsigned i = 0; i < sizeof last / sizeof *last; i++)
        if (strcmp(name, last[i]) == 0) return 2000000000ul + i;
    if (!qn_str_starts(name, "hidden.")) return 3000000000ul;
    char *end;
    unsigned long i = strtoul(name + 7, &end, 10);
    return end != name + 7 && !*end && i < 1000000000ul ? i : 1000000000ul;
}

static int by_order(const void *a, const void *b) {
    const char *x = ((const entry *)a)->t[0]->name, *y = ((const entry *)b)->t[0]->name;
    unsigned long i = order_of(x), k = order_of(y);
    return i != k ? (i > k) - (i < k) : strcmp(x, y);
}

static entries common_tensors(const qn_comparison *c) {
    size_t n = qn_compare_file_n(&c->file[0]);
    entries l = {QN_NEW_ARRAY(entry, n), 0};
    for (size_t i = 0; i < n; i++) {
        const qn_tensor *a = qn_compare_file_at(&c->file[0], i);
        const qn_tensor *b = qn_compare_file_find(&c->file[1], a->name);
        if (!b || strcmp(a->name, "tokens") == 0) continue;
        l.list[l.n].t[0] = a;
        l.list[l.n++].t[1] = b;
    }
    if (l.n) qsort(l.list, l.n, sizeof *l.list, by_order);
    return l;
}

static void entries_done(entries *l) {
    for (size_t i = 0; i < l->n; i++) json_decref(l->list[i].logits.found);
    free(l->list);
}

static entry *find(const entries *l, const char *name) {
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->list[i].t[0]->name, name) == 0) return &l->list[i];
    return NULL;
}

static bool measure(qn_comparison *c, entry *e, qn_err *err) {
    if (!qn_compare_pair(c, e->t[0], e->t[1], e->v, err)) return false;
    if (!is_logits(e)) return qn_array_compare(c->pool, &e->v[0], &e->v[1], &e->f, err);
    e->logits.found = json_object();
    if (!qn_compare_logits(c, e->v, &e->logits, err)) return false;
    e->f.diff = e->logits.means.diff;
    for (int s = 0; s < 2; s++) e->f.side[s] = e->logits.side[s];
    return true;
}

static bool measure_all(qn_comparison *c, entries *l, qn_err *err) {
    for (size_t i = 0; i < l->n; i++) {
        entry *e = &l->list[i];
        if (!measure(c, e, err) || !qn_compare_progress(c, i + 1, l->n, err)) return false;
        for (int s = 0; s < 2; s++)
            qn_compare_add_nonfinite(c, s, e->t[0]->name, &e->f.side[s],
                                     e->v[0].row0 + e->v[1].row0, e->v[s].cols);
        c->differs |= e->f.diff.any_differs;
    }
    return true;
}

// What was laid over each other only in part, once for all tensors.
static void note_parts(qn_comparison *c) {
    for (int s = 0; s < 2; s++) {
        char letter = s ? 'B' : 'A', other = s ? 'A' : 'B';
        if (!c->alone[s]) continue;
        qn_compare_note(
            c, qn_strf("%c has the last position alone (tensors: %zu); the %zu before it in %c are "
                       "not compared", letter, c->alone[s], c->beside[s] - 1, other),
            qn_strf("%c 只有最后一个位置（张量数：%zu）；%c 中此前的 %zu 个位置未比较", letter,
                    c->alone[s], other, c->beside[s] - 1));
    }
    if (c->n_wide)
        qn_compare_note(
            c, qn_strf("values are compared as F32, which does not hold all those of %s (%s); "
                       "tensors like it: %zu", c->wide->name, qn_dtype_name(c->wide->dtype),
                       c->n_wide),
            qn_strf("数值按 F32 比较，而 %s（%s）含有 F32 无法精确表示的值；此类张量数：%zu",
                    c->wide->name, qn_dtype_name(c->wide->dtype), c->n_wide));
}

// ---- the document ----

static void publish_layers(qn_comparison *c, const entries *l) {
    json_t *hidden = json_array(), *rest = json_array();
    for (size_t i = 0; i < l->n; i++) {
        const entry *e = &l->list[i];
        const char *name = e->t[0]->name;
        if (strcmp(name, "logits") == 0) continue; // the document itself is about them
        json_t *o = json_object();
        json_object_set_new(o, "name", qn_compare_text(name));
        qn_compare_add_figures(o, &e->f.diff);
        if (is_logits(e)) {
            qn_compare_add_means(o, &e->logits.means);
            json_object_update(o, e->logits.found);
        }
        json_array_append_new(is_hidden(e) ? hidden : rest, o);
    }
    json_object_set_new(c->report, "layers", hidden);
    json_object_set_new(c->report, "tensors", rest);
}

// Without logits on both sides the other tensors are all there is; a draft's still diverge.
static qn_means overall_means(const entries *l) {
    const entry *logits = find(l, "logits"), *draft = find(l, "mtp.logits");
    if (logits) return logits->logits.means;
    qn_means m = {0};
    if (draft) m = draft->logits.means;
    m.diff = (qn_diff){0};
    for (size_t i = 0; i < l->n; i++) qn_diff_merge(&m.diff, &l->list[i].f.diff);
    return m;
}

static void publish_overall(qn_comparison *c, const entries *l, const qn_means *m) {
    const entry *logits = find(l, "logits");
    json_t *o = json_object();
    qn_compare_add_figures(o, &m->diff);
    qn_compare_add_means(o, m);
    json_object_set_new(c->report, "overall", o);
    if (logits) {
        json_object_update(c->report, logits->logits.found);
        return;
    }
    json_object_set_new(c->report, "first_position", json_null());
    json_object_set_new(c->report, "first_position_beyond", json_null());
    json_object_set_new(c->report, "positions", json_array());
    qn_compare_note(c, qn_strf("no logits on both sides: the overall figures are those of the "
                               "tensors that both have"),
                    qn_strf("两侧没有共同的 logits：总体指标取自双方共有的张量"));
}

static void list_only(qn_comparison *c) {
    for (int s = 0; s < 2; s++) {
        json_t *list = json_array();
        for (size_t i = 0; i < qn_compare_file_n(&c->file[s]); i++) {
            const char *name = qn_compare_file_at(&c->file[s], i)->name;
            if (qn_compare_file_find(&c->file[1 - s], name)) continue;
            json_array_append_new(list, qn_compare_text(name));
            c->partial |= strcmp(name, "tokens") != 0;
        }
        json_object_set_new(c->report, s ? "only_in_b" : "only_in_a", list);
    }
}

static int by_error(const void *a, const void *b) {
    double x = qn_diff_rel_rms(&((const entry *)a)->f.diff);
    double y = qn_diff_rel_rms(&((const entry *)b)->f.diff);
    return (x < y) - (x > y);
}

// Logits first, then what is farthest apart. Ends the order of the list.
static bool draw(qn_comparison *c, entries *l, qn_err *err) {
    const entry *logits = find(l, "logits");
    if (!c->o->page) return true;
    if (logits && !qn_compare_add_histogram(c, "logits", &logits->v[0], &logits->v[1], err))
        return false;
    if (l->n) qsort(l->list, l->n, sizeof *l->list, by_error);
    for (size_t i = 0, drawn = 1; i < l->n && drawn < MOST_PICTURES; i++) {
        const entry *e = &l->list[i];
        if (strcmp(e->t[0]->name, "logits") == 0 || !(qn_diff_rel_rms(&e->f.diff) > 0)) continue;
        if (!qn_compare_add_histogram(c, e->t[0]->name, &e->v[0], &e->v[1], err)) return false;
        drawn++;
    }
    return true;
}

// ---- verdict ----

// The first tensor in the order of computation says where it broke; what is behind it follows.
static void judge_nonfinite(qn_comparison *c, const entries *l, int s) {
    const entry *first = NULL;
    size_t later = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (!l->list[i].f.side[s].n) continue;
        if (first) later++;
        else first = &l->list[i];
    }
    if (!first) return;
    const qn_side *side = &first->f.side[s];
    size_t cols = first->v[s].cols, base = first->v[0].row0 + first->v[1].row0;
    char more[64] = "", more_zh[96] = "", letter = s ? 'B' : 'A';
    if (later) {
        snprintf(more, sizeof more, "; later tensors that are not finite: %zu", later);
        snprintf(more_zh, sizeof more_zh, "；其后还有 %zu 个张量含非有限值", later);
    }
    const char *name = first->t[0]->name, *value = qn_side_value(side);
    unsigned long long n = side->n;
    size_t position = base + (size_t)(side->first / cols), column = (size_t)(side->first % cols);
    qn_compare_reason(
        c, qn_strf("%s of %c: %llu value%s not finite, first %s at position %zu, column %zu%s",
                   name, letter, n, n == 1 ? " is" : "s are", value, position, column, more),
        qn_strf("%c 的 %s 中有 %llu 个值不是有限数，首个为 %s，位于位置 %zu、第 %zu 列%s", letter, name,
                n, value, position, column, more_zh));
}

// Returns whether it is below the cosine; says so when that is news.
static void judge_tensor(qn_comparison *c, const entry *e, json_t **first_layer) {
    const char *name = e->t[0]->name;
    char digits[32], least[32];
    bool hidden = is_hidden(e), low = !(qn_compare_cosine(&e->f.diff) >= c->o->cosine);
    if (!low && !e->f.side[0].n && !e->f.side[1].n) return;
    if (hidden && json_is_string(*first_layer)) return;
    if (hidden) *first_layer = json_string(name);
    if (!low) return; // not finite: that was said
    qn_compare_digits(qn_compare_cosine(&e->f.diff), digits);
    qn_compare_digits(c->o->cosine, least);
    qn_compare_reason(
        c,
        qn_strf(hidden ? "%s is where the two part: cosine %s, expected at least %s"
                       : "%s: cosine %s, expected at least %s", name, digits, least),
        qn_strf(hidden ? "两侧从 %s 开始分歧：余弦相似度 %s，应不低于 %s"
                       : "%s：余弦相似度 %s，应不低于 %s", name, digits, least));
}

// What storing a hidden state costs, relatively; float sums in another order cost 1e-5 at most.
static double rounding_of(const entry *e) {
    double most = 1e-5;
    for (int s = 0; s < 2; s++) {
        double unit = e->t[s]->dtype == QN_DT_BF16 ? 0x1p-8 : e->t[s]->dtype == QN_DT_F16 ? 0x1p-11 : 0;
        most = unit > most ? unit : most;
    }
    return most;
}

// None is below the cosine, yet the outcome differs: where the error is first seen, and not just grown.
static json_t *first_to_differ(qn_comparison *c, const entries *l) {
    double before = 0;
    for (size_t i = 0; i < l->n; i++) {
        const entry *e = &l->list[i];
        double rms = is_hidden(e) ? qn_diff_rel_rms(&e->f.diff) : 0;
        if (rms > rounding_of(e) && rms > 4 * before) {
            char digits[32], past[32];
            qn_compare_digits(rms, digits);
            qn_compare_digits(before, past);
            const char *name = e->t[0]->name;
            qn_compare_note(c, qn_strf("%s is where the two begin to differ: relative rms %s, %s "
                                       "before it", name, digits, past),
                            qn_strf("两侧从 %s 开始不同：相对均方根误差 %s，此前为 %s", name, digits, past));
            return json_string(name);
        }
        before = rms > before ? rms : before;
    }
    return json_null();
}

static void judge(qn_comparison *c, const entries *l, const qn_means *overall) {
    json_t *first_layer = json_null();
    for (int s = 0; s < 2; s++) judge_nonfinite(c, l, s);
    for (size_t i = 0; i < l->n; i++)
        if (!is_logits(&l->list[i])) judge_tensor(c, &l->list[i], &first_layer);
    qn_compare_judge(c, "", overall);
    const entry *draft = find(l, "mtp.logits");
    if (draft && find(l, "logits")) qn_compare_judge(c, "mtp.logits", &draft->logits.means);
    if (json_is_null(first_layer) && json_array_size(c->reasons) > 0)
        first_layer = first_to_differ(c, l);
    json_object_set_new(c->report, "first_layer", first_layer);
}

bool qn_compare_dumps(qn_comparison *c, qn_err *err) {
    if (!check_tokens(c, err)) return false;
    entries l = common_tensors(c);
    bool ok = l.n > 0 || qn_fail(err, QN_INPUT, "%s and %s have no tensor in common but tokens",
                                 c->file[0].path, c->file[1].path);
    ok = ok && measure_all(c, &l, err);
    if (ok) {
        qn_means overall = overall_means(&l);
        publish_overall(c, &l, &overall);
        publish_layers(c, &l);
        judge(c, &l, &overall);
        list_only(c);
        note_parts(c);
        ok = draw(c, &l, err);
    }
    entries_done(&l);
    return ok;
}
