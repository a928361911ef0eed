// Two checkpoints, weight by weight, whatever schemes they are stored in and however they are cut
// (compare_spelling.c): every weight is decoded in blocks on both sides, one weight at a time. An
// output head or embedding with more rows on one side is vocabulary padding; any other shape that
// differs is a difference.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/compare_parts.h"
#include "quant/compare_spelling.h"
#include "quant/tensor_report.h"

enum { MOST_WORST = 10, MOST_PICTURES = 6, MOST_NONFINITE = 8, MOST_SHAPES = 4 };

typedef struct entry {
    const qn_piece *p[2];
    const char *name; // as the side calls it that has it as a weight of its own
    qn_array v[2];
    qn_array_figures f;
    bool shaped; // the shapes fit, figures are there
} entry;

typedef struct weights {
    qn_pieces pieces[2];
    entry *list;
    size_t n;
    qn_diff all;
} weights;

static uint64_t stored_bytes(const entry *e) {
    uint64_t n = 0;
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < QN_MAX_PARTS; i++)
            if (e->p[s]->w->parts[i] && e->p[s]->w->rows)
                n += e->p[s]->w->parts[i]->bytes / e->p[s]->w->rows * e->p[s]->rows;
    return n;
}

static bool is_vocabulary(const char *name) {
    return qn_str_ends(name, "embed_tokens.weight") || qn_str_ends(name, "lm_head.weight");
}

static qn_array array_of_piece(const qn_piece *p) {
    qn_array a = qn_array_of_weight(p->w);
    if (!p->part) return a;
    a.row0 = p->row0;
    a.rows = p->rows;
    a.order = p->order;
    return a;
}

static bool fit(qn_comparison *c, entry *e) {
    qn_array *a = &e->v[0], *b = &e->v[1];
    *a = array_of_piece(e->p[0]);
    *b = array_of_piece(e->p[1]);
    if (a->rows == b->rows && a->cols == b->cols) return true;
    if (a->cols != b->cols || !is_vocabulary(e->name)) return false;
    size_t least = a->rows < b->rows ? a->rows : b->rows;
    qn_compare_note(c, qn_strf("%s: A has %zu rows, B has %zu; the first %zu are compared", e->name,
                               a->rows, b->rows, least),
                    qn_strf("%s：A 有 %zu 行，B 有 %zu 行；只比较前 %zu 行", e->name, a->rows, b->rows,
                            least));
    a->rows = b->rows = least;
    c->partial = true;
    return true;
}

static void list_only(qn_comparison *c, const weights *ws, int side) {
    const qn_pieces *mine = &ws->pieces[side], *other = &ws->pieces[1 - side];
    json_t *only = json_array();
    for (size_t i = 0; i < mine->n; i++) {
        const qn_piece *p = &mine->list[i];
        if (qn_pieces_find(other, p->key)) continue;
        char *name = qn_piece_name(mine, p);
        json_array_append_new(only, json_string(name));
        qn_free(name);
    }
    size_t k = json_array_size(only);
    json_object_set_new(c->report, side ? "only_in_b" : "only_in_a", only);
    if (!k) return;
    const char *letter = side ? "B" : "A", *first = json_string_value(json_array_get(only, 0));
    qn_compare_reason(c, qn_strf("%zu tensor%s only in %s, first %s", k, k == 1 ? " is" : "s are",
                                 letter, first),
                      qn_strf("有 %zu 个张量只在 %s 中，首个为 %s", k, letter, first));
}

// What was matched other than by its name is said once per side.
static void note_spelling(qn_comparison *c, const weights *ws) {
    const qn_pieces *p = ws->pieces;
    if (p[0].prefix && p[1].prefix && strcmp(p[0].prefix, p[1].prefix) != 0)
        qn_compare_note(
            c, qn_strf("text tensors are named \"%s…\" in A and \"%s…\" in B: taken as the same",
                       p[0].prefix, p[1].prefix),
            qn_strf("文本张量在 A 中名为“%s…”，在 B 中名为“%s…”：视为相同", p[0].prefix, p[1].prefix));
    for (int s = 0; s < 2; s++) {
        char letter = s ? 'B' : 'A', other = s ? 'A' : 'B';
        if (p[s].n_split)
            qn_compare_note(
                c, qn_strf("%zu tensor%s of %c, first %s, hold%s what %c has one by one: compared "
                           "part by part", p[s].n_split, p[s].n_split == 1 ? "" : "s", letter,
                           p[s].split->name, p[s].n_split == 1 ? "s" : "", other),
                qn_strf("%c 的 %zu 个张量（首个为 %s）在 %c 中是分开存放的：逐部分比较", letter,
                        p[s].n_split, p[s].split->name, other));
        if (p[s].tied)
            qn_compare_note(
                c, qn_strf("%c ties its head to the embedding: that is compared with %c's "
                           "lm_head.weight", letter, other),
                qn_strf("%c 的输出头与嵌入层共享：以其与 %c 的 lm_head.weight 比较", letter, other));
    }
}

static bool collect(qn_comparison *c, weights *ws, qn_err *err) {
    qn_ckpt *const ckpt[2] = {c->file[0].ckpt, c->file[1].ckpt};
    if (!qn_pieces_match(ckpt, ws->pieces, err)) return false;
    ws->list = QN_NEW_ARRAY(entry, ws->pieces[0].n);
    for (size_t i = 0; i < ws->pieces[0].n; i++) {
        const qn_piece *p = &ws->pieces[0].list[i], *q = qn_pieces_find(&ws->pieces[1], p->key);
        if (q)
            ws->list[ws->n++] = (entry){.p = {p, q}, .name = !p->part   ? p->w->name
                                                             : !q->part ? q->w->name
                                                                        : p->key};
    }
    if (!ws->n)
        return qn_fail(err, QN_INPUT, "%s and %s have no tensor in common", c->file[0].path,
                       c->file[1].path);
    note_spelling(c, ws);
    for (int s = 0; s < 2; s++) list_only(c, ws, s);
    return true;
}

static void say_nonfinite(qn_comparison *c, const entry *e, int s) {
    const qn_side *side = &e->f.side[s];
    unsigned long long n = side->n;
    size_t cols = e->v[s].cols, row = side->first / cols, col = side->first % cols;
    char letter = s ? 'B' : 'A';
    if (!n) return;
    qn_compare_add_nonfinite(c, s, e->name, side, 0, cols);
    if (json_array_size(c->nonfinite) > MOST_NONFINITE) return; // that list has them all
    qn_compare_reason(
        c, qn_strf("%s of %c: %llu value%s not finite, first %s at row %zu, column %zu", e->name,
                   letter, n, n == 1 ? " is" : "s are", qn_side_value(side), row, col),
        qn_strf("%c 的 %s 中有 %llu 个值不是有限数，首个为 %s，位于第 %zu 行、第 %zu 列", letter, e->name,
                n, qn_side_value(side), row, col));
}

static bool measure(qn_comparison *c, weights *ws, qn_err *err) {
    uint64_t total = 0, done = 0;
    for (size_t i = 0; i < ws->n; i++) total += stored_bytes(&ws->list[i]);
    for (size_t i = 0; i < ws->n; i++) {
        entry *e = &ws->list[i];
        e->shaped = fit(c, e);
        if (e->shaped && !qn_array_compare(c->pool, &e->v[0], &e->v[1], &e->f, err)) return false;
        done += stored_bytes(e);
        if (!qn_compare_progress(c, done, total, err)) return false;
        qn_diff_merge(&ws->all, &e->f.diff);
        for (int s = 0; e->shaped && s < 2; s++) say_nonfinite(c, e, s);
        c->differs |= e->f.diff.any_differs;
    }
    return true;
}

// ---- the worst ----

static double badness(const entry *e) {
    if (!e->shaped || e->f.side[0].n || e->f.side[1].n) return INFINITY;
    return 1 - qn_compare_cosine(&e->f.diff);
}

static int by_badness(const void *a, const void *b) {
    const entry *x = *(const entry *const *)a, *y = *(const entry *const *)b;
    double p = badness(x), q = badness(y);
    if (p == q) p = qn_diff_rel_rms(&x->f.diff), q = qn_diff_rel_rms(&y->f.diff);
    return (p < q) - (p > q);
}

static const entry **sorted(const weights *ws) {
    const entry **list = QN_NEW_ARRAY(const entry *, ws->n);
    for (size_t i = 0; i < ws->n; i++) list[i] = &ws->list[i];
    qsort(list, ws->n, sizeof *list, by_badness);
    return list;
}

static bool publish_worst(qn_comparison *c, const weights *ws, qn_err *err) {
    const entry **list = sorted(ws);
    json_t *names = json_array();
    bool ok = true;
    for (size_t i = 0; i < ws->n && i < MOST_WORST; i++) {
        const entry *e = list[i];
        if (e->shaped && !e->f.diff.any_differs) break;
        json_array_append_new(names, json_string(e->name));
        if (ok && c->o->page && e->shaped && i < MOST_PICTURES)
            ok = qn_compare_add_histogram(c, e->name, &e->v[0], &e->v[1], err);
    }
    json_object_set_new(c->report, "worst", names);
    free(list);
    return ok;
}

// ---- verdict ----

static void judge_shapes(qn_comparison *c, const weights *ws) {
    size_t n = 0;
    for (size_t i = 0; i < ws->n; i++) {
        const entry *e = &ws->list[i];
        if (e->shaped || n++ >= MOST_SHAPES) continue;
        qn_compare_reason(
            c,
            qn_strf("%s: [%zu, %zu] in A, [%zu, %zu] in B", e->name, e->v[0].rows, e->v[0].cols,
                    e->v[1].rows, e->v[1].cols),
            qn_strf("%s：A 中为 [%zu, %zu]，B 中为 [%zu, %zu]", e->name, e->v[0].rows, e->v[0].cols,
                    e->v[1].rows, e->v[1].cols));
    }
    if (n > MOST_SHAPES)
        qn_compare_reason(c, qn_strf("%zu more weights are of other shapes in A and B",
                                     n - MOST_SHAPES),
                          qn_strf("另有 %zu 个权重在 A 和 B 中形状不同", n - MOST_SHAPES));
}

static void judge_figures(qn_comparison *c, const weights *ws) {
    const entry *low = NULL, *far = NULL;
    size_t n_low = 0, n_far = 0, shaped = 0;
    char x[32], limit[32];
    for (size_t i = 0; i < ws->n; i++) {
        const entry *e = &ws->list[i];
        if (!e->shaped) continue;
        shaped++;
        double cosine = qn_compare_cosine(&e->f.diff);
        n_low += !(cosine >= c->o->cosine);
        n_far += !(e->f.diff.max_abs <= c->o->max_abs);
        if (!low || cosine < qn_compare_cosine(&low->f.diff)) low = e;
        if (!far || e->f.diff.max_abs > far->f.diff.max_abs) far = e;
    }
    if (n_low) {
        qn_compare_digits(qn_compare_cosine(&low->f.diff), x);
        qn_compare_digits(c->o->cosine, limit);
        qn_compare_reason(
            c, qn_strf("%zu of %zu weights have a cosine below %s, worst %s (%s)", n_low, shaped,
                       limit, low->name, x),
            qn_strf("%zu / %zu 个权重的余弦相似度低于 %s，最差为 %s（%s）", n_low, shaped, limit,
                    low->name, x));
    }
    if (n_far) {
        qn_compare_digits(far->f.diff.max_abs, x);
        qn_compare_digits(c->o->max_abs, limit);
        qn_compare_reason(
            c, qn_strf("%zu of %zu weights have a max abs error above %s, worst %s (%s)", n_far,
                       shaped, limit, far->name, x),
            qn_strf("%zu / %zu 个权重的最大绝对误差高于 %s，最差为 %s（%s）", n_far, shaped, limit,
                    far->name, x));
    }
}

static json_t *shape_json(const entry *e, int s) {
    return json_pack("[I,I]", (json_int_t)e->v[s].rows, (json_int_t)e->v[s].cols);
}

static json_t *entry_json(const entry *e) {
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(e->name));
    for (int s = 0; s < 2; s++) {
        const qn_weight *w = e->p[s]->w;
        char *stored = qn_stored_as(w);
        json_object_set_new(o, s ? "stored_b" : "stored_a", json_string(stored));
        free(stored);
        if (e->p[s]->part) json_object_set_new(o, s ? "part_of_b" : "part_of_a",
                                               json_string(w->name));
    }
    json_object_set_new(o, "shape", shape_json(e, 0));
    if (!e->shaped) {
        json_object_set_new(o, "shape_b", shape_json(e, 1));
        json_object_set_new(o, "cosine", json_null());
        json_object_set_new(o, "max_abs_error", json_null());
        json_object_set_new(o, "identical", json_false());
        return o;
    }
    qn_compare_add_figures(o, &e->f.diff);
    for (int s = 0; s < 2; s++)
        json_object_set_new(o, s ? "nonfinite_b" : "nonfinite_a",
                            json_integer((json_int_t)e->f.side[s].n));
    return o;
}

static void publish(qn_comparison *c, const weights *ws) {
    static const char *const absent[] = {"kl", "top1", "top5", "top10"}; // weights have none
    json_t *list = json_array(), *overall = json_object();
    qn_compare_add_figures(overall, &ws->all);
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        json_object_set_new(overall, absent[i], json_null());
    for (size_t i = 0; i < ws->n; i++) json_array_append_new(list, entry_json(&ws->list[i]));
    json_object_set_new(c->report, "overall", overall);
    json_object_set_new(c->report, "tensors", list);
}

bool qn_compare_weights(qn_comparison *c, qn_err *err) {
    weights ws = {0};
    bool ok = collect(c, &ws, err) && measure(c, &ws, err);
    if (ok) {
        publish(c, &ws);
        judge_shapes(c, &ws);
        judge_figures(c, &ws);
        ok = publish_worst(c, &ws, err);
    }
    free(ws.list);
    for (int s = 0; s < 2; s++) qn_pieces_done(&ws.pieces[s]);
    return ok;
}
