// Owns bringing a weight into memory: which format holds it, and packing it block by block over the
// threads. Quantized weights keep their codes; the only floats on the way are one block of rows per
// thread, and only where the format wanted is another than the stored one.
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/schemes.h"

// Groups of weights that are quantized while loading; their scales are bf16, which has the range
// that rows of tiny weights need.
#define Q8_GROUP 128
#define Q4_GROUP 32

typedef enum put { PUT_CODES, PUT_F32, PUT_H16 } put;

typedef struct plan {
    qn_mat_spec spec;
    put put;
    int shift; // added to codes so that their middle is the format's
    int32_t *perm;
} plan;

// ---- which format ----

static void plan_floats(plan *p, qn_format_id format) {
    p->put = PUT_F32;
    p->spec.format = format;
    if (format != QN_FORMAT_Q8 && format != QN_FORMAT_Q4) return;
    p->spec.group = format == QN_FORMAT_Q8 ? Q8_GROUP : Q4_GROUP;
    p->spec.scale_bits = 16;
    p->spec.scale_is_bf16 = true;
}

static bool plan_plain(plan *p, const qn_weight *w, qn_weights want, qn_err *err) {
    static const qn_format_id wanted[] = {[QN_F32] = QN_FORMAT_F32, [QN_BF16] = QN_FORMAT_BF16,
                                          [QN_Q8] = QN_FORMAT_Q8, [QN_Q4] = QN_FORMAT_Q4};
    qn_dtype d = w->parts[0]->dtype;
    if (!qn_dtype_is_float(d))
        return qn_part_mismatch(w->parts[0], err, "floats, or scales beside");
    if (want != QN_STORED) plan_floats(p, wanted[want]);
    else if (d == QN_DT_F16) plan_floats(p, QN_FORMAT_F16);
    else if (d == QN_DT_F32 || d == QN_DT_F64) plan_floats(p, QN_FORMAT_F32);
    else plan_floats(p, QN_FORMAT_BF16); // holds every 8-bit float
    if ((p->spec.format == QN_FORMAT_BF16 && d == QN_DT_BF16) ||
        (p->spec.format == QN_FORMAT_F16 && d == QN_DT_F16))
        p->put = PUT_H16;
    return true;
}

static void plan_codes(plan *p, const qn_weight *w, qn_format_id format) {
    qn_dtype scale = w->parts[w->scheme->scale_part]->dtype;
    p->put = PUT_CODES;
    p->spec.format = format;
    p->spec.group = w->group;
    p->spec.scale_bits = scale == QN_DT_F32 ? 32 : 16;
    p->spec.scale_is_bf16 = scale == QN_DT_BF16;
    p->spec.perm = p->perm;
    if (w->scheme->floats) return;
    p->spec.has_zeros = !w->sym;
    if (w->sym) p->shift = (format == QN_FORMAT_Q4 ? 8 : 128) - (1 << (w->bits - 1));
}

// Codes stay codes where the format can hold them: always at QN_STORED, for Q8 always, for Q4 up to
// 4 bits. Groups of uneven size are in no format; their values stay exact as F32.
static void plan_quantized(plan *p, const qn_weight *w, qn_weights want) {
    qn_err uneven = {0};
    bool f8 = w->scheme->floats;
    if (want == QN_F32 || want == QN_BF16) {
        plan_floats(p, want == QN_F32 ? QN_FORMAT_F32 : QN_FORMAT_BF16);
    } else if (!qn_weight_perm(w, &p->perm, &uneven)) {
        plan_floats(p, want == QN_Q8 ? QN_FORMAT_Q8 : want == QN_Q4 ? QN_FORMAT_Q4 : QN_FORMAT_F32);
    } else if (f8 && want == QN_STORED) {
        plan_codes(p, w, QN_FORMAT_F8);
    } else if (f8 || (want == QN_Q4 && w->bits > 4)) {
        plan_floats(p, want == QN_Q8 ? QN_FORMAT_Q8 : QN_FORMAT_Q4);
    } else {
        plan_codes(p, w, want == QN_Q8 || w->bits > 4 ? QN_FORMAT_Q8 : QN_FORMAT_Q4);
    }
}

// ---- the work ----

typedef struct job {
    const qn_weight *w;
    const plan *plan;
    qn_mat *out;
    size_t row0, rows, block;
    uint8_t *codes, *zeros; // one block per thread each
    float *floats;          // values, or scales beside codes
    size_t codes_step, zeros_step, floats_step;
    atomic_bool failed;
} job;

static void put_codes(job *j, qn_rows *r, int thread) {
    const qn_weight *w = j->w;
    uint8_t *codes = j->codes + (size_t)thread * j->codes_step;
    uint8_t *zeros = j->zeros + (size_t)thread * j->zeros_step;
    float *scales = j->floats + (size_t)thread * j->floats_step;
    bool has_zeros = j->plan->spec.has_zeros;
    qn_weight_codes_in(w, j->plan->perm, j->row0 + r->row0, r->n, codes, scales,
                       has_zeros ? zeros : NULL);
    if (j->plan->shift)
        for (size_t i = 0; i < r->n * w->cols; i++)
            codes[i] = (uint8_t)(codes[i] + j->plan->shift);
    r->codes = codes;
    r->scales = scales;
    r->zeros = has_zeros ? zeros : NULL;
    qn_mat_put(j->out, r);
}

static void put_floats(job *j, qn_rows *r, int thread) {
    float *to = j->floats + (size_t)thread * j->floats_step;
    if (!qn_weight_decode(j->w, j->row0 + r->row0, r->n, to, NULL)) {
        atomic_store(&j->failed, true);
        return;
    }
    r->f32 = to;
    qn_mat_put(j->out, r);
}

// 16-bit floats go straight from the mapping, unless they lie at an odd address there.
static void put_halves(job *j, qn_rows *r, int thread) {
    const uint8_t *from = j->w->parts[0]->data + (j->row0 + r->row0) * j->w->cols * 2;
    void *copy = j->codes + (size_t)thread * j->codes_step;
    if ((uintptr_t)from % 2 == 0) {
        r->h16 = (const void *)from;
    } else {
        memcpy(copy, from, r->n * j->w->cols * 2);
        r->h16 = copy;
    }
    qn_mat_put(j->out, r);
}

static void put_block(void *ctx, size_t task, int thread) {
    job *j = ctx;
    size_t from = task * j->block;
    qn_rows r = {.row0 = from, .n = j->rows - from < j->block ? j->rows - from : j->block};
    switch (j->plan->put) {
    case PUT_CODES: put_codes(j, &r, thread); break;
    case PUT_F32: put_floats(j, &r, thread); break;
    case PUT_H16: put_halves(j, &r, thread); break;
    }
}

// Rows per block: many enough that a scheme packed along the outputs reads whole cache lines, few
// enough that every thread has work.
static size_t block_rows(size_t rows, size_t cols, int threads) {
    size_t most = ((size_t)1 << 20) / cols, share = rows / (2 * (size_t)threads);
    size_t n = most < share ? most : share;
    n = n < 16 ? 16 : n > 128 ? 128 : n;
    return n / QN_PANEL * QN_PANEL;
}

static void run(job *j, qn_pool *pool) {
    const qn_weight *w = j->w;
    size_t threads = (size_t)qn_pool_threads(pool);
    size_t most = j->block < j->rows ? j->block : j->rows, cells = most * w->cols;
    size_t scales = w->scheme ? most * w->n_groups : 0;
    bool floats = j->plan->put == PUT_F32;
    j->codes_step = floats ? 0 : j->plan->put == PUT_H16 ? 2 * cells : cells;
    j->floats_step = floats ? cells : scales;
    j->zeros_step = scales;
    j->codes = qn_alloc(threads * j->codes_step);
    j->zeros = qn_alloc(threads * j->zeros_step);
    j->floats = qn_alloc(threads * j->floats_step * sizeof *j->floats);
    qn_pool_run(pool, (j->rows + j->block - 1) / j->block, put_block, j);
    free(j->codes);
    free(j->zeros);
    free(j->floats);
}

// What has been packed need not stay in this process's memory as well; the system's page cache
// keeps it. Only whole pages inside the tensor are let go: weights lie in mapped shards.
static void release(const qn_weight *w, size_t row0, size_t rows) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < QN_MAX_PARTS; i++) {
        const qn_tensor *t = w->parts[i];
        if (!t || t->bytes < (1 << 20)) continue;
        size_t row = t->bytes / w->rows;
        uintptr_t from = (uintptr_t)t->data + (w->scheme ? 0 : row0 * row);
        uintptr_t to = w->scheme ? from + t->bytes : from + rows * row;
        from = (from + page - 1) / page * page;
        to = to / page * page;
        if (from < to) qn_map_dont_need(&(qn_map){(const void *)from, to - from}, 0, to - from);
    }
}

bool qn_weight_load(const qn_weight *w, size_t row0, size_t rows, qn_weights want, qn_pool *pool,
                    qn_mat *out, qn_err *err) {
    plan p = {.spec = {.rows = rows, .cols = w->cols, .name = w->name}};
    *out = (qn_mat){0};
    if (!qn_weight_readable(w, row0, rows, err)) return false;
    if (w->scheme) plan_quantized(&p, w, want);
    else if (!plan_plain(&p, w, want, err)) return false;
    bool ok = qn_mat_init(out, &p.spec, err);
    if (ok) {
        job j = {.w = w, .plan = &p, .out = out, .row0 = row0, .rows = rows,
                 .block = block_rows(rows, w->cols, qn_pool_threads(pool))};
        run(&j, pool);
        if (j.failed) ok = qn_fail(err, QN_INPUT, "%s: cannot be decoded", w->name);
        else release(w, row0, rows);
    }
    if (!ok) qn_mat_done(out);
    qn_free(p.perm);
    return ok;
}
