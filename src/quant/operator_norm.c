// The search and the pass behind operator_norm.h. Parts are fixed by the shape and sums are joined in
// order, so neither threads nor the instruction set change a bit.
#include "quant/operator_norm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/err.h"
#include "base/mem.h"
#include "quant/krylov.h"
#include "quant/seven_bit_rows.h"
#include "quant/value_runs.h"

enum { PARTS = 16, ROWS = QN_SEVEN_ROWS };

#define SMALL ((size_t)1 << 20) // values; cheap enough for the full tolerance
#define MEDIUM ((size_t)1 << 24)
#define MOST_CODES ((size_t)32 << 20) // bytes of the 7-bit copy
#define MOST_COLUMNS ((size_t)131072) // 127 · 127 · columns stays below 2^31
#define GOOD 1e-4
#define SETTLED 1.001 // of λ from step to step; the copy is no better than that
#define SAMPLE ((size_t)16) // every so many groups of 16 rows

struct qn_norm {
    qn_pool *pool;
    size_t rows, cols, pitch;
    size_t stride, n_groups; // every stride-th group of 16 rows is kept
    uint8_t *codes;          // [16 n_groups][pitch]
    float *scales;           // [16 n_groups]
    size_t codes_bytes, scales_bytes;
    qn_krylov space;
    float *parts; // [PARTS][pitch]
    int8_t *v;    // [pitch]
};

qn_norm *qn_norm_new(qn_pool *pool) {
    qn_norm *n = QN_NEW(qn_norm);
    n->pool = pool;
    return n;
}

void qn_norm_free(qn_norm *n) {
    if (!n) return;
    qn_big_free(n->codes, n->codes_bytes);
    qn_big_free(n->scales, n->scales_bytes);
    qn_krylov_done(&n->space);
    free(n->parts);
    free(n->v);
    free(n);
}

// Grows; contents are not kept.
static bool room(void **p, size_t *have, size_t want, qn_err *err) {
    if (want <= *have) return true;
    qn_big_free(*p, *have);
    *have = 0;
    *p = qn_big_alloc(want, "operator norm", err);
    if (*p) *have = want;
    return *p != NULL;
}

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

bool qn_norm_begin(qn_norm *n, size_t rows, size_t cols, qn_err *err) {
    size_t groups = (rows + ROWS - 1) / ROWS, bytes;
    n->rows = rows;
    n->cols = cols;
    n->pitch = round_up(cols, QN_SEVEN_COLUMNS);
    if (!qn_mul(groups * ROWS, n->pitch, &bytes))
        return qn_fail(err, QN_LIMIT, "operator norm of %zu x %zu values", rows, cols);
    n->stride = (bytes + MOST_CODES - 1) / MOST_CODES;
    if (n->stride == 0) n->stride = 1;
    n->n_groups = cols > MOST_COLUMNS ? 0 : (groups + n->stride - 1) / n->stride;
    free(n->parts);
    free(n->v);
    n->parts = qn_calloc(PARTS * n->pitch, sizeof *n->parts);
    n->v = qn_zalloc(n->pitch);
    void *codes = n->codes, *scales = n->scales;
    bool ok = room(&codes, &n->codes_bytes, n->n_groups * ROWS * n->pitch, err);
    n->codes = codes;
    ok = ok && room(&scales, &n->scales_bytes, n->n_groups * ROWS * sizeof(float), err);
    n->scales = scales;
    return ok;
}

void qn_norm_take(qn_norm *n, size_t row0, size_t n_rows, qn_run_dtype dtype, const uint8_t *w) {
    const qn_value_runs *runs = qn_value_runs_best();
    size_t width = dtype == QN_RUN_F32 ? sizeof(float) : 2;
    for (size_t r = row0; r < row0 + n_rows; r++) {
        size_t group = r / ROWS;
        if (group % n->stride || group / n->stride >= n->n_groups) continue;
        size_t to = group / n->stride * ROWS + r % ROWS;
        uint8_t *codes = n->codes + to * n->pitch;
        const uint8_t *x = w + (r - row0) * n->cols * width;
        n->scales[to] = dtype == QN_RUN_F32
                            ? runs->seven_bits((const float *)(const void *)x, n->cols, codes)
                            : runs->seven_bits_stored(dtype, x, n->cols, codes);
        memset(codes + n->cols, QN_SEVEN_ZERO, n->pitch - n->cols);
    }
}

void qn_norm_scale(qn_norm *n, float factor) {
    for (size_t i = 0; factor != 1 && i < n->n_groups * ROWS; i++) n->scales[i] *= factor;
}

// Rows that fill up the last group.
static void fill_up(qn_norm *n) {
    if (n->n_groups == 0) return;
    size_t last = (n->n_groups - 1) * ROWS, from = (n->n_groups - 1) * n->stride * ROWS;
    for (size_t r = n->rows > from ? n->rows - from : 0; r < ROWS; r++) {
        memset(n->codes + (last + r) * n->pitch, QN_SEVEN_ZERO, n->pitch);
        n->scales[last + r] = 0;
    }
}

// ---- the search ----

static void search_part(void *ctx, size_t part, int thread) {
    (void)thread;
    qn_norm *n = ctx;
    size_t per = (n->n_groups + PARTS - 1) / PARTS, from = part * per, to = from + per;
    if (from > n->n_groups) from = n->n_groups;
    if (to > n->n_groups) to = n->n_groups;
    qn_seven_bit_rows rows = {.codes = n->codes + from * ROWS * n->pitch, .n_groups = to - from,
                              .pitch = n->pitch, .scales = n->scales + from * ROWS, .v = n->v,
                              .y = qn_krylov_y(&n->space) + from * ROWS,
                              .z = n->parts + part * n->pitch};
    memset(rows.z, 0, n->pitch * sizeof(float));
    if (qn_cpu_has(QN_ISA_AVX512VNNI)) qn_seven_bit_rows_vnni(&rows);
    else if (qn_cpu_has(QN_ISA_AVX2)) qn_seven_bit_rows_avx2(&rows);
    else qn_seven_bit_rows_plain(&rows);
}

static void search_pass(qn_norm *n) {
    const float *v = qn_krylov_v(&n->space);
    float *z = qn_krylov_z(&n->space);
    for (size_t c = 0; c < n->cols; c++) n->v[c] = (int8_t)v[c];
    qn_pool_run(n->pool, PARTS, search_part, n);
    memcpy(z, n->parts, n->cols * sizeof *z);
    for (size_t p = 1; p < PARTS; p++)
        for (size_t c = 0; c < n->cols; c++) z[c] += n->parts[p * n->pitch + c];
}

// To integers −127 … 127: what the search can take exactly. False for a vector of zeros.
static bool to_integers(float *v, size_t n) {
    float max = 0;
    for (size_t i = 0; i < n; i++) max = fabsf(v[i]) > max ? fabsf(v[i]) : max;
    if (!(max > 0)) return false;
    for (size_t i = 0; i < n; i++) v[i] = rintf(v[i] * (127 / max));
    return true;
}

static void start_vector(float *v, size_t n) {
    uint32_t state = 12345;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = (float)(int)(state >> 24) - 127.5f;
    }
}

static bool search(qn_norm *n, qn_err *err) {
    fill_up(n);
    size_t values = n->rows * n->cols;
    int steps = values <= SMALL ? QN_KRYLOV_MOST : values <= MEDIUM ? 6 : 4;
    if (!qn_krylov_begin(&n->space, n->n_groups * ROWS, n->cols, steps, err)) return false;
    start_vector(qn_krylov_v(&n->space), n->cols);
    double before = 0;
    for (int step = 0; step < steps && to_integers(qn_krylov_v(&n->space), n->cols); step++) {
        search_pass(n);
        double lambda = qn_krylov_add(&n->space);
        bool settled = values > SMALL && lambda < before * SETTLED;
        if (settled || !qn_krylov_next(&n->space)) break;
        before = lambda;
    }
    return true;
}

// ---- the matrix itself ----

// From x on, until the tolerance is small enough.
static bool refine(qn_norm *n, float *x, qn_norm_pass_fn pass, void *user, double *norm,
                   double *tolerance, qn_err *err) {
    qn_krylov *k = &n->space;
    int most = n->rows * n->cols <= SMALL ? QN_KRYLOV_MOST : 1;
    if (!qn_krylov_begin(k, n->rows, n->cols, most, err)) return false;
    memcpy(qn_krylov_v(k), x, n->cols * sizeof *x);
    for (int step = 0; step < most && qn_krylov_normalize(k); step++) {
        if (!pass(user, 1, qn_krylov_v(k), qn_krylov_y(k), qn_krylov_z(k), err)) return false;
        qn_krylov_add(k);
        *norm = qn_krylov_value(k, tolerance);
        if (*tolerance < GOOD || !qn_krylov_next(k)) break;
    }
    return true;
}

// The norm found on the copy, corrected by what a sample of rows makes of its vector x: by the ratio
// of the lengths of W x, exact and copied, over the sample. Their distance goes into the tolerance.
static bool correct(qn_norm *n, float *x, qn_norm_pass_fn pass, void *user, double *norm,
                    double *tolerance, qn_err *err) {
    float *y = qn_calloc(n->n_groups * ROWS, sizeof *y), *z = qn_calloc(n->cols, sizeof *z);
    float *copied = qn_alloc(n->n_groups * ROWS * sizeof *copied);
    double exact = 0, own = 0, apart = 0;
    qn_krylov_image(&n->space, copied);
    bool ok = pass(user, SAMPLE, x, y, z, err);
    for (size_t g = 0; ok && g < n->n_groups; g += SAMPLE)
        for (size_t r = g * ROWS; r < (g + 1) * ROWS && r < n->rows; r++) {
            double a = (double)y[r], b = (double)copied[r];
            exact += a * a, own += b * b, apart += (a - b) * (a - b);
        }
    qn_krylov_value(&n->space, tolerance);
    *norm = sqrt(n->space.lambda); // z is rounded there, y is not
    if (own > 0) {
        *norm *= sqrt(exact / own);
        *tolerance += sqrt(apart / own);
    }
    qn_free(y);
    qn_free(z);
    qn_free(copied);
    return ok;
}

// The same where the copy lacks rows: the length of W x from every 16th 16 rows, kept in the copy or
// not. Twice the standard error of that goes into the tolerance.
static bool estimate(qn_norm *n, float *x, qn_norm_pass_fn pass, void *user, double *norm,
                     double *tolerance, qn_err *err) {
    float *y = qn_calloc(n->rows, sizeof *y), *z = qn_calloc(n->cols, sizeof *z);
    double length = sqrt(qn_value_runs_best()->dot(x, x, n->cols)), sum = 0, squares = 0;
    size_t count = 0;
    bool ok = pass(user, SAMPLE, x, y, z, err);
    for (size_t r0 = 0; ok && r0 < n->rows; r0 += SAMPLE * ROWS, count++) {
        size_t left = n->rows - r0;
        double d = qn_value_runs_best()->dot(y + r0, y + r0, left < ROWS ? left : ROWS);
        sum += d;
        squares += d * d;
    }
    qn_krylov_value(&n->space, tolerance);
    double k = (double)count, groups = (double)((n->rows + ROWS - 1) / ROWS);
    *norm = length > 0 ? sqrt(sum / k * groups) / length : 0;
    if (sum > 0) *tolerance += sqrt(fmax(0, squares * k / (sum * sum) - 1) / k);
    qn_free(y);
    qn_free(z);
    return ok;
}

bool qn_norm_find(qn_norm *n, qn_norm_pass_fn pass, void *user, double *norm, double *tolerance,
                  qn_err *err) {
    float *x = qn_alloc(n->cols * sizeof *x);
    *norm = *tolerance = 0;
    start_vector(x, n->cols);
    bool ok = n->n_groups == 0 || search(n, err);
    if (ok && n->n_groups > 0) qn_krylov_best(&n->space, x);
    bool whole = n->n_groups == 0 || n->rows * n->cols <= SMALL;
    ok = ok && (whole ? refine : n->stride > 1 ? estimate : correct)(n, x, pass, user, norm,
                                                                     tolerance, err);
    free(x);
    if (ok && !isfinite(*norm))
        return qn_fail(err, QN_NONFINITE, "operator norm: the iteration left the range of float");
    return ok;
}
