// The engine's inside: what an engine and a request hold, and who of this room's files does what
// to them. Nothing outside the room includes this (tests do).
#ifndef QN_ENGINE_ENGINE_H
#define QN_ENGINE_ENGINE_H

#include "engine/cache_blocks.h"
#include "engine/cache_images.h"
#include "engine/cache_state.h"
#include "engine/sampler.h"
#include "engine/speculate.h"
#include "engine/stop.h"
#include "model/model.h"

typedef struct qn_limits {
    size_t step_tokens, step_seqs; // max_num_batched_tokens, max_num_seqs
    size_t model_len;              // tokens per sequence
    size_t n_blocks;
    size_t state_budget; // bytes of kept recurrent states
    bool prefix_cache;
} qn_limits;

struct qn_request {
    qn_engine *engine;
    uint64_t arrival; // admission order; the latest is preempted first
    int priority;     // higher goes first; 0 for everybody until the service says otherwise
    bool cancelled, admitted_before;

    // The timeline: n tokens, of which the first n_prompt were given; `computed` have keys and
    // values. One token not computed: the request decodes. More: it prefills (again).
    int32_t *tokens;
    size_t n, cap, n_prompt, max_n, computed;
    uint32_t *blocks;
    size_t n_blocks, cap_blocks;
    uint8_t *state, *after[QN_MAX_DRAFTS + 1]; // after[i]: behind token i of a step with drafts
    int32_t (*rope3)[3]; // cap + QN_MAX_DRAFTS + 1 of them; NULL without images
    int32_t rope_delta;
    qn_picture **pictures;
    qn_embed_span *spans;
    size_t n_pictures;

    // Prefix reuse: digests of the full blocks, how many of them are published, and at which block
    // bounds others wish for a checkpoint of the recurrent state.
    qn_digest root, *digests, rolling;
    size_t n_digests, cap_digests, n_published;
    uint8_t *wish;
    size_t n_wish;
    bool has_rolling;

    // Speculation: positions whose draft part is filled, the target's hidden rows behind them that
    // wait for it, and the drafts for the next step.
    bool drafting;
    size_t filled, n_pending, cap_pending;
    float *pending, *draft_hidden;
    int32_t drafts[QN_MAX_DRAFTS];
    int n_drafts;

    qn_sampling sampling; // stop strings live in output
    uint64_t seed;
    qn_counts counts;
    qn_output output;
    qn_event_fn on_event;
    void *user;
    unsigned probe;
    qn_probe_fn on_probe;
    size_t probed, mtp_probed; // positions already shown
    bool no_output;

    // This step.
    size_t step_n, segment;
    bool decodes; // one token was missing, the rest of the segment are drafts
    int32_t sampled[QN_MAX_DRAFTS + 1];
    int n_sampled;
    bool fault;
    qn_finish finish;
    size_t n_new; // of the sampled tokens, those that count
    qn_err err;
};

typedef struct qn_queue { // ordered by priority, then arrival
    qn_request **items;
    size_t n, cap;
} qn_queue;

struct qn_engine {
    const qn_model *model;
    const qn_model_info *info;
    qn_pool *pool;
    qn_compute *compute;
    qn_work *work;
    qn_cache_spec spec;
    qn_limits limits;
    qn_blocks blocks;
    qn_states states;
    qn_pictures pictures;
    qn_choices choices;
    qn_sampler *samplers; // one per thread
    qn_speculator speculator;
    uint64_t hash_key[2];
    qn_queue running, waiting;
    uint64_t arrivals, turn;

    qn_request **batch; // this step's requests, arrays of step_seqs
    size_t n_batch;
    qn_segment *segments;
    qn_draft_segment *draft_segments;
    qn_request **drafters;
    qn_embed_span *spans; // cut to this step's segments
    size_t n_spans, cap_spans;
    bool pure_decode; // nothing in this step is prefill
    double (*now)(void); // seconds: qn_now, or a test's own clock
    qn_engine_stats stats;
};

// engine_options.c: what the caller asked for against what there is.
bool qn_limits_choose(qn_limits *l, const qn_model_info *info, const qn_cache_spec *spec,
                      const qn_engine_options *o, qn_err *err);

// schedule.c: decides what runs in this step, and holds the blocks and states for it.
void qn_queue_add(qn_queue *q, qn_request *r);
void qn_queue_remove(qn_queue *q, const qn_request *r);
void qn_queue_done(qn_queue *q);
void qn_schedule(qn_engine *e);
// Blocks for `tokens` positions; false (and nothing changed) when there are not enough.
bool qn_request_reserve(qn_request *r, size_t tokens);
void qn_request_release(qn_request *r); // gives blocks, states and drafts back; keeps the tokens

// cache_prefix.c: which beginning of a request is cached, and what becomes findable.
typedef struct qn_prefix_hit {
    size_t blocks;  // reusable, with a recurrent state at their end where the model has one
    size_t matched; // blocks whose keys and values are there, state or not
} qn_prefix_hit;
qn_digest qn_prefix_root(const qn_engine *e, const char *salt);
qn_prefix_hit qn_prefix_look_up(qn_request *r);
bool qn_prefix_is_coming(qn_request *r, const qn_prefix_hit *hit); // another request computes it
void qn_prefix_adopt(qn_request *r, const qn_prefix_hit *hit);
size_t qn_prefix_next_bound(const qn_request *r); // where a chunk should end; SIZE_MAX: anywhere
// After a step: positions from … r->computed - 1 are new.
void qn_prefix_publish(qn_request *r, size_t from);

// batch.c: segments for the model, from requests.
void qn_batch_build(qn_engine *e);
void qn_batch_clip_spans(qn_request *r, size_t from, size_t n, const qn_embed_span **spans,
                         size_t *n_spans);

// draft_rounds.c: fills the draft layer's cache and makes the next step's drafts.
void qn_draft_make_room(qn_request *r, size_t n); // for hidden rows of n more positions
void qn_draft_note(qn_request *r, size_t position, const float *hidden);
bool qn_draft_step(qn_engine *e, double step_started, qn_err *err);
void qn_draft_forget(qn_request *r);

// publish.c: sampled tokens become text, events and endings.
void qn_sample_step(qn_engine *e);  // draws tokens
void qn_settle_step(qn_engine *e);  // the timelines and caches follow
void qn_publish_step(qn_engine *e); // events; requests that ended are gone
void qn_request_end(qn_request *r, qn_finish finish, size_t n_new); // last event, then frees r

// submit.c
void qn_request_free(qn_request *r);

#endif
