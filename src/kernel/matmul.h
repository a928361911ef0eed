// y[m][rows] = x[m][cols] W^T (+ bias), threaded. The order of every sum is a function of the
// matrix's shape and format alone: not of m, the row's place in the batch, the thread count or the
// instruction set. docs/numerics.md gives the canonical arithmetic of each format; the scalar code
// in kernel/format_*.c is its definition, and every faster leaf equals it bit for bit.
#ifndef QN_KERNEL_MATMUL_H
#define QN_KERNEL_MATMUL_H

#include "base/pool.h"
#include "kernel/mat.h"

// Where a forward pass computes: pool, precision, and scratch that grows to the largest step and
// is then reused (decode allocates nothing). One per engine; not shared between threads.
typedef struct qn_compute qn_compute;
qn_compute *qn_compute_new(qn_pool *pool, qn_precision precision);
void qn_compute_free(qn_compute *c);
qn_pool *qn_compute_pool(const qn_compute *c);
qn_precision qn_compute_precision(const qn_compute *c);

// Activations of one step: m rows of k floats, ld apart. Variants that formats need (bf16 pairs;
// int8 with a scale and a sum per group; columns permuted for act-order) are made on first use and
// shared by all matrices that read the same activations (q/k/v, gate/up).
typedef struct qn_acts qn_acts;
qn_acts *qn_acts_new(qn_compute *c);
void qn_acts_free(qn_acts *a);
void qn_acts_set(qn_acts *a, const float *x, size_t m, size_t k, size_t ld); // borrows x
void qn_matmul(qn_acts *a, const qn_mat *w, float *y, size_t ldy);

// The same for few rows that use different matrices (experts): y rows are independent jobs.
typedef struct qn_matmul_job {
    const qn_mat *w;
    size_t row, n;  // rows row … row + n - 1 of the activations
    float *y;       // n rows, ldy apart
    size_t ldy;
} qn_matmul_job;
void qn_matmul_jobs(qn_acts *a, const qn_matmul_job *jobs, size_t n_jobs);

#endif
