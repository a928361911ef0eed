// Owns turning rows of a logical weight into floats, and into codes in packed order. A scheme gives
// codes, scales and zeros; W = scale * (code - zero) is formed here, once for all of them.
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/f16.h"
#include "base/map_guard.h"
#include "base/mem.h"
#include "store/code_loops.h"
#include "store/schemes.h"

bool qn_weight_readable(const qn_weight *w, size_t row0, size_t n, qn_err *err) {
    for (int i = 0; i < QN_MAX_PARTS; i++)
        if (w->parts[i] && !w->parts[i]->data && w->parts[i]->n)
            return qn_fail(err, QN_INPUT, "tensor %s: its data are not in the file",
                           w->parts[i]->name);
    if (row0 > w->rows || n > w->rows - row0)
        return qn_fail(err, QN_USAGE, "%s: rows %zu to %zu asked for, it has %zu", w->name, row0,
                       row0 + n, w->rows);
    return true;
}

// ---- floats ----

#define BLOCK 32 // rows decoded at once: their codes stay in the nearest caches

typedef struct block {
    uint8_t *codes, *zeros;
    float *scales;
} block;

static void block_init(block *b, const qn_weight *w, size_t rows) {
    b->codes = qn_alloc(rows * w->cols);
    b->scales = qn_alloc(rows * w->n_groups * sizeof *b->scales);
    b->zeros = qn_alloc(rows * w->n_groups);
}

static void block_done(block *b) {
    free(b->codes);
    free(b->scales);
    free(b->zeros);
}

static void f8_to_floats(const uint8_t *codes, size_t n, float scale, const float *table,
                         float *out) {
    for (size_t i = 0; i < n; i++) out[i] = scale * table[codes[i]];
}

static void act_order_row(const qn_weight *w, const block *b, size_t r, const uint32_t *group_of,
                          float *out) {
    const uint8_t *codes = b->codes + r * w->cols, *zeros = b->zeros + r * w->n_groups;
    const float *scales = b->scales + r * w->n_groups;
    for (size_t i = 0; i < w->cols; i++) {
        uint32_t g = group_of[i];
        out[i] = scales[g] * (float)(codes[i] - zeros[g]);
    }
}

static void grouped_row(const qn_weight *w, const block *b, size_t r, const float *table,
                        float *out) {
    const qn_code_loops *loops = qn_code_loops_best();
    for (size_t g = 0, i = 0; i < w->cols; g++, i += w->group) {
        size_t n = w->cols - i < w->group ? w->cols - i : w->group, at = r * w->n_groups + g;
        const uint8_t *codes = b->codes + r * w->cols + i;
        if (w->scheme->floats) f8_to_floats(codes, n, b->scales[at], table, out + i);
        else loops->scale(codes, n, b->scales[at], b->zeros[at], out + i);
    }
}

static void read_block(const qn_weight *w, size_t row0, size_t n, const block *b) {
    const qn_scheme *s = w->scheme;
    s->codes(w, row0, n, b->codes);
    s->scales(w, row0, n, b->scales);
    if (s->zeros) s->zeros(w, row0, n, b->zeros);
}

static void f8_table(float table[256]) {
    for (unsigned i = 0; i < 256; i++) table[i] = qn_f8e4m3_to_f32((uint8_t)i);
}

static void decode_quantized(const qn_weight *w, size_t row0, size_t n, float *out,
                             qn_codes_seen *seen) {
    block b;
    float table[256];
    uint32_t *group_of = NULL;
    block_init(&b, w, n < BLOCK ? n : BLOCK);
    f8_table(table);
    if (w->act_order) {
        group_of = QN_NEW_ARRAY(uint32_t, w->cols);
        for (size_t i = 0; i < w->cols; i++) group_of[i] = (uint32_t)qn_weight_group_of(w, i);
    }
    for (size_t r0 = 0; r0 < n; r0 += BLOCK) {
        size_t m = n - r0 < BLOCK ? n - r0 : BLOCK;
        read_block(w, row0 + r0, m, &b);
        if (seen) qn_code_loops_best()->range(b.codes, m * w->cols, &seen->lo, &seen->hi);
        for (size_t r = 0; r < m; r++) {
            float *to = out + (r0 + r) * w->cols;
            if (group_of) act_order_row(w, &b, r, group_of, to);
            else grouped_row(w, &b, r, table, to);
        }
    }
    free(group_of);
    block_done(&b);
}

bool qn_weight_decode_seen(const qn_weight *w, size_t row0, size_t n, float *out,
                           qn_codes_seen *seen, qn_err *err) {
    if (!qn_weight_readable(w, row0, n, err)) return false;
    if (!w->scheme) {
        qn_tensor_to_f32(w->parts[0], row0 * w->cols, n * w->cols, out);
    } else if (n) {
        decode_quantized(w, row0, n, out, seen);
        qn_maps_touched(n * (w->parts[0]->bytes / w->rows));
    }
    return true;
}

bool qn_weight_decode(const qn_weight *w, size_t row0, size_t n, float *out, qn_err *err) {
    return qn_weight_decode_seen(w, row0, n, out, NULL, err);
}

bool qn_weight_decode_parts(const qn_weight *w, size_t row0, size_t n, float *out, uint8_t *codes,
                            float *scales, uint8_t *zeros, qn_err *err) {
    float table[256];
    if (!qn_weight_readable(w, row0, n, err)) return false;
    if (!w->scheme || w->act_order)
        return qn_fail(err, QN_USAGE, "%s: no codes in the order of its columns", w->name);
    f8_table(table);
    for (size_t r0 = 0; r0 < n; r0 += BLOCK) {
        size_t m = n - r0 < BLOCK ? n - r0 : BLOCK, at = r0 * w->n_groups;
        const block b = {codes + r0 * w->cols, zeros + at, scales + at};
        read_block(w, row0 + r0, m, &b);
        for (size_t r = 0; r < m; r++) grouped_row(w, &b, r, table, out + (r0 + r) * w->cols);
    }
    qn_maps_touched(n * (w->parts[0]->bytes / w->rows));
    return true;
}

bool qn_weight_floats(const qn_weight *w, size_t n, float *out, qn_err *err) {
    const qn_tensor *t = w->parts[0];
    if (!w->scheme && t->n != n) return qn_part_mismatch(t, err, "%zu elements", n);
    if (w->scheme && w->rows * w->cols != n)
        return qn_fail(err, QN_INPUT, "%s: shape [%zu, %zu], expected %zu elements", w->name,
                       w->rows, w->cols, n);
    if (!w->scheme && !qn_dtype_is_float(t->dtype))
        return qn_part_mismatch(t, err, "floats");
    return qn_weight_decode(w, 0, w->rows, out, err);
}

// ---- codes ----

static void permute(const int32_t *perm, size_t cols, uint8_t *codes, uint8_t *scratch) {
    memcpy(scratch, codes, cols);
    for (size_t j = 0; j < cols; j++) codes[j] = scratch[perm[j]];
}

void qn_weight_codes_in(const qn_weight *w, const int32_t *perm, size_t row0, size_t n,
                        uint8_t *codes, float *scales, uint8_t *zeros) {
    const qn_scheme *s = w->scheme;
    if (codes) s->codes(w, row0, n, codes);
    if (scales) s->scales(w, row0, n, scales);
    if (zeros && s->zeros) s->zeros(w, row0, n, zeros);
    if (!codes || !perm) return;
    uint8_t *scratch = qn_alloc(w->cols);
    for (size_t r = 0; r < n; r++) permute(perm, w->cols, codes + r * w->cols, scratch);
    free(scratch);
}

bool qn_weight_codes(const qn_weight *w, size_t row0, size_t n, uint8_t *codes, float *scales,
                     uint8_t *zeros, qn_err *err) {
    int32_t *perm;
    if (!w->scheme) return qn_fail(err, QN_USAGE, "%s is not quantized: it has no codes", w->name);
    if (!qn_weight_readable(w, row0, n, err) || !qn_weight_perm(w, &perm, err)) return false;
    if (n) qn_weight_codes_in(w, perm, row0, n, codes, scales, zeros);
    if (n) qn_maps_touched(n * (w->parts[0]->bytes / w->rows));
    qn_free(perm);
    return true;
}
