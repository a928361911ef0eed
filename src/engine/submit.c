// Requests come, are checked before anything is built from them, and go.
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/engine.h"

#define MAX_IMAGES 1024

static bool check_tokens(const qn_engine *e, const qn_request_options *o, qn_err *err) {
    if (!o->tokens || !o->n_tokens)
        return qn_fail(err, QN_INPUT, "prompt: empty, expected at least one token");
    if (o->n_tokens > e->limits.model_len)
        return qn_fail(err, QN_LIMIT, "prompt: %zu tokens, expected at most %zu (the context)",
                       o->n_tokens, e->limits.model_len);
    for (size_t i = 0; i < o->n_tokens; i++)
        if (o->tokens[i] < 0 || o->tokens[i] >= e->info->vocab_size)
            return qn_fail(err, QN_INPUT, "prompt: token id %d at position %zu, expected 0 to %d",
                           o->tokens[i], i, e->info->vocab_size - 1);
    return true;
}

static bool check(const qn_engine *e, const qn_request_options *o, qn_err *err) {
    if (!check_tokens(e, o, err)) return false;
    if (o->probe && !o->on_probe)
        return qn_fail(err, QN_USAGE, "request: probe is set, but on_probe is not");
    if ((o->probe & QN_PROBE_MTP) && !e->info->has_mtp)
        return qn_fail(err, QN_UNSUPPORTED, "request: mtp logits asked for, but the checkpoint has "
                       "no multi-token prediction layer");
    if (o->n_images > MAX_IMAGES)
        return qn_fail(err, QN_LIMIT, "request: %zu images, expected at most %d", o->n_images,
                       MAX_IMAGES);
    if (o->n_images && !e->info->has_vision)
        return qn_fail(err, QN_UNSUPPORTED, "request: %zu image%s, but the checkpoint has no "
                       "vision tower", o->n_images, qn_plural_s(o->n_images));
    return true;
}

void qn_request_free(qn_request *r) {
    for (size_t i = 0; i < r->n_pictures; i++)
        qn_pictures_drop(&r->engine->pictures, r->pictures[i]);
    qn_output_done(&r->output);
    qn_counts_done(&r->counts);
    free(r->tokens);
    free(r->blocks);
    free(r->rope3);
    free(r->pictures);
    free(r->spans);
    free(r->digests);
    free(r->wish);
    free(r->pending);
    free(r->draft_hidden);
    free(r);
}

// ---- images ----

static bool has_placeholder(const qn_engine *e, const qn_request_options *o) {
    if (!e->info->has_vision || e->info->image_token < 0) return false;
    for (size_t i = 0; i < o->n_tokens; i++)
        if (o->tokens[i] == e->info->image_token || o->tokens[i] == e->info->video_token)
            return true;
    return false;
}

static bool get_pictures(qn_request *r, const qn_request_options *o, qn_err *err) {
    qn_engine *e = r->engine;
    r->pictures = QN_NEW_ARRAY(qn_picture *, o->n_images);
    r->spans = QN_NEW_ARRAY(qn_embed_span, o->n_images);
    for (; r->n_pictures < o->n_images; r->n_pictures++) {
        qn_picture *x = qn_pictures_get(&e->pictures, e->model, e->compute,
                                        &o->images[r->n_pictures], e->limits.model_len, err);
        if (!x) return qn_err_prefix(err, "image %zu", r->n_pictures + 1);
        r->pictures[r->n_pictures] = x;
    }
    return true;
}

// Where each image's rows go: its run of placeholders in the expanded prompt.
static bool place_spans(qn_request *r, const int32_t *tokens, size_t n, qn_err *err) {
    size_t at = 0;
    for (size_t i = 0; i < r->n_pictures; i++) {
        while (at < n && tokens[at] != r->engine->info->image_token) at++;
        r->spans[i] = (qn_embed_span){at, r->pictures[i]->n_rows, r->pictures[i]->rows};
        at += r->spans[i].n;
        if (at > n)
            return qn_fail(err, QN_INPUT, "image %zu: %zu rows do not fit the prompt's "
                           "placeholders", i + 1, r->spans[i].n);
    }
    return true;
}

// Expands the placeholders; the request's tokens and rotary positions come from the model.
static bool expand(qn_request *r, const qn_request_options *o, qn_err *err) {
    if (!get_pictures(r, o, err)) return false;
    int(*grids)[3] = qn_calloc(r->n_pictures, sizeof *grids);
    for (size_t i = 0; i < r->n_pictures; i++)
        memcpy(grids[i], r->pictures[i]->grid, sizeof *grids);
    int32_t *tokens = NULL, (*rope3)[3] = NULL;
    size_t n = 0;
    bool ok = qn_model_expand_images(r->engine->model, o->tokens, o->n_tokens,
                                     (const int(*)[3])grids, r->n_pictures, &tokens, &n, &rope3,
                                     &r->rope_delta, err);
    free(grids);
    if (!ok) return false;
    r->tokens = tokens;
    r->rope3 = rope3;
    r->n = n;
    if (n > r->engine->limits.model_len)
        return qn_fail(err, QN_LIMIT, "prompt: %zu tokens with its images, expected at most %zu "
                       "(the context)", n, r->engine->limits.model_len);
    return place_spans(r, tokens, n, err);
}

// ---- building ----

static void copy_tokens(qn_request *r, const qn_request_options *o) {
    r->n = o->n_tokens;
    r->tokens = qn_alloc(r->n * sizeof *r->tokens);
    memcpy(r->tokens, o->tokens, r->n * sizeof *r->tokens);
}

// Room for a first run of output; rotary positions continue behind the prompt's.
static void make_room(qn_request *r) {
    size_t more = r->max_n - r->n < 256 ? r->max_n - r->n : 256;
    r->cap = r->n + more + QN_MAX_DRAFTS + 2;
    r->tokens = qn_realloc(r->tokens, r->cap * sizeof *r->tokens);
    if (!r->rope3) return;
    r->rope3 = qn_realloc(r->rope3, r->cap * sizeof *r->rope3);
    for (size_t i = r->n; i < r->cap; i++)
        for (int k = 0; k < 3; k++) r->rope3[i][k] = (int32_t)i + r->rope_delta;
}

static void set_lengths(qn_request *r, const qn_request_options *o) {
    size_t most = r->engine->limits.model_len, asked = o->sampling.max_tokens;
    r->n_prompt = r->n;
    r->max_n = asked && asked < most - r->n ? r->n + asked : most;
    r->no_output = o->no_output || r->n == most; // a full context leaves nothing to say
}

static bool build(qn_request *r, const qn_request_options *o, qn_err *err) {
    qn_engine *e = r->engine;
    r->sampling = o->sampling;
    if (!qn_sampling_check(&r->sampling, err)) return false;
    if (!qn_output_init(&r->output, qn_model_tokenizer(e->model), o->sampling.stop,
                        o->sampling.n_stop, err))
        return false;
    r->sampling.stop = NULL; // r->output has its own copy
    r->sampling.n_stop = 0;
    if (!o->n_images && !has_placeholder(e, o)) copy_tokens(r, o);
    else if (!expand(r, o, err)) return false;
    set_lengths(r, o);
    make_room(r);
    r->seed = o->sampling.seeded ? o->sampling.seed : qn_rng_system();
    if (qn_sampling_has_penalties(&r->sampling))
        for (size_t i = 0; i < r->n; i++) qn_counts_add(&r->counts, r->tokens[i], true);
    r->root = qn_prefix_root(e, o->cache_salt);
    return true;
}

qn_request *qn_engine_submit(qn_engine *e, const qn_request_options *o, qn_err *err) {
    if (!check(e, o, err)) return NULL;
    qn_request *r = QN_NEW(qn_request);
    *r = (qn_request){.engine = e, .on_event = o->on_event, .user = o->user, .probe = o->probe,
                      .on_probe = o->on_probe};
    if (!build(r, o, err)) {
        qn_request_free(r);
        return NULL;
    }
    r->arrival = e->arrivals++;
    qn_queue_add(&e->waiting, r);
    return r;
}

void qn_request_cancel(qn_request *r) { r->cancelled = true; }
