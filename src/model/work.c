// Memory of steps: one slab for what has a row per token, one for results, both growing to the
// largest step and then reused, so that decoding allocates nothing. And the pieces of a step that
// the forward pass and the draft layer have in common.
#include "model/work.h"

#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/rope.h"

qn_work *qn_work_new(const qn_model *m, qn_compute *c, qn_err *err) {
    qn_work *w = QN_NEW(qn_work);
    (void)err;
    w->model = m;
    w->acts = qn_acts_new(c);
    w->pass = (qn_pass){.compute = c, .pool = qn_compute_pool(c), .acts = w->acts,
                        .rope_dims = m->config.rope.dims, .hidden = m->config.hidden_size,
                        .eps = m->config.rms_norm_eps, .block_bytes = m->cache.block_bytes,
                        .block_tokens = m->cache.block_tokens, .kv_type = m->kv_type};
    return w;
}

void qn_work_free(qn_work *w) {
    if (!w) return;
    qn_acts_free(w->acts);
    if (w->slab) qn_big_free(w->slab, w->slab_bytes);
    if (w->out_slab) qn_big_free(w->out_slab, w->out_bytes);
    if (w->probe) qn_big_free(w->probe, w->probe_bytes);
    free(w->out_row);
    free(w->runs);
    free(w->first_out);
    free(w->start);
    free(w->faults);
    free(w);
}

// ---- growing ---------------------------------------------------------------------------------

static size_t layer_scratch(const qn_layer *l, size_t m) {
    size_t a = l->mixer->scratch(l->mixer_block, m), b = l->ffn->scratch(l->ffn_block, m);
    return a > b ? a : b;
}

static size_t scratch_bytes(const qn_parts *p, size_t m) {
    size_t most = p->draft.present ? layer_scratch(&p->draft.layer, m) : 0;
    for (size_t i = 0; i < p->n_layers; i++) {
        size_t n = layer_scratch(&p->layers[i], m);
        if (n > most) most = n;
    }
    return most;
}

static void *carve(uint8_t **at, size_t bytes) {
    void *p = *at;
    *at += qn_pass_round(bytes);
    return p;
}

static bool grow_rows(qn_work *w, size_t m, qn_err *err) {
    if (m <= w->cap_rows) return true;
    size_t cap = (m + 15) & ~(size_t)15, h = w->pass.hidden, f = sizeof(float);
    bool draft = w->model->parts.draft.present;
    size_t scratch = scratch_bytes(&w->model->parts, cap);
    size_t bytes = 3 * qn_pass_round(cap * h * f) + qn_pass_round(cap * w->pass.rope_dims * f) +
                   (draft ? qn_pass_round(2 * cap * h * f) : 0) +
                   qn_pass_round(cap * sizeof(qn_attn_row)) +
                   qn_pass_round(cap * 3 * sizeof(int32_t)) + qn_pass_round(cap) + scratch;
    if (w->slab) qn_big_free(w->slab, w->slab_bytes);
    w->cap_rows = 0;
    w->slab_bytes = bytes;
    w->slab = qn_big_alloc(bytes, "a step's activations", err);
    if (!w->slab) return false;
    uint8_t *at = w->slab;
    w->x = carve(&at, cap * h * f);
    w->normed = carve(&at, cap * h * f);
    w->mixed = carve(&at, cap * h * f);
    w->rope = carve(&at, cap * w->pass.rope_dims * f);
    w->wide = draft ? carve(&at, 2 * cap * h * f) : NULL;
    w->rows = carve(&at, cap * sizeof(qn_attn_row));
    w->positions = carve(&at, cap * 3 * sizeof(int32_t));
    w->bad = carve(&at, cap);
    w->scratch = at;
    w->scratch_bytes = scratch;
    w->cap_rows = cap;
    return true;
}

static bool grow_out(qn_work *w, size_t n, qn_err *err) {
    if (n <= w->cap_out) return true;
    size_t h = w->pass.hidden, v = w->model->config.vocab_size, cap = (n + 3) & ~(size_t)3;
    if (w->out_slab) qn_big_free(w->out_slab, w->out_bytes);
    w->cap_out = 0;
    w->out_bytes = cap * (h + v) * sizeof(float);
    w->out_slab = qn_big_alloc(w->out_bytes, "a step's logits", err);
    if (!w->out_slab) return false;
    w->logits = w->out_slab;
    w->hidden = w->out_slab + cap * v;
    w->out_row = qn_realloc(w->out_row, cap * sizeof *w->out_row);
    w->cap_out = cap;
    return true;
}

static void grow_segments(qn_work *w, size_t n) {
    if (n <= w->cap_segments) return;
    w->runs = qn_realloc(w->runs, n * sizeof *w->runs);
    w->first_out = qn_realloc(w->first_out, (n + 1) * sizeof *w->first_out);
    w->start = qn_realloc(w->start, n * sizeof *w->start);
    w->faults = qn_realloc(w->faults, n * sizeof *w->faults);
    w->cap_segments = n;
}

bool qn_work_begin(qn_work *w, size_t n_segments, size_t n_rows, size_t n_out, qn_err *err) {
    w->n_segments = w->n_out = w->pass.m = 0;
    w->pass.layer = -1;
    w->pass.watched = false;
    if (!n_segments || !n_rows) return qn_fail(err, QN_USAGE, "a step without tokens");
    if (!grow_rows(w, n_rows, err) || !grow_out(w, n_out, err)) return false;
    grow_segments(w, n_segments);
    memset(w->faults, 0, n_segments * sizeof *w->faults);
    w->first_out[0] = 0;
    return true;
}

// ---- rows ------------------------------------------------------------------------------------

void qn_work_place(qn_work *w, const qn_place *p) {
    size_t s = w->n_segments++, row = w->pass.m;
    w->runs[s] = (qn_run){.row = row, .n = p->n};
    w->start[s] = p->position;
    for (size_t i = 0; i < p->n; i++) {
        w->rows[row + i] = (qn_attn_row){p->blocks, p->position + i};
        for (int axis = 0; axis < 3; axis++)
            w->positions[row + i][axis] = p->rope3 ? p->rope3[i][axis] : (int32_t)(p->position + i);
        if (p->all_logits || (i + 1 == p->n && !p->no_logits)) w->out_row[w->n_out++] = row + i;
    }
    w->first_out[s + 1] = w->n_out;
    w->pass.m += p->n;
}

void qn_work_watch(qn_work *w, size_t segment, qn_probe_fn on_probe, void *user) {
    qn_run *r = &w->runs[segment];
    r->on_probe = on_probe;
    r->user = user;
    r->position = w->start[segment];
    w->pass.watched = true;
}

void qn_work_ready(qn_work *w, uint8_t *arena) {
    qn_pass *p = &w->pass;
    p->arena = arena;
    p->runs = w->runs;
    p->n_runs = w->n_segments;
    p->rows = w->rows;
    p->rope = w->rope;
    p->in = w->normed;
    p->out = w->mixed;
    qn_rope_table(p->pool, &w->model->config.rope, w->model->rope,
                  (const int32_t(*)[3])w->positions, p->m, w->rope);
}

typedef struct embed_job {
    const qn_mat *embed;
    const int32_t *tokens;
    float *x;
    size_t h;
} embed_job;

static void embed_row(void *ctx, size_t i, int thread) {
    const embed_job *e = ctx;
    (void)thread;
    qn_mat_row(e->embed, (size_t)e->tokens[i], e->x + i * e->h);
}

bool qn_work_embed(qn_work *w, size_t row, const int32_t *tokens, size_t n, qn_err *err) {
    size_t v = w->model->config.vocab_size, h = w->pass.hidden;
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (size_t)tokens[i] >= v)
            return qn_fail(err, QN_USAGE, "token id %d is out of range, expected 0 to %zu",
                           tokens[i], v - 1);
    embed_job e = {&w->model->parts.embed, tokens, w->x + row * h, h};
    qn_pool_run(w->pass.pool, n, embed_row, &e);
    return true;
}

void qn_work_splice(qn_work *w, size_t row, size_t at, size_t n, const qn_embed_span *spans,
                    size_t n_spans) {
    size_t h = w->pass.hidden;
    for (size_t s = 0; s < n_spans; s++)
        for (size_t i = 0; i < spans[s].n; i++) {
            size_t p = spans[s].at + i;
            if (p >= at && p < at + n)
                memcpy(w->x + (row + p - at) * h, spans[s].rows + i * h, h * sizeof(float));
        }
}

// ---- computing -------------------------------------------------------------------------------

static void run_block(qn_work *w, const qn_layer *l, const qn_block_kind *kind, const void *block,
                      bool draft) {
    qn_pass *p = &w->pass;
    size_t h = p->hidden;
    bool first = kind == l->mixer;
    qn_rmsnorm(p->pool, w->x, h, first ? l->input_norm : l->post_norm, p->eps, w->normed, h, p->m,
               h);
    p->layer = l->index;
    qn_pass_show(p, first ? "input_layernorm" : "post_attention_layernorm", w->normed, h, h);
    p->kv_at = l->kv_at;
    p->state_at = l->state_at;
    p->scratch = w->scratch;
    p->scratch_left = w->scratch_bytes;
    kind->run(block, p);
    qn_add(p->pool, w->x, h, w->mixed, h, p->m, h);
    qn_pass_show(p, first ? "post_attention_layernorm.input" : "output", w->x, h, h);
    qn_fault_trace(w, l, kind, block, draft);
    p->layer = -1;
}

void qn_work_layer(qn_work *w, const qn_layer *l, bool draft) {
    run_block(w, l, l->mixer, l->mixer_block, draft);
    run_block(w, l, l->ffn, l->ffn_block, draft);
}

void qn_work_finish(qn_work *w, const float *norm, bool draft) {
    qn_pass *p = &w->pass;
    size_t h = p->hidden, v = w->model->config.vocab_size;
    qn_rmsnorm(p->pool, w->x, h, norm, p->eps, w->normed, h, p->m, h);
    qn_pass_show(p, "norm", w->normed, h, h);
    qn_fault_note(w, w->normed, h, "norm", -1, draft);
    for (size_t i = 0; i < w->n_out; i++)
        memcpy(w->hidden + i * h, w->normed + w->out_row[i] * h, h * sizeof(float));
    if (!w->n_out) return;
    qn_acts_set(w->acts, w->hidden, w->n_out, h, h);
    qn_matmul(w->acts, qn_parts_head(&w->model->parts), w->logits, v);
    for (size_t s = 0; s < w->n_segments; s++) {
        size_t from = w->first_out[s], n = (w->first_out[s + 1] - from) * v;
        size_t at = w->faults[s].tensor ? n : qn_first_nonfinite(w->logits + from * v, n);
        if (at == n) continue;
        size_t row = w->out_row[from + at / v] - w->runs[s].row;
        w->faults[s] = (qn_fault){w->model->parts.head.rows ? "lm_head" : "embed_tokens (as head)",
                                  -1, draft, w->start[s] + row};
    }
}

bool qn_work_probe_logits(qn_work *w, size_t row, size_t n, qn_err *err) {
    size_t h = w->pass.hidden, v = w->model->config.vocab_size;
    if (!w->probe) {
        w->probe_bytes = QN_PROBE_ROWS * v * sizeof(float);
        w->probe = qn_big_alloc(w->probe_bytes, "logits", err);
        if (!w->probe) return false;
    }
    qn_acts_set(w->acts, w->normed + row * h, n, h, h);
    qn_matmul(w->acts, qn_parts_head(&w->model->parts), w->probe, v);
    return true;
}

// ---- results ---------------------------------------------------------------------------------

size_t qn_work_n_rows(const qn_work *w, size_t segment) {
    return w->first_out[segment + 1] - w->first_out[segment];
}

const float *qn_work_logits(const qn_work *w, size_t segment, size_t row) {
    return w->logits + (w->first_out[segment] + row) * w->model->config.vocab_size;
}

const float *qn_work_hidden(const qn_work *w, size_t segment, size_t row) {
    return w->hidden + (w->first_out[segment] + row) * w->pass.hidden;
}
