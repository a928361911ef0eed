// Lines (rows or columns) of a matrix that are the reference's in another order.
#ifndef QN_QUANT_CHECK_AGAINST_ORDER_H
#define QN_QUANT_CHECK_AGAINST_ORDER_H

#include <math.h>
#include <stdbool.h>

#include "quant/check_against_mixups.h"

// Sums for a cosine; values that are not finite are left out.
typedef struct qn_angle {
    double ab, aa, bb;
} qn_angle;

static inline void qn_angle_add(qn_angle *g, double a, double b) {
    if (!isfinite(a) || !isfinite(b)) return;
    g->ab += a * b;
    g->aa += a * a;
    g->bb += b * b;
}

// Two of zeros are the same.
static inline double qn_angle_cosine(const qn_angle *g) {
    if (g->aa == 0 && g->bb == 0) return 1;
    return g->aa > 0 && g->bb > 0 ? g->ab / sqrt(g->aa * g->bb) : 0;
}

// Random lines have a cosine below 0.4, the same one quantized to 2 bits is above 0.8: what lies
// between tells "this line" from "another line" at every bit width.
#define QN_LINE_LIKE 0.6

typedef struct qn_lines {
    const qn_two_matrices *m;
    const char *name; // "rows", "columns"
    size_t n, length, step, jump; // step within a line, from line to line
} qn_lines;

qn_lines qn_lines_rows(const qn_two_matrices *m);
qn_lines qn_lines_columns(const qn_two_matrices *m);

// Of n values, x_step and y_step apart.
double qn_line_cosine(const float *x, size_t x_step, const float *y, size_t y_step, size_t n);
// Line of_a of a beside line of_b of b.
double qn_lines_cosine(const qn_lines *l, size_t of_a, size_t of_b);

// bad: the n_bad lines of a that are not b's line of that number. Names their order in text when a with
// its lines put back is b (m->enough).
bool qn_order_name(const qn_lines *l, const size_t *bad, size_t n_bad, char *text);

#endif
