// The inner loop of the operator norm, compiled once plainly and once with AVX2: for some rows w of
// a matrix and a block V of 8 columns, y = w V and z += w^T y. Eight rows at a time share the loads
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

static inline void krylov_eight(const qn_krylov_rows *k, size_t r) {
    const float *a = k->w + r * k->cols;
    const size_t ld = k->cols;
    const qn_v8 *v = (const qn_v8 *)k->v;
    qn_v8 *z = (qn_v8 *)k->z, *out = (qn_v8 *)(k->y + r * QN_KRYLOV_WIDTH);
    qn_v8 y0 = {0}, y1 = {0}, y2 = {0}, y3 = {0}, y4 = {0}, y5 = {0}, y6 = {0}, y7 = {0};
    for (size_t i = 0; i < ld; i++) {
        const float *x = a + i;
        y0 += v[i] * x[0], y1 += v[i] * x[ld], y2 += v[i] * x[2 * ld], y3 += v[i] * x[3 * ld];
        y4 += v[i] * x[4 * ld], y5 += v[i] * x[5 * ld], y6 += v[i] * x[6 * ld];
        y7 += v[i] * x[7 * ld];
    }
    for (size_t i = 0; i < ld; i++) {
        const float *x = a + i;
        qn_v8 s = y0 * x[0], t = y1 * x[ld];
        s += y2 * x[2 * ld], t += y3 * x[3 * ld], s += y4 * x[4 * ld], t += y5 * x[5 * ld];
        s += y6 * x[6 * ld], t += y7 * x[7 * ld];
        z[i] += s + t;
    }
    out[0] = y0, out[1] = y1, out[2] = y2, out[3] = y3;
    out[4] = y4, out[5] = y5, out[6] = y6, out[7] = y7;
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
        if (r + 8 <= k->n && krylov_finite(k->w + r * k->cols, 8 * k->cols)) {
            krylov_eight(k, r);
            r += 8;
        } else {
            krylov_one(k, r);
            r++;
        }
    }
}

#endif
