// Owns weight matrices: storage, putting rows in, reading a row back. How values lie in a panel is
// each format's business.
#include "kernel/mat.h"

#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "kernel/formats.h"

// 255 * 127 * 65536 is below 2^31, so the integer sum of a group always fits.
#define MAX_GROUP 65536

static bool check_group(qn_mat *m, const qn_mat_spec *s, qn_err *err) {
    m->n_groups = 1;
    if (!m->format->grouped) return true;
    if (s->group == 0)
        return qn_fail(err, QN_INPUT, "%s: group size is 0, expected at least 1", s->name);
    m->group = s->group < s->cols ? s->group : s->cols;
    if (m->group > MAX_GROUP)
        return qn_fail(err, QN_UNSUPPORTED, "%s: %zu inputs share a scale, expected at most %d",
                       s->name, m->group, MAX_GROUP);
    if (s->scale_bits != 16 && s->scale_bits != 32)
        return qn_fail(err, QN_UNSUPPORTED, "%s: scales have %d bits, expected 16 or 32", s->name,
                       s->scale_bits);
    m->n_groups = (s->cols + m->group - 1) / m->group;
    return true;
}

static bool copy_perm(qn_mat *m, const qn_mat_spec *s, qn_err *err) {
    if (!s->perm) return true;
    for (size_t j = 0; j < s->cols; j++)
        if (s->perm[j] < 0 || (size_t)s->perm[j] >= s->cols)
            return qn_fail(err, QN_INPUT, "%s: column order names input %d, expected below %zu",
                           s->name, s->perm[j], s->cols);
    m->perm = QN_NEW_ARRAY(int32_t, s->cols);
    memcpy(m->perm, s->perm, s->cols * sizeof *m->perm);
    return true;
}

static bool multiply(size_t *n, size_t by) { return qn_mul(*n, by, n); }

// Bytes of codes, scales and zeros; false on overflow.
static bool sizes(qn_mat *m) {
    size_t panels = m->rows / QN_PANEL + (m->rows % QN_PANEL != 0), per_scale;
    if (m->cols > SIZE_MAX / 1024 || m->rows > SIZE_MAX / 1024) return false;
    m->data_bytes = panels;
    if (!multiply(&m->data_bytes, m->n_groups) ||
        !multiply(&m->data_bytes, qn_mat_padded_group(m)) ||
        !multiply(&m->data_bytes, QN_PANEL * (size_t)m->format->bits / 8))
        return false;
    if (!m->format->grouped) return true;
    per_scale = panels * QN_PANEL;
    if (!multiply(&per_scale, m->n_groups)) return false;
    m->zeros_bytes = m->has_zeros ? per_scale : 0;
    m->scales_bytes = per_scale;
    return multiply(&m->scales_bytes, (size_t)m->scale_bits / 8);
}

static bool storage(void **p, size_t n, const char *name, qn_err *err) {
    if (n) *p = qn_big_alloc(n, name, err);
    return !n || *p;
}

bool qn_mat_init(qn_mat *m, const qn_mat_spec *s, qn_err *err) {
    const char *name = s->name ? s->name : "matrix";
    qn_mat_spec spec = *s;
    spec.name = name;
    *m = (qn_mat){.format = qn_format_get(s->format), .rows = s->rows, .cols = s->cols,
                  .has_zeros = s->has_zeros, .scale_is_bf16 = s->scale_is_bf16,
                  .scale_bits = s->scale_bits, .name = qn_strdup(name)};
    if (!m->format) {
        qn_fail(err, QN_UNSUPPORTED, "%s: unknown format %d", name, (int)s->format);
        goto fail;
    }
    m->has_zeros = s->has_zeros && m->format->grouped && m->format->middle;
    if (!s->rows || !s->cols) {
        qn_fail(err, QN_INPUT, "%s: shape is [%zu, %zu], expected rows and columns", name, s->rows,
                s->cols);
        goto fail;
    }
    if (!check_group(m, &spec, err) || !copy_perm(m, &spec, err)) goto fail;
    if (!sizes(m)) {
        qn_fail(err, QN_LIMIT, "%s: shape [%zu, %zu] is too large", name, s->rows, s->cols);
        goto fail;
    }
    if (!storage(&m->data, m->data_bytes, name, err) ||
        !storage(&m->scales, m->scales_bytes, name, err) ||
        !storage(&m->zeros, m->zeros_bytes, name, err))
        goto fail;
    return true;
fail:
    qn_mat_done(m);
    return false;
}

void qn_mat_done(qn_mat *m) {
    if (m->data) qn_big_free(m->data, m->data_bytes);
    if (m->scales) qn_big_free(m->scales, m->scales_bytes);
    if (m->zeros) qn_big_free(m->zeros, m->zeros_bytes);
    qn_free(m->perm);
    qn_free(m->bias);
    qn_free(m->name);
    *m = (qn_mat){0};
}

void qn_mat_put(qn_mat *m, const qn_rows *rows) {
    for (size_t i = 0; i < rows->n && rows->row0 + i < m->rows; i++)
        m->format->put_row(m, rows->row0 + i, rows, i);
}

bool qn_mat_set_bias(qn_mat *m, const float *bias, qn_err *err) {
    (void)err; // a vector is a small allocation
    float *copy = QN_NEW_ARRAY(float, m->rows);
    memcpy(copy, bias, m->rows * sizeof *copy);
    qn_free(m->bias);
    m->bias = copy;
    return true;
}

size_t qn_mat_bytes(const qn_mat *m) { return m->data_bytes + m->scales_bytes + m->zeros_bytes; }

void qn_mat_row(const qn_mat *m, size_t row, float *out) {
    if (!m->perm) {
        m->format->get_row(m, row, out);
        return;
    }
    float *packed = qn_alloc(m->cols * sizeof *packed);
    m->format->get_row(m, row, packed);
    for (size_t j = 0; j < m->cols; j++) out[m->perm[j]] = packed[j];
    qn_free(packed);
}
