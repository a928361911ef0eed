// Matrices of floats on demand, whatever they are stored as, and what two of them have in common.
#ifndef QN_QUANT_COMPARE_ARRAY_H
#define QN_QUANT_COMPARE_ARRAY_H

#include "quant/measure.h"
#include "store/weight.h"

typedef struct qn_array {
    const qn_tensor *tensor; // plain; stride is its columns
    const qn_weight *weight; // or quantized; then stride is cols
    size_t rows, cols;       // what counts: cols may be fewer than stride (a common prefix)
    size_t row0, stride;
    const size_t *order;     // NULL, or the rows that count, [rows] of them
} qn_array;

qn_array qn_array_of_tensor(const qn_tensor *t);
qn_array qn_array_of_weight(const qn_weight *w);
// Rows row … row + n - 1, cols floats each. Any thread.
bool qn_array_rows(const qn_array *a, size_t row, size_t n, float *out, qn_err *err);

typedef struct qn_side { // values that are not finite
    uint64_t n, first;   // first: element index, meaningful if n
    float value;         // the first one
} qn_side;
void qn_side_add(qn_side *s, uint64_t at, const float *x, size_t n); // elements at … at + n - 1
void qn_side_merge(qn_side *s, const qn_side *next);                 // indices are absolute
const char *qn_side_value(const qn_side *s); // the first one: "nan", "inf", "-inf"

typedef struct qn_array_figures {
    qn_diff diff;
    qn_side side[2];
} qn_array_figures;
// a against b (same rows and cols), streamed over the pool; at most about 2 MiB (or two rows) per
// thread in flight. b is the reference.
bool qn_array_compare(qn_pool *pool, const qn_array *a, const qn_array *b, qn_array_figures *out,
                      qn_err *err);

// Counts of both sides' values in equal bins; what lies outside the range counts in the end bins.
enum { QN_BINS = 64 };
typedef struct qn_histogram {
    double low, high;
    uint64_t count[2][QN_BINS];
} qn_histogram;
// The range covers both, but at most five standard deviations around the mean.
bool qn_array_histogram(qn_pool *pool, const qn_array *a, const qn_array *b, qn_histogram *out,
                        qn_err *err);

#endif
