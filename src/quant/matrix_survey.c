// The blocks of matrix_survey.h: fixed by the shape, measured in any order, merged in theirs.
#include "quant/matrix_survey.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/map_guard.h"
#include "base/mem.h"
#include "quant/operator_norm.h"
#include "quant/value_runs.h"

enum { PARTS = 16, ROWS = 16 };

#define BLOCK ((size_t)1 << 16) // values of a block, if 16 rows are not more

struct qn_survey {
    qn_pool *pool;
    qn_matrix_source m;
    size_t rows, cols, block, n_blocks; // block: rows, a multiple of 16
    size_t step;                        // rows taken at once
    bool norm_asked;
    qn_norm *norm;

    int threads;
    float **buffer; // per thread, of `room` values
    size_t room;
    struct columns { // per thread: in which something was not zero
        bool all;
        unsigned char *nonzero;
    } *columns;
    size_t cap_columns;
    qn_err *errs; // per thread
    struct block_figures {
        qn_stats all;
        size_t zero_rows;
    } *figures; // per block
    size_t cap_figures;

    // While reading again:
    bool clean;   // there are values that are not finite
    float factor; // what magnitudes are brought into reach by
    const float *x;
    float *y, *z_parts;
    size_t every;
    size_t pass_step; // rows at once, a multiple of 4
};

qn_survey *qn_survey_new(qn_pool *pool) {
    qn_survey *s = QN_NEW(qn_survey);
    s->pool = pool;
    s->threads = qn_pool_threads(pool);
    s->buffer = QN_NEW_ARRAY(float *, (size_t)s->threads);
    s->columns = QN_NEW_ARRAY(struct columns, (size_t)s->threads);
    s->errs = QN_NEW_ARRAY(qn_err, (size_t)s->threads);
    s->norm = qn_norm_new(pool);
    return s;
}

static void free_buffers(qn_survey *s) {
    for (int i = 0; i < s->threads; i++) {
        qn_big_free(s->buffer[i], s->room * sizeof(float));
        s->buffer[i] = NULL;
    }
    s->room = 0;
}

void qn_survey_free(qn_survey *s) {
    if (!s) return;
    free_buffers(s);
    for (int i = 0; i < s->threads; i++) free(s->columns[i].nonzero);
    qn_norm_free(s->norm);
    free(s->buffer);
    free(s->columns);
    free(s->errs);
    free(s->figures);
    free(s);
}

static bool make_room(qn_survey *s, size_t values, qn_err *err) {
    if (values > s->room) {
        free_buffers(s);
        for (int i = 0; i < s->threads; i++) {
            s->buffer[i] = qn_big_alloc(values * sizeof(float), "measuring", err);
            if (!s->buffer[i]) {
                s->room = values; // so that those before it are freed
                return false;
            }
        }
        s->room = values;
    }
    for (int i = 0; i < s->threads; i++) {
        struct columns *c = &s->columns[i];
        if (s->cols > s->cap_columns) {
            free(c->nonzero);
            c->nonzero = qn_alloc(s->cols);
        }
        memset(c->nonzero, 0, s->cols);
        c->all = false;
        s->errs[i] = (qn_err){0};
    }
    if (s->cols > s->cap_columns) s->cap_columns = s->cols;
    return true;
}

bool qn_survey_begin(qn_survey *s, const qn_matrix_source *m, qn_err *err) {
    size_t rows = m->rows, cols = m->cols, block = BLOCK / (cols ? cols : 1) / ROWS * ROWS;
    if (block < ROWS) block = ROWS;
    if (block > rows) block = rows;
    s->m = *m;
    s->rows = rows;
    s->cols = cols;
    s->block = block;
    s->step = m->single ? QN_RUN / (cols ? cols : 1) : block;
    if (s->step < 1) s->step = 1;
    s->n_blocks = block ? (rows + block - 1) / block : 0;
    s->norm_asked = m->norm && rows > 0 && cols > 0;
    if (s->n_blocks > s->cap_figures) {
        s->cap_figures = s->n_blocks;
        s->figures = qn_realloc(s->figures, s->cap_figures * sizeof *s->figures);
    }
    for (size_t b = 0; b < s->n_blocks; b++) s->figures[b] = (struct block_figures){0};
    return make_room(s, block * cols, err) &&
           (!s->norm_asked || qn_norm_begin(s->norm, rows, cols, err));
}

size_t qn_survey_blocks(const qn_survey *s) { return s->n_blocks; }

size_t qn_survey_block(const qn_survey *s, size_t block, size_t *row0) {
    *row0 = block * s->block;
    return s->rows - *row0 < s->block ? s->rows - *row0 : s->block;
}

float *qn_survey_buffer(const qn_survey *s, int thread) { return s->buffer[thread]; }

// Rows as they are looked at: floats, or 16 bits a value as they are stored.
typedef struct cells {
    const float *wide; // or
    const uint8_t *halves;
} cells;

static inline bool is_zero(cells x, size_t i) {
    if (x.wide) return x.wide[i] == 0;
    return x.halves[2 * i] == 0 && (x.halves[2 * i + 1] & 0x7F) == 0;
}

static bool zero_row(cells x, size_t from, size_t n) {
    size_t i = 0;
    while (i < n && is_zero(x, from + i)) i++;
    return i == n;
}

static void mark_columns(unsigned char *nonzero, cells x, size_t from, size_t n) {
    for (size_t i = 0; i < n; i++) nonzero[i] |= !is_zero(x, from + i);
}

// Counts rows of zeros and marks columns that are not, while there are any left to mark.
static size_t take_zeros(qn_survey *s, uint64_t n_zero, cells x, size_t n, int thread) {
    struct columns *c = &s->columns[thread];
    size_t zero_rows = 0;
    if (n_zero == 0) c->all = true; // the usual case: no row and no column is zero
    for (size_t r = 0; n_zero > 0 && r < n; r++) zero_rows += zero_row(x, r * s->cols, s->cols);
    for (size_t r = 0; !c->all && r < n; r++) mark_columns(c->nonzero, x, r * s->cols, s->cols);
    c->all = c->all || !memchr(c->nonzero, 0, s->cols);
    return zero_rows;
}

// A power of two that keeps squares of sums of values within float.
static float reach_factor(const qn_stats *s) {
    double top = fmax(fabs(s->min), fabs(s->max));
    if (!(top > 0) || (top < 0x1p30 && top > 0x1p-30)) return 1;
    int e;
    frexp(top, &e);
    return (float)ldexp(1, e < -126 ? 126 : -e);
}

static void drop_nonfinite(float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) x[i] = 0;
}

// Rows row0 … row0 + n - 1, the next ones of their block.
static void look(qn_survey *s, struct block_figures *f, size_t row0, size_t n, float *x,
                 int thread) {
    uint64_t zeros = f->all.n_zero, damaged = f->all.n_nonfinite;
    qn_stats_add(&f->all, x, n * s->cols);
    f->zero_rows += take_zeros(s, f->all.n_zero - zeros, (cells){x, NULL}, n, thread);
    if (!s->norm_asked) return;
    if (f->all.n_nonfinite > damaged) drop_nonfinite(x, n * s->cols);
    qn_norm_take(s->norm, row0, n, QN_RUN_F32, (const uint8_t *)x);
}

void qn_survey_look(qn_survey *s, size_t block, float *x, int thread) {
    size_t row0, n = qn_survey_block(s, block, &row0);
    look(s, &s->figures[block], row0, n, x, thread);
}

// ---- rows as they are stored ----

static void look_at_stored(qn_survey *s, struct block_figures *f, size_t row0, size_t n,
                           int thread) {
    const uint8_t *x = s->m.stored + 2 * row0 * s->cols;
    uint64_t zeros = f->all.n_zero, damaged = f->all.n_nonfinite;
    qn_stats_add_stored(&f->all, s->m.dtype, x, n * s->cols);
    f->zero_rows += take_zeros(s, f->all.n_zero - zeros, (cells){NULL, x}, n, thread);
    if (!s->norm_asked) return;
    if (f->all.n_nonfinite == damaged) {
        qn_norm_take(s->norm, row0, n, s->m.dtype, x);
        return;
    }
    float *wide = s->buffer[thread];
    qn_run_widen(s->m.dtype, x, n * s->cols, wide);
    drop_nonfinite(wide, n * s->cols);
    qn_norm_take(s->norm, row0, n, QN_RUN_F32, (const uint8_t *)wide);
}

// ---- the norm ----

static void pass_rows(qn_survey *s, size_t row0, size_t n, float *z, int thread) {
    float *w = s->buffer[thread];
    for (size_t r = row0, step; r < row0 + n && s->errs[thread].code == 0; r += step) {
        step = row0 + n - r < s->pass_step ? row0 + n - r : s->pass_step;
        if (!s->m.rows_of(s->m.user, r, step, w, &s->errs[thread])) return;
        if (s->clean) drop_nonfinite(w, step * s->cols);
        for (size_t i = 0; s->factor != 1 && i < step * s->cols; i++) w[i] *= s->factor;
        qn_value_runs_best()->rows_times(w, step, s->cols, s->x, s->y + r, z);
    }
}

// All blocks, or every so many groups of 16 rows of them.
static void pass_part(void *ctx, size_t part, int thread) {
    qn_survey *s = ctx;
    float *z = s->z_parts + part * s->cols;
    size_t unit = s->every > 1 ? ROWS : s->block, n = (s->rows + unit - 1) / unit;
    size_t per = (n + PARTS - 1) / PARTS, to = (part + 1) * per < n ? (part + 1) * per : n;
    for (size_t i = part * per; i < to; i++) {
        size_t row0 = i * unit, left = s->rows - row0;
        if (i % s->every == 0) pass_rows(s, row0, left < unit ? left : unit, z, thread);
    }
}

static bool no_error(const qn_survey *s, qn_err *err) {
    for (int i = 0; i < s->threads; i++)
        if (s->errs[i].code) {
            if (err) *err = s->errs[i];
            return false;
        }
    return true;
}

static bool pass(void *user, size_t every, const float *x, float *y, float *z, qn_err *err) {
    qn_survey *s = user;
    s->every = every;
    s->x = x;
    s->y = y;
    s->pass_step = s->m.single ? 4 : s->block;
    s->z_parts = qn_calloc(PARTS * s->cols, sizeof *s->z_parts);
    qn_pool_run(s->pool, PARTS, pass_part, s);
    memcpy(z, s->z_parts, s->cols * sizeof *z);
    for (size_t p = 1; p < PARTS; p++)
        for (size_t c = 0; c < s->cols; c++) z[c] += s->z_parts[p * s->cols + c];
    qn_free(s->z_parts);
    return no_error(s, err);
}

bool qn_survey_end(qn_survey *s, qn_matrix_figures *out, qn_err *err) {
    *out = (qn_matrix_figures){.norm = -1, .norm_tolerance = -1};
    for (size_t b = 0; b < s->n_blocks; b++) {
        qn_stats_merge(&out->all, &s->figures[b].all);
        out->zero_rows += s->figures[b].zero_rows;
    }
    for (size_t c = 0; c < s->cols; c++) {
        bool any = false;
        for (int i = 0; i < s->threads; i++) any |= s->columns[i].all || s->columns[i].nonzero[c];
        out->zero_cols += !any;
    }
    s->clean = out->all.n_nonfinite > 0;
    if (!s->norm_asked) return true;
    s->factor = reach_factor(&out->all);
    qn_norm_scale(s->norm, s->factor);
    if (!qn_norm_find(s->norm, pass, s, &out->norm, &out->norm_tolerance, err)) return false;
    out->norm /= (double)s->factor;
    return true;
}

// ---- all of it ----

static void survey_block(void *ctx, size_t b, int thread) {
    qn_survey *s = ctx;
    size_t row0, n = qn_survey_block(s, b, &row0);
    float *x = s->buffer[thread];
    for (size_t r = row0, step; r < row0 + n; r += step) {
        step = row0 + n - r < s->step ? row0 + n - r : s->step;
        if (s->m.stored) {
            look_at_stored(s, &s->figures[b], r, step, thread);
            continue;
        }
        if (s->errs[thread].code || !s->m.rows_of(s->m.user, r, step, x, &s->errs[thread])) return;
        look(s, &s->figures[b], r, step, x, thread);
    }
    if (s->m.stored) qn_maps_touched(2 * n * s->cols);
}

bool qn_survey_matrix(qn_survey *s, const qn_matrix_source *m, qn_matrix_figures *out,
                      qn_err *err) {
    *out = (qn_matrix_figures){.norm = -1};
    if (!qn_survey_begin(s, m, err)) return false;
    qn_pool_run(s->pool, s->n_blocks, survey_block, s);
    return no_error(s, err) && qn_survey_end(s, out, err);
}
