// The largest singular value of a matrix, in few passes over it. Each pass computes, for a block V
// of 8 orthonormal columns, W V and W^T (W V) while a row is in cache; the next block is the latter,
// made orthogonal to all before. The largest eigenvalue of the small matrix (W V)^T (W V) over all
// blocks converges far faster than plain power iteration.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/err.h"
#include "base/mem.h"
#include "quant/krylov_rows.h"
#include "quant/measure.h"

enum { WIDTH = QN_KRYLOV_WIDTH, MAX_PASSES = 8, MAX_DIM = WIDTH * MAX_PASSES, PARTS = 16 };

typedef struct krylov {
    const float *w;
    size_t rows, cols;
    const float *v;     // this pass's block [cols][WIDTH]
    float *y;           // W V of this pass [rows][WIDTH]
    float *z_parts;     // W^T y by row range [PARTS][cols][WIDTH]
} krylov;

void qn_krylov_rows_plain(const qn_krylov_rows *k) { krylov_all(k); }

// The parts are fixed by the shape, so the thread count changes nothing.
static void pass_part(void *ctx, size_t part, int thread) {
    (void)thread;
    const krylov *k = ctx;
    size_t per = (k->rows + PARTS - 1) / PARTS, from = part * per;
    size_t to = from + per < k->rows ? from + per : k->rows;
    if (from > to) from = to;
    qn_krylov_rows rows = {k->w + from * k->cols, to - from, k->cols, k->v, k->y + from * WIDTH,
                           k->z_parts + part * k->cols * WIDTH};
    memset(rows.z, 0, k->cols * WIDTH * sizeof(float));
    (qn_cpu_has(QN_ISA_AVX2) ? qn_krylov_rows_avx2 : qn_krylov_rows_plain)(&rows);
}

// Column j of a [n][WIDTH] block.
static double dot(const float *a, size_t i, const float *b, size_t j, size_t n) {
    double s = 0;
    for (size_t r = 0; r < n; r++) s += (double)a[r * WIDTH + i] * (double)b[r * WIDTH + j];
    return s;
}

static void subtract(float *a, size_t i, const float *b, size_t j, size_t n, double factor) {
    for (size_t r = 0; r < n; r++)
        a[r * WIDTH + i] = (float)(a[r * WIDTH + i] - factor * b[r * WIDTH + j]);
}

// Gram-Schmidt, twice, against the earlier blocks and the block's own earlier columns. Columns
// that vanish (the range is exhausted) become zero and harm nothing.
static void orthonormalize(float *const *blocks, int n_blocks, size_t n) {
    float *a = blocks[n_blocks - 1];
    for (size_t i = 0; i < WIDTH; i++) {
        double before = sqrt(dot(a, i, a, i, n));
        for (int twice = 0; twice < 2; twice++)
            for (int b = 0; b < n_blocks; b++)
                for (size_t j = 0; j < (b == n_blocks - 1 ? i : WIDTH); j++)
                    subtract(a, i, blocks[b], j, n, dot(a, i, blocks[b], j, n));
        double length = sqrt(dot(a, i, a, i, n));
        double scale = length > 1e-5 * before && length > 0 ? 1 / length : 0;
        for (size_t r = 0; r < n; r++) a[r * WIDTH + i] = (float)(a[r * WIDTH + i] * scale);
    }
}

// Rotates rows and columns p and q of a symmetric matrix so that a[p][q] becomes 0 (Jacobi; Golub &
// Van Loan 8.5), and the eigenvector columns with them.
static void rotate(double *a, double *u, int n, int p, int q) {
    double apq = a[p * n + q];
    if (apq == 0) return;
    double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
    double c = 1 / sqrt(t * t + 1), s = t * c;
    for (int i = 0; i < n; i++) {
        double x = a[i * n + p], y = a[i * n + q];
        a[i * n + p] = c * x - s * y;
        a[i * n + q] = s * x + c * y;
    }
    for (int i = 0; i < n; i++) {
        double x = a[p * n + i], y = a[q * n + i];
        a[p * n + i] = c * x - s * y;
        a[q * n + i] = s * x + c * y;
        x = u[i * n + p], y = u[i * n + q];
        u[i * n + p] = c * x - s * y;
        u[i * n + q] = s * x + c * y;
    }
}

// Largest eigenvalue of a symmetric matrix (destroyed) and its vector. At most 64 x 64, so a BLAS
// library and its threads would cost more than they save (docs/decisions.md).
static double largest_eigenvalue(double *a, int n, double *vector) {
    double u[MAX_DIM * MAX_DIM] = {0};
    for (int i = 0; i < n; i++) u[i * n + i] = 1;
    for (int sweep = 0; sweep < 10; sweep++)
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++) rotate(a, u, n, p, q);
    int best = 0;
    for (int i = 1; i < n; i++)
        if (a[i * n + i] > a[best * n + best]) best = i;
    for (int i = 0; i < n; i++) vector[i] = u[i * n + best];
    return a[best * n + best];
}

// Largest eigenvalue of the Gram matrix of the y blocks and its vector.
static double largest(float *const *y, int n_blocks, size_t rows, double *vector) {
    int dim = n_blocks * WIDTH;
    double gram[MAX_DIM * MAX_DIM];
    for (int i = 0; i < dim; i++)
        for (int j = 0; j <= i; j++)
            gram[i * dim + j] = gram[j * dim + i] =
                dot(y[i / WIDTH], (size_t)(i % WIDTH), y[j / WIDTH], (size_t)(j % WIDTH), rows);
    return largest_eigenvalue(gram, dim, vector);
}

// ‖W^T W x − λ x‖ for the Ritz vector x = sum vector[i] V_i, from W^T (W V_i) = Z_i.
static double residual(float *const *v, float *const *z, int n_blocks, size_t n,
                       const double *vector, double lambda) {
    double sum = 0;
    for (size_t r = 0; r < n; r++) {
        double e = 0;
        for (int i = 0; i < n_blocks * WIDTH; i++) {
            size_t at = r * WIDTH + (size_t)(i % WIDTH);
            e += vector[i] * (z[i / WIDTH][at] - lambda * v[i / WIDTH][at]);
        }
        sum += e * e;
    }
    return sqrt(sum);
}

static void start_block(float *v, size_t n) {
    uint32_t state = 12345;
    for (size_t i = 0; i < n * WIDTH; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = (float)(state >> 8) * 0x1p-24f - 0.5f;
    }
}

typedef struct blocks {
    float *v[MAX_PASSES], *z[MAX_PASSES], *y[MAX_PASSES], *parts, *memory;
    size_t bytes;
} blocks;

static bool blocks_init(blocks *b, size_t rows, size_t cols, int passes, qn_err *err) {
    size_t wide = cols * WIDTH, tall = rows * WIDTH, p = (size_t)passes;
    b->bytes = (p * (2 * wide + tall) + PARTS * wide) * sizeof(float);
    b->memory = qn_big_alloc(b->bytes, "operator norm", err);
    if (!b->memory) return false;
    for (size_t i = 0; i < p; i++) {
        b->v[i] = b->memory + i * wide;
        b->z[i] = b->memory + (p + i) * wide;
        b->y[i] = b->memory + 2 * p * wide + i * tall;
    }
    b->parts = b->memory + p * (2 * wide + tall);
    return true;
}

bool qn_operator_norm(qn_pool *pool, const float *w, size_t rows, size_t cols, int max_passes,
                      double *norm, double *tolerance, qn_err *err) {
    blocks b;
    double vector[MAX_DIM] = {0}, lambda = 0;
    if (max_passes < 1) max_passes = 1;
    if (max_passes > MAX_PASSES) max_passes = MAX_PASSES;
    *norm = *tolerance = 0;
    if (rows == 0 || cols == 0) return true;
    if (!blocks_init(&b, rows, cols, max_passes, err)) return false;
    start_block(b.v[0], cols);
    for (int pass = 0; pass < max_passes; pass++) {
        if (pass) memcpy(b.v[pass], b.z[pass - 1], cols * WIDTH * sizeof(float));
        orthonormalize(b.v, pass + 1, cols);
        krylov k = {w, rows, cols, b.v[pass], b.y[pass], b.parts};
        qn_pool_run(pool, PARTS, pass_part, &k);
        for (size_t i = 0; i < cols * WIDTH; i++) {
            double s = 0;
            for (size_t part = 0; part < PARTS; part++) s += b.parts[part * cols * WIDTH + i];
            b.z[pass][i] = (float)s;
        }
        lambda = largest(b.y, pass + 1, rows, vector);
        double rest = residual(b.v, b.z, pass + 1, cols, vector, lambda);
        *tolerance = lambda > 0 ? rest / (2 * lambda) : 0; // d sigma / sigma = d lambda / 2 lambda
        if (*tolerance < 1e-3) break;
    }
    *norm = lambda > 0 ? sqrt(lambda) : 0;
    qn_big_free(b.memory, b.bytes);
    if (isfinite(lambda)) return true;
    return qn_fail(err, QN_NONFINITE, "operator norm: the iteration left the range of float");
}
