// The forward pass: prompt chunks and single tokens of any number of sequences, one batch of rows.
//   x = embedding;  for each layer: x += mixer(norm(x)); x += ffn(norm(x));  logits = head(norm(x))
// What the mixers and feed-forward parts are is the layer plan's business (block_*.c).
#include <stdio.h>

#include "base/err.h"
#include "model/work.h"

static size_t out_rows(const qn_segment *s) {
    return s->all_logits ? s->n : s->no_logits ? 0 : 1;
}

static bool begin(qn_work *w, const qn_step *step, qn_err *err) {
    size_t rows = 0, out = 0;
    for (size_t i = 0; i < step->n_segments; i++) {
        const qn_segment *s = &step->segments[i];
        if (!s->n) return qn_fail(err, QN_USAGE, "segment %zu has no tokens", i);
        rows += s->n;
        out += out_rows(s);
    }
    if (!qn_work_begin(w, step->n_segments, rows, out, err)) return false;
    for (size_t i = 0; i < step->n_segments; i++) {
        const qn_segment *s = &step->segments[i];
        qn_work_place(w, &(qn_place){i, s->position, s->n, s->blocks, s->rope3, s->all_logits,
                                     s->no_logits});
        w->runs[i].state = s->state;
        w->runs[i].state_after = s->state_after;
        if (s->probe & QN_PROBE_ACTIVATIONS) qn_work_watch(w, i, s->on_probe, s->user);
    }
    qn_work_ready(w, step->arena);
    return true;
}

static bool embed(qn_work *w, const qn_step *step, qn_err *err) {
    for (size_t i = 0; i < step->n_segments; i++) {
        const qn_segment *s = &step->segments[i];
        if (!qn_work_embed(w, w->runs[i].row, s->tokens, s->n, err)) return false;
        qn_work_splice(w, w->runs[i].row, s->position, s->n, s->spans, s->n_spans);
    }
    qn_pass_show(&w->pass, "embed_tokens", w->x, w->pass.hidden, w->pass.hidden);
    qn_fault_note(w, w->x, w->pass.hidden, "embed_tokens", -1, false);
    return true;
}

// ---- probes ----------------------------------------------------------------------------------

static void show_hidden(const qn_work *w, const qn_step *step, const char *name, const float *x) {
    size_t h = w->pass.hidden;
    for (size_t i = 0; i < step->n_segments; i++) {
        const qn_segment *s = &step->segments[i];
        if (!(s->probe & QN_PROBE_HIDDEN)) continue;
        for (size_t r = 0; r < s->n; r++)
            s->on_probe(s->user, name, s->position + r, x + (w->runs[i].row + r) * h, h);
    }
}

static void show_layer(const qn_work *w, const qn_step *step, size_t layer) {
    char name[32];
    snprintf(name, sizeof name, "hidden.%zu", layer);
    show_hidden(w, step, name, w->x);
}

// Logits of every position, a few at a time: a whole prompt's would not fit.
static bool show_logits(qn_work *w, const qn_step *step, qn_err *err) {
    size_t v = w->model->config.vocab_size;
    for (size_t i = 0; i < step->n_segments; i++) {
        const qn_segment *s = &step->segments[i];
        if (!(s->probe & QN_PROBE_LOGITS)) continue;
        for (size_t at = 0, n; at < s->n; at += n) {
            n = s->n - at < QN_PROBE_ROWS ? s->n - at : QN_PROBE_ROWS;
            if (!qn_work_probe_logits(w, w->runs[i].row + at, n, err)) return false;
            for (size_t r = 0; r < n; r++)
                s->on_probe(s->user, "logits", s->position + at + r, w->probe + r * v, v);
        }
    }
    return true;
}

bool qn_model_forward(const qn_model *m, qn_work *w, const qn_step *step, qn_err *err) {
    if (!begin(w, step, err) || !embed(w, step, err)) return false;
    show_layer(w, step, 0);
    for (size_t i = 0; i < m->parts.n_layers; i++) {
        qn_work_layer(w, &m->parts.layers[i], false);
        show_layer(w, step, i + 1);
    }
    qn_work_finish(w, m->parts.norm, false);
    show_hidden(w, step, "hidden.final", w->normed);
    return show_logits(w, step, err);
}
