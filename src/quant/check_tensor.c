// The figures of one weight. Values are decoded block by block over the pool and looked at there.
#include "quant/check_tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "quant/check_codes.h"
#include "quant/measure.h"
#include "quant/tensor_report.h"
#include "quant/value_runs.h"
#include "quant/wrong_codes.h"

#define OUTLIER_STD 200.0 // a weight this many standard deviations out is worth a line

size_t qn_weight_columns(const qn_weight *w) {
    if (w->scheme) return w->cols;
    const qn_tensor *t = w->parts[0];
    return t->n_dims > 0 && t->shape[t->n_dims - 1] ? t->shape[t->n_dims - 1] : 1;
}

size_t qn_weight_count(const qn_weight *w) { return w->scheme ? w->rows * w->cols : w->parts[0]->n; }

bool qn_weight_rows(const qn_weight *w, size_t row0, size_t n, float *out, qn_err *err) {
    if (w->scheme) return qn_weight_decode(w, row0, n, out, err);
    size_t cols = qn_weight_columns(w);
    qn_tensor_to_f32(w->parts[0], row0 * cols, n * cols, out);
    return true;
}

static bool rows_of(void *user, size_t row0, size_t n, float *out, qn_err *err) {
    return qn_weight_rows(user, row0, n, out, err);
}

static void add_range(json_t *entry, const qn_stats *s) {
    json_t *o = json_object();
    json_object_set_new(o, "overflow", json_integer((json_int_t)s->n_overflow));
    json_object_set_new(o, "subnormal", json_integer((json_int_t)s->n_subnormal));
    json_object_set_new(o, "vanishing", json_integer((json_int_t)s->n_vanishing));
    json_object_set_new(entry, "f16", o);
}

// ---- verdicts ----

// Values that f16 has no normal numbers for lose digits or become 0. A few are in every matrix; as
// f16 already they have lost what they had to lose.
static void judge_underflow(const qn_check_tensor *t, const qn_stats *s, qn_problems *problems) {
    double n = (double)(s->n - s->n_nonfinite - s->n_zero);
    if (!qn_stats_fade_as_f16(s) || (!t->w->scheme && t->w->parts[0]->dtype == QN_DT_F16)) return;
    qn_problem_add(problems, QN_WARNING, "fp16-range", t->w->name, t->order,
                   "%.3g %% of its values are below f16's normal numbers, %llu of %llu become 0 as "
                   "f16", 100 * (double)s->n_subnormal / n, (unsigned long long)s->n_vanishing,
                   (unsigned long long)s->n);
}

static void judge_nonfinite(const qn_check_tensor *t, const qn_stats *s, size_t cols,
                            qn_problems *problems) {
    char at[64];
    unsigned long long row = s->first_nonfinite / cols, col = s->first_nonfinite % cols;
    if (!t->w->scheme && t->w->parts[0]->n_dims == 1) snprintf(at, sizeof at, "[%llu]", col);
    else snprintf(at, sizeof at, "[%llu, %llu]", row, col);
    if (s->n_nonfinite == 1)
        qn_problem_add(problems, QN_ERROR, "non-finite", t->w->name, t->order,
                       "1 value is not finite, at %s", at);
    else
        qn_problem_add(problems, QN_ERROR, "non-finite", t->w->name, t->order,
                       "%llu values are not finite, the first at %s",
                       (unsigned long long)s->n_nonfinite, at);
}

static void judge_values(const qn_check_tensor *t, const qn_matrix_figures *m, size_t cols,
                         qn_problems *problems) {
    const qn_stats *s = &m->all;
    if (s->n_nonfinite) judge_nonfinite(t, s, cols, problems);
    if (s->n_overflow)
        qn_problem_add(problems, QN_WARNING, "fp16-range", t->w->name, t->order,
                       "%llu value%s beyond 65504: infinite as f16",
                       (unsigned long long)s->n_overflow, s->n_overflow == 1 ? " is" : "s are");
    judge_underflow(t, s, problems);
    double std = qn_stats_std(s), top = fmax(fabs(s->min), fabs(s->max));
    bool matrix = t->expected && (t->expected->role == QN_ROLE_LINEAR ||
                                  t->expected->role == QN_ROLE_EXPERTS);
    if (matrix && std > 0 && top > OUTLIER_STD * std)
        qn_problem_add(problems, QN_WARNING, "outlier", t->w->name, t->order,
                       "the largest value, %g, is %.0f standard deviations out", top, top / std);
}

// Whoever quantized may have quantized any matrix, also those that releases leave alone.
static bool may_have_origin(const qn_check_tensor *t) {
    if (!t->read || t->w->scheme || t->w->parts[0]->n_dims < 2) return false;
    return !t->expected || qn_role_is_matrix(t->expected->role);
}

static void report_origin(const qn_check_tensor *t, const qn_wrong_finding *f, json_t *entry,
                          qn_problems *problems) {
    json_t *o = json_object();
    json_object_set_new(o, "code", json_string(qn_wrong_name(f->kind)));
    json_object_set_new(o, "group_size", json_integer((json_int_t)f->group));
    json_object_set_new(o, "bits", json_integer(f->bits));
    json_object_set_new(o, "confidence", json_real(f->confidence));
    json_object_set_new(o, "groups_tried", json_integer((json_int_t)f->groups_tried));
    json_object_set_new(o, "evidence", json_string(f->evidence));
    json_object_set_new(entry, "origin", o);
    qn_problem_add(problems, f->certain ? QN_ERROR : QN_WARNING, qn_wrong_name(f->kind), t->w->name,
                   t->order, "%s; confidence %.4g; `quern repair` undoes it", f->evidence,
                   f->confidence);
}

typedef struct origins {
    const qn_check_tensor *list;
    qn_wrong_finding *findings;
} origins;

static void find_origin(void *ctx, size_t i, int thread) {
    (void)thread;
    origins *o = ctx;
    const qn_check_tensor *t = &o->list[i];
    if (may_have_origin(t) && !qn_wrong_codes_find(t->w, t->group_hint, &o->findings[i], NULL))
        o->findings[i].kind = QN_RIGHT;
}

void qn_check_origins(qn_pool *pool, const qn_check_tensor *list, json_t *const *entries, size_t n,
                      qn_problems *problems) {
    origins o = {list, QN_NEW_ARRAY(qn_wrong_finding, n)};
    const qn_weight **weights = QN_NEW_ARRAY(const qn_weight *, n);
    for (size_t i = 0; i < n; i++) weights[i] = may_have_origin(&list[i]) ? list[i].w : NULL;
    qn_pool_run(pool, n, find_origin, &o);
    qn_wrong_codes_settle(pool, weights, n, o.findings);
    for (size_t i = 0; i < n; i++) {
        const qn_wrong_finding *f = &o.findings[i];
        if (f->kind != QN_RIGHT) report_origin(&list[i], f, entries[i], problems);
        if (f->unclear)
            qn_problem_add(problems, QN_WARNING, qn_wrong_name(f->suspected), list[i].w->name,
                           list[i].order, "perhaps, as other matrices are: %s", f->evidence);
    }
    free(weights);
    free(o.findings);
}

static json_t *new_entry(const qn_weight *w) {
    json_t *o = json_object(), *shape = json_array();
    char name[1024];
    qn_str_visible(w->name, name, sizeof name);
    json_object_set_new(o, "name", json_string(name));
    char *stored = qn_stored_as(w);
    json_object_set_new(o, "dtype", json_string(stored));
    free(stored);
    if (w->scheme) {
        json_array_append_new(shape, json_integer((json_int_t)w->rows));
        json_array_append_new(shape, json_integer((json_int_t)w->cols));
    }
    for (int i = 0; !w->scheme && i < w->parts[0]->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)w->parts[0]->shape[i]));
    json_object_set_new(o, "shape", shape);
    return o;
}

static bool readable(const qn_weight *w) {
    for (int i = 0; i < QN_MAX_PARTS; i++)
        if (w->parts[i] && !w->parts[i]->data) return false;
    return w->parts[0] && qn_weight_count(w) > 0;
}

static void report_values(const qn_matrix_figures *m, json_t *entry) {
    qn_stats_to_json(&m->all, entry);
    if (m->all.n_nonfinite)
        json_object_set_new(entry, "first_nonfinite",
                            json_integer((json_int_t)m->all.first_nonfinite));
    json_object_set_new(entry, "kurtosis", qn_json_number(qn_stats_kurtosis(&m->all)));
    json_object_set_new(entry, "zero_rows", json_integer((json_int_t)m->zero_rows));
    json_object_set_new(entry, "zero_cols", json_integer((json_int_t)m->zero_cols));
    add_range(entry, &m->all);
    if (m->norm < 0) return;
    json_object_set_new(entry, "operator_norm", qn_json_number(m->norm));
    json_object_set_new(entry, "operator_norm_tolerance", qn_json_number(m->norm_tolerance));
}

json_t *qn_check_one(qn_pool *pool, qn_survey *survey, qn_check_tensor *t, qn_problems *problems,
                     qn_err *err) {
    json_t *entry = new_entry(t->w);
    if (!readable(t->w)) return entry; // its damage is on the list already
    bool floats = t->w->scheme || qn_dtype_is_float(t->w->parts[0]->dtype);
    size_t cols = qn_weight_columns(t->w), rows = qn_weight_count(t->w) / cols;
    qn_matrix_figures m;
    qn_matrix_source source = {.rows = rows, .cols = cols, .rows_of = rows_of,
                               .user = (void *)(uintptr_t)t->w,
                               .single = t->w->scheme == NULL,
                               .norm = floats && (t->w->scheme || t->w->parts[0]->n_dims > 1)};
    const qn_tensor *plain = t->w->scheme ? NULL : t->w->parts[0];
    if (plain && (plain->dtype == QN_DT_BF16 || plain->dtype == QN_DT_F16)) {
        source.stored = plain->data;
        source.dtype = plain->dtype == QN_DT_BF16 ? QN_RUN_BF16 : QN_RUN_F16;
    }
    qn_code_figures *codes = t->w->scheme && t->w->bits <= 8 ? qn_code_figures_new(pool, t->w) : NULL;
    bool ok = codes ? qn_code_figures_take(codes, survey, &source, &m, err)
                    : qn_survey_matrix(survey, &source, &m, err);
    if (ok) report_values(&m, entry);
    if (ok && floats) judge_values(t, &m, cols, problems);
    if (ok && codes) qn_code_figures_report(codes, t->order, entry, problems);
    qn_code_figures_free(codes);
    t->read = ok && floats;
    if (ok && t->reference) ok = qn_check_against(pool, t, entry, problems, err);
    if (ok) return entry;
    qn_problem_add(problems, QN_ERROR, "bad-header", t->w->name, t->order, "cannot be read: %s",
                   err->text);
    *err = (qn_err){0};
    return entry;
}
