// The proof behind every conversion: what lies in the written file is compared with a reading of
// the source that knows nothing of how it was converted.
#include "quant/proof.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/f16.h"
#include "base/map_guard.h"
#include "base/mem.h"
#include "base/rng.h"
#include "quant/second_decoder.h"

enum { ROWS = 4, COLUMNS = 4 };
enum { PIECE = 8192, AHEAD = 16 }; // rows of columns compared at once; fetched before their turn
#define FAULT ((size_t)64 << 10)   // what one far value brings into memory

typedef struct result {
    uint64_t values, mismatches;
    qn_err err; // the first mismatch
} result;

typedef struct subject { // one tensor under proof
    const qn_out_tensor *t;
    const qn_tensor *written;
    qn_second *second;
    size_t rows, cols, columns[COLUMNS];
    bool saturate;
    qn_err err; // it could not be read
} subject;

// Rows drawn of a tensor, or a run of rows of the columns drawn.
typedef struct piece {
    subject *s;
    bool whole_rows;
    size_t row0, n;
    result result;
} piece;

typedef struct proof {
    const qn_rewrite *r;
    const qn_ckpt *written;
    uint64_t seed;
    int zero_offset;   // of GPTQ zeros that vary
    subject *subjects; // per tensor; second NULL: not one to prove
    piece *pieces;
    size_t n_pieces;
} proof;

// What a reader must find for an exact value: one rounding, to nearest even.
static float as_stored(float x, qn_dtype dtype, bool saturate) {
    if (dtype == QN_DT_BF16) return qn_bf16_to_f32(qn_f32_to_bf16(x));
    if (dtype != QN_DT_F16) return x;
    float y = qn_f16_to_f32(qn_f32_to_f16(x));
    return saturate && isfinite(x) && !isfinite(y) ? copysignf(65504, x) : y;
}

static void check_value(const subject *s, size_t row, size_t col, result *r) {
    float found, expected = as_stored(qn_second_value(s->second, row, col), s->t->dtype,
                                      s->saturate);
    qn_tensor_to_f32(s->written, row * s->cols + col, 1, &found);
    r->values++;
    if (memcmp(&found, &expected, sizeof found) == 0 || (isnan(found) && isnan(expected))) return;
    if (r->mismatches++ == 0)
        qn_fail(&r->err, QN_INPUT, "proof: tensor %s at [%zu, %zu] holds %.9g, but the "
                "source says %.9g", s->t->name, row, col, (double)found, (double)expected);
}

// ---- what is compared ----

static bool is_vector(const subject *s) { return s->rows == 1; } // checked whole

static void open_one(void *ctx, size_t i, int thread) {
    (void)thread;
    proof *p = ctx;
    subject *s = &p->subjects[i];
    const qn_out_tensor *t = &p->r->tensors[i];
    if (!t->source || !qn_dtype_is_float(t->dtype) || (!t->rows && !t->bytes)) return;
    const qn_tensor *written = qn_ckpt_find(p->written, t->name);
    if (!written || !written->data) {
        qn_fail(&s->err, QN_INPUT, "proof: tensor %s is not in the result", t->name);
        return;
    }
    if (written->n == 0) return;
    size_t cols = written->shape[written->n_dims - 1];
    *s = (subject){.t = t, .written = written, .rows = written->n / cols, .cols = cols,
                   .saturate = p->r->saturate};
    for (uint64_t k = 0; k < COLUMNS; k++) // side by side, so that a row's page is fetched once
        s->columns[k] = (size_t)(qn_rng_u64(p->seed, i, ROWS + k) % cols);
    s->second = qn_second_new(p->r->source, p->zero_offset, t->source->name, &s->err);
}

static size_t runs_of(const subject *s) {
    return s->second && !is_vector(s) ? (s->rows + PIECE - 1) / PIECE : 0;
}

static void cut_pieces(proof *p) {
    size_t n = 0;
    for (size_t i = 0; i < p->r->n_tensors; i++) n += 1 + runs_of(&p->subjects[i]);
    p->pieces = QN_NEW_ARRAY(piece, n);
    for (size_t i = 0; i < p->r->n_tensors; i++) {
        subject *s = &p->subjects[i];
        if (!s->second) continue;
        p->pieces[p->n_pieces++] = (piece){.s = s, .whole_rows = true};
        for (size_t k = 0; k < runs_of(s); k++) {
            size_t row0 = k * PIECE, left = s->rows - row0;
            p->pieces[p->n_pieces++] =
                (piece){.s = s, .row0 = row0, .n = left < PIECE ? left : PIECE};
        }
    }
}

// ---- comparing ----

static void check_rows(const proof *p, const subject *s, result *r) {
    for (uint64_t i = 0; i < (is_vector(s) ? 1 : ROWS); i++) {
        uint64_t at = qn_rng_u64(p->seed, (uint64_t)(s - p->subjects), i);
        for (size_t col = 0; col < s->cols; col++) check_value(s, (size_t)(at % s->rows), col, r);
    }
}

// Each row is somewhere else: its values are fetched some rows before.
static void fetch(const subject *s, size_t row) {
    size_t width = qn_dtype_bytes(s->written->dtype);
    for (size_t i = 0; row < s->rows && i < COLUMNS; i++)
        __builtin_prefetch(s->written->data + (row * s->cols + s->columns[i]) * width);
}

static void check_columns(const subject *s, size_t row0, size_t n, result *r) {
    size_t row_bytes = s->cols * qn_dtype_bytes(s->t->dtype);
    size_t touched = 2 * (row_bytes < FAULT ? row_bytes : FAULT); // of source and result
    for (size_t row = row0; row < row0 + n; row++) {
        fetch(s, row + AHEAD);
        for (size_t i = 0; i < COLUMNS; i++) check_value(s, row, s->columns[i], r);
        qn_maps_touched(touched);
    }
}

static void prove_piece(void *ctx, size_t i, int thread) {
    (void)thread;
    const proof *p = ctx;
    piece *one = &p->pieces[i];
    if (one->whole_rows)
        check_rows(p, one->s, &one->result);
    else
        check_columns(one->s, one->row0, one->n, &one->result);
}

static void report_check(const proof *p, json_t *report) {
    json_int_t tensors = 0, rows = 0, columns = 0, values = 0, mismatches = 0;
    for (size_t i = 0; i < p->n_pieces; i++) {
        const piece *one = &p->pieces[i];
        values += (json_int_t)one->result.values;
        mismatches += (json_int_t)one->result.mismatches;
        if (!one->whole_rows) continue;
        tensors++;
        rows += is_vector(one->s) ? 0 : ROWS;
        columns += is_vector(one->s) ? 0 : COLUMNS;
    }
    json_t *o = json_object();
    json_object_set_new(o, "decoder", json_string(QN_SECOND_DECODER_NAME));
    json_object_set_new(o, "seed", json_integer((json_int_t)p->seed));
    json_object_set_new(o, "tensors", json_integer(tensors));
    json_object_set_new(o, "rows_checked", json_integer(rows));
    json_object_set_new(o, "columns_checked", json_integer(columns));
    json_object_set_new(o, "values_checked", json_integer(values));
    json_object_set_new(o, "mismatches", json_integer(mismatches));
    json_object_set_new(report, "independent_check", o);
}

static bool no_errors(const proof *p, qn_err *err) {
    const qn_err *first = NULL;
    for (size_t i = 0; i < p->r->n_tensors && !first; i++)
        if (p->subjects[i].err.code) first = &p->subjects[i].err;
    for (size_t i = 0; i < p->n_pieces && !first; i++)
        if (p->pieces[i].result.err.code) first = &p->pieces[i].result.err;
    if (first && err) *err = *first;
    return !first;
}

bool qn_prove_decoded(const qn_rewrite *r, const char *dir, json_t *report, qn_err *err) {
    qn_ckpt *written = qn_ckpt_open(dir, 0, err);
    if (!written) return qn_err_prefix(err, "proof: the result cannot be read back");
    qn_pool *pool = qn_pool_new(r->n_threads, err);
    proof p = {.r = r, .written = written, .seed = qn_rng_system() >> 12};
    bool ok = pool != NULL;
    p.subjects = QN_NEW_ARRAY(subject, r->n_tensors);
    if (ok) {
        p.zero_offset = qn_second_zero_offset(r->source);
        qn_pool_run(pool, r->n_tensors, open_one, &p);
        cut_pieces(&p);
        qn_pool_run(pool, p.n_pieces, prove_piece, &p);
        report_check(&p, report);
        ok = no_errors(&p, err);
    }
    for (size_t i = 0; i < r->n_tensors; i++) qn_second_free(p.subjects[i].second);
    free(p.subjects);
    free(p.pieces);
    qn_pool_free(pool);
    qn_ckpt_free(written);
    return ok;
}
