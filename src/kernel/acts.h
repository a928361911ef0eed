// Activations of one step in the forms that weight formats ask for, made once and shared.
#ifndef QN_KERNEL_ACTS_H
#define QN_KERNEL_ACTS_H

#include "kernel/formats.h"
#include "kernel/matmul.h"

// One form. The key says what it is; data, scale and sum are its memory, which is kept.
typedef struct qn_form {
    qn_act_kind kind;
    size_t group, padded; // of the weights that read it
    const int32_t *perm;
    size_t row, n; // rows covered: all, or one job's when columns are permuted
    bool valid;
    size_t ld;     // elements from row to row
    void *data;    // float or int8_t [n][ld]; the caller's own x when nothing has to be done
    float *scale;  // [n][n_groups]
    int32_t *sum;
    void *memory;
    size_t cap;
} qn_form;

// The form of rows row … row + n - 1 (at least) that w needs. The pointer is valid until the next
// qn_acts_set; x of row r is at data + (r - form->row) * ld.
const qn_form *qn_acts_form(qn_acts *a, const qn_mat *w, size_t row, size_t n);
qn_compute *qn_acts_compute(const qn_acts *a);
size_t qn_acts_rows(const qn_acts *a);

#endif
