// The largest singular value of a matrix that is streamed. The search runs on a copy in 7 bits a value
// (rows scaled by themselves; of very large matrices every k-th 16 rows), which stays in cache: a
// Krylov space of W^T W grown one vector at a time, Rayleigh-Ritz over all of them (Lanczos with full
// orthogonalization; Golub & Van Loan, Matrix Computations, 10.1). The vector it finds is then put
// through the matrix itself, which gives the value and how far it can be trusted.
#ifndef QN_QUANT_OPERATOR_NORM_H
#define QN_QUANT_OPERATOR_NORM_H

#include "base/pool.h"
#include "quant/value_runs.h"
#include "quern.h"

typedef struct qn_norm qn_norm; // work space, kept from matrix to matrix
qn_norm *qn_norm_new(qn_pool *pool);
void qn_norm_free(qn_norm *n);

bool qn_norm_begin(qn_norm *n, size_t rows, size_t cols, qn_err *err);
// Finite rows, once each. Any thread.
void qn_norm_take(qn_norm *n, size_t row0, size_t n_rows, qn_run_dtype dtype, const uint8_t *w);

// Multiplies what was taken: the norm is then that of factor W, as which passes must give the rows.
void qn_norm_scale(qn_norm *n, float factor);

// y = W x [rows], z = W^T y [cols], of the matrix itself; or of every `every`-th 16 rows of it only.
typedef bool (*qn_norm_pass_fn)(void *user, size_t every, const float *x, float *y, float *z,
                                qn_err *err);

// *tolerance is how far, relatively, the residual ‖W^T W x − λ x‖ says *norm may be off (from a
// singular value; that it is the largest is as sure as a search from a random start makes it).
// Matrices of up to 2^20 values go on to 1e-4, and *norm is never too large but for rounding. For
// larger ones the search has 6 to 4 steps, and its vector is put through every 16th 16 rows: they
// correct the norm, and what they differ by is in the tolerance. If the copy lacks rows (it has 32
// MiB at most), these rows give the norm, and their standard error is in the tolerance.
bool qn_norm_find(qn_norm *n, qn_norm_pass_fn pass, void *user, double *norm, double *tolerance,
                  qn_err *err);

#endif
