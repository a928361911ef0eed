// Filling a model from a checkpoint: finds each tensor that a block names, checks its shape against
// the config and packs it. Nothing is invented: what is missing is an error. How a tensor is
// stored is the store's business; which rows become which matrix was said by the block.
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "kernel/formats.h"
#include "model/parts.h"
#include "store/schemes.h"

static const qn_weight *find(qn_loader *l, const qn_expected *e, qn_err *err) {
    const qn_weight *list, *w = qn_ckpt_weight(l->ckpt, e->name);
    size_t n;
    if (!w)
        return qn_fail_null(err, QN_NOT_FOUND, "%s: tensor %s is missing", qn_ckpt_path(l->ckpt),
                            e->name);
    if (!qn_expected_matches(e, w, err)) return NULL;
    if (qn_ckpt_weights(l->ckpt, &list, &n, err)) l->used[w - list] = true;
    return w;
}

static bool advance(qn_loader *l, const qn_weight *w, qn_err *err) {
    for (int i = 0; i < QN_MAX_PARTS; i++)
        if (w->parts[i]) l->done += w->parts[i]->bytes;
    if (l->progress && !l->progress(l->user, "loading", l->done, l->total))
        return qn_fail(err, QN_CANCELLED, "loading stopped");
    return true;
}

// ---- rows in another order -------------------------------------------------------------------

typedef struct reorder {
    const qn_weight *w;
    const size_t *order;
    qn_mat *out;
    bool codes;   // codes and scales go over as they are, else exact floats
    int shift;    // … after adding what brings their middle to the format's
    qn_err *errs; // [threads]
} reorder;

// Rows that follow each other in the tensor too.
static size_t stretch(const size_t *order, size_t from, size_t end) {
    size_t n = 1;
    while (from + n < end && order[from + n] == order[from] + n) n++;
    return n;
}

static bool reorder_panel(const reorder *r, size_t from, size_t end, qn_err *err) {
    size_t cols = r->w->cols, groups = r->w->n_groups, n = end - from;
    float *f32 = r->codes ? NULL : qn_alloc(n * cols * sizeof *f32);
    uint8_t *codes = r->codes ? qn_alloc(n * cols) : NULL;
    float *scales = r->codes ? qn_alloc(n * groups * sizeof *scales) : NULL;
    uint8_t *zeros = r->codes ? qn_zalloc(n * groups) : NULL;
    bool ok = true;
    for (size_t at = from, step; ok && at < end; at += step) {
        size_t i = at - from, row = r->order[at];
        step = stretch(r->order, at, end);
        ok = r->codes ? qn_weight_codes(r->w, row, step, codes + i * cols, scales + i * groups,
                                        zeros + i * groups, err)
                      : qn_weight_decode(r->w, row, step, f32 + i * cols, err);
    }
    for (size_t i = 0; r->shift && i < n * cols; i++) codes[i] = (uint8_t)(codes[i] + r->shift);
    if (ok) qn_mat_put(r->out, &(qn_rows){from, n, f32, NULL, codes, scales, zeros});
    qn_free(f32);
    qn_free(codes);
    qn_free(scales);
    qn_free(zeros);
    return ok;
}

static void reorder_task(void *ctx, size_t panel, int thread) {
    reorder *r = ctx;
    size_t from = panel * QN_PANEL, end = from + QN_PANEL;
    if (end > r->out->rows) end = r->out->rows;
    qn_err *err = &r->errs[thread];
    if (err->code == QN_OK) reorder_panel(r, from, end, err);
}

// Whether the store kept the codes of a quantized weight when it packed it so.
static bool keeps_codes(const qn_weight *w, const qn_mat *whole) {
    qn_format_id id = whole->format->id;
    qn_err uneven = {0};
    int32_t *perm = NULL;
    if (!w->scheme || !whole->format->grouped) return false;
    if (w->scheme->floats) return id == QN_FORMAT_F8;
    bool even = qn_weight_perm(w, &perm, &uneven);
    qn_free(perm);
    return even && (id == QN_FORMAT_Q8 || (id == QN_FORMAT_Q4 && w->bits <= 4));
}

// The matrix is loaded as it is stored first, which settles its format; then rows go over in their
// new order, codes as codes.
static bool load_ordered(qn_loader *l, const qn_weight *w, qn_weights want, const qn_cut *cut,
                         qn_err *err) {
    qn_mat whole = {0};
    if (!qn_weight_load(w, 0, w->rows, want, l->pool, &whole, err)) return false;
    qn_mat_spec spec = {.format = whole.format->id, .rows = cut->rows, .cols = whole.cols,
                        .group = whole.group, .has_zeros = whole.has_zeros,
                        .scale_bits = whole.scale_bits, .scale_is_bf16 = whole.scale_is_bf16,
                        .perm = whole.perm, .name = w->name};
    bool ok = qn_mat_init(cut->out, &spec, err);
    if (ok) {
        reorder r = {.w = w, .order = cut->order, .out = cut->out,
                     .codes = keeps_codes(w, &whole)};
        if (r.codes && !w->scheme->floats && !whole.has_zeros)
            r.shift = whole.format->middle - (1 << (w->bits - 1));
        int threads = qn_pool_threads(l->pool);
        r.errs = QN_NEW_ARRAY(qn_err, (size_t)threads);
        qn_pool_run(l->pool, (cut->rows + QN_PANEL - 1) / QN_PANEL, reorder_task, &r);
        for (int i = 0; i < threads && ok; i++)
            if (r.errs[i].code != QN_OK) {
                *err = r.errs[i];
                ok = false;
            }
        qn_free(r.errs);
    }
    qn_mat_done(&whole);
    return ok;
}

// ---- listener --------------------------------------------------------------------------------

static bool load_matrix(qn_binder *b, const qn_expected *e, const qn_cut *cuts, size_t n,
                        qn_err *err) {
    qn_loader *l = (qn_loader *)b;
    const qn_weight *w = find(l, e, err);
    qn_weights want = e->role == QN_ROLE_SMALL && l->want != QN_F32 ? QN_STORED : l->want;
    if (!w) return false;
    for (size_t i = 0; i < n; i++)
        if (cuts[i].order ? !load_ordered(l, w, want, &cuts[i], err)
                          : !qn_weight_load(w, cuts[i].row0, cuts[i].rows, want, l->pool,
                                            cuts[i].out, err))
            return false;
    return advance(l, w, err);
}

static bool load_floats(qn_binder *b, const qn_expected *e, float *out, qn_err *err) {
    qn_loader *l = (qn_loader *)b;
    const qn_weight *w = find(l, e, err);
    size_t n = 1;
    for (int i = 0; i < e->n_dims; i++) n *= e->shape[i];
    return w && qn_weight_floats(w, n, out, err) && advance(l, w, err);
}

bool qn_loader_init(qn_loader *l, qn_ckpt *ckpt, const qn_config *c, qn_err *err) {
    const qn_weight *list;
    size_t n;
    l->ckpt = ckpt;
    if (!qn_ckpt_weights(ckpt, &list, &n, err)) return false;
    l->used = QN_NEW_ARRAY(bool, n);
    for (size_t i = 0; i < qn_ckpt_n_tensors(ckpt); i++) l->total += qn_ckpt_tensor(ckpt, i)->bytes;
    l->binder = (qn_binder){.config = c, .spelling = qn_spelling_detect(c, ckpt),
                            .matrix = load_matrix, .floats = load_floats};
    return true;
}

void qn_loader_done(qn_loader *l) {
    free(l->used);
    qn_binder_done(&l->binder);
}

// ---- strays ----------------------------------------------------------------------------------

static bool all_zero(const qn_tensor *t) {
    float x[256];
    for (size_t at = 0; at < t->n; at += 256) {
        size_t n = t->n - at < 256 ? t->n - at : 256;
        qn_tensor_to_f32(t, at, n, x);
        for (size_t i = 0; i < n; i++)
            if (x[i] != 0) return false;
    }
    return true;
}

// Parts that other readers look after, or that were left out on purpose.
static bool expected_elsewhere(const char *name) {
    return qn_str_starts(name, "model.visual.") || qn_str_starts(name, "visual.") ||
           qn_str_starts(name, "mtp.");
}

bool qn_loader_check_strays(const qn_loader *l, qn_err *err) {
    const qn_weight *list;
    const char *first = NULL, *first_zero = NULL;
    size_t n, others = 0, zeros = 0;
    if (!qn_ckpt_weights(l->ckpt, &list, &n, err)) return false;
    for (size_t i = 0; i < n; i++) {
        const qn_weight *w = &list[i];
        if (l->used[i] || expected_elsewhere(w->name)) continue;
        if (qn_str_ends(w->name, ".bias") && !w->scheme) {
            if (!all_zero(w->parts[0]))
                return qn_fail(err, QN_UNSUPPORTED, "%s: tensor %s is not zero, expected no such "
                               "bias in %s", qn_ckpt_path(l->ckpt), w->name,
                               l->binder.config->architecture);
            if (!zeros++) first_zero = w->name;
        } else if (!others++) {
            first = w->name;
        }
    }
    if (zeros)
        qn_note("%zu bias%s that %s lacks, %s%s, left out: all zero", zeros, zeros == 1 ? "" : "es",
                l->binder.config->architecture, first_zero, zeros == 1 ? "" : ", …");
    if (others)
        qn_note("%zu tensor%s not used (%s%s)", others, others == 1 ? " is" : "s are", first,
                others == 1 ? "" : ", …");
    return true;
}
