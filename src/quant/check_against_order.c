// Finding where every line of a matrix comes from, and a name for the rule behind it. The rule is put
// to all lines that moved: a few of them fit many rules.
#include "quant/check_against_order.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

qn_lines qn_lines_rows(const qn_two_matrices *m) {
    return (qn_lines){m, "rows", m->rows, m->cols, 1, m->cols};
}

qn_lines qn_lines_columns(const qn_two_matrices *m) {
    return (qn_lines){m, "columns", m->cols, m->rows, m->cols, 1};
}

double qn_line_cosine(const float *x, size_t x_step, const float *y, size_t y_step, size_t n) {
    qn_angle g = {0};
    for (size_t i = 0; i < n; i++)
        qn_angle_add(&g, (double)x[i * x_step], (double)y[i * y_step]);
    return qn_angle_cosine(&g);
}

double qn_lines_cosine(const qn_lines *l, size_t of_a, size_t of_b) {
    return qn_line_cosine(l->m->a + of_a * l->jump, l->step, l->m->b + of_b * l->jump, l->step,
                          l->length);
}

// ---- where lines come from ----

enum { PROBES = 16, MOST = 4096, SAMPLE = 512, FEW = 48 };

typedef struct order {
    size_t *to, *from, n; // line from[i] of the reference is at to[i]
    float *near;          // work space: a value per line
} order;

// The line of b that is most like line i of a. A few values of each tell most others away: lines of
// one matrix may all be alike, so what counts is how near the nearest comes.
static size_t best_line(const qn_lines *l, size_t i, float *near, double *best) {
    size_t at = 0, skip = l->length / FEW + 1, few = l->length / skip;
    const float *a = l->m->a + i * l->jump;
    float nearest = -1;
    for (size_t k = 0; k < l->n; k++) {
        const float *b = l->m->b + k * l->jump;
        near[k] = (float)qn_line_cosine(a, skip * l->step, b, skip * l->step, few);
        if (near[k] > nearest) nearest = near[k];
    }
    *best = -2;
    for (size_t k = 0; k < l->n; k++) {
        if (near[k] < nearest - 0.15f) continue;
        double c = qn_line_cosine(a, l->step, l->m->b + k * l->jump, l->step, l->length);
        if (c > *best) *best = c, at = k;
    }
    return at;
}

// Spread over all, in no step with words or heads.
static size_t scattered(size_t i, size_t n) {
    return (size_t)((double)i * 0.6180339887 * (double)n) % n;
}

static void find_line(const qn_lines *l, size_t to, order *o) {
    double c;
    size_t from = best_line(l, to, o->near, &c);
    if (c < QN_LINE_LIKE) return;
    o->to[o->n] = to;
    o->from[o->n++] = from;
}

// Some of the bad lines; false when they are nowhere in the reference.
static bool probe_order(const qn_lines *l, const size_t *bad, size_t n_bad, order *o) {
    size_t probes = n_bad < PROBES ? n_bad : PROBES;
    o->n = 0;
    for (size_t p = 0; p < probes; p++) find_line(l, bad[scattered(p, n_bad)], o);
    return o->n > 0 && o->n + 1 >= probes;
}

// All of them, or many; one in fifty may be nowhere: a line can be damaged besides.
static bool find_order(const qn_lines *l, const size_t *bad, size_t n_bad, order *o) {
    size_t n = l->n > MOST && n_bad > SAMPLE ? SAMPLE : n_bad;
    o->n = 0;
    for (size_t i = 0; i < n; i++)
        find_line(l, bad[n == n_bad ? i : scattered(i, n_bad)], o);
    return o->n * 50 >= n * 49;
}

// Lines with the same source are not in another order but copied.
static bool is_one_to_one(const qn_lines *l, const order *o) {
    bool *seen = QN_NEW_ARRAY(bool, l->n);
    size_t twice = 0;
    for (size_t i = 0; i < o->n; i++) {
        twice += seen[o->from[i]];
        seen[o->from[i]] = true;
    }
    free(seen);
    return twice * 50 <= o->n;
}

static void add_line(qn_angle *g, const qn_lines *l, size_t of_a, size_t of_b) {
    const float *a = l->m->a + of_a * l->jump, *b = l->m->b + of_b * l->jump;
    for (size_t k = 0; k < l->length; k++)
        qn_angle_add(g, (double)a[k * l->step], (double)b[k * l->step]);
}

// The cosine of the whole with these lines put back; of a sample where o is one.
static double put_back(const qn_lines *l, const order *o, const size_t *bad, size_t n_bad) {
    qn_angle g = {0};
    bool *moved = QN_NEW_ARRAY(bool, l->n);
    size_t *from = QN_NEW_ARRAY(size_t, l->n);
    for (size_t i = 0; i < l->n; i++) from[i] = i;
    for (size_t i = 0; i < n_bad; i++) moved[bad[i]] = true;
    for (size_t i = 0; i < o->n; i++) from[o->to[i]] = o->from[i], moved[o->to[i]] = false;
    for (size_t i = 0; i < l->n; i++) {
        if (moved[i] && o->n < n_bad && l->n > MOST) continue; // not in the sample
        add_line(&g, l, i, from[i]);
    }
    free(moved);
    free(from);
    return qn_angle_cosine(&g);
}

// ---- rules ----

// Every line, also those that are like their neighbours.
static double shifted_back(const qn_lines *l, size_t shift) {
    qn_angle g = {0};
    for (size_t i = 0; i < l->n; i++) add_line(&g, l, i, (i + l->n - shift) % l->n);
    return qn_angle_cosine(&g);
}

static bool name_shift(const qn_lines *l, const order *probes, char *text) {
    bool is_rows = l->step == 1;
    size_t shift = (probes->to[0] + l->n - probes->from[0]) % l->n, fits = 0;
    for (size_t i = 0; i < probes->n; i++)
        fits += (probes->to[i] + l->n - probes->from[i]) % l->n == shift;
    if (!shift || fits * 2 <= probes->n || shifted_back(l, shift) < l->m->enough) return false;
    bool on = shift * 2 <= l->n;
    snprintf(text, QN_MIXUP_TEXT, "; it is the reference shifted %s by %zu %s",
             on ? is_rows ? "down" : "right" : is_rows ? "up" : "left", on ? shift : l->n - shift,
             l->name);
    return true;
}

static bool is_reversed(const qn_lines *l, const order *o) {
    for (size_t i = 0; i < o->n; i++)
        if (o->from[i] != l->n - 1 - o->to[i]) return false;
    return true;
}

// Rotary dimensions in pairs instead of halves, or the reverse, in heads of `head` rows.
static size_t paired(size_t i, size_t head, bool reverse) {
    size_t base = i / head * head, at = i % head, half = head / 2;
    return base + (reverse ? at % half * 2 + at / half : at % 2 * half + at / 2);
}

static size_t rotary_head(const qn_lines *l, const order *o, bool *reverse) {
    static const size_t heads[] = {16, 32, 64, 80, 96, 128, 192, 256};
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        for (int way = 0; way < 2 && l->n % heads[h] == 0; way++) {
            size_t fits = 0;
            *reverse = way;
            for (size_t i = 0; i < o->n; i++)
                fits += paired(o->to[i], heads[h], way) == o->from[i];
            if (o->n >= 8 && fits == o->n) return heads[h];
        }
    return 0;
}

enum { MOST_PERIOD = 32 };

// The same order within every k lines; place[i]: which of the k is at i. 0: there is no such k. What
// moved in one of them moved in all.
static size_t period_of(const qn_lines *l, const order *o, size_t n_bad,
                        size_t place[MOST_PERIOD]) {
    for (size_t k = 2; k <= MOST_PERIOD; k *= 2) {
        bool fits = l->n % k == 0, known[MOST_PERIOD] = {false};
        for (size_t i = 0; i < k; i++) place[i] = i;
        for (size_t i = 0; i < o->n && fits; i++) {
            size_t at = o->to[i] % k, from = o->from[i] % k;
            fits = o->to[i] / k == o->from[i] / k && (!known[at] || place[at] == from);
            place[at] = from;
            known[at] = true;
        }
        size_t moved = 0;
        for (size_t i = 0; i < k; i++) moved += place[i] != i;
        if (fits && n_bad * 50 >= moved * (l->n / k) * 49) return k;
    }
    return 0;
}

static const char *known_order(const size_t *place, size_t k) {
    static const struct {
        size_t k, place[8];
        const char *name;
    } orders[] = {
        {8, {0, 2, 4, 6, 1, 3, 5, 7}, "AWQ's order of eight nibbles"},
        {8, {0, 4, 1, 5, 2, 6, 3, 7}, "AWQ's order of eight nibbles"},
        {8, {6, 7, 4, 5, 2, 3, 0, 1}, "the bytes of every word swapped"},
        {4, {3, 2, 1, 0}, "the bytes of every word swapped"},
    };
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++)
        if (orders[i].k == k && memcmp(orders[i].place, place, k * sizeof *place) == 0)
            return orders[i].name;
    return NULL;
}

static void name_period(const qn_lines *l, size_t k, const size_t *place, char *text) {
    const char *known = known_order(place, k);
    qn_buf b = {0};
    for (size_t i = 0; i < k && k <= 8; i++) qn_buf_addf(&b, " %zu", place[i]);
    snprintf(text, QN_MIXUP_TEXT, "; its %s are the reference's, permuted within every %zu:%s%s",
             l->name, k, b.n ? b.data : "", known ? "" : " (counted from 0)");
    if (known)
        snprintf(text, QN_MIXUP_TEXT, "; its %s are the reference's, permuted within every %zu: %s",
                 l->name, k, known);
    qn_buf_done(&b);
}

static void name_rule(const qn_lines *l, const order *o, size_t n_bad, const size_t *bad, char *text) {
    bool is_rows = l->step == 1, reverse, most = n_bad * 2 > l->n;
    size_t place[MOST_PERIOD], k = 0;
    size_t head = is_rows && l->m->heads ? rotary_head(l, o, &reverse) : 0;
    if (head)
        snprintf(text, QN_MIXUP_TEXT, "; its rows are the reference's, rope-permuted within heads of "
                 "%zu (%s)", head, reverse ? "halves instead of pairs" : "pairs instead of halves");
    else if (most && is_reversed(l, o))
        snprintf(text, QN_MIXUP_TEXT, "; its %s are the reference's in reverse order", l->name);
    else if (most && (k = period_of(l, o, n_bad, place)))
        name_period(l, k, place, text);
    else if (most)
        snprintf(text, QN_MIXUP_TEXT, "; its %s are the reference's in another order (%s)", l->name,
                 is_rows ? "row-shuffled" : "permuted");
    else
        snprintf(text, QN_MIXUP_TEXT, "; %zu of its %s, between %zu and %zu, are the reference's in "
                 "another order (permuted: %zu comes from %zu)", n_bad, l->name, bad[0],
                 bad[n_bad - 1], o->to[0], o->from[0]);
}

bool qn_order_name(const qn_lines *l, const size_t *bad, size_t n_bad, char *text) {
    order o = {QN_NEW_ARRAY(size_t, n_bad + 1), QN_NEW_ARRAY(size_t, n_bad + 1), 0,
               QN_NEW_ARRAY(float, l->n)};
    bool named = probe_order(l, bad, n_bad, &o);
    if (named && !name_shift(l, &o, text)) {
        named = find_order(l, bad, n_bad, &o) && is_one_to_one(l, &o) &&
                put_back(l, &o, bad, n_bad) >= l->m->enough;
        if (named) name_rule(l, &o, n_bad, bad, text);
    }
    free(o.to);
    free(o.from);
    free(o.near);
    return named;
}
