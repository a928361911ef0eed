// Codes are looked at block by block, in the survey's blocks and on its threads, where they were
// unpacked a moment ago. Sums of scales are kept by block, so that threads do not change a bit.
#include "quant/check_codes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "quant/tensor_report.h"

typedef struct group_figures {
    uint64_t zero_scales, odd_zero_scales, dead, bad_scales, n_scales;
    double lo, hi, sum;
    int zero_lo, zero_hi;
} group_figures;

typedef struct code_room { // of a thread
    uint8_t *codes, *zeros;
    float *scales;
    uint64_t counts[256];
    qn_err err;
} code_room;

struct qn_code_figures {
    qn_pool *pool;
    const qn_weight *w;
    qn_survey *survey; // while it lasts
    code_room *rooms;  // per thread
    int threads;
    group_figures *blocks, all;
    uint64_t counts[256];
};

qn_code_figures *qn_code_figures_new(qn_pool *pool, const qn_weight *w) {
    qn_code_figures *f = QN_NEW(qn_code_figures);
    f->pool = pool;
    f->w = w;
    f->threads = qn_pool_threads(pool);
    f->rooms = QN_NEW_ARRAY(code_room, (size_t)f->threads);
    return f;
}

void qn_code_figures_free(qn_code_figures *f) {
    if (!f) return;
    for (int i = 0; i < f->threads; i++) {
        free(f->rooms[i].codes);
        free(f->rooms[i].zeros);
        free(f->rooms[i].scales);
    }
    free(f->rooms);
    free(f->blocks);
    free(f);
}

static bool is_fp8(const qn_weight *w) { return strncmp(w->layout, "fp8", 3) == 0; }

// ---- histograms ----

// Four tables take turns, so that equal neighbours need not wait for each other.
static void count_bytes(uint64_t counts[256], const uint8_t *codes, size_t n) {
    uint32_t table[4][256] = {{0}};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t eight;
        memcpy(&eight, codes + i, 8);
        for (size_t k = 0; k < 8; k++) table[k % 4][eight >> 8 * k & 255]++;
    }
    for (; i < n; i++) table[0][codes[i]]++;
    for (size_t c = 0; c < 256; c++)
        for (size_t k = 0; k < 4; k++) counts[c] += table[k][c];
}

// Codes of up to 4 bits are counted two at once.
static void count_nibbles(uint64_t counts[256], const uint8_t *codes, size_t n) {
    uint32_t table[4][256] = {{0}};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t eight;
        memcpy(&eight, codes + i, 8);
        uint64_t pairs = eight | eight >> 4; // every other byte
        for (size_t k = 0; k < 4; k++) table[k][pairs >> 16 * k & 255]++;
    }
    for (; i < n; i++) counts[codes[i]]++;
    for (size_t p = 0; p < 256; p++)
        for (size_t k = 0; k < 4; k++) {
            counts[p & 15] += table[k][p];
            counts[p >> 4] += table[k][p];
        }
}

// ---- groups ----

static void take_scale(group_figures *g, float scale) {
    g->zero_scales += scale == 0;
    if (g->n_scales == 0 || scale < g->lo) g->lo = scale;
    if (g->n_scales == 0 || scale > g->hi) g->hi = scale;
    g->sum += scale;
    g->n_scales++;
}

static void look_at_group(group_figures *g, const uint8_t *codes, size_t n, float scale, int zero) {
    size_t same = 0;
    while (same < n && codes[same] == zero) same++;
    bool dead = same == n, first = g->n_scales == 0;
    if (!isfinite(scale)) {
        g->bad_scales++;
        return;
    }
    g->dead += dead;
    g->odd_zero_scales += scale == 0 && !dead;
    take_scale(g, scale);
    if (first || zero < g->zero_lo) g->zero_lo = zero;
    if (first || zero > g->zero_hi) g->zero_hi = zero;
}

// fp8 has no zero point, and rows share scales: each is looked at once.
static void look_at_block(group_figures *g, const qn_weight *w, size_t row, const uint8_t *codes,
                          size_t n, float scale) {
    if (w->scale_rows && row % w->scale_rows != 0) return;
    size_t zeros = 0;
    while (scale == 0 && zeros < n && (codes[zeros] & 0x7F) == 0) zeros++;
    g->odd_zero_scales += scale == 0 && zeros < n;
    if (isfinite(scale)) take_scale(g, scale);
    else g->bad_scales++;
}

static void look_at_rows(const qn_weight *w, size_t row0, size_t n, const code_room *room,
                         group_figures *out) {
    for (size_t r = 0; r < n; r++)
        for (size_t g = 0, at = 0; g < w->n_groups && at < w->cols; g++, at += w->group) {
            size_t len = w->cols - at < w->group ? w->cols - at : w->group;
            const uint8_t *codes = room->codes + r * w->cols + at;
            float scale = room->scales[r * w->n_groups + g];
            if (is_fp8(w)) look_at_block(out, w, row0 + r, codes, len, scale);
            else look_at_group(out, codes, len, scale, room->zeros[r * w->n_groups + g]);
        }
}

static void merge(group_figures *a, const group_figures *b) {
    a->zero_scales += b->zero_scales;
    a->odd_zero_scales += b->odd_zero_scales;
    a->dead += b->dead;
    a->bad_scales += b->bad_scales;
    if (b->n_scales == 0) return;
    bool first = a->n_scales == 0;
    if (first || b->lo < a->lo) a->lo = b->lo;
    if (first || b->hi > a->hi) a->hi = b->hi;
    if (first || b->zero_lo < a->zero_lo) a->zero_lo = b->zero_lo;
    if (first || b->zero_hi > a->zero_hi) a->zero_hi = b->zero_hi;
    a->sum += b->sum;
    a->n_scales += b->n_scales;
}

// ---- all blocks ----

static bool decode(const qn_weight *w, size_t row0, size_t n, code_room *room, float *x) {
    if (!w->act_order)
        return qn_weight_decode_parts(w, row0, n, x, room->codes, room->scales, room->zeros,
                                      &room->err);
    return qn_weight_decode(w, row0, n, x, &room->err) &&
           qn_weight_codes(w, row0, n, room->codes, room->scales, room->zeros, &room->err);
}

static void take_block(void *ctx, size_t b, int thread) {
    qn_code_figures *f = ctx;
    code_room *room = &f->rooms[thread];
    size_t row0, n = qn_survey_block(f->survey, b, &row0);
    float *x = qn_survey_buffer(f->survey, thread);
    if (room->err.code || !decode(f->w, row0, n, room, x)) return;
    look_at_rows(f->w, row0, n, room, &f->blocks[b]);
    (f->w->bits <= 4 ? count_nibbles : count_bytes)(room->counts, room->codes, n * f->w->cols);
    qn_survey_look(f->survey, b, x, thread);
}

static void make_rooms(qn_code_figures *f, size_t rows) {
    for (int i = 0; i < f->threads; i++) {
        f->rooms[i].codes = qn_alloc(rows * f->w->cols);
        f->rooms[i].scales = qn_alloc(rows * f->w->n_groups * sizeof(float));
        f->rooms[i].zeros = qn_alloc(rows * f->w->n_groups);
        memset(f->rooms[i].zeros, 1 << (f->w->bits - 1), rows * f->w->n_groups); // symmetric schemes
    }
}

bool qn_code_figures_take(qn_code_figures *f, qn_survey *survey, const qn_matrix_source *m,
                          qn_matrix_figures *out, qn_err *err) {
    if (!qn_survey_begin(survey, m, err)) return false;
    size_t n = qn_survey_blocks(survey), row0;
    f->survey = survey;
    f->blocks = QN_NEW_ARRAY(group_figures, n);
    make_rooms(f, n ? qn_survey_block(survey, 0, &row0) : 0);
    qn_pool_run(f->pool, n, take_block, f);
    for (int i = 0; i < f->threads; i++) {
        if (f->rooms[i].err.code) {
            *err = f->rooms[i].err;
            return false;
        }
        for (size_t c = 0; c < 256; c++) f->counts[c] += f->rooms[i].counts[c];
    }
    for (size_t b = 0; b < n; b++) merge(&f->all, &f->blocks[b]);
    return qn_survey_end(survey, out, err);
}

// ---- the report ----

static void add_problems(const qn_code_figures *f, size_t order, qn_problems *problems) {
    const group_figures *g = &f->all;
    if (g->odd_zero_scales == g->n_scales && g->n_scales > 0)
        qn_problem_add(problems, QN_ERROR, "zero-scale", f->w->name, order,
                       "all %llu scales are 0: whatever its codes say, the matrix is 0",
                       (unsigned long long)g->n_scales);
    else if (g->zero_scales)
        qn_problem_add(problems, QN_WARNING, "zero-scale", f->w->name, order,
                       "%llu group%s scale 0 (%llu of them with codes that do not mean 0, "
                       "whose values are lost); a quantizer or kernel that divides by it "
                       "makes nan", (unsigned long long)g->zero_scales,
                       g->zero_scales == 1 ? " has" : "s have",
                       (unsigned long long)g->odd_zero_scales);
    if (g->bad_scales)
        qn_problem_add(problems, QN_ERROR, "non-finite", f->w->name, order,
                       "%llu scale%s not finite", (unsigned long long)g->bad_scales,
                       g->bad_scales == 1 ? " is" : "s are");
}

static json_t *histogram(const qn_code_figures *f) {
    json_t *list = json_array();
    int bins = f->w->bits < 8 ? 1 << f->w->bits : 256;
    for (int i = 0; i < bins; i++)
        json_array_append_new(list, json_integer((json_int_t)f->counts[i]));
    return list;
}

void qn_code_figures_report(const qn_code_figures *f, size_t order, json_t *entry,
                            qn_problems *problems) {
    const qn_weight *w = f->w;
    const group_figures *g = &f->all;
    json_t *o = json_object();
    double mean = g->n_scales ? g->sum / (double)g->n_scales : 0;
    json_object_set_new(o, "layout", json_string(w->layout));
    json_object_set_new(o, "bits", json_integer(w->bits));
    json_object_set_new(o, "group_size", json_integer((json_int_t)qn_group_meant(w)));
    json_object_set_new(o, "sym", json_boolean(w->sym));
    json_object_set_new(o, "scale_min", qn_json_number(g->lo));
    json_object_set_new(o, "scale_max", qn_json_number(g->hi));
    json_object_set_new(o, "scale_mean", qn_json_number(mean));
    json_object_set_new(o, "zero_scale_groups", json_integer((json_int_t)g->zero_scales));
    if (!is_fp8(w)) {
        json_object_set_new(o, "zero_min", json_integer(g->zero_lo));
        json_object_set_new(o, "zero_max", json_integer(g->zero_hi));
        json_object_set_new(o, "dead_groups", json_integer((json_int_t)g->dead));
        json_object_set_new(o, "code_histogram", histogram(f));
    }
    json_object_set_new(entry, "quantized", o);
    add_problems(f, order, problems);
}
