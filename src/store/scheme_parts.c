// What the schemes share: checking a part's type and shape, finding the groups, reading scales.
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "store/schemes.h"

static void add_shape(qn_buf *b, const qn_tensor *t) {
    qn_buf_addc(b, '[');
    for (int i = 0; i < t->n_dims; i++) qn_buf_addf(b, "%s%zu", i ? ", " : "", t->shape[i]);
    qn_buf_addc(b, ']');
}

bool qn_part_mismatch(const qn_tensor *t, qn_err *err, const char *expected, ...) {
    char text[256];
    qn_buf shape = {0};
    va_list args;
    va_start(args, expected);
    vsnprintf(text, sizeof text, expected, args);
    va_end(args);
    add_shape(&shape, t);
    qn_fail(err, QN_INPUT, "tensor %s: %s %s, expected %s", t->name, qn_dtype_name(t->dtype),
            shape.data, text);
    qn_buf_done(&shape);
    return false;
}

bool qn_part_is(const qn_tensor *t, size_t a, size_t b, qn_err *err) {
    if (t->n_dims == 2 && t->shape[0] == a && t->shape[1] == b) return true;
    return qn_part_mismatch(t, err, "[%zu, %zu]", a, b);
}

bool qn_part_is_scale(const qn_tensor *t, qn_err *err) {
    if (t->dtype == QN_DT_F16 || t->dtype == QN_DT_BF16 || t->dtype == QN_DT_F32) return true;
    return qn_part_mismatch(t, err, "scales as F16, BF16 or F32");
}

// ---- groups ----

static size_t ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }

bool qn_group_from_count(qn_weight *w, int64_t said, qn_err *err) {
    if (!w->n_groups || !w->cols)
        return qn_fail(err, QN_INPUT, "%s: %zu groups over %zu inputs", w->name, w->n_groups,
                       w->cols);
    if (w->n_groups == 1) {
        w->group = w->cols;
        return true;
    }
    if (said > 0 && ceil_div(w->cols, (size_t)said) == w->n_groups) {
        w->group = (size_t)said;
        return true;
    }
    if (w->cols % w->n_groups)
        return qn_fail(err, QN_INPUT, "%s: %zu inputs in %zu groups: the group size does not "
                       "divide", w->name, w->cols, w->n_groups);
    w->group = w->cols / w->n_groups;
    return true;
}

static int32_t int_at(const qn_tensor *t, size_t i) {
    int32_t x;
    memcpy(&x, t->data + i * sizeof x, sizeof x);
    return x;
}

static bool read_counts(const qn_weight *w, const qn_tensor *t, size_t *counts, bool *all_zero,
                        bool *all_minus, qn_err *err) {
    *all_zero = *all_minus = true;
    for (size_t i = 0; i < w->cols; i++) {
        int32_t g = int_at(t, i);
        *all_zero = *all_zero && g == 0;
        *all_minus = *all_minus && g == -1;
        if (*all_minus) continue;
        if (g < 0 || (size_t)g >= w->n_groups)
            return qn_fail(err, QN_INPUT, "tensor %s: input %zu is in group %d, expected 0 to %zu",
                           t->name, i, g, w->n_groups - 1);
        counts[g]++;
    }
    return true;
}

static bool is_consecutive(const qn_weight *w, const qn_tensor *t, size_t group) {
    for (size_t i = 0; i < w->cols; i++)
        if ((size_t)int_at(t, i) != i / group) return false;
    return ceil_div(w->cols, group) == w->n_groups;
}

bool qn_group_from_index(qn_weight *w, const qn_tensor *t, bool *none, qn_err *err) {
    bool zero, minus;
    if (t->dtype != QN_DT_I32 || t->n_dims != 1 || t->n != w->cols)
        return qn_part_mismatch(t, err, "I32 [%zu]", w->cols);
    size_t *counts = QN_NEW_ARRAY(size_t, w->n_groups), most = 1;
    bool ok = read_counts(w, t, counts, &zero, &minus, err);
    for (size_t g = 0; ok && g < w->n_groups; g++)
        if (counts[g] > most) most = counts[g];
    *none = minus || (zero && w->n_groups > 1);
    if (ok && !*none) {
        w->group = most;
        w->act_order = !is_consecutive(w, t, counts[0] ? counts[0] : 1);
    }
    free(counts);
    return ok;
}

size_t qn_weight_group_of(const qn_weight *w, size_t i) {
    if (!w->act_order) return i / w->group;
    return (size_t)int_at(w->parts[w->scheme->g_idx_part], i);
}

bool qn_weight_perm(const qn_weight *w, int32_t **perm, qn_err *err) {
    *perm = NULL;
    if (!w->act_order) return true;
    size_t *at = QN_NEW_ARRAY(size_t, w->n_groups);
    bool even = true;
    for (size_t i = 0; i < w->cols; i++) at[qn_weight_group_of(w, i)]++;
    for (size_t g = 0; g < w->n_groups; g++) {
        size_t left = w->cols - (g * w->group < w->cols ? g * w->group : w->cols);
        even = even && at[g] == (left < w->group ? left : w->group);
        at[g] = g * w->group;
    }
    if (even) {
        *perm = QN_NEW_ARRAY(int32_t, w->cols);
        for (size_t i = 0; i < w->cols; i++)
            (*perm)[at[qn_weight_group_of(w, i)]++] = (int32_t)i;
    }
    free(at);
    return even || qn_fail(err, QN_UNSUPPORTED, "%s: its groups have different sizes", w->name);
}

// ---- scales ----

void qn_scales_by_row(const qn_weight *w, const qn_tensor *t, size_t stride, size_t row0, size_t n,
                      float *out) {
    for (size_t r = 0; r < n; r++)
        qn_tensor_to_f32(t, (row0 + r) * stride, w->n_groups, out + r * w->n_groups);
}

void qn_scales_by_group(const qn_weight *w, const qn_tensor *t, size_t row0, size_t n, float *out) {
    float some[64];
    for (size_t g = 0; g < w->n_groups; g++)
        for (size_t r0 = 0; r0 < n; r0 += 64) {
            size_t m = n - r0 < 64 ? n - r0 : 64;
            qn_tensor_to_f32(t, g * w->rows + row0 + r0, m, some);
            for (size_t r = 0; r < m; r++) out[(r0 + r) * w->n_groups + g] = some[r];
        }
}
