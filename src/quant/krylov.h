// A space of vectors v_i with y_i = W v_i and z_i = W^T y_i, grown one at a time, and the best vector
// in it: the largest λ of Y^T Y c = λ V^T V c (Rayleigh-Ritz for W^T W; the v_i need not be exactly
// orthogonal, so they may be rounded).
#ifndef QN_QUANT_KRYLOV_H
#define QN_QUANT_KRYLOV_H

#include "quern.h"

enum { QN_KRYLOV_MOST = 16 };

typedef struct qn_krylov {
    size_t rows, cols;
    int n, most; // vectors taken in, room for
    float *memory;
    size_t bytes;
    double vv[QN_KRYLOV_MOST][QN_KRYLOV_MOST], yy[QN_KRYLOV_MOST][QN_KRYLOV_MOST];
    double lambda, c[QN_KRYLOV_MOST]; // the best so far
} qn_krylov;

bool qn_krylov_begin(qn_krylov *k, size_t rows, size_t cols, int most, qn_err *err);
void qn_krylov_done(qn_krylov *k);

// The vector being added: fill v, normalize or round it, compute y and z, then add.
float *qn_krylov_v(const qn_krylov *k); // [cols]
float *qn_krylov_y(const qn_krylov *k); // [rows]
float *qn_krylov_z(const qn_krylov *k); // [cols]
bool qn_krylov_normalize(qn_krylov *k); // v to length 1; false when it is zero
double qn_krylov_add(qn_krylov *k);     // takes it in; λ over all so far
// Fills v with the newest z made orthogonal to all v; false when nothing is left or there is no room.
bool qn_krylov_next(qn_krylov *k);

void qn_krylov_best(const qn_krylov *k, float *x);  // sum c_i v_i, of length 1
void qn_krylov_image(const qn_krylov *k, float *y); // W of that: sum c_i y_i
// The norm that the best vector proves, ‖W^T W x‖ / ‖W x‖ ≥ √λ, and its relative residual.
double qn_krylov_value(const qn_krylov *k, double *tolerance);

#endif
