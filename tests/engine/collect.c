// See collect.h.
#include "engine/collect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

static void on_event(void *user, qn_request *request, const qn_event *e) {
    reply *r = user;
    assert_ptr_equal(r->request ? r->request : request, request);
    for (size_t i = 0; i < e->n_tokens; i++) r->tokens[r->n++] = e->tokens[i];
    qn_buf_add(&r->text, e->text, e->n_text);
    r->events++;
    if (r->cancel_after && r->n >= r->cancel_after) qn_request_cancel(request);
    r->finish = e->finish;
    if (e->err) r->err = *e->err;
    if (e->finish != QN_FINISH_NONE) r->request = NULL;
}

static void on_probe(void *user, const char *name, size_t position, const float *data, size_t n) {
    reply *r = user;
    qn_buf_addf(&r->probes, "%s %zu:", name, position);
    qn_buf_add(&r->probes, data, n * sizeof *data);
    r->n_probes++;
    r->n_mtp += !strcmp(name, "mtp.logits");
}

void reply_submit(reply *r, qn_engine *e, qn_request_options o) {
    qn_err err = {0};
    size_t cancel_after = r->cancel_after;
    reply_done(r); // of its last use; a fresh one is all zero
    *r = (reply){.cancel_after = cancel_after};
    o.on_event = on_event;
    o.on_probe = on_probe;
    o.user = r;
    r->request = qn_engine_submit(e, &o, &err);
    if (!r->request) fail_msg("submit: %s", err.text);
}

void reply_done(reply *r) {
    qn_buf_done(&r->text);
    qn_buf_done(&r->probes);
}

void run_all(qn_engine *e) {
    qn_err err = {0};
    for (bool busy = true; busy;)
        if (!qn_engine_step(e, &busy, &err)) fail_msg("step: %s", err.text);
    qn_engine_stats s;
    qn_engine_get_stats(e, &s);
    assert_int_equal(s.kv_blocks_free, s.kv_blocks_total);
    assert_int_equal(s.running + s.waiting, 0);
}

qn_engine *engine_for(const qn_model *m, const qn_engine_options *o) {
    qn_err err = {0};
    qn_engine *e = qn_engine_new(m, o, &err);
    if (!e) fail_msg("engine: %s", err.text);
    return e;
}

qn_request_options greedy(const int32_t *tokens, size_t n, size_t max_tokens) {
    return (qn_request_options){.tokens = tokens, .n_tokens = n,
                                .sampling = {.max_tokens = max_tokens, .ignore_eos = true}};
}

void random_tokens(uint64_t seed, int32_t *tokens, size_t n) {
    for (size_t i = 0; i < n; i++) tokens[i] = (int32_t)(qn_rng_u64(seed, 1, i) % 60);
}

void assert_same_reply(const reply *a, const reply *b) {
    assert_int_equal(a->finish, b->finish);
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof *a->tokens);
    assert_int_equal(a->text.n, b->text.n);
    if (a->text.n) assert_memory_equal(a->text.data, b->text.data, a->text.n);
    assert_int_equal(a->probes.n, b->probes.n);
    if (a->probes.n) assert_memory_equal(a->probes.data, b->probes.data, a->probes.n);
}
