// Naming tensors. A block says once which tensors it has, what shape they are and where they go;
// who listens decides what happens: list them (layout.c), load them (binder_load.c), make them up
// (binder_dummy.c). So what is expected and what is loaded cannot drift apart.
#ifndef QN_MODEL_BINDER_H
#define QN_MODEL_BINDER_H

#include "model/family.h"

// Some rows of a tensor (seen as [product of the first dimensions, last dimension]) as a matrix of
// its own: rows row0 … row0 + rows - 1, or the rows that order names, in its order.
typedef struct qn_cut {
    qn_mat *out;
    size_t row0, rows;
    const size_t *order; // NULL, or [rows]
} qn_cut;

typedef struct qn_binder qn_binder;
struct qn_binder {
    const qn_config *config;
    qn_spelling spelling;
    // Where the blocks are now; names are completed with prefix.
    char *prefix; // owned
    qn_part part;
    int layer;
    // The listener: matrix fills every cut, floats fills out [product of the shape].
    bool (*matrix)(qn_binder *b, const qn_expected *e, const qn_cut *cuts, size_t n, qn_err *err);
    bool (*floats)(qn_binder *b, const qn_expected *e, float *out, qn_err *err);
};

// Where the following names belong; prefix is formatted.
void qn_binder_enter(qn_binder *b, qn_part part, int layer, const char *prefix, ...)
    QN_PRINTF(4, 5);
void qn_binder_done(qn_binder *b);

bool qn_bind_matrix(qn_binder *b, const char *name, qn_role role, size_t rows, size_t cols,
                    qn_mat *out, qn_err *err);
// Several matrices out of one tensor [rows, cols], or [depth, rows, cols] when depth is not 0.
bool qn_bind_cuts(qn_binder *b, const char *name, qn_role role, const size_t shape[3],
                  const qn_cut *cuts, size_t n, qn_err *err);
// A bias of the matrices that were cut out of one tensor with `rows` rows.
bool qn_bind_bias(qn_binder *b, const char *name, size_t rows, const qn_cut *cuts, size_t n,
                  qn_err *err);
// *out is allocated (free), also when the call fails.
bool qn_bind_floats(qn_binder *b, const char *name, qn_role role, const size_t *shape, int n_dims,
                    float **out, qn_err *err);
// A norm's weight [n]; with zero_centred, 1 is added here and nowhere else.
bool qn_bind_norm(qn_binder *b, const char *name, size_t n, bool zero_centred, float **out,
                  qn_err *err);

#endif
