// Running requests to their end and keeping what they said.
#ifndef TESTS_ENGINE_COLLECT_H
#define TESTS_ENGINE_COLLECT_H

#include "base/str.h"
#include "engine/engine.h"

typedef struct reply {
    qn_request *request; // NULL once it has ended
    int32_t tokens[4096];
    size_t n, events;
    qn_buf text;
    qn_finish finish;
    qn_err err;
    qn_buf probes; // names, positions and values, as they came
    size_t n_probes, n_mtp;
    size_t cancel_after; // tokens; 0: never
} reply;

// Fills in on_event, on_probe and user, and submits.
void reply_submit(reply *r, qn_engine *e, qn_request_options o);
void reply_done(reply *r);
void run_all(qn_engine *e); // steps until nothing is left; checks that blocks are all free then

qn_engine *engine_for(const qn_model *m, const qn_engine_options *o);
qn_request_options greedy(const int32_t *tokens, size_t n, size_t max_tokens);
void random_tokens(uint64_t seed, int32_t *tokens, size_t n);
void assert_same_reply(const reply *a, const reply *b);

#endif
