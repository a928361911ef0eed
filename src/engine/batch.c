// Requests into segments: pure book-keeping, no decisions.
#include <string.h>

#include "base/mem.h"
#include "engine/engine.h"

static unsigned probe_of(const char *name) {
    if (!strcmp(name, "logits")) return QN_PROBE_LOGITS;
    return strncmp(name, "hidden.", 7) ? QN_PROBE_ACTIVATIONS : QN_PROBE_HIDDEN;
}

// One probe for the model serves two masters: the caller, who sees every position once however
// often it is computed, and the draft layer, which wants the target's last hidden state.
static void see(void *user, const char *name, size_t position, const float *data, size_t n) {
    qn_request *r = user;
    if (r->drafting && !r->decodes && !strcmp(name, "hidden.final"))
        qn_draft_note(r, position, data);
    if (position < r->probed || !r->on_probe) return;
    if (r->probe & probe_of(name))
        r->on_probe(r->user, name, position, data, n);
}

void qn_batch_clip_spans(qn_request *r, size_t from, size_t n, const qn_embed_span **spans,
                         size_t *n_spans) {
    qn_engine *e = r->engine;
    size_t hidden = (size_t)e->info->hidden_size;
    *spans = e->spans ? e->spans + e->n_spans : NULL;
    *n_spans = 0;
    for (size_t i = 0; i < r->n_pictures; i++) {
        qn_embed_span s = r->spans[i];
        size_t a = s.at > from ? s.at : from, b = s.at + s.n < from + n ? s.at + s.n : from + n;
        if (a >= b) continue;
        e->spans[e->n_spans++] = (qn_embed_span){a, b - a, s.rows + (a - s.at) * hidden};
        (*n_spans)++;
    }
}

// Room for all spans of the step, so that pointers into the array stay put.
static void reserve_spans(qn_engine *e) {
    size_t most = 0;
    for (size_t i = 0; i < e->n_batch; i++) most += e->batch[i]->n_pictures;
    e->n_spans = 0;
    if (most <= e->cap_spans) return;
    e->cap_spans = 2 * most;
    e->spans = qn_realloc(e->spans, e->cap_spans * sizeof *e->spans);
}

static unsigned probes_of(const qn_request *r) {
    unsigned p = r->computed + r->step_n > r->probed ? r->probe : 0;
    if (r->drafting && !r->decodes) p |= QN_PROBE_HIDDEN;
    return p & ~(unsigned)QN_PROBE_MTP; // the draft layer's logits are the engine's to show
}

static void fill(qn_request *r, qn_segment *s) {
    bool ends = r->computed + r->step_n >= r->n; // reaches the last known token, or drafts beyond
    int drafts = r->decodes ? (int)r->step_n - 1 : 0;
    if (drafts) memcpy(r->tokens + r->n, r->drafts, (size_t)drafts * sizeof *r->tokens);
    *s = (qn_segment){.tokens = r->tokens + r->computed, .n = r->step_n, .position = r->computed,
                      .blocks = r->blocks, .state = r->state, .all_logits = drafts > 0,
                      .no_logits = !ends || r->no_output, .probe = probes_of(r),
                      .on_probe = see, .user = r};
    if (drafts && r->state) s->state_after = r->after;
    if (r->rope3) s->rope3 = (const int32_t(*)[3])r->rope3 + r->computed;
    qn_batch_clip_spans(r, r->computed, r->step_n, &s->spans, &s->n_spans);
}

void qn_batch_build(qn_engine *e) {
    reserve_spans(e);
    for (size_t i = 0; i < e->n_batch; i++) {
        qn_request *r = e->batch[i];
        r->segment = i;
        r->n_sampled = 0;
        r->fault = false;
        if (r->drafting) qn_draft_make_room(r, r->step_n);
        fill(r, &e->segments[i]);
    }
}
