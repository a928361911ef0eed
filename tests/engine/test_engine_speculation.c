// Drafts change when tokens come, never which. And when they do not pay, they stop.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "engine/collect.h"
#include "engine/engine.h"
#include "engine/fake_model.h"

enum { PROMPT = 90, OUTPUT = 120, MANY = 5 };

static const fake_config drafting = {.context = 2048, .block_tokens = 8, .mtp = true,
                                     .draft_percent = 75, .sharp = 30};

static const char *config_of(char *text, int k) {
    snprintf(text, 96, "{\"method\":\"mtp\",\"num_speculative_tokens\":%d,\"always\":true}", k);
    return k ? text : NULL;
}

static qn_request_options ask(int i, int32_t *tokens) {
    size_t n = 1 + (size_t)(i * 29 % PROMPT);
    random_tokens((uint64_t)i, tokens, n);
    qn_request_options o = greedy(tokens, n, OUTPUT + (size_t)i);
    if (i % 2) o.sampling = (qn_sampling){.temperature = 0.7f, .seeded = true, .seed = 5,
                                          .presence_penalty = 0.5f, .top_k = 20,
                                          .max_tokens = OUTPUT, .ignore_eos = true};
    return o;
}

static void run(const fake_config *c, qn_engine_options o, int k, reply *r) {
    char text[96];
    int32_t tokens[MANY][PROMPT];
    o.speculative_config = config_of(text, k);
    qn_model *m = fake_model_new(c);
    qn_engine *e = engine_for(m, &o);
    for (int i = 0; i < MANY; i++) reply_submit(&r[i], e, ask(i, tokens[i]));
    run_all(e);
    qn_engine_stats s;
    qn_engine_get_stats(e, &s);
    if (k) {
        assert_true(s.drafted_tokens > 0 && s.accepted_tokens <= s.drafted_tokens);
        double rate = (double)s.accepted_tokens / (double)s.drafted_tokens;
        // Greedy halves are accepted three times in four, drawn ones less often.
        assert_true(rate > 0.3 && rate < 0.95);
    } else {
        assert_int_equal(s.drafted_tokens, 0);
    }
    assert_int_equal(fake_counted.holes, 0); // the draft layer's cache had every position
    qn_engine_free(e);
    fake_model_free(m);
}

static void output_is_that_without(void **state) {
    (void)state;
    static reply with[MANY], without[MANY];
    for (size_t bytes = 0; bytes <= 64; bytes += 64) {
        fake_config c = drafting;
        c.state_bytes = bytes;
        run(&c, (qn_engine_options){0}, 0, without);
        for (int k = 1; k <= 4; k++) {
            qn_engine_options o = {.max_num_batched_tokens = k == 3 ? 7 : 0,
                                   .max_num_seqs = k == 2 ? 2 : 0};
            if (k == 4) { // preempted now and then
                o.max_model_len = 256;
                o.kv_cache_bytes = 400 * 16;
            }
            run(&c, o, k, with);
            for (int i = 0; i < MANY; i++) {
                assert_same_reply(&with[i], &without[i]);
                reply_done(&with[i]);
            }
        }
        for (int i = 0; i < MANY; i++) reply_done(&without[i]);
    }
}

static void drafts_save_steps(void **state) {
    (void)state;
    static reply r;
    fake_config c = drafting;
    c.draft_percent = 100;
    char text[96];
    int32_t tokens[4] = {1, 2, 3, 4};
    qn_model *m = fake_model_new(&c);
    qn_engine *e = engine_for(m, &(qn_engine_options){.speculative_config = config_of(text, 3)});
    reply_submit(&r, e, greedy(tokens, 4, 101));
    run_all(e);
    qn_engine_stats s;
    qn_engine_get_stats(e, &s);
    assert_int_equal(r.n, 101);
    assert_int_equal(s.steps, 26); // the prompt's, then four tokens each
    assert_int_equal(s.drafted_tokens, 75);
    assert_int_equal(s.accepted_tokens, 75);
    reply_done(&r);
    qn_engine_free(e);
    fake_model_free(m);
}

// Second tokens drawn with speculation, against the target's own distribution after the first:
// the prompt's logits are seen through a probe, the draws come from requests with drafts.
static void drawn_tokens_follow_the_target(void **state) {
    (void)state;
    enum { DRAWS = 6000, AT = 3 };
    static reply r;
    size_t seen[2][FAKE_ROWS] = {{0}};
    fake_config c = drafting;
    c.sharp = 6;
    c.state_bytes = 16;
    char text[96];
    int32_t tokens[2] = {1, 2};
    for (int with = 0; with < 2; with++) {
        qn_model *m = fake_model_new(&c);
        qn_engine *e = engine_for(m, &(qn_engine_options){
            .speculative_config = config_of(text, with ? 2 : 0)});
        for (uint64_t i = 0; i < DRAWS; i++) {
            qn_request_options o = greedy(tokens, 2, AT + 1);
            o.sampling.temperature = 1;
            o.sampling.seeded = true;
            o.sampling.seed = i + 1000000 * (uint64_t)with; // other seeds: nothing is shared
            reply_submit(&r, e, o);
            run_all(e);
            seen[with][r.tokens[AT]]++;
            reply_done(&r);
        }
        qn_engine_free(e);
        fake_model_free(m);
    }
    double chi = 0, cells = 0;
    for (int i = 0; i < FAKE_ROWS; i++) {
        double a = (double)seen[0][i], b = (double)seen[1][i];
        if (a + b < 20) continue;
        chi += (a - b) * (a - b) / (a + b);
        cells++;
    }
    assert_true(cells > 20);
    if (chi > cells + 5 * sqrt(2 * cells)) fail_msg("chi-square %g over %g tokens", chi, cells);
}

// A decode of n tokens in made-up time: a step costs 1 and each draft `cost` more, noise aside,
// and is right with the given chance. Returns the time by that without drafts.
static double simulate(double cost, double chance, int n, uint64_t seed) {
    qn_speculator s;
    assert_true(qn_speculator_init(&s, "{\"method\":\"mtp\",\"num_speculative_tokens\":3}", true,
                                   NULL));
    double time = 0;
    int had = 0, done = 0;
    for (uint64_t i = 0; done < n; i++) {
        int next = s.asleep ? 0 : qn_speculator_depth(&s, 1), right = 0;
        while (right < had && qn_rng_uniform(seed, i, (uint64_t)right) < chance) right++;
        double seconds = 0.01 * (1 + cost * had) * (0.95 + 0.1 * qn_rng_uniform(seed, i, 9));
        qn_speculator_saw_drafts(&s, had, right);
        if (had == next && !s.asleep) qn_speculator_saw_step(&s, 1, had, 1 + right, seconds);
        else qn_speculator_saw_other(&s, seconds);
        time += seconds;
        done += 1 + right;
        had = next;
    }
    return time / (0.01 * n);
}

static void it_is_never_much_slower(void **state) {
    (void)state;
    const double costs[] = {0.02, 0.1, 0.3, 0.6, 1}, chances[] = {0, 0.1, 0.3, 0.5, 0.75, 0.95};
    for (int c = 0; c < 5; c++)
        for (int p = 0; p < 6; p++)
            for (uint64_t seed = 0; seed < 5; seed++) {
                double t = simulate(costs[c], chances[p], 2000, seed), best = 1, tokens = 1, q = 1;
                if (t > 1.03) fail_msg("cost %g chance %g: %g", costs[c], chances[p], t);
                for (int k = 1; k <= 3; k++) { // the best fixed number of drafts
                    tokens += q *= chances[p];
                    if ((1 + costs[c] * k) / tokens < best) best = (1 + costs[c] * k) / tokens;
                }
                if (t > 1.1 * best) fail_msg("cost %g chance %g: %g, could be %g", costs[c],
                                             chances[p], t, best);
            }
}

static void drafted_by(const fake_config *c, const char *config, size_t n, qn_engine_stats *s) {
    static reply r;
    int32_t tokens[4] = {1, 2, 3, 4};
    qn_model *m = fake_model_new(c);
    qn_engine *e = engine_for(m, &(qn_engine_options){.speculative_config = config});
    e->now = fake_now;
    reply_submit(&r, e, greedy(tokens, 4, n));
    run_all(e);
    reply_done(&r);
    qn_engine_get_stats(e, s);
    qn_engine_free(e);
    fake_model_free(m);
}

static void what_does_not_pay_is_turned_off(void **state) {
    (void)state;
    const char *mtp = "{\"method\":\"qwen3_5_mtp\",\"num_speculative_tokens\":2}";
    qn_engine_stats s;
    fake_config c = drafting;
    c.draft_percent = 5;
    c.step_us = 200, c.row_us = 600, c.draft_us = 400; // rows cost as much as they bring
    drafted_by(&c, mtp, 200, &s);
    assert_in_range(s.drafted_tokens, 1, 60);
    c.draft_percent = 90;
    c.step_us = 3000, c.row_us = 20, c.draft_us = 40;
    drafted_by(&c, mtp, 150, &s);
    assert_true(s.drafted_tokens > 60 && s.steps < 120);
}

static void config_is_checked(void **state) {
    (void)state;
    const struct { const char *text; qn_code code; const char *says; } bad[] = {
        {"{\"method\":\"ngram\",\"num_speculative_tokens\":2}", QN_UNSUPPORTED, "expected mtp"},
        {"{\"method\":\"eagle\"}", QN_UNSUPPORTED, "\"eagle\", expected mtp"},
        {"{\"method\":\"mtp\",\"num_speculative_tokens\":5}", QN_INPUT, "from 1 to 4"},
        {"{\"method\":\"mtp\",\"num_speculative_tokens\":0}", QN_INPUT, "from 1 to 4"},
        {"{\"num_speculative_tokens\":1}", QN_INPUT, "method is missing"},
        {"[1]", QN_INPUT, "not a JSON object"},
        {"{\"method\":", QN_INPUT, "speculative config: not valid JSON"},
    };
    qn_model *m = fake_model_new(&drafting);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qn_err err = {0};
        assert_null(qn_engine_new(m, &(qn_engine_options){.speculative_config = bad[i].text},
                                  &err));
        assert_int_equal(err.code, bad[i].code);
        if (!strstr(err.text, bad[i].says)) fail_msg("\"%s\" lacks \"%s\"", err.text, bad[i].says);
    }
    fake_model_free(m);
    fake_config without = drafting;
    without.mtp = false;
    m = fake_model_new(&without);
    qn_err err = {0};
    char text[96];
    assert_null(qn_engine_new(m, &(qn_engine_options){.speculative_config = config_of(text, 1)},
                              &err));
    assert_int_equal(err.code, QN_UNSUPPORTED);
    fake_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_is_that_without),
        cmocka_unit_test(drafts_save_steps),
        cmocka_unit_test(drawn_tokens_follow_the_target),
        cmocka_unit_test(it_is_never_much_slower),
        cmocka_unit_test(what_does_not_pay_is_turned_off),
        cmocka_unit_test(config_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
