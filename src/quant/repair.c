// repair: which matrices are wrong and how, mending them row by row, and proving the result by breaking
// it again. Finding is wrong_codes.c's, mending one row wrong_codes_mend.c's.
#include "quant/repair.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "quant/relabel.h"
#include "quant/source_model.h"
#include "quant/wrong_codes.h"

// What was found of groups while they were mended.
typedef struct tally {
    uint64_t exact, estimated, n_scales;
    double worst; // largest finite bound
    size_t worst_row, worst_column, n_loose; // where it is; groups whose bound is half their top
    double scale_min, scale_max, scale_sum;
    int code_min, code_max;
} tally;

// One damaged matrix. Rows are mended by several threads; the counts are guarded.
typedef struct patient {
    const qn_weight *w;
    const qn_weight *reference; // or NULL
    qn_wrong_finding finding;
    size_t cols, n_groups;
    pthread_mutex_t lock;
    uint8_t *counted; // rows; some are produced again, for the operator norm
    tally sum;
    uint64_t rows_checked, mismatches;
} patient;

// A matrix that may be damaged and is left as it is.
typedef struct doubtful {
    const qn_weight *w;
    char why[320];
} doubtful;

typedef struct clinic {
    qn_source_model model, reference;
    patient *patients;
    size_t n;
    doubtful *left;
    size_t n_left;
    int n_threads;
} clinic;

// ---- one row ----

static void add_scale(tally *t, double scale) {
    if (scale == 0) return; // gone
    if (t->n_scales == 0 || scale < t->scale_min) t->scale_min = scale;
    if (t->n_scales == 0 || scale > t->scale_max) t->scale_max = scale;
    t->scale_sum += scale;
    t->n_scales++;
}

static void add_codes(tally *t, int least, int most) {
    bool first = t->exact + t->estimated == 0; // groups are counted after
    if (first || least < t->code_min) t->code_min = least;
    if (first || most > t->code_max) t->code_max = most;
}

// The distance of numbers of this size in what is written: both the estimate and the right value are
// rounded to half of that.
static double spacing(qn_dtype dtype, double magnitude) {
    int e;
    frexp(magnitude, &e);
    if (dtype == QN_DT_BF16) return ldexp(1, e - 8);
    return dtype == QN_DT_F16 ? ldexp(1, (e < -13 ? -13 : e) - 11) : ldexp(1, e - 24);
}

static void add_bound(patient *p, size_t row, size_t g, const qn_mended_row *m) {
    tally *t = &p->sum;
    size_t from = g * p->finding.group, to = from + p->finding.group;
    double top = 0, bound = m->bounds[g];
    *(bound == 0 ? &t->exact : &t->estimated) += 1;
    if (bound == 0 || !isfinite(bound)) return;
    for (size_t i = from; i < to && i < p->cols; i++) top = fmax(top, fabs((double)m->values[i]));
    bound += spacing(p->w->parts[0]->dtype, top + bound);
    t->n_loose += bound > 0.5 * top;
    if (bound <= t->worst) return;
    t->worst = bound;
    t->worst_row = row;
    t->worst_column = from;
}

static void count(patient *p, size_t row, const qn_mended_row *m) {
    pthread_mutex_lock(&p->lock);
    tally *t = &p->sum;
    if (!p->counted[row]) add_codes(t, m->code_min, m->code_max);
    for (size_t g = 0; !p->counted[row] && g < p->n_groups; g++) {
        add_bound(p, row, g, m);
        add_scale(t, (double)m->scales[g]);
    }
    p->counted[row] = 1;
    pthread_mutex_unlock(&p->lock);
}

static bool mend_rows(void *user, size_t row0, size_t n, float *out, qn_err *err) {
    patient *p = user;
    const qn_tensor *t = p->w->parts[0];
    size_t per = t->n_dims > 2 ? t->n / t->shape[0] / p->cols : 1; // rows of 3-D tensors
    float *broken = QN_NEW_ARRAY(float, p->cols), *original = NULL;
    double *bounds = QN_NEW_ARRAY(double, p->n_groups);
    float *scales = QN_NEW_ARRAY(float, p->n_groups);
    if (p->reference) original = QN_NEW_ARRAY(float, p->cols);
    bool ok = true;
    for (size_t r = row0 * per; ok && r < (row0 + n) * per; r++, out += p->cols) {
        qn_tensor_to_f32(t, r * p->cols, p->cols, broken);
        if (original) ok = qn_weight_decode(p->reference, r, 1, original, err);
        qn_mended_row row = {.values = out, .bounds = bounds, .reference = original,
                             .scales = scales};
        ok = ok && qn_wrong_codes_mend(&p->finding, broken, p->cols, p->w->name, &row, err);
        if (ok) count(p, r, &row);
    }
    free(broken);
    free(original);
    free(bounds);
    free(scales);
    return ok;
}

// ---- finding ----

typedef struct look {
    clinic *c;
    size_t hint;
    qn_wrong_finding *findings; // per weight
    qn_err *errs;
} look;

static bool is_matrix(const qn_source_model *m, const qn_weight *w) {
    const qn_expected *e = qn_layout_find(&m->layout, w->name);
    return e && !w->scheme && w->parts[0]->n_dims >= 2 && qn_role_is_matrix(e->role);
}

// Healthy ones among these are worth a word in a model with damage; embeddings are mostly left alone.
static bool is_layer(const qn_source_model *m, const qn_weight *w) {
    return is_matrix(m, w) && qn_role_is_layer(qn_layout_find(&m->layout, w->name)->role);
}

static void look_at(void *ctx, size_t i, int thread) {
    (void)thread;
    look *l = ctx;
    const qn_source_model *m = &l->c->model;
    if (is_matrix(m, m->weights[i]))
        qn_wrong_codes_find(m->weights[i], l->hint, &l->findings[i], &l->errs[i]);
}

// Whether what the right weights need is at hand.
static bool complete(const clinic *c, const patient *p, qn_err *err) {
    if (p->finding.scattered)
        return qn_fail(err, QN_INPUT, "tensor %s: signed-view of an act-order matrix; which scale a "
                       "column belongs to is not in the file: convert the quantized original instead",
                       p->w->name);
    if (!p->finding.asymmetric || c->reference.ckpt) return true;
    return qn_fail(err, QN_INPUT, "tensor %s: signed-view of codes whose zero points differ from group "
                   "to group and are not in the file; give the original (--reference)", p->w->name);
}

static bool admit(clinic *c, const qn_weight *w, const qn_wrong_finding *f, qn_err *err) {
    if (!f->certain)
        return qn_fail(err, QN_INPUT, "tensor %s: perhaps %s, but not certainly (%s); not repaired",
                       w->name, qn_wrong_name(f->kind), f->evidence);
    patient *p = &c->patients[c->n++];
    *p = (patient){.w = w, .finding = *f};
    p->cols = w->parts[0]->shape[w->parts[0]->n_dims - 1];
    p->n_groups = (p->cols + f->group - 1) / f->group;
    p->counted = QN_NEW_ARRAY(uint8_t, w->parts[0]->n / p->cols);
    pthread_mutex_init(&p->lock, NULL);
    if (!complete(c, p, err)) return false;
    if (!c->reference.ckpt) return true;
    p->reference = qn_ckpt_weight(c->reference.ckpt, w->name);
    if (p->reference && p->reference->rows * p->reference->cols == w->parts[0]->n) return true;
    return qn_fail(err, QN_INPUT, "reference: tensor %s is missing or has another shape", w->name);
}

// How far rows spread over a matrix are from the original's, relative: as they are (f NULL) or mended.
// Infinite: cannot be said.
static double far_from_original(const qn_weight *w, const qn_weight *o, const qn_wrong_finding *f) {
    enum { ROWS = 32 };
    const qn_tensor *t = w->parts[0];
    size_t cols = t->shape[t->n_dims - 1], rows = t->n / cols, n = rows < ROWS ? rows : ROWS;
    float *a = QN_NEW_ARRAY(float, cols), *b = QN_NEW_ARRAY(float, cols);
    float *x = QN_NEW_ARRAY(float, cols), *scales = QN_NEW_ARRAY(float, cols);
    double *bounds = QN_NEW_ARRAY(double, cols), off = 0, all = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        size_t r = i * rows / n;
        qn_mended_row row = {.values = x, .bounds = bounds, .scales = scales, .reference = b};
        qn_tensor_to_f32(t, r * cols, cols, a);
        ok = qn_weight_decode(o, r, 1, b, NULL) &&
             (!f || qn_wrong_codes_mend(f, a, cols, w->name, &row, NULL));
        for (size_t k = 0; ok && k < cols; k++) {
            double d = (double)(f ? x : a)[k] - (double)b[k];
            off += d * d;
            all += (double)b[k] * (double)b[k];
        }
    }
    free(a), free(b), free(x), free(scales), free(bounds);
    return ok ? sqrt(off / fmax(all, 1e-30)) : INFINITY;
}

// What the matrices do not say the original may: which reading is near it.
static bool settle_by_original(clinic *c, const qn_weight *w, const qn_wrong_finding *f, bool *done,
                               qn_err *err) {
    enum { NEAR = 5 }; // parts of the weights' size
    const qn_weight *o = c->reference.ckpt ? qn_ckpt_weight(c->reference.ckpt, w->name) : NULL;
    qn_wrong_finding as = *f;
    *done = false;
    if (!o || o->rows * o->cols != w->parts[0]->n) return true;
    as.kind = f->suspected;
    as.certain = true;
    *done = far_from_original(w, o, NULL) * NEAR < 1;
    if (*done || far_from_original(w, o, &as) * NEAR >= 1) return true;
    *done = true;
    return admit(c, w, &as, err);
}

static bool leave(clinic *c, const qn_weight *w, const qn_wrong_finding *f, qn_err *err) {
    bool done;
    if (!settle_by_original(c, w, f, &done, err)) return false;
    if (done) return true;
    doubtful *d = &c->left[c->n_left++];
    d->w = w;
    snprintf(d->why, sizeof d->why, "%s", f->evidence);
    return true;
}

static void find_all(clinic *c, qn_pool *pool, look *l) {
    size_t n = c->model.n_weights;
    const qn_weight **list = QN_NEW_ARRAY(const qn_weight *, n);
    qn_pool_run(pool, n, look_at, l);
    for (size_t i = 0; i < n; i++)
        if (is_matrix(&c->model, c->model.weights[i])) list[i] = c->model.weights[i];
    qn_wrong_codes_settle(pool, list, n, l->findings);
    free(list);
}

static bool examine(clinic *c, size_t hint, qn_err *err) {
    size_t n = c->model.n_weights;
    qn_pool *pool = qn_pool_new(c->n_threads, err);
    if (!pool) return false;
    look l = {c, hint, QN_NEW_ARRAY(qn_wrong_finding, n), QN_NEW_ARRAY(qn_err, n)};
    c->patients = QN_NEW_ARRAY(patient, n);
    c->left = QN_NEW_ARRAY(doubtful, n);
    find_all(c, pool, &l);
    qn_pool_free(pool);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        if (l.errs[i].code) {
            *err = l.errs[i];
            ok = false;
        } else if (l.findings[i].kind != QN_RIGHT) {
            ok = admit(c, c->model.weights[i], &l.findings[i], err);
        } else if (l.findings[i].unclear) {
            ok = leave(c, c->model.weights[i], &l.findings[i], err);
        }
    }
    free(l.findings);
    free(l.errs);
    return ok;
}

// ---- proof ----

typedef struct review {
    clinic *c;
    const qn_ckpt *written;
} review;

static void review_one(void *ctx, size_t i, int thread) {
    (void)thread;
    review *v = ctx;
    patient *p = &v->c->patients[i];
    const qn_tensor *before = p->w->parts[0], *after = qn_ckpt_find(v->written, before->name);
    size_t rows = before->n / p->cols, g = p->finding.group;
    if (!after || after->n != before->n) {
        p->mismatches++;
        return;
    }
    float *a = QN_NEW_ARRAY(float, p->cols), *b = QN_NEW_ARRAY(float, p->cols);
    for (size_t r = 0; r < rows; r++, p->rows_checked++) {
        qn_tensor_to_f32(before, r * p->cols, p->cols, a);
        qn_tensor_to_f32(after, r * p->cols, p->cols, b);
        for (size_t at = 0; at < p->cols; at += g)
            p->mismatches += !qn_wrong_codes_rebreaks(&p->finding, after->dtype, a + at, b + at,
                                                      p->cols - at < g ? p->cols - at : g);
    }
    free(a);
    free(b);
}

static void add_tally(tally *sum, const tally *t) {
    if (t->exact + t->estimated) add_codes(sum, t->code_min, t->code_max);
    sum->exact += t->exact;
    sum->estimated += t->estimated;
    if (t->n_scales == 0) return;
    if (sum->n_scales == 0 || t->scale_min < sum->scale_min) sum->scale_min = t->scale_min;
    if (sum->n_scales == 0 || t->scale_max > sum->scale_max) sum->scale_max = t->scale_max;
    sum->scale_sum += t->scale_sum;
    sum->n_scales += t->n_scales;
}

static void tell_groups(const tally *t, json_t *o) {
    json_object_set_new(o, "exact_groups", json_integer((json_int_t)t->exact));
    json_object_set_new(o, "estimated_groups", json_integer((json_int_t)t->estimated));
}

// The names that convert uses of quantized tensors.
static void tell_codes(const tally *t, json_t *o) {
    if (t->n_scales) {
        json_object_set_new(o, "scale_min", qn_json_number(t->scale_min));
        json_object_set_new(o, "scale_max", qn_json_number(t->scale_max));
        json_object_set_new(o, "scale_mean", qn_json_number(t->scale_sum / (double)t->n_scales));
    }
    json_object_set_new(o, "code_min", json_integer(t->code_min));
    json_object_set_new(o, "code_max", json_integer(t->code_max));
}

static bool prove(void *user, const char *dir, json_t *report, qn_err *err) {
    clinic *c = user;
    qn_ckpt *written = qn_ckpt_open(dir, 0, err);
    if (!written) return qn_err_prefix(err, "proof: the result cannot be read back");
    qn_pool *pool = qn_pool_new(c->n_threads, err);
    review v = {c, written};
    if (pool) qn_pool_run(pool, c->n, review_one, &v);
    qn_pool_free(pool);
    qn_ckpt_free(written);
    if (!pool) return false;
    uint64_t rows = 0, bad = 0;
    tally sum = {0};
    const char *first = NULL;
    for (size_t i = 0; i < c->n; i++) {
        const patient *p = &c->patients[i];
        rows += p->rows_checked;
        bad += p->mismatches;
        add_tally(&sum, &p->sum);
        if (p->mismatches && !first) first = p->w->name;
    }
    json_t *o = json_object(), *s = json_object_get(report, "summary");
    json_object_set_new(o, "decoder", json_string("what was written, broken again, gives what was "
                                                  "read, bit for bit"));
    json_object_set_new(o, "rows_checked", json_integer((json_int_t)rows));
    json_object_set_new(o, "mismatches", json_integer((json_int_t)bad));
    json_object_set_new(report, "independent_check", o);
    json_object_set_new(s, "repaired", json_integer((json_int_t)c->n));
    if (c->n_left) json_object_set_new(s, "left_as_they_were", json_integer((json_int_t)c->n_left));
    json_object_set_new(report, "verdict", json_string(c->n_left ? "incomplete" : "complete"));
    tell_groups(&sum, s);
    tell_codes(&sum, s);
    if (!bad) return true;
    return qn_fail(err, QN_INPUT, "proof: tensor %s: %llu groups are not what was broken; nothing "
                   "was written", first, (unsigned long long)bad);
}

// ---- report and result ----

static patient *patient_of(const clinic *c, const qn_weight *w) {
    for (size_t i = 0; i < c->n; i++)
        if (c->patients[i].w == w) return &c->patients[i];
    return NULL;
}

static const doubtful *doubtful_of(const clinic *c, const qn_weight *w) {
    for (size_t i = 0; i < c->n_left; i++)
        if (c->left[i].w == w) return &c->left[i];
    return NULL;
}

static void describe(void *user, const qn_out_tensor *t, json_t *entry) {
    const patient *p = t->source ? patient_of(user, t->source) : NULL;
    const doubtful *d = t->source ? doubtful_of(user, t->source) : NULL;
    if (d) json_object_set_new(entry, "left_because", json_string(d->why));
    if (!p) return;
    json_object_set_new(entry, "repaired", json_string(qn_wrong_name(p->finding.kind)));
    json_object_set_new(entry, "group_size", json_integer((json_int_t)p->finding.group));
    tell_groups(&p->sum, entry);
    if (p->sum.estimated)
        json_object_set_new(entry, "estimate_bound", qn_json_number(p->sum.worst));
    tell_codes(&p->sum, entry);
}

static void add_tensor(qn_rewrite *r, clinic *c, const qn_weight *w) {
    patient *p = patient_of(c, w);
    const qn_tensor *t = w->parts[0];
    qn_out_tensor *o = qn_rewrite_copy(r, t);
    o->source = w;
    if (!p) return;
    o->bytes = NULL;
    o->rows = mend_rows;
    o->user = p;
}

// Every one by name: what is left is the first thing to know about the result.
static void note_left(const clinic *c, json_t *notes) {
    size_t layers = 0, wrong = 0;
    for (size_t i = 0; i < c->model.n_weights; i++)
        layers += is_layer(&c->model, c->model.weights[i]);
    for (size_t i = 0; i < c->n; i++) wrong += is_layer(&c->model, c->patients[i].w);
    for (size_t i = 0; i < c->n_left; i++) {
        wrong += is_layer(&c->model, c->left[i].w);
        json_array_append_new(notes, json_sprintf("%s may be damaged and was left as it is: %s",
                                                  c->left[i].w->name, c->left[i].why));
    }
    if (layers > wrong)
        json_array_append_new(notes, json_sprintf("%d of %d linear layers show no sign of damage and "
                                                  "were copied as they are", (int)(layers - wrong),
                                                  (int)layers));
}

// What several scales explain may be far off: that should not only stand in a report.
static void note_loose(const clinic *c) {
    size_t groups = 0;
    const patient *worst = NULL;
    for (size_t i = 0; i < c->n; i++) {
        const patient *p = &c->patients[i];
        groups += p->sum.n_loose;
        if (p->sum.n_loose && (!worst || p->sum.worst > worst->sum.worst)) worst = p;
    }
    if (worst)
        qn_note("%zu of the estimated groups are known to less than half of their largest value; the "
                "loosest is at [%zu, %zu] of %s, within %.3g; --reference settles them", groups,
                worst->sum.worst_row, worst->sum.worst_column, worst->w->name, worst->sum.worst);
}

static char *readme_note(const clinic *c) {
    if (c->n_left == 0)
        return qn_strf("Repaired by quern %s: %zu of its matrices were wrong; quern-report.json says "
                       "what was exact and what is an estimate.", QN_VERSION, c->n);
    return qn_strf("Repaired IN PART by quern %s: %zu of its matrices were wrong; %zu more may be, "
                   "could not be judged and are as they were. quern-report.json names them.",
                   QN_VERSION, c->n, c->n_left);
}

static bool mend_all(clinic *c, const char *out, const qn_repair_options *o, json_t *notes,
                     json_t **report, qn_err *err) {
    qn_rewrite r = {.command = "repair", .source = c->model.ckpt, .out = out,
                    .overwrite = o->overwrite, .shard_bytes = o->shard_bytes,
                    .n_threads = o->n_threads, .describe = describe, .prove = prove, .user = c,
                    .progress = o->progress, .progress_user = o->user,
                    .notes = json_incref(notes)};
    for (size_t i = 0; i < c->model.n_weights; i++) add_tensor(&r, c, c->model.weights[i]);
    note_left(c, r.notes);
    r.readme_note = readme_note(c);
    bool ok = qn_rewrite_run(&r, report, err);
    qn_rewrite_done(&r);
    if (ok) note_loose(c);
    return ok;
}

static bool is_quantized(const qn_source_model *m) {
    for (size_t i = 0; i < m->n_weights; i++)
        if (m->weights[i]->scheme) return true;
    return false;
}

// Act-order scatters a group's columns over the row: most matrices then look damaged, none is proven.
static bool nothing_to_repair(const clinic *c, qn_err *err) {
    size_t matrices = 0, holes = 0;
    const char *path = qn_ckpt_path(c->model.ckpt);
    for (size_t i = 0; i < c->model.n_weights; i++) {
        if (!is_matrix(&c->model, c->model.weights[i])) continue;
        matrices++;
        holes += qn_wrong_codes_hole(c->model.weights[i]);
    }
    if (holes * 2 > matrices)
        return qn_fail(err, QN_INPUT, "%s: %zu of %zu matrices have few values near 0, as in a "
                       "signed-view, but no scale explains their groups (act-order?): which scale "
                       "a column belongs to is not in the file; convert the quantized original "
                       "instead", path, holes, matrices);
    return qn_fail(err, QN_INPUT, "%s: nothing to repair: no matrix looks signed-view or zero-offset",
                   path);
}

static bool treat(clinic *c, const char *out, const qn_repair_options *o, json_t *notes,
                  json_t **report, qn_err *err) {
    if (is_quantized(&c->model)) {
        qn_relabel_options relabel = {o->shard_bytes, o->overwrite, o->n_threads, o->progress,
                                      o->user};
        return qn_relabel(&c->model, out, &relabel, notes, report, err);
    }
    if (!examine(c, o->group_size, err)) return false;
    if (c->n == 0) return nothing_to_repair(c, err);
    return mend_all(c, out, o, notes, report, err);
}

bool qn_repair(const char *model, const char *out, const qn_repair_options *o, json_t **report,
               qn_err *err) {
    clinic c = {.n_threads = o->n_threads};
    json_t *notes = json_array();
    *report = NULL;
    bool ok = qn_source_model_open(&c.model, model, false, notes, err);
    if (ok && o->reference)
        ok = qn_source_model_open(&c.reference, o->reference, true, notes, err) ||
             qn_err_prefix(err, "reference");
    ok = ok && treat(&c, out, o, notes, report, err);
    for (size_t i = 0; i < c.n; i++) {
        pthread_mutex_destroy(&c.patients[i].lock);
        free(c.patients[i].counted);
    }
    free(c.patients);
    free(c.left);
    qn_source_model_close(&c.model);
    qn_source_model_close(&c.reference);
    json_decref(notes);
    return ok;
}
