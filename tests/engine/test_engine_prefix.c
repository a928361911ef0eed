// Prefix reuse: what is computed once, what is not shared, and that a hit has the bits of a miss.
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/collect.h"
#include "engine/fake_model.h"

enum { SHARED = 1000, OWN = 30, MANY = 8, OUTPUT = 20, BLOCK = 8 };

static const fake_config plain = {.context = 2048, .block_tokens = BLOCK};
static const fake_config recurrent = {.context = 2048, .block_tokens = BLOCK, .state_bytes = 64};

typedef struct bench {
    qn_model *m;
    qn_engine *e;
    int32_t prompt[MANY][SHARED + OWN];
    reply r[MANY], cold[MANY];
} bench;

static bench *bench_new(const fake_config *c, const qn_engine_options *o) {
    bench *b = calloc(1, sizeof *b);
    b->m = fake_model_new(c);
    b->e = engine_for(b->m, o);
    for (int i = 0; i < MANY; i++) {
        random_tokens(1, b->prompt[i], SHARED);
        random_tokens((uint64_t)i + 2, b->prompt[i] + SHARED, OWN);
    }
    return b;
}

static qn_request_options ask(bench *b, int i) {
    qn_request_options o = greedy(b->prompt[i], SHARED + OWN, OUTPUT);
    o.sampling.temperature = (float)(i % 2);
    o.sampling.seeded = true;
    return o;
}

static void compare_with_cold(bench *b, int n) {
    for (int i = 0; i < n; i++) {
        qn_engine *e = engine_for(b->m, &(qn_engine_options){.no_prefix_cache = true});
        reply_submit(&b->cold[i], e, ask(b, i));
        run_all(e);
        qn_engine_free(e);
        assert_same_reply(&b->r[i], &b->cold[i]);
    }
}

static void bench_free(bench *b) {
    for (int i = 0; i < MANY; i++) reply_done(&b->r[i]), reply_done(&b->cold[i]);
    qn_engine_free(b->e);
    fake_model_free(b->m);
    free(b);
}

// Eight at once: the first computes, the others wait for it and go on from there.
static void shared_prefix_is_computed_once(void **state) {
    (void)state;
    const fake_config *configs[] = {&plain, &recurrent};
    for (int c = 0; c < 2; c++) {
        bench *b = bench_new(configs[c], NULL);
        for (int i = 0; i < MANY; i++) reply_submit(&b->r[i], b->e, ask(b, i));
        run_all(b->e);
        qn_engine_stats s;
        qn_engine_get_stats(b->e, &s);
        size_t once = SHARED / BLOCK * BLOCK;
        assert_int_equal(s.prompt_tokens, MANY * (SHARED + OWN));
        assert_int_equal(s.cached_tokens, (MANY - 1) * once);
        assert_int_equal(fake_counted.positions,
                         s.prompt_tokens - s.cached_tokens + MANY * (OUTPUT - 1));
        compare_with_cold(b, MANY);
        bench_free(b);
    }
}

// One after the other: blocks are found at once; a recurrent model needs one request to learn
// where the others branch off.
static void a_hit_is_a_miss(void **state) {
    (void)state;
    const fake_config *configs[] = {&plain, &recurrent};
    for (int c = 0; c < 2; c++) {
        bench *b = bench_new(configs[c], NULL);
        uint64_t before = 0;
        for (int i = 0; i < MANY; i++) {
            reply_submit(&b->r[i], b->e, ask(b, i));
            run_all(b->e);
            qn_engine_stats s;
            qn_engine_get_stats(b->e, &s);
            uint64_t hit = s.cached_tokens - before;
            before = s.cached_tokens;
            if (i == 0) assert_int_equal(hit, 0);
            else if (i == 1) assert_true(hit >= (c ? 768 : SHARED));
            else assert_int_equal(hit, SHARED);
        }
        compare_with_cold(b, MANY);
        bench_free(b);
    }
}

// The next turn of a conversation begins with the prompt and the answer of the last.
static void the_next_turn_goes_on(void **state) {
    (void)state;
    const fake_config *configs[] = {&plain, &recurrent};
    for (int c = 0; c < 2; c++) {
        bench *b = bench_new(configs[c], NULL);
        int32_t turn[SHARED + 600];
        memcpy(turn, b->prompt[0], sizeof b->prompt[0]);
        reply_submit(&b->r[0], b->e, greedy(turn, SHARED, 500));
        run_all(b->e);
        memcpy(turn + SHARED, b->r[0].tokens, 500 * sizeof *turn);
        reply_submit(&b->r[1], b->e, greedy(turn, SHARED + 500, 5));
        run_all(b->e);
        qn_engine_stats s;
        qn_engine_get_stats(b->e, &s);
        assert_true(s.cached_tokens >= SHARED + 500 - (c ? 64 + BLOCK : 2 * BLOCK));
        qn_engine *e = engine_for(b->m, &(qn_engine_options){.no_prefix_cache = true});
        reply_submit(&b->cold[1], e, greedy(turn, SHARED + 500, 5));
        run_all(e);
        assert_same_reply(&b->r[1], &b->cold[1]);
        qn_engine_free(e);
        bench_free(b);
    }
}

static uint64_t cached_after(bench *b, qn_request_options first, qn_request_options second) {
    qn_engine_stats s;
    reply_submit(&b->r[0], b->e, first);
    run_all(b->e);
    reply_submit(&b->r[1], b->e, second);
    run_all(b->e);
    qn_engine_get_stats(b->e, &s);
    return s.cached_tokens;
}

static void salts_and_probes_do_not_share(void **state) {
    (void)state;
    const fake_config *configs[] = {&plain, &recurrent};
    for (int c = 0; c < 2; c++) {
        bench *b = bench_new(configs[c], NULL);
        qn_request_options o = ask(b, 0), salted = o, probed = o;
        salted.cache_salt = "tenant";
        probed.probe = QN_PROBE_LOGITS;
        assert_int_equal(cached_after(b, o, salted), 0);
        assert_int_equal(cached_after(b, probed, o), SHARED + OWN - (SHARED + OWN) % BLOCK);
        assert_int_equal(b->r[0].n_probes, SHARED + OWN + OUTPUT - 1);
        bench_free(b);
    }
}

static void an_old_prefix_is_evicted(void **state) {
    (void)state;
    bench *b = bench_new(&plain, &(qn_engine_options){.max_model_len = 1100,
                                                      .kv_cache_bytes = 1104 * 16});
    int32_t other[SHARED];
    random_tokens(99, other, SHARED);
    assert_int_equal(cached_after(b, ask(b, 0), greedy(other, SHARED, 1)), 0);
    qn_engine_stats s;
    reply_submit(&b->r[2], b->e, ask(b, 0));
    run_all(b->e);
    qn_engine_get_stats(b->e, &s);
    // The other prompt took all but the first few blocks: the end of a prefix goes first.
    assert_in_range(s.cached_tokens, 1, 200);
    assert_int_equal(b->r[2].n, b->r[0].n);
    bench_free(b);
}

static void the_state_budget_is_kept(void **state) {
    (void)state;
    bench *b = bench_new(&recurrent, &(qn_engine_options){.prefix_cache_bytes = 3 * 64 + 1});
    for (int i = 0; i < MANY; i++) {
        b->prompt[i][0] = i;
        reply_submit(&b->r[i], b->e, ask(b, i));
    }
    run_all(b->e);
    assert_int_equal(b->e->states.n_kept, 3);
    compare_with_cold(b, MANY);
    bench_free(b);
}

// The owner of a prefix that others wait for goes away: they compute it themselves.
static void waiting_for_a_cancelled_prefix(void **state) {
    (void)state;
    bench *b = bench_new(&recurrent, &(qn_engine_options){.max_num_batched_tokens = 64});
    for (int i = 0; i < 3; i++) reply_submit(&b->r[i], b->e, ask(b, i));
    bool busy;
    assert_true(qn_engine_step(b->e, &busy, NULL));
    assert_int_equal(b->e->running.n, 1);
    qn_request_cancel(b->r[0].request);
    run_all(b->e);
    assert_int_equal(b->r[0].finish, QN_FINISH_CANCELLED);
    assert_int_equal(b->r[1].n, OUTPUT);
    assert_int_equal(b->r[2].n, OUTPUT);
    bench_free(b);
}

// Equal tokens, other pictures: nothing may be shared behind the picture.
static void pictures_are_content(void **state) {
    (void)state;
    fake_config c = recurrent;
    c.vision = true;
    bench *b = bench_new(&c, NULL);
    b->prompt[0][500] = FAKE_IMAGE;
    qn_image cat = {"a cat, sitting", 14, 0, 0}, dog = {"a dog, running", 14, 0, 0};
    qn_request_options o = ask(b, 0), other = o;
    o.images = &cat;
    other.images = &dog;
    o.n_images = other.n_images = 1;
    uint64_t hit = cached_after(b, o, other);
    assert_true(hit <= 500 && hit >= 256);
    assert_int_equal(fake_counted.encoded, 2);
    assert_int_not_equal(memcmp(b->r[0].tokens, b->r[1].tokens, OUTPUT * 4), 0);
    reply_submit(&b->r[2], b->e, o);
    run_all(b->e);
    assert_int_equal(fake_counted.encoded, 2); // seen before
    assert_same_reply(&b->r[2], &b->r[0]);
    qn_engine *e = engine_for(b->m, &(qn_engine_options){.no_prefix_cache = true,
                                                         .max_num_batched_tokens = 7});
    reply_submit(&b->r[3], e, other);
    run_all(e);
    assert_same_reply(&b->r[3], &b->r[1]);
    qn_engine_free(e);
    qn_err err = {0};
    o.n_images = 0;
    assert_null(qn_engine_submit(b->e, &o, &err));
    assert_int_equal(err.code, QN_INPUT);
    bench_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_prefix_is_computed_once),
        cmocka_unit_test(a_hit_is_a_miss),
        cmocka_unit_test(the_next_turn_goes_on),
        cmocka_unit_test(salts_and_probes_do_not_share),
        cmocka_unit_test(an_old_prefix_is_evicted),
        cmocka_unit_test(the_state_budget_is_kept),
        cmocka_unit_test(waiting_for_a_cancelled_prefix),
        cmocka_unit_test(pictures_are_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
