// One pass over a step's rows, as a block sees it.
#ifndef QN_MODEL_PASS_H
#define QN_MODEL_PASS_H

#include "kernel/matmul.h"
#include "kernel/ops.h"
#include "quern.h"

// Consecutive rows of the pass that belong to one sequence.
typedef struct qn_run {
    size_t row, n;
    uint8_t *state;              // recurrent state of the sequence, or NULL
    uint8_t *const *state_after; // NULL, or per row where the state after it goes (entries may be
                                 // NULL: not wanted there)
    qn_probe_fn on_probe;        // who sees every activation of these rows, or NULL
    void *user;
    size_t position;             // of the first row in the sequence, for on_probe
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
    int layer;         // that is running, for on_probe; -1: outside the layers
    bool watched;      // some run has an on_probe
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

// Shows rows y [m][ld], n floats each, to whoever watches (QN_PROBE_ACTIVATIONS), as
// "layers.N.NAME"; costs nothing when nobody does. NAME is the module whose output it is, or with
// ".input" behind it the module it goes into. Everything that an engine computing in f16 would
// store is shown; what stays in the registers of fused kernels (attention scores), what all keep in
// f32 (the recurrent state) and what is bounded (router and decay after their squashing) is not.
void qn_pass_show(const qn_pass *p, const char *name, const float *y, size_t ld, size_t n);
// The same for one row of the pass.
void qn_pass_show_row(const qn_pass *p, const char *name, size_t row, const float *y, size_t n);

// p->acts = x [rows][k]; then y = x W^T with its name for the trace and for whoever watches.
void qn_pass_matmul(qn_pass *p, const char *name, const qn_mat *w, size_t rows, float *y,
                    size_t ldy);

#endif
