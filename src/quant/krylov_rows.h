// The inner loop of the operator norm, compiled once plainly and once with AVX2: for some rows w of
// a matrix and a block V of 8 columns, y = w V and z += w^T y. Four rows at a time share the loads
// of V and z; eight columns are one vector.
#ifndef QN_QUANT_KRYLOV_ROWS_H
#define QN_QUANT_KRYLOV_ROWS_H

#include <math.h>
#include <stddef.h>
#include <string.h>

enum { QN_KRYLOV_WIDTH = 8 };

typedef struct qn_krylov_rows {
    const float *w; // [n][cols]
    size_t n, cols;
    const float *v; // [cols][8]
    float *y;       // [n][8]
    float *z;       // [cols][8], added to
} qn_krylov_rows;

void qn_krylov_rows_plain(const qn_krylov_rows *k);
void qn_krylov_rows_avx2(const qn_krylov_rows *k); // same values up to rounding

typedef float qn_v8 __attribute__((vector_size(32), aligned(4)));

static inline void krylov_four(const qn_krylov_rows *k, size_t r) {
    const float *a = k->w + r * k->cols, *b = a + k->cols, *c = b + k->cols, *d = c + k->cols;
    const qn_v8 *v = (const qn_v8 *)k->v;
    qn_v8 *z = (qn_v8 *)k->z, *y = (qn_v8 *)(k->y + r * QN_KRYLOV_WIDTH);
    qn_v8 ya = {0}, yb = {0}, yc = {0}, yd = {0};
    for (size_t i = 0; i < k->cols; i++) {
        ya += v[i] * a[i];
        yb += v[i] * b[i];
        yc += v[i] * c[i];
        yd += v[i] * d[i];
    }
    for (size_t i = 0; i < k->cols; i++) z[i] += (ya * a[i] + yb * b[i]) + (yc * c[i] + yd * d[i]);
    y[0] = ya;
    y[1] = yb;
    y[2] = yc;
    y[3] = yd;
}

// A row on its own: the last few, and those that hold values that are not finite (taken as 0).
static inline void krylov_one(const qn_krylov_rows *k, size_t r) {
    const float *a = k->w + r * k->cols;
    const qn_v8 *v = (const qn_v8 *)k->v;
    qn_v8 *z = (qn_v8 *)k->z, ya = {0};
    for (size_t i = 0; i < k->cols; i++) ya += v[i] * (isfinite(a[i]) ? a[i] : 0.0f);
    for (size_t i = 0; i < k->cols; i++) z[i] += ya * (isfinite(a[i]) ? a[i] : 0.0f);
    *(qn_v8 *)(k->y + r * QN_KRYLOV_WIDTH) = ya;
}

static inline int krylov_finite(const float *x, size_t n) {
    float probe = 0; // inf * 0 and nan * 0 are nan
    for (size_t i = 0; i < n; i++) probe += x[i] * 0;
    return probe == 0;
}

static inline void krylov_all(const qn_krylov_rows *k) {
    for (size_t r = 0; r < k->n;) {
        if (r + 4 <= k->n && krylov_finite(k->w + r * k->cols, 4 * k->cols)) {
            krylov_four(k, r);
            r += 4;
        } else {
            krylov_one(k, r);
            r++;
        }
    }
}

#endif
