// Memory of steps and the walk over layers, shared by the forward pass and the draft layer.
#ifndef QN_MODEL_WORK_H
#define QN_MODEL_WORK_H

#include "model/parts.h"

// Where a segment's numbers first stopped being finite. tensor NULL: they never did.
typedef struct qn_fault {
    const char *tensor;
    int layer;       // -1: outside the layers
    bool draft;
    size_t position; // in the sequence
} qn_fault;

struct qn_work {
    const qn_model *model;
    qn_acts *acts;
    qn_pass pass;
    // Room for cap_rows rows.
    size_t cap_rows, slab_bytes;
    uint8_t *slab;
    float *x;      // [m][hidden] residual stream
    float *normed; // [m][hidden] what blocks read
    float *mixed;  // [m][hidden] what they write
    float *rope;   // [m][rope dims]
    float *wide;   // [m][2 * hidden] input of the draft layer's fc; NULL without one
    qn_attn_row *rows;
    int32_t (*positions)[3];
    uint8_t *bad; // [m] rows that are not finite
    uint8_t *scratch;
    size_t scratch_bytes;
    // Results: row i of the output is row out_row[i] of the pass.
    size_t n_out, cap_out, out_bytes;
    float *out_slab, *hidden, *logits;
    size_t *out_row;
    // Segments.
    size_t n_segments, cap_segments;
    qn_run *runs;
    size_t *first_out; // [n_segments + 1]
    size_t *start;     // [n_segments] position of the first row
    qn_fault *faults;
    float *probe; // [PROBE_ROWS][vocab_size], made when first asked for
    size_t probe_bytes;
};

#define QN_PROBE_ROWS 16

// Makes room and forgets the last step's results.
bool qn_work_begin(qn_work *w, size_t n_segments, size_t n_rows, size_t n_out, qn_err *err);
// Rows of token n_done … of segment s: where they stand, in cache and rotation.
typedef struct qn_place {
    size_t segment, position, n;
    const uint32_t *blocks;
    const int32_t (*rope3)[3];
    bool all_logits, no_logits;
} qn_place;
// Appends a segment's rows. Segments come in order.
void qn_work_place(qn_work *w, const qn_place *p);
// Shows a segment's activations to on_probe.
void qn_work_watch(qn_work *w, size_t segment, qn_probe_fn on_probe, void *user);
// After the last one: the table of rotations.
void qn_work_ready(qn_work *w, uint8_t *arena);

// x[row …] = embedding rows of n tokens; at is the position of the first. False: a token out of
// range.
bool qn_work_embed(qn_work *w, size_t row, const int32_t *tokens, size_t n, qn_err *err);
// Replaces rows of spans that cover positions at … at + n - 1, which are rows row … of x.
void qn_work_splice(qn_work *w, size_t row, size_t at, size_t n, const qn_embed_span *spans,
                    size_t n_spans);
// The residual block: x += mixer(norm(x)); x += ffn(norm(x)).
void qn_work_layer(qn_work *w, const qn_layer *l, bool draft);
// hidden = norm(x) of all rows into normed; the rows asked for go on to logits.
void qn_work_finish(qn_work *w, const float *norm, bool draft);
// Logits of n <= QN_PROBE_ROWS rows of normed from `row` on, in w->probe.
bool qn_work_probe_logits(qn_work *w, size_t row, size_t n, qn_err *err);

// Notes for every segment without a fault whether y [m][n] is finite in its rows.
void qn_fault_note(qn_work *w, const float *y, size_t n, const char *tensor, int layer, bool draft);
// The same behind a block: a segment that lost finiteness there runs it once more, alone, to find
// the tensor.
void qn_fault_trace(qn_work *w, const qn_layer *l, const qn_block_kind *kind, const void *block,
                    bool draft);

#endif
