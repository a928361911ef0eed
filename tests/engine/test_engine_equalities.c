// On real checkpoints of every family, in both precisions: how a request is fed, batched, cached
// or drafted, and by how many threads, does not change a bit of its logits nor a token.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "engine/collect.h"

enum { PROMPT = 75, OUTPUT = 14, OTHERS = 4 };

static const char *const folders[] = {
    "models/tiny-qwen3", "models/tiny-qwen3-gptq-int8", "tests/data/tiny-qwen3.5",
    "tests/data/families/qwen2", "tests/data/families/qwen2-window",
    "tests/data/families/qwen2-yarn", "tests/data/families/qwen3", "tests/data/families/qwen3_moe",
    "tests/data/families/qwen3_moe-fused", "tests/data/families/qwen3_5",
    "tests/data/families/qwen3_5-same", "tests/data/families/qwen3_next",
    "tests/data/families/qwen3_5_moe",
};

static qn_model *load(const char *path, qn_precision precision, int threads) {
    qn_err err = {0};
    qn_model *m = qn_model_load(path, &(qn_model_options){.precision = precision,
                                                          .n_threads = threads}, &err);
    if (!m) fail_msg("%s: %s", path, err.text);
    return m;
}

static void draw_prompt(const qn_model *m, uint64_t seed, int32_t *tokens) {
    uint64_t top = (uint64_t)qn_model_get_info(m)->vocab_size;
    int32_t image = qn_model_get_info(m)->image_token, video = qn_model_get_info(m)->video_token;
    if (top > 3900) top = 3900; // the trained ones' added tokens lie behind
    for (uint64_t i = 0; i < PROMPT; i++) {
        tokens[i] = (int32_t)(qn_rng_u64(seed, 2, i) % top);
        if (tokens[i] == image || tokens[i] == video) tokens[i] = 1;
    }
}

static void ask(const qn_model *m, qn_engine_options o, unsigned probe, int others, reply *r) {
    static reply rest[OTHERS];
    int32_t tokens[OTHERS + 1][PROMPT];
    if (!o.kv_cache_bytes) o.kv_cache_bytes = (size_t)64 << 20;
    o.max_model_len = 128;
    qn_engine *e = engine_for(m, &o);
    for (int i = 0; i < others; i++) {
        draw_prompt(m, 100 + (uint64_t)i, tokens[i + 1]);
        reply_submit(&rest[i], e, greedy(tokens[i + 1], PROMPT - 17 * (size_t)i, OUTPUT));
    }
    draw_prompt(m, 1, tokens[0]);
    qn_request_options q = greedy(tokens[0], PROMPT, OUTPUT);
    q.probe = probe;
    reply_submit(r, e, q);
    run_all(e);
    if (r->finish == QN_FINISH_ERROR) fail_msg("%s", r->err.text);
    qn_engine_free(e);
}

static void check_feeding(const qn_model *m, const reply *whole) {
    static reply r;
    const size_t chunks[] = {1, 7, 64};
    for (int i = 0; i < 3; i++) {
        qn_engine_options o = {.max_num_batched_tokens = chunks[i]};
        ask(m, o, QN_PROBE_LOGITS, 0, &r);
        assert_same_reply(&r, whole);
    }
    ask(m, (qn_engine_options){0}, QN_PROBE_LOGITS, OTHERS, &r);
    assert_same_reply(&r, whole);
    ask(m, (qn_engine_options){.max_num_batched_tokens = 50, .max_num_seqs = 3}, QN_PROBE_LOGITS,
        OTHERS, &r);
    assert_same_reply(&r, whole);
    reply_done(&r);
}

static void assert_same_tokens(const reply *a, const reply *b) {
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof *a->tokens);
}

// The same prompt three times on one engine: the second finds the first's blocks (and states), the
// third and its speculation stand on both.
static void check_reuse(const qn_model *m, const reply *whole) {
    static reply r[3];
    int32_t tokens[PROMPT];
    const char *mtp = "{\"method\":\"mtp\",\"num_speculative_tokens\":3,\"always\":true}";
    draw_prompt(m, 1, tokens);
    for (int with = 0; with <= qn_model_get_info(m)->has_mtp; with++) {
        qn_engine *e = engine_for(m, &(qn_engine_options){
            .max_model_len = 128, .kv_cache_bytes = (size_t)64 << 20,
            .speculative_config = with ? mtp : NULL});
        for (int i = 0; i < 3; i++) {
            reply_submit(&r[i], e, greedy(tokens, PROMPT, OUTPUT));
            run_all(e);
            assert_same_tokens(&r[i], whole);
        }
        qn_engine_stats s;
        qn_engine_get_stats(e, &s);
        assert_true(s.cached_tokens >= PROMPT); // two times most of it
        if (with) assert_true(s.drafted_tokens > 0);
        qn_engine_free(e);
    }
    for (int i = 0; i < 3; i++) reply_done(&r[i]);
}

static void check_preemption(const qn_model *m, const reply *whole) {
    static reply r;
    qn_cache_spec spec;
    qn_model_cache_spec(m, &spec);
    size_t blocks = (128 + spec.block_tokens - 1) / spec.block_tokens + 3;
    ask(m, (qn_engine_options){.kv_cache_bytes = blocks * spec.block_bytes}, QN_PROBE_LOGITS,
        OTHERS, &r);
    assert_same_reply(&r, whole);
    reply_done(&r);
}

static void check_model(const char *path, qn_precision precision) {
    static reply whole, threaded;
    qn_model *m = load(path, precision, 1);
    ask(m, (qn_engine_options){0}, QN_PROBE_LOGITS, 0, &whole);
    assert_int_equal(whole.n, OUTPUT);
    assert_int_equal(whole.n_probes, PROMPT + OUTPUT - 1);
    check_feeding(m, &whole);
    check_reuse(m, &whole);
    check_preemption(m, &whole);
    qn_model_free(m);
    m = load(path, precision, 3);
    ask(m, (qn_engine_options){.max_num_batched_tokens = 64}, QN_PROBE_LOGITS, 2, &threaded);
    assert_same_reply(&threaded, &whole);
    qn_model_free(m);
    reply_done(&whole), reply_done(&threaded);
}

static void nothing_changes_a_bit(void **state) {
    qn_precision precision = *(qn_precision *)*state;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        print_message("  %s\n", folders[i]);
        check_model(folders[i], precision);
    }
}

int main(void) {
    static qn_precision exact = QN_EXACT, fast = QN_FAST;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(nothing_changes_a_bit, &exact),
        cmocka_unit_test_prestate(nothing_changes_a_bit, &fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
