// What blocks ask of a pass: memory for the time of one block, a matrix product with its name, and
// to be looked at.
#include "model/pass.h"

#include <assert.h>
#include <stdio.h>

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

void qn_pass_show_row(const qn_pass *p, const char *name, size_t row, const float *y, size_t n) {
    char full[96];
    if (p->layer >= 0)
        snprintf(full, sizeof full, "layers.%d.%s", p->layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    for (size_t i = 0; i < p->n_runs; i++) {
        const qn_run *r = &p->runs[i];
        if (r->on_probe && row >= r->row && row < r->row + r->n)
            r->on_probe(r->user, full, r->position + row - r->row, y, n);
    }
}

void qn_pass_show(const qn_pass *p, const char *name, const float *y, size_t ld, size_t n) {
    for (size_t row = 0; p->watched && row < p->m; row++)
        qn_pass_show_row(p, name, row, y + row * ld, n);
}

void qn_pass_matmul(qn_pass *p, const char *name, const qn_mat *w, size_t rows, float *y,
                    size_t ldy) {
    qn_matmul(p->acts, w, y, ldy);
    qn_pass_look(p, name, y, rows, w->rows);
    qn_pass_show(p, name, y, ldy, w->rows);
}
