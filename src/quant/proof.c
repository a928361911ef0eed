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
#define FAULT ((size_t)64 << 10) // what one far value brings into memory

typedef struct proof {
    const qn_rewrite *r;
    const qn_ckpt *written;
    uint64_t seed;
    int zero_offset; // of GPTQ zeros that vary
    struct result {
        uint64_t rows, columns, values, mismatches;
        bool seen;
        qn_err err;
    } *results; // per tensor
} proof;

typedef struct subject { // one tensor under proof
    const qn_out_tensor *t;
    const qn_tensor *written;
    const qn_second *second;
    size_t rows, cols;
    bool saturate;
    struct result *result;
} subject;

// What a reader must find for an exact value: one rounding, to nearest even.
static float as_stored(float x, qn_dtype dtype, bool saturate) {
    if (dtype == QN_DT_BF16) return qn_bf16_to_f32(qn_f32_to_bf16(x));
    if (dtype != QN_DT_F16) return x;
    float y = qn_f16_to_f32(qn_f32_to_f16(x));
    return saturate && isfinite(x) && !isfinite(y) ? copysignf(65504, x) : y;
}

static void check_value(subject *s, size_t row, size_t col) {
    float found, expected = as_stored(qn_second_value(s->second, row, col), s->t->dtype,
                                      s->saturate);
    qn_tensor_to_f32(s->written, row * s->cols + col, 1, &found);
    s->result->values++;
    if (memcmp(&found, &expected, sizeof found) == 0 || (isnan(found) && isnan(expected))) return;
    if (s->result->mismatches++ == 0)
        qn_fail(&s->result->err, QN_INPUT, "proof: tensor %s at [%zu, %zu] holds %.9g, but the "
                "source says %.9g", s->t->name, row, col, (double)found, (double)expected);
}

static void check_tensor(subject *s, uint64_t seed, uint64_t stream) {
    size_t row_bytes = s->cols * qn_dtype_bytes(s->t->dtype);
    size_t touched = 2 * (row_bytes < FAULT ? row_bytes : FAULT); // of source and result
    for (uint64_t i = 0; i < ROWS; i++, s->result->rows++) {
        size_t row = (size_t)(qn_rng_u64(seed, stream, i) % s->rows);
        for (size_t col = 0; col < s->cols; col++) check_value(s, row, col);
        if (s->rows == 1) return; // a vector is checked whole
    }
    size_t columns[COLUMNS]; // side by side, so that a row's page is fetched once
    for (uint64_t i = 0; i < COLUMNS; i++, s->result->columns++)
        columns[i] = (size_t)(qn_rng_u64(seed, stream, ROWS + i) % s->cols);
    for (size_t row = 0; row < s->rows; row++) {
        for (size_t i = 0; i < COLUMNS; i++) check_value(s, row, columns[i]);
        qn_maps_touched(touched);
    }
}

static void prove_one(void *ctx, size_t i, int thread) {
    (void)thread;
    proof *p = ctx;
    const qn_out_tensor *t = &p->r->tensors[i];
    struct result *result = &p->results[i];
    if (!t->source || !qn_dtype_is_float(t->dtype) || (!t->rows && !t->bytes)) return;
    const qn_tensor *written = qn_ckpt_find(p->written, t->name);
    if (!written || !written->data) {
        qn_fail(&result->err, QN_INPUT, "proof: tensor %s is not in the result", t->name);
        return;
    }
    if (written->n == 0) return;
    qn_second *second = qn_second_new(p->r->source, p->zero_offset, t->source->name,
                                      &result->err);
    if (!second) return;
    size_t cols = written->shape[written->n_dims - 1];
    subject s = {t, written, second, written->n / cols, cols, p->r->saturate, result};
    result->seen = true;
    check_tensor(&s, p->seed, i);
    qn_second_free(second);
}

static void report_check(const proof *p, json_t *report) {
    struct result sum = {0};
    json_int_t tensors = 0;
    for (size_t i = 0; i < p->r->n_tensors; i++) {
        const struct result *r = &p->results[i];
        tensors += r->seen;
        sum.rows += r->rows;
        sum.columns += r->columns;
        sum.values += r->values;
        sum.mismatches += r->mismatches;
    }
    json_t *o = json_object();
    json_object_set_new(o, "decoder", json_string(QN_SECOND_DECODER_NAME));
    json_object_set_new(o, "seed", json_integer((json_int_t)p->seed));
    json_object_set_new(o, "tensors", json_integer(tensors));
    json_object_set_new(o, "rows_checked", json_integer((json_int_t)sum.rows));
    json_object_set_new(o, "columns_checked", json_integer((json_int_t)sum.columns));
    json_object_set_new(o, "values_checked", json_integer((json_int_t)sum.values));
    json_object_set_new(o, "mismatches", json_integer((json_int_t)sum.mismatches));
    json_object_set_new(report, "independent_check", o);
}

bool qn_prove_decoded(const qn_rewrite *r, const char *dir, json_t *report, qn_err *err) {
    qn_ckpt *written = qn_ckpt_open(dir, 0, err);
    if (!written) return qn_err_prefix(err, "proof: the result cannot be read back");
    qn_pool *pool = qn_pool_new(r->n_threads, err);
    proof p = {r, written, qn_rng_system() >> 12, qn_second_zero_offset(r->source),
               QN_NEW_ARRAY(struct result, r->n_tensors)};
    if (pool) qn_pool_run(pool, r->n_tensors, prove_one, &p);
    bool ok = pool != NULL;
    if (ok) report_check(&p, report);
    for (size_t i = 0; ok && i < r->n_tensors; i++)
        if (p.results[i].err.code) {
            if (err) *err = p.results[i].err;
            ok = false;
        }
    free(p.results);
    qn_pool_free(pool);
    qn_ckpt_free(written);
    return ok;
}
