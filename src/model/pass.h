// One pass over a step's rows, as a block sees it.
#ifndef QN_MODEL_PASS_H
#define QN_MODEL_PASS_H

#include "kernel/matmul.h"
#include "kernel/ops.h"

// Consecutive rows of the pass that belong to one sequence.
typedef struct qn_run {
    size_t row, n;
    uint8_t *state;              // recurrent state of the sequence, or NULL
    uint8_t *const *state_after; // NULL, or per row where the state after it goes (entries may be
                                 // NULL: not wanted there)
} qn_run;

typedef struct qn_pass {
    qn_compute *compute;
    qn_pool *pool;
    qn_acts *acts;
    const qn_run *runs;
    size_t n_runs, m; // m rows in all
    const qn_attn_row *rows; // [m]
    const float *rope;       // [m][rope_dims]: cosines, then sines
    size_t rope_dims, hidden;
    float eps;
    uint8_t *arena;    // paged cache
    size_t block_bytes, block_tokens;
    qn_kv_type kv_type;
    size_t kv_at;      // this layer's place in a block of the paged cache
    size_t state_at;   // this layer's place in the recurrent state
    const float *in;   // [m][hidden]
    float *out;        // [m][hidden]
    uint8_t *scratch;  // for the running block
    size_t scratch_left;
    // Looking for the first tensor whose output is not finite: only while tracing (see fault.c).
    bool trace;
    const char *traced;
} qn_pass;

// Floats of scratch, 64-byte aligned; never more than the block's kind announced.
void *qn_pass_take(qn_pass *p, size_t bytes);
// What qn_pass_take uses up for so many bytes.
static inline size_t qn_pass_round(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

// y[m][n] of the tensor called name: remembers the first name that was not finite when tracing.
void qn_pass_look(qn_pass *p, const char *name, const float *y, size_t rows, size_t n);

// p->acts = x [rows][k]; then y = x W^T with its name for the trace.
void qn_pass_matmul(qn_pass *p, const char *name, const qn_mat *w, size_t rows, float *y,
                    size_t ldy);

#endif
