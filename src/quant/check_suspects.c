// Weights that can be read and are hardly what was meant: stored twice, all zero, or fp8 that lost
// its scale. No file format forbids them, so nobody else says a word.
#include "quant/check_suspects.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "quant/measure.h"
#include "store/label_compare.h"

// ---- stored twice ----

// As far as the dense tensor's own rounding may part them.
static bool same_value(float codes, float dense, qn_dtype dtype) {
    double step = dtype == QN_DT_F32 ? 0x1p-23 : dtype == QN_DT_F16 ? 0x1p-10 : 0x1p-7;
    return fabs((double)codes - (double)dense) <= step * fabs((double)codes) + 0x1p-24;
}

static bool compare_rows(const qn_weight *w, const qn_tensor *t, qn_diff *d, bool *same,
                         qn_err *err) {
    float *a = QN_NEW_ARRAY(float, w->cols), *b = QN_NEW_ARRAY(float, w->cols);
    bool ok = true;
    for (size_t r = 0; ok && r < w->rows; r++) {
        ok = qn_weight_decode(w, r, 1, a, err);
        if (!ok) break;
        qn_tensor_to_f32(t, r * w->cols, w->cols, b);
        qn_diff_add(d, a, b, w->cols);
        for (size_t i = 0; i < w->cols; i++) *same = *same && same_value(a[i], b[i], t->dtype);
    }
    free(a);
    free(b);
    return ok;
}

void qn_check_doubles(qn_ckpt *c, qn_problems *problems) {
    for (size_t i = 0; i < qn_ckpt_n_doubles(c); i++) {
        const qn_tensor *t = qn_ckpt_double(c, i);
        const qn_weight *w = qn_ckpt_weight(c, t->name);
        bool same = w && t->data && t->n == w->rows * w->cols && qn_dtype_is_float(t->dtype);
        bool comparable = same;
        qn_diff d = {0};
        qn_err err = {0};
        if (comparable && !compare_rows(w, t, &d, &same, &err)) comparable = same = false;
        char figure[48] = "";
        if (comparable && !same) snprintf(figure, sizeof figure, ", cosine %.6f", qn_diff_cosine(&d));
        if (same)
            qn_problem_add(problems, QN_WARNING, "unexpected-tensor", t->name, i,
                           "it is stored twice, as codes and as %s, with the same values; quern reads "
                           "the codes", qn_dtype_name(t->dtype));
        else
            qn_problem_add(problems, QN_ERROR, "unexpected-tensor", t->name, i,
                           "it is stored twice, as codes (%s) and as %s, and the two differ%s; quern "
                           "reads the codes, others may not", w ? w->parts[0]->name : "damaged",
                           qn_dtype_name(t->dtype), figure);
    }
}

// ---- all zero ----

// A scale of 0 has its own word.
static bool all_zero(const json_t *entry) {
    const json_t *codes = json_object_get(entry, "quantized");
    if (json_integer_value(json_object_get(codes, "zero_scale_groups"))) return false;
    const json_t *lo = json_object_get(entry, "min"), *hi = json_object_get(entry, "max");
    return json_is_number(lo) && json_is_number(hi) && json_number_value(lo) == 0 &&
           json_number_value(hi) == 0 && !json_integer_value(json_object_get(entry, "nonfinite"));
}

static void judge_zeros(const qn_check_tensor *t, const json_t *entry, bool zero_centred,
                        qn_problems *problems) {
    if (!t->read || !t->expected || !all_zero(entry)) return;
    qn_role role = t->expected->role;
    if (role == QN_ROLE_NORM && !zero_centred)
        qn_problem_add(problems, QN_WARNING, "outlier", t->w->name, t->order,
                       "every value of this norm is 0: nothing passes it");
    if (qn_role_is_layer(role) || role == QN_ROLE_EMBED)
        qn_problem_add(problems, QN_WARNING, "outlier", t->w->name, t->order,
                       "every value of this matrix is 0");
}

// ---- fp8 without a scale ----

// Weights themselves lie around 0.01 to 1; codes are spread over all that fp8 holds, up to 448.
#define LIKE_CODES 64.0

static void judge_bare_fp8(const qn_check_tensor *t, const json_t *entry, qn_problems *problems) {
    if (t->w->scheme || !t->read || t->w->parts[0]->n_dims < 2) return;
    qn_dtype d = t->w->parts[0]->dtype;
    if (d != QN_DT_F8_E4M3 && d != QN_DT_F8_E5M2) return;
    double top = fmax(fabs(json_number_value(json_object_get(entry, "min"))),
                      fabs(json_number_value(json_object_get(entry, "max"))));
    if (top >= LIKE_CODES)
        qn_problem_add(problems, QN_ERROR, "missing-tensor", t->w->name, t->order,
                       "%s with values up to %g and no scale beside it: these are codes whose scale "
                       "is lost", qn_dtype_name(d), top);
    else
        qn_problem_add(problems, QN_WARNING, "missing-tensor", t->w->name, t->order,
                       "%s without a scale, and no quantization config; read as it is",
                       qn_dtype_name(d));
}

void qn_check_suspect(const qn_check_tensor *t, const json_t *entry, bool zero_centred,
                      qn_problems *problems) {
    judge_zeros(t, entry, zero_centred, problems);
    judge_bare_fp8(t, entry, problems);
}
