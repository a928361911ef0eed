// Codes behind values: e4m3 by its few significands, and whether a group's scale is the one that its
// codes want.
#include "quant/check_against_codes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "quant/check_tensor.h"
#include "store/schemes.h"

// ---- e4m3 ----

enum { RUN = 32, ENOUGH = 20, ROWS = 64, SIGNIFICANDS = 8 };

// The significand of the stored number; -1: zero, not finite, or too small to have all its digits.
static int32_t stored_significand(qn_dtype dtype, const uint8_t *at) {
    uint32_t x = 0;
    int digits = dtype == QN_DT_F32 ? 23 : dtype == QN_DT_BF16 ? 7 : 10;
    int width = dtype == QN_DT_F32 ? 8 : dtype == QN_DT_BF16 ? 8 : 5;
    memcpy(&x, at, qn_dtype_bytes(dtype));
    uint32_t exponent = x >> digits & ((1u << width) - 1);
    if (exponent == 0 || exponent == (1u << width) - 1) return -1;
    return (int32_t)(x & ((1u << digits) - 1));
}

// How many different ones among n, up to one more than e4m3 has; *usable of n have one.
static size_t different(qn_dtype dtype, const uint8_t *at, size_t n, size_t *usable) {
    int32_t seen[SIGNIFICANDS + 1];
    size_t k = 0;
    *usable = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t s = stored_significand(dtype, at + i * qn_dtype_bytes(dtype));
        size_t at_seen = 0;
        if (s < 0) continue;
        ++*usable;
        while (at_seen < k && seen[at_seen] != s) at_seen++;
        if (at_seen == k && k <= SIGNIFICANDS) seen[k++] = s;
    }
    return k;
}

bool qn_looks_fp8(const qn_weight *w) {
    const qn_tensor *t = w->parts[0];
    bool known = t->dtype == QN_DT_F32 || t->dtype == QN_DT_BF16 || t->dtype == QN_DT_F16;
    if (w->scheme || !known || t->n_dims < 2 || w->cols < RUN || !t->data) return false;
    size_t runs = 0, fit = 0, step = w->rows / ROWS + 1, bytes = qn_dtype_bytes(t->dtype);
    for (size_t r = 0; r < w->rows; r += step)
        for (size_t at = 0; at + RUN <= w->cols; at += RUN) {
            size_t usable, k = different(t->dtype, t->data + (r * w->cols + at) * bytes, RUN, &usable);
            if (usable < ENOUGH) continue;
            runs++;
            fit += k <= SIGNIFICANDS;
        }
    return runs >= 16 && fit * 100 >= runs * 99;
}

// ---- fitted scales ----

typedef struct fit_job {
    const qn_weight *w, *reference;
    const int32_t *perm;
    size_t block;
    struct fit {
        double left, all; // squares of what is left, and of the reference
        bool failed;
    } *fits; // per block
} fit_job;

// One row: codes in the order of groups, b in that of the inputs.
static void fit_row(struct fit *f, const fit_job *j, const uint8_t *codes, const uint8_t *zeros,
                    const float *b) {
    const qn_weight *w = j->w;
    for (size_t g = 0, at = 0; g < w->n_groups; g++) {
        size_t end = at + w->group < w->cols ? at + w->group : w->cols;
        double bc = 0, cc = 0, bb = 0;
        for (; at < end; at++) {
            double c = (int)codes[at] - (int)zeros[g], x = b[j->perm ? (size_t)j->perm[at] : at];
            bc += x * c;
            cc += c * c;
            bb += x * x;
        }
        f->left += cc > 0 ? bb - bc * bc / cc : bb;
        f->all += bb;
    }
}

static void fit_block(void *ctx, size_t i, int thread) {
    (void)thread;
    fit_job *j = ctx;
    const qn_weight *w = j->w;
    struct fit *f = &j->fits[i];
    size_t row0 = i * j->block, n = w->rows - row0 < j->block ? w->rows - row0 : j->block;
    uint8_t *codes = qn_alloc(n * w->cols), *zeros = qn_alloc(n * w->n_groups);
    float *b = QN_NEW_ARRAY(float, w->cols);
    memset(zeros, 1 << (w->bits - 1), n * w->n_groups);
    f->failed = !qn_weight_codes(w, row0, n, codes, NULL, zeros, NULL);
    for (size_t r = 0; r < n && !f->failed; r++) {
        f->failed = !qn_weight_rows(j->reference, row0 + r, 1, b, NULL);
        fit_row(f, j, codes + r * w->cols, zeros + r * w->n_groups, b);
    }
    free(codes);
    free(zeros);
    free(b);
}

double qn_fitted_rms(qn_pool *pool, const qn_weight *w, const qn_weight *reference) {
    int32_t *perm = NULL;
    qn_err uneven = {0};
    if (!w->scheme || w->scheme->floats || !qn_weight_perm(w, &perm, &uneven)) return -1;
    fit_job j = {w, reference, perm, ((size_t)1 << 18) / w->cols + 1, NULL};
    size_t n = (w->rows + j.block - 1) / j.block;
    struct fit sum = {0};
    j.fits = QN_NEW_ARRAY(struct fit, n);
    qn_pool_run(pool, n, fit_block, &j);
    for (size_t i = 0; i < n; i++) {
        sum.left += j.fits[i].left;
        sum.all += j.fits[i].all;
        sum.failed = sum.failed || j.fits[i].failed;
    }
    free(j.fits);
    qn_free(perm);
    return sum.failed || !(sum.all > 0) ? -1 : sqrt(fmax(sum.left, 0) / sum.all);
}
