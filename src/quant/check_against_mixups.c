// Naming the difference between a matrix and its reference. Lines (rows or columns) are compared by
// cosine: random ones stay below 0.4, the same one quantized to 2 bits is above 0.8, so LIKE
// between tells "this line" from "another line" at every bit width.
#include "quant/check_against_mixups.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define LIKE 0.6
enum { PROBES = 16, RUN = 32 };

// Lines of a matrix: rows or columns.
typedef struct lines {
    const qn_two_matrices *m;
    const char *name;
    size_t n, length, step, jump; // step within a line, from line to line
} lines;

static lines rows_of(const qn_two_matrices *m) {
    return (lines){m, "rows", m->rows, m->cols, 1, m->cols};
}

static lines columns_of(const qn_two_matrices *m) {
    return (lines){m, "columns", m->cols, m->rows, m->cols, 1};
}

static double cosine(const float *x, size_t x_step, const float *y, size_t y_step, size_t n) {
    double xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < n; i++) {
        double p = x[i * x_step], q = y[i * y_step];
        if (!isfinite(p) || !isfinite(q)) continue;
        xy += p * q;
        xx += p * p;
        yy += q * q;
    }
    if (xx == 0 && yy == 0) return 1;
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
}

static double alike(const lines *l, size_t of_a, size_t of_b) {
    return cosine(l->m->a + of_a * l->jump, l->step, l->m->b + of_b * l->jump, l->step, l->length);
}

static bool is_zero(const lines *l, size_t i) {
    for (size_t k = 0; k < l->length; k++)
        if (l->m->a[i * l->jump + k * l->step] != 0) return false;
    return true;
}

// The line of b that is most like line i of a.
static size_t best_line(const lines *l, size_t i, double *best) {
    size_t at = 0;
    *best = -2;
    for (size_t k = 0; k < l->n; k++) {
        double c = alike(l, i, k);
        if (c > *best) *best = c, at = k;
    }
    return at;
}

// ---- where it differs ----

typedef struct bad_lines {
    size_t n, first, last; // lines that are not the reference's line of that number
    size_t zero, flipped;  // of those: all zero; the reference's with its sign flipped
    size_t *list;          // [n]
} bad_lines;

static bad_lines find_bad(const lines *l) {
    bad_lines bad = {.list = QN_NEW_ARRAY(size_t, l->n)};
    for (size_t i = 0; i < l->n; i++) {
        double c = alike(l, i, i);
        if (c >= LIKE) continue;
        if (bad.n == 0) bad.first = i;
        bad.last = i;
        bad.list[bad.n++] = i;
        bad.flipped += c <= -LIKE;
        bad.zero += is_zero(l, i);
    }
    return bad;
}

// ---- order ----

typedef struct moves {
    size_t from[PROBES], to[PROBES], n; // line from of the reference is at to
    size_t shift; // common distance, or 0
} moves;

// Where some of the bad lines come from; false when one of them is nowhere in the reference.
static bool find_moves(const lines *l, const bad_lines *bad, moves *out) {
    out->n = 0;
    bool same = true;
    for (size_t p = 0; p < PROBES && p < bad->n; p++) {
        size_t i = bad->list[p * bad->n / (bad->n < PROBES ? bad->n : PROBES)];
        double c;
        size_t k = best_line(l, i, &c);
        if (c < LIKE) return false;
        out->to[out->n] = i;
        out->from[out->n++] = k;
    }
    out->shift = out->n ? (out->to[0] + l->n - out->from[0]) % l->n : 0;
    for (size_t p = 1; p < out->n; p++)
        same &= (out->to[p] + l->n - out->from[p]) % l->n == out->shift;
    if (!same) out->shift = 0;
    return out->n > 0;
}

// Rotary dimensions in pairs instead of halves, or the reverse, in heads of `head` rows.
static size_t paired(size_t i, size_t head, bool reverse) {
    size_t base = i / head * head, at = i % head, half = head / 2;
    return base + (reverse ? at % half * 2 + at / half : at % 2 * half + at / 2);
}

static size_t rotary_head(const lines *l, const moves *m, bool *reverse) {
    static const size_t heads[] = {16, 32, 64, 80, 96, 128, 192, 256};
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        for (int way = 0; way < 2 && l->n % heads[h] == 0; way++) {
            size_t fits = 0;
            for (size_t p = 0; p < m->n; p++)
                fits += paired(m->to[p], heads[h], way) == m->from[p];
            *reverse = way;
            if (m->n >= 8 && fits == m->n) return heads[h];
        }
    return 0;
}

static bool name_order(const lines *l, const bad_lines *bad, char *text) {
    moves m;
    bool is_rows = l->step == 1, reverse;
    if (!find_moves(l, bad, &m)) return false;
    size_t head = is_rows ? rotary_head(l, &m, &reverse) : 0;
    if (head)
        snprintf(text, QN_MIXUP_TEXT, "; its rows are the reference's, rope-permuted within heads of "
                 "%zu (%s)", head, reverse ? "halves instead of pairs" : "pairs instead of halves");
    else if (m.shift && bad->n * 10 > l->n * 9)
        snprintf(text, QN_MIXUP_TEXT, "; it is the reference shifted %s by %zu %s",
                 is_rows ? "down" : "right", m.shift, l->name);
    else if (bad->n * 2 > l->n)
        snprintf(text, QN_MIXUP_TEXT, "; its %s are the reference's in another order (%s)", l->name,
                 is_rows ? "row-shuffled" : "permuted");
    else
        snprintf(text, QN_MIXUP_TEXT, "; %zu of its %s, between %zu and %zu, are the reference's in "
                 "another order (permuted: %zu comes from %zu)", bad->n, l->name, bad->first,
                 bad->last, m.to[0], m.from[0]);
    return true;
}

static bool name_lines(const lines *l, char *text) {
    bad_lines bad = find_bad(l);
    bool named = bad.n > 0;
    if (bad.n && bad.zero == bad.n)
        snprintf(text, QN_MIXUP_TEXT, "; %zu of its %s, from %zu to %zu, are zero", bad.n, l->name,
                 bad.first, bad.last);
    else if (bad.n && bad.flipped == bad.n)
        snprintf(text, QN_MIXUP_TEXT, "; %zu of its %s, from %zu to %zu, are the reference's with the "
                 "sign flipped", bad.n, l->name, bad.first, bad.last);
    else
        named = bad.n && name_order(l, &bad, text);
    free(bad.list);
    return named;
}

// ---- the matrix as a whole ----

static bool is_transposed(const qn_two_matrices *m) {
    if (m->rows != m->cols) return false;
    double sum = 0, in_place = 0;
    for (size_t p = 0; p < PROBES; p++) {
        size_t i = p * m->rows / PROBES;
        sum += cosine(m->a + i * m->cols, 1, m->b + i, m->cols, m->cols);
        in_place += cosine(m->a + i * m->cols, 1, m->b + i * m->cols, 1, m->cols);
    }
    return sum / PROBES > LIKE && in_place < sum - 0.1 * PROBES;
}

// The longest run of zeros in a row where the reference has none.
static size_t zero_run(const float *a, const float *b, size_t n, size_t *start) {
    size_t best = 0, at = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && a[i] == 0 && b[i] != 0) continue;
        if (i - at > best) best = i - at, *start = at;
        at = i + 1;
    }
    return best;
}

// Rows with a long run of zeros in the same place: a block.
static bool name_block(const qn_two_matrices *m, char *text) {
    enum { LONG = 16 };
    size_t n = 0, first = 0, last = 0, from = 0, to = m->cols;
    for (size_t r = 0; r < m->rows; r++) {
        size_t start = 0, run = zero_run(m->a + r * m->cols, m->b + r * m->cols, m->cols, &start);
        if (run < LONG) continue;
        if (n++ == 0) first = r;
        last = r;
        if (start > from) from = start;
        if (start + run < to) to = start + run;
    }
    if (n < 2 || n * 5 < (last - first + 1) * 4 || to < from + LONG) return false;
    snprintf(text, QN_MIXUP_TEXT, "; rows %zu to %zu, columns %zu to %zu, are zero", first, last, from,
             to - 1);
    return true;
}

// Short runs within which the difference is one number, the step, or ± one number.
static bool name_steps(const qn_two_matrices *m, char *text) {
    size_t runs = 0, steady = 0, against = 0;
    double up = 0;
    for (size_t r = 0; r < m->rows; r += m->rows / 64 + 1)
        for (size_t at = 0; at + RUN <= m->cols; at += RUN) {
            const float *a = m->a + r * m->cols + at, *b = m->b + r * m->cols + at;
            double sum = 0, size = 0, squares = 0, opposed = 0;
            for (size_t i = 0; i < RUN; i++) {
                double d = (double)a[i] - (double)b[i];
                sum += d;
                size += fabs(d);
                squares += d * d;
                opposed += d * (double)b[i] < 0;
            }
            double flat = squares > 0 ? size * size / (RUN * squares) : 0; // 1: all one magnitude
            runs++;
            steady += flat > 0.8 && fabs(sum) > 0.9 * size;
            against += flat > 0.97 && opposed > 0.9 * RUN && fabs(sum) < 0.9 * size;
            up += sum;
        }
    if (runs && steady * 10 > runs * 8)
        snprintf(text, QN_MIXUP_TEXT, "; its values are the reference's, shifted %s by one number in "
                 "every group (a wrong zero point)", up > 0 ? "up" : "down");
    else if (runs && against * 10 > runs * 8)
        snprintf(text, QN_MIXUP_TEXT, "; every value is off by ± one number, away from its sign "
                 "(codes viewed as signed)");
    return text[0] != 0;
}

static bool name_whole(const qn_two_matrices *m, char *text) {
    double overall = cosine(m->a, 1, m->b, 1, m->rows * m->cols);
    if (overall < -LIKE)
        snprintf(text, QN_MIXUP_TEXT, "; it is the reference with its sign flipped");
    else if (is_transposed(m))
        snprintf(text, QN_MIXUP_TEXT, "; it is the reference transposed");
    return text[0] != 0;
}

void qn_mixup_name(const qn_two_matrices *m, char text[QN_MIXUP_TEXT]) {
    lines rows = rows_of(m), columns = columns_of(m);
    text[0] = 0;
    if (name_steps(m, text) || name_whole(m, text) || name_lines(&rows, text) ||
        name_lines(&columns, text))
        return;
    if (!name_block(m, text)) text[0] = 0;
}
