// The draft layer (multi-token prediction): from the hidden state at a position and the token that
// follows it, a guess at the token after that.
//   x = fc [norm(embedding of the next token) ; norm(hidden)]
//   x = layer(x);  logits = head(norm(x))
// hidden is the state behind the target's final norm; later steps feed the layer's own.
#include <string.h>

#include "base/err.h"
#include "model/work.h"

static bool begin(qn_work *w, const qn_draft_segment *segments, size_t n, qn_err *err) {
    size_t rows = 0, out = 0;
    for (size_t i = 0; i < n; i++) {
        if (!segments[i].n) return qn_fail(err, QN_USAGE, "draft segment %zu has no tokens", i);
        rows += segments[i].n;
        out += segments[i].all_logits ? segments[i].n : 1;
    }
    if (!qn_work_begin(w, n, rows, out, err)) return false;
    for (size_t i = 0; i < n; i++) {
        const qn_draft_segment *s = &segments[i];
        qn_work_place(w, &(qn_place){i, s->position, s->n, s->blocks, s->rope3, s->all_logits,
                                     false});
    }
    return true;
}

// wide = [norm(embedding) ; norm(hidden)]
static bool join_inputs(qn_work *w, const qn_draft_segment *segments, size_t n, qn_err *err) {
    const qn_draft *d = &w->model->parts.draft;
    qn_pass *p = &w->pass;
    size_t h = p->hidden;
    for (size_t i = 0; i < n; i++) {
        const qn_draft_segment *s = &segments[i];
        size_t row = w->runs[i].row;
        if (!qn_work_embed(w, row, s->tokens, s->n, err)) return false;
        qn_work_splice(w, row, s->position + 1, s->n, s->spans, s->n_spans);
        qn_rmsnorm(p->pool, s->hidden, h, d->norm_hidden, p->eps, w->wide + row * 2 * h + h, 2 * h,
                   s->n, h);
    }
    qn_rmsnorm(p->pool, w->x, h, d->norm_embedding, p->eps, w->wide, 2 * h, p->m, h);
    return true;
}

bool qn_model_draft(const qn_model *m, qn_work *w, const qn_draft_segment *segments, size_t n,
                    uint8_t *arena, qn_err *err) {
    const qn_draft *d = &m->parts.draft;
    size_t h = w->pass.hidden;
    if (!d->present) return qn_fail(err, QN_UNSUPPORTED, "the model has no draft layer");
    if (!begin(w, segments, n, err)) return false;
    qn_work_ready(w, arena);
    if (!join_inputs(w, segments, n, err)) return false;
    qn_acts_set(w->acts, w->wide, w->pass.m, 2 * h, 2 * h);
    qn_matmul(w->acts, &d->fc, w->x, h);
    qn_fault_note(w, w->x, h, "mtp.fc", -1, true);
    qn_work_layer(w, &d->layer, true);
    qn_work_finish(w, d->norm, true);
    return true;
}
