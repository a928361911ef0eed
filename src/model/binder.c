// What all binders share: completing names and shapes, and the small things that are done to a
// tensor on its way in (a bias is spread over cuts, a zero-centred norm gets its 1).
#include "model/binder.h"

#include <stdarg.h>

#include "base/mem.h"
#include "base/str.h"

void qn_binder_enter(qn_binder *b, qn_part part, int layer, const char *prefix, ...) {
    char text[512];
    va_list args;
    va_start(args, prefix);
    vsnprintf(text, sizeof text, prefix, args);
    va_end(args);
    qn_free(b->prefix);
    b->prefix = qn_strdup(text);
    b->part = part;
    b->layer = layer;
}

void qn_binder_done(qn_binder *b) {
    qn_free(b->prefix);
    b->prefix = NULL;
}

static qn_expected expect(const qn_binder *b, const char *name, qn_role role, const size_t *shape,
                          int n_dims) {
    qn_expected e = {.name = qn_strf("%s%s", b->prefix, name), .role = role, .part = b->part,
                     .layer = b->layer, .n_dims = n_dims};
    for (int i = 0; i < n_dims; i++) e.shape[i] = shape[i];
    return e;
}

bool qn_bind_cuts(qn_binder *b, const char *name, qn_role role, const size_t shape[3],
                  const qn_cut *cuts, size_t n, qn_err *err) {
    bool deep = shape[0] != 0;
    qn_expected e = expect(b, name, role, shape + !deep, 2 + deep);
    bool ok = b->matrix(b, &e, cuts, n, err);
    qn_free(e.name);
    return ok;
}

bool qn_bind_matrix(qn_binder *b, const char *name, qn_role role, size_t rows, size_t cols,
                    qn_mat *out, qn_err *err) {
    const qn_cut all = {out, 0, rows, NULL};
    return qn_bind_cuts(b, name, role, (const size_t[3]){0, rows, cols}, &all, 1, err);
}

bool qn_bind_floats(qn_binder *b, const char *name, qn_role role, const size_t *shape, int n_dims,
                    float **out, qn_err *err) {
    size_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= shape[i];
    qn_expected e = expect(b, name, role, shape, n_dims);
    *out = QN_NEW_ARRAY(float, n);
    bool ok = b->floats(b, &e, *out, err);
    qn_free(e.name);
    return ok;
}

bool qn_bind_bias(qn_binder *b, const char *name, size_t rows, const qn_cut *cuts, size_t n,
                  qn_err *err) {
    float *all = NULL, *part = qn_alloc(rows * sizeof *part);
    bool ok = qn_bind_floats(b, name, QN_ROLE_BIAS, &rows, 1, &all, err);
    for (size_t i = 0; ok && i < n && cuts[i].out->rows; i++) { // no rows: tensors are only listed
        for (size_t r = 0; r < cuts[i].rows; r++)
            part[r] = all[cuts[i].order ? cuts[i].order[r] : cuts[i].row0 + r];
        ok = qn_mat_set_bias(cuts[i].out, part, err);
    }
    free(all);
    free(part);
    return ok;
}

bool qn_bind_norm(qn_binder *b, const char *name, size_t n, bool zero_centred, float **out,
                  qn_err *err) {
    if (!qn_bind_floats(b, name, QN_ROLE_NORM, &n, 1, out, err)) return false;
    for (size_t i = 0; zero_centred && i < n; i++) (*out)[i] += 1;
    return true;
}
