// Entries of the report, and the range of codes and scales of a quantized weight.
#include "quant/tensor_report.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"

int64_t qn_group_meant(const qn_weight *w) {
    if (w->n_groups > 1) return (int64_t)w->group;
    return w->said_group > 0 && (size_t)w->said_group >= w->cols ? w->said_group : -1;
}

char *qn_stored_as(const qn_weight *w) {
    if (!w->scheme) return qn_strdup(qn_dtype_name(w->parts[0]->dtype));
    char group[64] = "";
    size_t down = w->said_block[0], across = w->said_block[1];
    if (strcmp(w->layout, "fp8-block") == 0)
        snprintf(group, sizeof group, " %zux%zu", down > w->scale_rows ? down : w->scale_rows,
                 across > w->group ? across : w->group);
    else if (strncmp(w->layout, "fp8-", 4) == 0)
        group[0] = 0; // channel or tensor is in the name
    else if (qn_group_meant(w) > 0)
        snprintf(group, sizeof group, " g%lld", (long long)qn_group_meant(w));
    else
        snprintf(group, sizeof group, " channel");
    return qn_strf("%s %d-bit%s%s", w->layout, w->bits, group, w->sym ? "" : " asym");
}

// A dtype as floats has scales but no codes to count.
static bool has_codes(const qn_out_tensor *t) {
    return t->source && !qn_dtype_is_float(t->source->parts[0]->dtype);
}

static void add_rounding(const qn_diff *d, uint64_t n_not_close, json_t *o) {
    uint64_t n = d->n - d->n_skipped;
    json_object_set_new(o, "max_abs_error", qn_json_number(d->max_abs));
    json_object_set_new(o, "mean_abs_error", qn_json_number(n ? d->abs_sum / (double)n : 0));
    json_object_set_new(o, "allclose_1e3", json_boolean(n_not_close == 0));
}

static void add_codes(const qn_code_range *c, bool codes, json_t *o) {
    if (c->n_scales) {
        json_object_set_new(o, "scale_min", qn_json_number(c->scale_min));
        json_object_set_new(o, "scale_max", qn_json_number(c->scale_max));
        json_object_set_new(o, "scale_mean", qn_json_number(c->scale_sum / (double)c->n_scales));
    }
    if (c->n_scales && codes) {
        json_object_set_new(o, "code_min", json_integer(c->code_min));
        json_object_set_new(o, "code_max", json_integer(c->code_max));
    }
}

json_t *qn_tensor_entry(const qn_out_tensor *t, const qn_tensor_figures *f) {
    json_t *o = json_object(), *shape = json_array();
    for (int i = 0; i < t->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
    json_object_set_new(o, "name", json_string(t->name));
    json_object_set_new(o, "shape", shape);
    if (t->source) {
        char *stored = qn_stored_as(t->source);
        json_object_set_new(o, "dtype_in", json_string(stored));
        free(stored);
    }
    json_object_set_new(o, "dtype_out", json_string(qn_dtype_name(t->dtype)));
    if (f->unchanged) json_object_set_new(o, "unchanged", json_true());
    if (f->exact.n) qn_stats_to_json(&f->exact, o);
    if (f->rounding.n) add_rounding(&f->rounding, f->n_not_close, o);
    if (f->norm >= 0) {
        json_object_set_new(o, "operator_norm", qn_json_number(f->norm));
        json_object_set_new(o, "operator_norm_tolerance", qn_json_number(f->norm_tolerance));
    }
    add_codes(&f->codes, has_codes(t), o);
    return o;
}

// ---- codes ----

typedef struct job {
    const qn_weight *w;
    const qn_codes_seen *seen;
    size_t block;
    qn_code_range *ranges; // per block
    qn_err *errs;          // per block
} job;

// A stored scale counts once, however many rows share it.
static void add_scales(qn_code_range *r, const qn_weight *w, size_t row0, size_t n,
                       const float *scales) {
    for (size_t i = 0; i < n * w->n_groups; i++) {
        double s = scales[i];
        if ((row0 + i / w->n_groups) % w->scale_rows) continue;
        if (r->n_scales == 0 || s < r->scale_min) r->scale_min = s;
        if (r->n_scales == 0 || s > r->scale_max) r->scale_max = s;
        r->scale_sum += s;
        r->n_scales++;
    }
}

static qn_codes_seen codes_of(const uint8_t *codes, size_t n) {
    qn_codes_seen s = {255, 0};
    for (size_t i = 0; i < n; i++) {
        s.lo = codes[i] < s.lo ? codes[i] : s.lo;
        s.hi = codes[i] > s.hi ? codes[i] : s.hi;
    }
    return s;
}

static void measure_block(void *ctx, size_t b, int thread) {
    (void)thread;
    job *j = ctx;
    const qn_weight *w = j->w;
    size_t row0 = b * j->block, n = w->rows - row0 < j->block ? w->rows - row0 : j->block;
    uint8_t *codes = j->seen ? NULL : qn_alloc(n * w->cols);
    float *scales = qn_alloc(n * w->n_groups * sizeof *scales);
    qn_code_range r = {.code_min = INT_MAX, .code_max = INT_MIN};
    int middle = w->parts[0]->dtype == QN_DT_I8 ? 128 : 0; // stored signed: say it as stored
    if (qn_weight_codes(w, row0, n, codes, scales, NULL, &j->errs[b])) {
        qn_codes_seen seen = j->seen ? *j->seen : codes_of(codes, n * w->cols);
        add_scales(&r, w, row0, n, scales);
        r.code_min = seen.lo - middle;
        r.code_max = seen.hi - middle;
    }
    j->ranges[b] = r;
    free(codes);
    free(scales);
}

// A block of rows may hold no scale of its own, where many rows share one.
static void merge(qn_code_range *a, const qn_code_range *b) {
    if (b->code_min < a->code_min) a->code_min = b->code_min;
    if (b->code_max > a->code_max) a->code_max = b->code_max;
    if (b->n_scales == 0) return;
    if (a->n_scales == 0 || b->scale_min < a->scale_min) a->scale_min = b->scale_min;
    if (a->n_scales == 0 || b->scale_max > a->scale_max) a->scale_max = b->scale_max;
    a->scale_sum += b->scale_sum;
    a->n_scales += b->n_scales;
}

bool qn_measure_codes(qn_pool *pool, const qn_weight *w, const qn_codes_seen *seen,
                      qn_code_range *out, qn_err *err) {
    size_t block = ((size_t)1 << 18) / (w->cols ? w->cols : 1);
    block = block < 16 ? 16 : block / 16 * 16;
    size_t n = (w->rows + block - 1) / block;
    job j = {w, seen, block, QN_NEW_ARRAY(qn_code_range, n), QN_NEW_ARRAY(qn_err, n)};
    *out = (qn_code_range){.code_min = INT_MAX, .code_max = INT_MIN};
    qn_pool_run(pool, n, measure_block, &j);
    bool ok = true;
    for (size_t b = 0; b < n && ok; b++) {
        ok = j.errs[b].code == QN_OK;
        if (!ok && err) *err = j.errs[b];
        merge(out, &j.ranges[b]);
    }
    free(j.ranges);
    free(j.errs);
    return ok;
}

// ---- all tensors ----

void qn_totals_add(qn_report_totals *sum, const qn_out_tensor *t, const qn_tensor_figures *f) {
    sum->tensors++;
    sum->quantized += t->source && t->source->scheme;
    sum->unchanged += f->unchanged;
    sum->n_overflow += f->n_overflow;
    if (t->rows) {
        sum->produced++;
        sum->n_not_close += f->n_not_close;
        qn_diff_merge(&sum->rounding, &f->rounding);
    }
    if (f->norm >= 0) {
        if (!sum->matrices || f->norm < sum->norm_min) sum->norm_min = f->norm;
        if (!sum->matrices || f->norm > sum->norm_max) sum->norm_max = f->norm;
        sum->matrices++;
    }
    if (!f->codes.n_scales) return;
    qn_code_range add = f->codes, *c = &sum->codes;
    if (!has_codes(t)) add.code_min = INT_MAX, add.code_max = INT_MIN;
    if (c->n_scales == 0) c->code_min = INT_MAX, c->code_max = INT_MIN;
    sum->any_codes |= has_codes(t);
    merge(c, &add);
}

void qn_totals_to_json(const qn_report_totals *sum, json_t *o) {
    json_object_set_new(o, "tensors", json_integer((json_int_t)sum->tensors));
    json_object_set_new(o, "quantized", json_integer((json_int_t)sum->quantized));
    json_object_set_new(o, "copied", json_integer((json_int_t)sum->unchanged));
    if (sum->produced) add_rounding(&sum->rounding, sum->n_not_close, o);
    add_codes(&sum->codes, sum->any_codes, o);
    if (!sum->matrices) return;
    json_object_set_new(o, "operator_norm_min", qn_json_number(sum->norm_min));
    json_object_set_new(o, "operator_norm_max", qn_json_number(sum->norm_max));
}
