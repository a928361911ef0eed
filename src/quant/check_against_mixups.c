// Naming the difference between a matrix and its reference: a name is given when undoing what it says
// gives the reference. What became of the order of rows and columns is check_against_order.c's.
#include "quant/check_against_mixups.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "quant/check_against_order.h"

#define LIKE QN_LINE_LIKE
enum { PROBES = 16, RUN = 32 };

static bool is_zero(const qn_lines *l, size_t i) {
    for (size_t k = 0; k < l->length; k++)
        if (l->m->a[i * l->jump + k * l->step] != 0) return false;
    return true;
}

// ---- where it differs ----

typedef struct bad_lines {
    size_t n, first, last; // lines that are not the reference's line of that number
    size_t zero, flipped;  // of those: all zero; the reference's with its sign flipped
    size_t *list;          // [n]
} bad_lines;

static bad_lines find_bad(const qn_lines *l) {
    bad_lines bad = {.list = QN_NEW_ARRAY(size_t, l->n)};
    for (size_t i = 0; i < l->n; i++) {
        double c = qn_lines_cosine(l, i, i);
        if (c >= LIKE) continue;
        if (bad.n == 0) bad.first = i;
        bad.last = i;
        bad.list[bad.n++] = i;
        bad.flipped += c <= -LIKE;
        bad.zero += is_zero(l, i);
    }
    return bad;
}

// The cosine of all lines with the signs of these turned.
static double turned(const qn_lines *l, const bad_lines *bad) {
    qn_angle g = {0};
    for (size_t i = 0, k = 0; i < l->n; i++) {
        double sign = k < bad->n && bad->list[k] == i ? -1 : 1;
        k += sign < 0;
        for (size_t at = i * l->jump, end = at + l->length * l->step; at < end; at += l->step)
            qn_angle_add(&g, sign * (double)l->m->a[at], (double)l->m->b[at]);
    }
    return qn_angle_cosine(&g);
}

static bool name_lines(const qn_lines *l, char *text) {
    bad_lines bad = find_bad(l);
    bool named = bad.n > 0;
    if (bad.n && bad.zero == bad.n)
        snprintf(text, QN_MIXUP_TEXT, "; %zu of its %s, from %zu to %zu, are zero", bad.n, l->name,
                 bad.first, bad.last);
    else if (bad.n && bad.flipped == bad.n && turned(l, &bad) >= l->m->enough)
        snprintf(text, QN_MIXUP_TEXT, "; %zu of its %s, from %zu to %zu, are the reference's with the "
                 "sign flipped", bad.n, l->name, bad.first, bad.last);
    else
        named = bad.n && qn_order_name(l, bad.list, bad.n, text);
    free(bad.list);
    return named;
}

// ---- the matrix as a whole ----

static bool is_transposed(const qn_two_matrices *m) {
    if (m->rows != m->cols) return false;
    qn_angle g = {0};
    double sum = 0;
    for (size_t p = 0; p < PROBES; p++) {
        size_t i = p * m->rows / PROBES;
        sum += qn_line_cosine(m->a + i * m->cols, 1, m->b + i, m->cols, m->cols);
    }
    if (sum / PROBES < LIKE) return false;
    for (size_t r = 0; r < m->rows; r++)
        for (size_t c = 0; c < m->cols; c++)
            qn_angle_add(&g, (double)m->a[r * m->cols + c], (double)m->b[c * m->cols + r]);
    return qn_angle_cosine(&g) >= m->enough;
}

// As one run of numbers, moved by a few: rows begin in their neighbours. The distance, or 0.
static long flat_shift(const qn_two_matrices *m) {
    enum { FAR = 64, SOME = 2048 };
    size_t n = m->rows * m->cols, at = n / 2;
    if (n < 4 * SOME) return 0;
    for (long by = -FAR; by <= FAR; by++) {
        const float *a = m->a + at, *b = m->b + (ptrdiff_t)at - by;
        if (by == 0 || qn_line_cosine(a, 1, b, 1, SOME) < LIKE) continue;
        size_t far = (size_t)labs(by);
        const float *from = by > 0 ? m->a + far : m->a, *to = by > 0 ? m->b : m->b + far;
        if (qn_line_cosine(from, 1, to, 1, n - far) >= m->enough) return by;
    }
    return 0;
}

// The same shift with every row for itself moves only its ends otherwise; those decide.
static bool wraps_in_rows(const qn_two_matrices *m, long by) {
    size_t far = (size_t)labs(by), rows = m->rows - 1;
    double in_row = 0, across = 0;
    if (far >= m->cols) return false;
    for (size_t r = 1; r < rows; r++)
        for (size_t i = 0; i < far; i++) {
            size_t at = r * m->cols + (by > 0 ? i : m->cols - far + i);
            size_t own = by > 0 ? at + m->cols - far : at + far - m->cols;
            size_t next = by > 0 ? at - far : at + far;
            in_row += (double)m->a[at] * (double)m->b[own];
            across += (double)m->a[at] * (double)m->b[next];
        }
    return in_row >= across;
}

static bool name_flat_shift(const qn_two_matrices *m, char *text) {
    long by = flat_shift(m);
    if (!by || wraps_in_rows(m, by)) return false;
    snprintf(text, QN_MIXUP_TEXT, "; it is the reference's values shifted %s by %ld, across the ends "
             "of rows", by > 0 ? "right" : "left", labs(by));
    return true;
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
    double overall = qn_line_cosine(m->a, 1, m->b, 1, m->rows * m->cols);
    if (overall <= -m->enough)
        snprintf(text, QN_MIXUP_TEXT, "; it is the reference with its sign flipped");
    else if (is_transposed(m))
        snprintf(text, QN_MIXUP_TEXT, "; it is the reference transposed");
    return text[0] != 0;
}

void qn_mixup_name(const qn_two_matrices *m, char text[QN_MIXUP_TEXT]) {
    qn_lines rows = qn_lines_rows(m), columns = qn_lines_columns(m);
    text[0] = 0;
    if (name_steps(m, text) || name_whole(m, text) || name_flat_shift(m, text) ||
        name_lines(&rows, text) ||
        name_lines(&columns, text))
        return;
    if (!name_block(m, text)) text[0] = 0;
}
