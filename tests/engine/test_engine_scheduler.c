// Batches, chunks, preemption, cancelling, limits: whatever else goes on, a request's answer is
// the one it gives alone, and nothing is left behind.
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "engine/collect.h"
#include "engine/fake_model.h"

enum { PROMPT = 200, OUTPUT = 40, MANY = 6 };

static const fake_config plain = {.context = 512, .block_tokens = 8};
static const fake_config recurrent = {.context = 512, .block_tokens = 8, .state_bytes = 64};
static const fake_config spoken = {.context = 512, .block_tokens = 8, .tokenizer = true};

static size_t arena(size_t tokens) { return tokens * 16; } // bytes

static void ask_alone(const fake_config *c, qn_request_options o, reply *r) {
    qn_model *m = fake_model_new(c);
    qn_engine *e = engine_for(m, &(qn_engine_options){.no_prefix_cache = true});
    reply_submit(r, e, o);
    run_all(e);
    qn_engine_free(e);
    fake_model_free(m);
}

static qn_request_options varied(int i, int32_t *tokens) {
    size_t n = 1 + (size_t)(i * 37 % PROMPT);
    random_tokens((uint64_t)i % 4, tokens, n); // some begin alike
    qn_request_options o = greedy(tokens, n, OUTPUT);
    if (i % 2) o.sampling = (qn_sampling){.temperature = 1, .seeded = true, .seed = (uint64_t)i,
                                          .top_p = 0.9f, .repetition_penalty = 1.2f,
                                          .max_tokens = OUTPUT, .ignore_eos = true};
    return o;
}

static void check_batch(const fake_config *c, qn_engine_options o, bool probe) {
    static reply alone[MANY], together[MANY];
    int32_t tokens[MANY][PROMPT];
    qn_model *m = fake_model_new(c);
    qn_engine *e = engine_for(m, &o);
    for (int i = 0; i < MANY; i++) {
        qn_request_options q = varied(i, tokens[i]);
        q.probe = probe ? QN_PROBE_LOGITS | QN_PROBE_HIDDEN : 0;
        reply_submit(&together[i], e, q);
    }
    run_all(e);
    if (o.max_num_batched_tokens) assert_true(fake_counted.most_rows <= o.max_num_batched_tokens);
    if (o.max_num_seqs) assert_true(fake_counted.most_segments <= o.max_num_seqs);
    qn_engine_free(e);
    fake_model_free(m);
    for (int i = 0; i < MANY; i++) {
        qn_request_options q = varied(i, tokens[i]);
        q.probe = probe ? QN_PROBE_LOGITS | QN_PROBE_HIDDEN : 0;
        ask_alone(c, q, &alone[i]);
        assert_int_equal(alone[i].n, OUTPUT);
        assert_same_reply(&alone[i], &together[i]);
        reply_done(&alone[i]);
        reply_done(&together[i]);
    }
}

static void batched_and_chunked_is_alone(void **state) {
    (void)state;
    const fake_config *configs[] = {&plain, &recurrent};
    const size_t chunks[] = {0, 1, 2, 7, 64}, seqs[] = {0, 1, 3};
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < 5; i++)
            for (int j = 0; j < 3; j++)
                for (int probe = 0; probe < 2; probe++)
                    check_batch(configs[c], (qn_engine_options){
                        .max_num_batched_tokens = chunks[i], .max_num_seqs = seqs[j]}, probe);
}

// An arena that holds hardly more than one full sequence: the latest keep being sent back.
static void preempted_is_alone(void **state) {
    (void)state;
    const fake_config *configs[] = {&plain, &recurrent};
    for (int c = 0; c < 2; c++)
        for (int probe = 0; probe < 2; probe++)
            check_batch(configs[c], (qn_engine_options){
                .max_model_len = 248, .kv_cache_bytes = arena(256)}, probe);
}

static void cancelling_frees_everything(void **state) {
    (void)state;
    static reply r[3];
    int32_t tokens[PROMPT];
    random_tokens(1, tokens, PROMPT);
    qn_model *m = fake_model_new(&recurrent);
    qn_engine *e = engine_for(m, &(qn_engine_options){.max_num_batched_tokens = 64,
                                                      .max_num_seqs = 2});
    bool busy;
    r[1].cancel_after = 0;
    for (int i = 0; i < 3; i++) {
        tokens[0] = i;
        reply_submit(&r[i], e, greedy(tokens, PROMPT, 0));
    }
    assert_true(qn_engine_step(e, &busy, NULL)); // two in the middle of their prompts, one waits
    for (int i = 0; i < 3; i++) qn_request_cancel(r[i].request);
    assert_true(qn_engine_step(e, &busy, NULL));
    assert_false(busy);
    for (int i = 0; i < 3; i++) assert_int_equal(r[i].finish, QN_FINISH_CANCELLED);
    reply_done(&r[0]);
    r[0].cancel_after = 5;
    reply_submit(&r[0], e, greedy(tokens, 10, 0)); // cancelled from its own event
    run_all(e);
    assert_int_equal(r[0].finish, QN_FINISH_CANCELLED);
    assert_int_equal(r[0].n, 5);
    for (int i = 0; i < 3; i++) reply_done(&r[i]);
    qn_engine_free(e);
    fake_model_free(m);
}

static void soak(const fake_config *c, qn_engine_options o) {
    enum { ALL = 200 };
    reply *r = calloc(ALL, sizeof *r);
    int32_t tokens[PROMPT];
    qn_model *m = fake_model_new(c);
    qn_engine *e = engine_for(m, &o);
    bool busy = true;
    for (size_t i = 0; i < ALL; i++) {
        size_t n = 1 + qn_rng_u64(1, 0, i) % (PROMPT - 1);
        random_tokens(qn_rng_u64(2, 0, i) % 5, tokens, n);
        qn_request_options q = greedy(tokens, n, 1 + qn_rng_u64(3, 0, i) % 60);
        q.sampling.temperature = (float)(i % 3);
        q.sampling.ignore_eos = i % 5 > 0;
        q.cache_salt = i % 7 ? NULL : "another";
        q.no_output = i % 31 == 0;
        r[i].cancel_after = i % 4 ? 0 : 1 + qn_rng_u64(4, 0, i) % 20;
        reply_submit(&r[i], e, q);
        for (size_t k = qn_rng_u64(5, 0, i) % 8; k > 0; k--)
            assert_true(qn_engine_step(e, &busy, NULL));
        size_t victim = qn_rng_u64(6, 0, i) % (i + 1);
        if (i % 11 == 0 && r[victim].request) qn_request_cancel(r[victim].request);
    }
    run_all(e);
    for (size_t i = 0; i < ALL; i++) {
        assert_null(r[i].request);
        assert_int_not_equal(r[i].finish, QN_FINISH_NONE);
        assert_int_not_equal(r[i].finish, QN_FINISH_ERROR);
        reply_done(&r[i]);
    }
    free(r);
    qn_engine_free(e);
    fake_model_free(m);
}

static void soaking_leaves_nothing(void **state) {
    (void)state;
    fake_config drafting = recurrent;
    drafting.mtp = true;
    drafting.draft_percent = 60;
    const char *mtp = "{\"method\":\"mtp\",\"num_speculative_tokens\":3,\"always\":true}";
    qn_engine_options o = {.max_model_len = 280, .kv_cache_bytes = arena(400)};
    soak(&plain, o);
    soak(&recurrent, o);
    o.max_num_seqs = 5;
    o.max_num_batched_tokens = 9;
    o.prefix_cache_bytes = 640;
    soak(&recurrent, o);
    o.speculative_config = mtp;
    soak(&drafting, o);
}

static void a_fault_stays_with_its_request(void **state) {
    (void)state;
    fake_config faulty = plain;
    faulty.faults = true;
    static reply good, bad, alone;
    int32_t a[] = {1, 2, 3}, b[] = {4, FAKE_NAN};
    qn_model *m = fake_model_new(&faulty);
    qn_engine *e = engine_for(m, NULL);
    reply_submit(&good, e, greedy(a, 3, 20));
    reply_submit(&bad, e, greedy(b, 2, 20));
    run_all(e);
    assert_int_equal(bad.finish, QN_FINISH_ERROR);
    assert_int_equal(bad.n, 0);
    assert_int_equal(bad.err.code, QN_NONFINITE);
    assert_non_null(strstr(bad.err.text, "layers.0.mlp.down_proj"));
    qn_engine_free(e);
    fake_model_free(m);
    ask_alone(&faulty, greedy(a, 3, 20), &alone);
    assert_same_reply(&good, &alone);
    reply_done(&good), reply_done(&bad), reply_done(&alone);
}

static void the_context_ends_it(void **state) {
    (void)state;
    static reply r;
    int32_t tokens[128];
    random_tokens(3, tokens, 128);
    qn_model *m = fake_model_new(&plain);
    qn_engine *e = engine_for(m, &(qn_engine_options){.max_model_len = 128});
    reply_submit(&r, e, greedy(tokens, 96, 0));
    run_all(e);
    assert_int_equal(r.n, 32);
    assert_int_equal(r.finish, QN_FINISH_LENGTH);
    reply_done(&r);
    reply_submit(&r, e, greedy(tokens, 128, 0));
    run_all(e);
    assert_int_equal(r.n, 0);
    assert_int_equal(r.finish, QN_FINISH_LENGTH);
    reply_done(&r);
    qn_engine_free(e);
    fake_model_free(m);
}

static void refused(qn_engine *e, qn_request_options o, qn_code code, const char *text) {
    qn_err err = {0};
    assert_null(qn_engine_submit(e, &o, &err));
    assert_int_equal(err.code, code);
    if (!strstr(err.text, text)) fail_msg("\"%s\" lacks \"%s\"", err.text, text);
}

static void bad_requests_are_refused(void **state) {
    (void)state;
    int32_t tokens[600] = {1, 2, 3};
    qn_model *m = fake_model_new(&spoken);
    qn_engine *e = engine_for(m, NULL);
    refused(e, greedy(tokens, 0, 1), QN_INPUT, "prompt: empty");
    refused(e, greedy(tokens, 600, 1), QN_LIMIT, "600 tokens, expected at most 512");
    tokens[2] = 64;
    refused(e, greedy(tokens, 3, 1), QN_INPUT, "token id 64 at position 2, expected 0 to 63");
    tokens[2] = -1;
    refused(e, greedy(tokens, 3, 1), QN_INPUT, "token id -1 at position 2");
    tokens[2] = 3;
    qn_request_options o = greedy(tokens, 3, 1);
    o.sampling.temperature = -1;
    refused(e, o, QN_USAGE, "temperature is -1");
    o.sampling.temperature = 1;
    o.sampling.top_p = 1.5f;
    refused(e, o, QN_USAGE, "top_p is 1.5");
    o = greedy(tokens, 3, 1);
    const char *stop[] = {""};
    o.sampling.stop = stop;
    o.sampling.n_stop = 1;
    refused(e, o, QN_USAGE, "stop string: empty");
    o = greedy(tokens, 3, 1);
    o.n_images = 1;
    refused(e, o, QN_UNSUPPORTED, "no vision tower");
    o = greedy(tokens, 3, 1);
    o.probe = QN_PROBE_MTP;
    o.on_probe = (qn_probe_fn)(uintptr_t)1;
    refused(e, o, QN_UNSUPPORTED, "multi-token prediction");
    qn_engine_free(e);
    fake_model_free(m);
}

static void too_little_memory_says_what_fits(void **state) {
    (void)state;
    qn_err err = {0};
    qn_model *m = fake_model_new(&plain);
    qn_engine_options o = {.max_model_len = 512, .kv_cache_bytes = arena(120)};
    assert_null(qn_engine_new(m, &o, &err));
    assert_int_equal(err.code, QN_NOMEM);
    assert_non_null(strstr(err.text, "only 120 tokens would fit"));
    o.max_model_len = 0;
    qn_engine *e = engine_for(m, &o);
    qn_engine_stats s;
    qn_engine_get_stats(e, &s);
    assert_int_equal(s.max_model_len, 120);
    qn_engine_free(e);
    o.kv_cache_bytes = (size_t)1 << 60;
    assert_null(qn_engine_new(m, &o, &err));
    assert_int_equal(err.code, QN_NOMEM);
    fake_model_free(m);
}

static void mtp_rows_are_shown_once_each(void **state) {
    (void)state;
    fake_config c = recurrent;
    c.mtp = true;
    static reply whole, chunked;
    int32_t tokens[PROMPT];
    random_tokens(9, tokens, PROMPT);
    for (int i = 0; i < 2; i++) {
        qn_model *m = fake_model_new(&c);
        qn_engine *e = engine_for(m, &(qn_engine_options){.max_num_batched_tokens = i ? 7 : 0});
        qn_request_options o = greedy(tokens, PROMPT, 0);
        o.no_output = true;
        o.probe = QN_PROBE_MTP;
        reply_submit(i ? &chunked : &whole, e, o);
        run_all(e);
        assert_int_equal(fake_counted.holes, 0);
        qn_engine_free(e);
        fake_model_free(m);
    }
    assert_int_equal(whole.n_mtp, PROMPT - 1);
    assert_int_equal(whole.n_probes, PROMPT - 1);
    assert_same_reply(&whole, &chunked);
    reply_done(&whole), reply_done(&chunked);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batched_and_chunked_is_alone),
        cmocka_unit_test(preempted_is_alone),
        cmocka_unit_test(cancelling_frees_everything),
        cmocka_unit_test(soaking_leaves_nothing),
        cmocka_unit_test(a_fault_stays_with_its_request),
        cmocka_unit_test(the_context_ends_it),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(too_little_memory_says_what_fits),
        cmocka_unit_test(mtp_rows_are_shown_once_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
