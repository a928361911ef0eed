// Naming what first produced an inf or a nan. Every step looks at the residual stream behind every
// block (cheap); only when a segment's rows stopped being finite there, its block runs once more on
// these rows alone and looks at each product. A fault is reported when it reached the logits.
#include "base/err.h"
#include "model/work.h"

typedef struct scan {
    const float *y;
    size_t n;
    uint8_t *bad;
} scan;

static void scan_row(void *ctx, size_t row, int thread) {
    const scan *s = ctx;
    (void)thread;
    s->bad[row] = qn_first_nonfinite(s->y + row * s->n, s->n) < s->n;
}

// First row of a segment that is bad, or its length.
static size_t first_bad(const qn_work *w, size_t segment) {
    const qn_run *r = &w->runs[segment];
    size_t i = 0;
    while (i < r->n && !w->bad[r->row + i]) i++;
    return i;
}

void qn_fault_note(qn_work *w, const float *y, size_t n, const char *tensor, int layer,
                   bool draft) {
    scan s = {y, n, w->bad};
    qn_pool_run(w->pass.pool, w->pass.m, scan_row, &s);
    for (size_t i = 0; i < w->n_segments; i++) {
        size_t at = w->faults[i].tensor ? w->runs[i].n : first_bad(w, i);
        if (at < w->runs[i].n)
            w->faults[i] = (qn_fault){tensor, layer, draft, w->start[i] + at};
    }
}

// The pass narrowed down to one segment.
static qn_pass alone(const qn_work *w, size_t segment, qn_run *run) {
    const qn_run *r = &w->runs[segment];
    qn_pass p = w->pass;
    *run = *r;
    run->row = 0;
    run->state_after = NULL;
    p.runs = run;
    p.n_runs = 1;
    p.m = r->n;
    p.rows += r->row;
    p.rope += r->row * p.rope_dims;
    p.in += r->row * p.hidden;
    p.out += r->row * p.hidden;
    p.scratch = w->scratch;
    p.scratch_left = w->scratch_bytes;
    p.trace = true;
    p.watched = false; // shown once already
    p.traced = NULL;
    return p;
}

void qn_fault_trace(qn_work *w, const qn_layer *l, const qn_block_kind *kind, const void *block,
                    bool draft) {
    qn_fault_note(w, w->x, w->pass.hidden, "", l->index, draft);
    for (size_t i = 0; i < w->n_segments; i++) {
        qn_fault *f = &w->faults[i];
        if (!f->tensor || *f->tensor) continue; // none, or named before
        qn_run run;
        qn_pass p = alone(w, i, &run);
        qn_pass_look(&p, kind == l->mixer ? "input_layernorm" : "post_attention_layernorm", p.in,
                     p.m, p.hidden);
        kind->run(block, &p);
        f->tensor = p.traced ? p.traced : kind->name;
    }
}

bool qn_work_fault(const qn_work *w, size_t segment, qn_err *err) {
    const qn_fault *f = &w->faults[segment];
    size_t from = w->first_out[segment], n = w->first_out[segment + 1] - from;
    size_t v = w->model->config.vocab_size;
    if (!f->tensor || !n || qn_first_nonfinite(w->logits + from * v, n * v) == n * v) return false;
    if (f->layer >= 0 && !f->draft)
        qn_fail(err, QN_NONFINITE, "layer %d %s: non-finite value at position %zu", f->layer,
                f->tensor, f->position);
    else
        qn_fail(err, QN_NONFINITE, "%s%s: non-finite value at position %zu",
                f->draft ? "draft layer " : "", f->tensor, f->position);
    return true;
}
