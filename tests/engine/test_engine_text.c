// What is shown: the decode of all tokens, cut at the first stop string, wherever tokens end.
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "engine/collect.h"
#include "engine/fake_model.h"

static qn_model *model;

static int setup(void **state) {
    (void)state;
    model = fake_model_new(&(fake_config){.context = 512, .block_tokens = 8, .tokenizer = true});
    return 0;
}

static int teardown(void **state) {
    (void)state;
    fake_model_free(model);
    return 0;
}

// Pushes tokens until stopped; the pieces joined are the text.
static size_t push_all(const int32_t *ids, size_t n, const char *const *stop, size_t n_stop,
                       qn_buf *text) {
    qn_output o;
    assert_true(qn_output_init(&o, qn_model_tokenizer(model), stop, n_stop, NULL));
    size_t used = 0;
    while (used < n && !o.stopped) {
        assert_true(qn_output_push(&o, ids[used++], NULL));
        const char *piece;
        size_t len;
        qn_output_next(&o, &piece, &len);
        qn_buf_add(text, piece, len);
    }
    qn_output_finish(&o);
    const char *piece;
    size_t len;
    qn_output_next(&o, &piece, &len);
    qn_buf_add(text, piece, len);
    qn_output_done(&o);
    return used;
}

static void check(const int32_t *ids, size_t n, const char *stop, const char *text, size_t used) {
    qn_buf b = {0};
    assert_int_equal(push_all(ids, n, &stop, stop ? 1 : 0, &b), used);
    assert_string_equal(b.data, text);
    qn_buf_done(&b);
}

static void stops_over_token_boundaries(void **state) {
    (void)state;
    const int32_t st_op[] = {32, 23, 24, 33};        // a st op b
    check(st_op, 4, "stop", "a", 3);
    check(st_op, 4, "topb", "as", 4);
    check(st_op, 4, "stopc", "astopb", 4);
    check(st_op, 4, NULL, "astopb", 4);
    const int32_t abcd[] = {28, 30, 35};             // ab bcd d: "abc" is not in "abbcdd"
    check(abcd, 3, "abc", "abbcdd", 3);
    const int32_t aab[] = {32, 32, 32, 33};          // a a a b, the stop begins late
    check(aab, 4, "aab", "a", 4);
    const int32_t accent[] = {32, 20, 21, 33};       // a é b
    check(accent, 4, "\xC3\xA9", "a", 3);
    check(accent, 2, NULL, "a\xEF\xBF\xBD", 2);      // the half that stays alone
}

static void random_texts_are_cut_where_they_should(void **state) {
    (void)state;
    const char *stops[] = {"ab", "abcab", "ENDs", "opop", "st\n", "\xC3\xA9\xC3\xA9"};
    for (uint64_t seed = 0; seed < 3000; seed++) {
        int32_t ids[40];
        for (uint64_t i = 0; i < 40; i++) ids[i] = 20 + (int32_t)(qn_rng_u64(seed, 0, i) % 15);
        size_t n_stop = seed % 4, first = seed % 3;
        qn_buf whole = {0}, cut = {0};
        push_all(ids, 40, NULL, 0, &whole);
        size_t used = push_all(ids, 40, stops + first, n_stop, &cut), end = whole.n;
        if (used < 40) { // the text of these tokens alone
            qn_buf_clear(&whole);
            push_all(ids, used, NULL, 0, &whole);
            end = whole.n;
        }
        for (size_t i = first; i < first + n_stop; i++) {
            const char *hit = memmem(whole.data, whole.n, stops[i], strlen(stops[i]));
            if (hit && (size_t)(hit - whole.data) < end) end = (size_t)(hit - whole.data);
        }
        assert_int_equal(cut.n, end);
        if (end) assert_memory_equal(cut.data, whole.data, end);
        qn_buf_done(&whole), qn_buf_done(&cut);
    }
}

static void nothing_shown_is_taken_back(void **state) {
    (void)state;
    const char *stop = "stop";
    qn_output o;
    const char *piece;
    size_t n;
    assert_true(qn_output_init(&o, qn_model_tokenizer(model), &stop, 1, NULL));
    qn_output_push(&o, 23, NULL); // "st" may begin "stop"
    qn_output_next(&o, &piece, &n);
    assert_int_equal(n, 0);
    qn_output_push(&o, 32, NULL); // "sta" does not
    qn_output_next(&o, &piece, &n);
    assert_int_equal(n, 3);
    assert_memory_equal(piece, "sta", 3);
    qn_output_done(&o);
}

static void events_carry_the_text(void **state) {
    (void)state;
    static reply r, whole;
    const char *stop[] = {"e", "END"};
    int32_t prompt[] = {40, 41, 42};
    qn_engine *e = engine_for(model, NULL);
    for (int32_t i = 0; i < 30; i++) {
        prompt[0] = i;
        qn_request_options o = greedy(prompt, 3, 60);
        reply_submit(&whole, e, o);
        run_all(e);
        o.sampling.stop = stop;
        o.sampling.n_stop = 2;
        reply_submit(&r, e, o);
        run_all(e);
        assert_memory_equal(r.tokens, whole.tokens, r.n * sizeof *r.tokens);
        assert_true(r.n <= whole.n && r.text.n <= whole.text.n);
        if (r.text.n) assert_memory_equal(r.text.data, whole.text.data, r.text.n);
        if (r.finish == QN_FINISH_LENGTH) assert_int_equal(r.text.n, whole.text.n);
        else assert_int_equal(r.finish, QN_FINISH_STOP);
        reply_done(&r), reply_done(&whole);
    }
    qn_engine_free(e);
}

static void the_stop_token_ends_it(void **state) {
    (void)state;
    static reply r;
    int32_t prompt[3] = {40, 41, 42};
    size_t stopped = 0;
    qn_engine *e = engine_for(model, NULL);
    for (int32_t i = 0; i < 40; i++) {
        prompt[0] = i;
        qn_request_options o = greedy(prompt, 3, 200);
        o.sampling.temperature = 1;
        o.sampling.ignore_eos = false;
        reply_submit(&r, e, o);
        run_all(e);
        if (r.finish == QN_FINISH_STOP) {
            stopped++;
            assert_int_equal(r.tokens[r.n - 1], FAKE_EOS);
        }
        for (size_t k = 0; k + 1 < r.n; k++) assert_int_not_equal(r.tokens[k], FAKE_EOS);
        for (size_t k = 0; k < r.n; k++) // holes and padding rows never come up
            assert_true(r.tokens[k] < FAKE_SPELLED && r.tokens[k] != FAKE_HOLE);
        reply_done(&r);
    }
    assert_true(stopped > 10);
    qn_engine_free(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stops_over_token_boundaries),
        cmocka_unit_test(random_texts_are_cut_where_they_should),
        cmocka_unit_test(nothing_shown_is_taken_back),
        cmocka_unit_test(events_carry_the_text),
        cmocka_unit_test(the_stop_token_ends_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
