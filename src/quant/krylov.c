// Krylov spaces: Gram matrices, a small symmetric eigenproblem by Jacobi, orthogonalization.
#include "quant/krylov.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "quant/value_runs.h"

enum { MOST = QN_KRYLOV_MOST };

static size_t stride(const qn_krylov *k) { return 2 * k->cols + k->rows; }
static float *v_of(const qn_krylov *k, int i) { return k->memory + (size_t)i * stride(k); }
static float *z_of(const qn_krylov *k, int i) { return v_of(k, i) + k->cols; }
static float *y_of(const qn_krylov *k, int i) { return z_of(k, i) + k->cols; }

bool qn_krylov_begin(qn_krylov *k, size_t rows, size_t cols, int most, qn_err *err) {
    k->rows = rows;
    k->cols = cols;
    k->n = 0;
    k->most = most < MOST ? most : MOST;
    k->lambda = 0;
    memset(k->c, 0, sizeof k->c);
    size_t want = (size_t)k->most * stride(k) * sizeof(float);
    if (want > k->bytes) {
        qn_krylov_done(k);
        k->memory = qn_big_alloc(want, "operator norm", err);
        if (!k->memory) return false;
        k->bytes = want;
    }
    return true;
}

void qn_krylov_done(qn_krylov *k) {
    qn_big_free(k->memory, k->bytes);
    k->memory = NULL;
    k->bytes = 0;
}

float *qn_krylov_v(const qn_krylov *k) { return v_of(k, k->n); }
float *qn_krylov_y(const qn_krylov *k) { return y_of(k, k->n); }
float *qn_krylov_z(const qn_krylov *k) { return z_of(k, k->n); }

static double dot(const float *a, const float *b, size_t n) {
    return qn_value_runs_best()->dot(a, b, n);
}

static void add_scaled(float *a, const float *b, size_t n, double factor) {
    float f = (float)factor;
    for (size_t i = 0; i < n; i++) a[i] += f * b[i];
}

bool qn_krylov_normalize(qn_krylov *k) {
    float *v = v_of(k, k->n);
    double length = sqrt(dot(v, v, k->cols));
    if (!(length > 0) || !isfinite(length)) return false;
    for (size_t i = 0; i < k->cols; i++) v[i] = (float)((double)v[i] / length);
    return true;
}

// ---- the small problem ----

// Rotates rows and columns p and q of a symmetric matrix so that a[p][q] becomes 0 (Jacobi; Golub &
// Van Loan 8.5), and the eigenvector columns with them.
static void rotate(double a[MOST][MOST], double u[MOST][MOST], int n, int p, int q) {
    if (a[p][q] == 0) return;
    double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
    double c = 1 / sqrt(t * t + 1), s = t * c;
    for (int i = 0; i < n; i++) {
        double x = a[i][p], y = a[i][q];
        a[i][p] = c * x - s * y;
        a[i][q] = s * x + c * y;
    }
    for (int i = 0; i < n; i++) {
        double x = a[p][i], y = a[q][i];
        a[p][i] = c * x - s * y;
        a[q][i] = s * x + c * y;
        x = u[i][p], y = u[i][q];
        u[i][p] = c * x - s * y;
        u[i][q] = s * x + c * y;
    }
}

static double largest_eigenvalue(double a[MOST][MOST], int n, double *vector) {
    double u[MOST][MOST] = {{0}};
    int best = 0;
    for (int i = 0; i < n; i++) u[i][i] = 1;
    double all = 0, off = 1;
    for (int i = 0; i < n * n; i++) all += a[i / n][i % n] * a[i / n][i % n];
    for (int sweep = 0; sweep < 12 && off > 1e-26 * all; sweep++) {
        off = 0;
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++) {
                off += a[p][q] * a[p][q];
                rotate(a, u, n, p, q);
            }
    }
    for (int i = 1; i < n; i++)
        if (a[i][i] > a[best][best]) best = i;
    for (int i = 0; i < n; i++) vector[i] = u[i][best];
    return a[best][best];
}

// V^T V = L L^T; false when the newest vector adds nothing.
static bool factor(const qn_krylov *k, double l[MOST][MOST]) {
    for (int i = 0; i < k->n; i++)
        for (int j = 0; j <= i; j++) {
            double s = k->vv[i][j];
            for (int m = 0; m < j; m++) s -= l[i][m] * l[j][m];
            if (i == j && !(s > 1e-10 * k->vv[i][i])) return false;
            l[i][j] = i == j ? sqrt(s) : s / l[j][j];
        }
    return true;
}

// a = L^-1 Y^T Y L^-T, row by row and then column by column.
static void reduced(const qn_krylov *k, double l[MOST][MOST], double a[MOST][MOST]) {
    for (int j = 0; j < k->n; j++)
        for (int i = 0; i < k->n; i++) {
            double s = k->yy[i][j];
            for (int m = 0; m < i; m++) s -= l[i][m] * a[m][j];
            a[i][j] = s / l[i][i];
        }
    for (int i = 0; i < k->n; i++)
        for (int j = 0; j < k->n; j++) {
            double s = a[i][j];
            for (int m = 0; m < j; m++) s -= l[j][m] * a[i][m];
            a[i][j] = s / l[j][j];
        }
}

double qn_krylov_add(qn_krylov *k) {
    int at = k->n++;
    for (int i = 0; i <= at; i++) {
        k->vv[at][i] = k->vv[i][at] = dot(v_of(k, at), v_of(k, i), k->cols);
        k->yy[at][i] = k->yy[i][at] = dot(y_of(k, at), y_of(k, i), k->rows);
    }
    double l[MOST][MOST] = {{0}}, a[MOST][MOST] = {{0}}, u[MOST];
    if (!factor(k, l)) { // keep what was found without it
        k->n--;
        return k->lambda;
    }
    reduced(k, l, a);
    k->lambda = largest_eigenvalue(a, k->n, u);
    for (int i = k->n - 1; i >= 0; i--) { // c = L^-T u
        double s = u[i];
        for (int m = i + 1; m < k->n; m++) s -= l[m][i] * k->c[m];
        k->c[i] = s / l[i][i];
    }
    return k->lambda;
}

bool qn_krylov_next(qn_krylov *k) {
    if (k->n == 0 || k->n == k->most) return false;
    float *v = v_of(k, k->n);
    memcpy(v, z_of(k, k->n - 1), k->cols * sizeof *v);
    double before = dot(v, v, k->cols), after = before;
    for (int twice = 0; twice < 2; twice++) {
        for (int i = 0; i < k->n; i++)
            add_scaled(v, v_of(k, i), k->cols, -dot(v, v_of(k, i), k->cols) / k->vv[i][i]);
        after = dot(v, v, k->cols);
    }
    return after > 1e-12 * before;
}

// ---- what was found ----

static void combine(const qn_krylov *k, float *(*of)(const qn_krylov *, int), float *out) {
    memset(out, 0, k->cols * sizeof *out);
    for (int i = 0; i < k->n; i++) add_scaled(out, of(k, i), k->cols, k->c[i]);
}

void qn_krylov_best(const qn_krylov *k, float *x) { combine(k, v_of, x); }

void qn_krylov_image(const qn_krylov *k, float *y) {
    memset(y, 0, k->rows * sizeof *y);
    for (int i = 0; i < k->n; i++) add_scaled(y, y_of(k, i), k->rows, k->c[i]);
}

double qn_krylov_value(const qn_krylov *k, double *tolerance) {
    *tolerance = 0;
    if (!(k->lambda > 0)) return 0;
    float *x = qn_alloc(k->cols * sizeof *x), *z = qn_alloc(k->cols * sizeof *z);
    combine(k, v_of, x);
    combine(k, z_of, z);
    double lambda = k->lambda, rest = 0, length = dot(z, z, k->cols);
    for (size_t i = 0; i < k->cols; i++) {
        double e = (double)z[i] - lambda * (double)x[i];
        rest += e * e;
    }
    *tolerance = sqrt(rest) / (2 * lambda); // dσ / σ = dλ / 2λ
    qn_free(x);
    qn_free(z);
    return sqrt(length / lambda); // ‖x‖ = 1, ‖W x‖ = √λ
}
