// What blocks ask of a pass: memory for the time of one block, and a matrix product with its name.
#include "model/pass.h"

#include <assert.h>

void *qn_pass_take(qn_pass *p, size_t bytes) {
    size_t n = qn_pass_round(bytes);
    assert(n <= p->scratch_left);
    void *at = p->scratch;
    p->scratch += n;
    p->scratch_left -= n;
    return at;
}

void qn_pass_look(qn_pass *p, const char *name, const float *y, size_t rows, size_t n) {
    if (p->trace && !p->traced && qn_first_nonfinite(y, rows * n) < rows * n) p->traced = name;
}

void qn_pass_matmul(qn_pass *p, const char *name, const qn_mat *w, size_t rows, float *y,
                    size_t ldy) {
    qn_matmul(p->acts, w, y, ldy);
    qn_pass_look(p, name, y, rows, w->rows);
}
