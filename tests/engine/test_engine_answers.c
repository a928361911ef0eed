// What it is all for: trained checkpoints answer what they are known to know, many questions in
// one batch, in fast precision, from float and quantized weights, with and without drafts.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "engine/collect.h"

enum { MOST = 700 };

typedef struct fact {
    char *prompt, *answer;
    bool chat;
    double margin;
} fact;

typedef struct quiz {
    qn_model *m;
    fact facts[MOST];
    reply *replies;
    size_t n;
} quiz;

// Every `every`-th fact that the original knows.
static void read_facts(quiz *q, const char *path, size_t every) {
    qn_buf text = {0};
    qn_err err = {0};
    if (!qn_file_read(path, (size_t)1 << 22, &text, &err)) fail_msg("%s", err.text);
    size_t line = 0;
    for (char *at = text.data, *end; at && *at && q->n < MOST; at = end ? end + 1 : NULL, line++) {
        end = strchr(at, '\n');
        json_t *j = qn_json_parse(at, end ? (size_t)(end - at) : strlen(at), path, &err);
        assert_non_null(j);
        if (line % every == 0 && json_is_true(json_object_get(j, "known"))) {
            fact *f = &q->facts[q->n++];
            f->prompt = strdup(json_string_value(json_object_get(j, "prompt")));
            f->answer = strdup(json_string_value(json_object_get(j, "answer")));
            f->chat = !strcmp(json_string_value(json_object_get(j, "kind")), "chat");
            f->margin = json_number_value(json_object_get(j, "min_margin"));
        }
        json_decref(j);
    }
    qn_buf_done(&text);
}

static void quiz_open(quiz *q, const char *path, const char *facts, size_t every) {
    qn_err err = {0};
    *q = (quiz){0};
    q->m = qn_model_load(path, &(qn_model_options){.n_threads = 2}, &err);
    if (!q->m) fail_msg("%s: %s", path, err.text);
    read_facts(q, facts, every);
    q->replies = calloc(q->n, sizeof *q->replies);
}

static void quiz_close(quiz *q) {
    for (size_t i = 0; i < q->n; i++) {
        free(q->facts[i].prompt), free(q->facts[i].answer);
        reply_done(&q->replies[i]);
    }
    free(q->replies);
    qn_model_free(q->m);
}

// The prompt as token ids: one user turn with thinking off, or plain text.
static int32_t *tokens_of(const quiz *q, const fact *f, size_t *n) {
    qn_err err = {0};
    int32_t *ids = NULL;
    char *text = NULL;
    size_t len = strlen(f->prompt);
    if (f->chat) {
        json_t *m = json_pack("[{s:s,s:s}]", "role", "user", "content", f->prompt);
        char *messages = json_dumps(m, 0);
        bool ok = qn_template_render(qn_model_template(q->m), messages, NULL,
                                     "{\"add_generation_prompt\":true,\"enable_thinking\":false}",
                                     &text, &len, &err);
        if (!ok) fail_msg("%s", err.text);
        free(messages);
        json_decref(m);
    }
    if (!qn_encode(qn_model_tokenizer(q->m), text ? text : f->prompt, len, 0, &ids, n, &err))
        fail_msg("%s", err.text);
    qn_free(text);
    return ids;
}

static qn_engine_stats quiz_run(quiz *q, const char *speculative) {
    qn_engine *e = engine_for(q->m, &(qn_engine_options){
        .kv_cache_bytes = (size_t)128 << 20, .speculative_config = speculative});
    for (size_t i = 0; i < q->n; i++) {
        size_t n;
        int32_t *ids = tokens_of(q, &q->facts[i], &n);
        qn_request_options o = {.tokens = ids, .n_tokens = n, .sampling = {.max_tokens = 64}};
        if (!q->facts[i].chat) { // as many tokens as the known continuation has
            size_t len = strlen(q->facts[i].answer);
            int32_t *answer;
            assert_true(qn_encode(qn_model_tokenizer(q->m), q->facts[i].answer, len, 0, &answer,
                                  &o.sampling.max_tokens, NULL));
            qn_free(answer);
        }
        reply_submit(&q->replies[i], e, o);
        qn_free(ids);
    }
    run_all(e);
    qn_engine_stats s;
    qn_engine_get_stats(e, &s);
    qn_engine_free(e);
    return s;
}

static void check_answers(const quiz *q) {
    size_t right = 0;
    for (size_t i = 0; i < q->n; i++) {
        const fact *f = &q->facts[i];
        const reply *r = &q->replies[i];
        size_t n = strlen(f->answer); // a continuation's last token may say more
        bool same = r->text.n >= n && !memcmp(r->text.data, f->answer, n);
        if (same && (r->text.n == n || !f->chat)) right++;
        else print_message("  %s -> \"%.*s\", not \"%s\" (margin %g)\n", f->prompt, (int)r->text.n,
                           r->text.data, f->answer, f->margin);
        if (f->chat) assert_int_equal(r->finish, QN_FINISH_STOP);
    }
    print_message("  %zu of %zu right\n", right, q->n);
    assert_int_equal(right, q->n);
    assert_true(q->n >= 60);
}

static void bf16_answers(void **state) {
    (void)state;
    quiz q;
    quiz_open(&q, "models/tiny-qwen3", "models/tiny-qwen3/reference/facts.jsonl", 7);
    quiz_run(&q, NULL);
    check_answers(&q);
    quiz_close(&q);
}

static void gptq_int8_answers_the_same(void **state) {
    (void)state;
    quiz q;
    quiz_open(&q, "models/tiny-qwen3-gptq-int8", "models/tiny-qwen3/reference/facts.jsonl", 7);
    quiz_run(&q, NULL);
    check_answers(&q);
    quiz_close(&q);
}

static void hybrid_answers_with_and_without_drafts(void **state) {
    (void)state;
    quiz q, drafted;
    const char *path = "tests/data/tiny-qwen3.5";
    const char *facts = "tests/data/tiny-qwen3.5/reference/facts.jsonl";
    quiz_open(&q, path, facts, 8);
    quiz_open(&drafted, path, facts, 8);
    qn_engine_stats plain = quiz_run(&q, NULL);
    qn_engine_stats s = quiz_run(&drafted,
        "{\"method\":\"mtp\",\"num_speculative_tokens\":2,\"always\":true}");
    check_answers(&q);
    for (size_t i = 0; i < q.n; i++) assert_same_reply(&q.replies[i], &drafted.replies[i]);
    print_message("  %zu of %zu drafts accepted, %zu steps instead of %zu\n",
                  (size_t)s.accepted_tokens, (size_t)s.drafted_tokens, (size_t)s.steps,
                  (size_t)plain.steps);
    assert_true(s.accepted_tokens * 2 > s.drafted_tokens);
    assert_true(s.steps < plain.steps);
    quiz_close(&q), quiz_close(&drafted);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_answers),
        cmocka_unit_test(gptq_int8_answers_the_same),
        cmocka_unit_test(hybrid_answers_with_and_without_drafts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
