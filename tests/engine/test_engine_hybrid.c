// The trained hybrid model in an engine: a conversation with two pictures, pictures known again,
// what does not fit refused before any work, one shared prefix, and memory as inspect counts it.
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "engine/collect.h"

#define FOLDER "tests/data/tiny-qwen3.5"
#define DRAWINGS FOLDER "/reference/pictures"

enum { SHARED = 1000, OWN = 20, MANY = 8, OUTPUT = 12, VIDEO = 3981 };

static qn_model *model;

static int setup(void **state) {
    (void)state;
    qn_err err = {0};
    model = qn_model_load(FOLDER, &(qn_model_options){.precision = QN_EXACT, .n_threads = 2}, &err);
    if (!model) fail_msg("%s", err.text);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    qn_model_free(model);
    return 0;
}

static qn_engine *engine(void) {
    return engine_for(model, &(qn_engine_options){.kv_cache_bytes = (size_t)64 << 20});
}

// ---- pictures ----

static const char *text_at(const json_t *o, const char *key, size_t i) {
    return json_string_value(json_array_get(json_object_get(o, key), i));
}

static json_t *user(const char *question) {
    return json_pack("{s:s,s:[{s:s},{s:s,s:s}]}", "role", "user", "content", "type", "image",
                     "type", "text", "text", question);
}

// The prompt of a conversation's first or second turn.
static int32_t *prompt(const json_t *talk, int turns, size_t *n) {
    qn_err err = {0};
    json_t *m = json_array();
    json_array_append_new(m, user(text_at(talk, "questions", 0)));
    if (turns == 2) {
        json_array_append_new(m, json_pack("{s:s,s:O}", "role", "assistant", "content",
                                           json_object_get(talk, "first_answer")));
        json_array_append_new(m, user(text_at(talk, "questions", 1)));
    }
    char *messages = json_dumps(m, 0), *text;
    size_t len;
    int32_t *ids = NULL;
    if (!qn_template_render(qn_model_template(model), messages, NULL,
                            "{\"add_generation_prompt\":true,\"enable_thinking\":false}", &text,
                            &len, &err) ||
        !qn_encode(qn_model_tokenizer(model), text, len, 0, &ids, n, &err))
        fail_msg("%s", err.text);
    free(messages);
    json_decref(m);
    qn_free(text);
    return ids;
}

static void ask(qn_engine *e, const json_t *talk, int turns, const char *expected) {
    static reply r;
    qn_buf bytes[2] = {{0}, {0}};
    qn_image images[2];
    for (int i = 0; i < turns; i++) {
        char *path = qn_path_join(DRAWINGS, text_at(talk, "files", (size_t)i));
        assert_true(qn_file_read(path, (size_t)1 << 20, &bytes[i], NULL));
        images[i] = (qn_image){bytes[i].data, bytes[i].n, 0, 0};
        free(path);
    }
    size_t n;
    int32_t *ids = prompt(talk, turns, &n);
    reply_submit(&r, e, (qn_request_options){.tokens = ids, .n_tokens = n, .images = images,
                                             .n_images = (size_t)turns,
                                             .sampling = {.max_tokens = 24}});
    run_all(e);
    if (r.text.n != strlen(expected) || memcmp(r.text.data, expected, r.text.n) != 0)
        fail_msg("\"%.*s\", expected \"%s\"", (int)r.text.n, r.text.data, expected);
    reply_done(&r);
    qn_free(ids);
    qn_buf_done(&bytes[0]);
    qn_buf_done(&bytes[1]);
}

// The original's answers about the second picture, behind a first; it was asked once per
// conversation, we are asked turn by turn on one engine, and know the first picture again.
static void a_conversation_with_two_pictures(void **state) {
    (void)state;
    qn_err err = {0};
    json_t *talks = qn_json_load("tests/data/hybrid/two_pictures.json", (size_t)1 << 20, &err);
    if (!talks) fail_msg("%s", err.text);
    for (size_t i = 0; i < json_array_size(talks); i++) {
        const json_t *talk = json_array_get(talks, i);
        qn_engine *e = engine();
        qn_engine_stats s, first;
        ask(e, talk, 1, json_string_value(json_object_get(talk, "first_answer")));
        assert_int_equal(e->pictures.hits, 0);
        qn_engine_get_stats(e, &first);
        ask(e, talk, 2, json_string_value(json_object_get(talk, "answer")));
        assert_int_equal(e->pictures.hits, 1);
        qn_engine_get_stats(e, &s);
        assert_int_equal(s.prompt_tokens - first.prompt_tokens,
                         json_integer_value(json_object_get(talk, "prompt_tokens")));
        qn_engine_free(e);
    }
    json_decref(talks);
}

static void expect_refusal(qn_engine *e, const qn_request_options *o, qn_code code,
                           const char *says) {
    qn_err err = {0};
    assert_null(qn_engine_submit(e, o, &err));
    assert_int_equal(err.code, code);
    assert_null(strchr(err.text, '\n'));
    if (!strstr(err.text, says)) fail_msg("\"%s\" lacks \"%s\"", err.text, says);
}

// Neither a video nor a picture larger than the context costs any work.
static void refused_before_work(void **state) {
    (void)state;
    qn_engine *e = engine_for(model, &(qn_engine_options){.kv_cache_bytes = (size_t)64 << 20,
                                                          .max_model_len = 40});
    static uint8_t white[256 * 256 * 3];
    const qn_image image = {white, sizeof white, 256, 256};
    const int32_t video[] = {5, 6, VIDEO, 7}, picture[] = {5, 3980, 7};
    qn_request_options o = {.tokens = video, .n_tokens = 4, .sampling = {.max_tokens = 2}};
    assert_int_equal(qn_model_get_info(model)->video_token, VIDEO);
    expect_refusal(e, &o, QN_UNSUPPORTED, "prompt: token 2 is a video placeholder (3981); videos "
                   "are not supported");
    o.tokens = picture;
    o.n_tokens = 3;
    expect_refusal(e, &o, QN_INPUT, "prompt: 1 image placeholder for 0 images");
    o.images = &image;
    o.n_images = 1;
    expect_refusal(e, &o, QN_LIMIT, "image 1: image: a grid of 16 x 16 patches makes 64 tokens, "
                   "expected at most 40 (the context)");
    assert_int_equal(e->pictures.bytes, 0);
    qn_engine_free(e);
}

// ---- sharing ----

static qn_request_options numbered(int32_t *tokens, int i) {
    for (int k = 0; k < SHARED + OWN; k++)
        tokens[k] = 1 + (k * 37 + k / 50 * 11 + (k < SHARED ? 0 : 101 * i)) % 3800;
    return greedy(tokens, SHARED + OWN, OUTPUT);
}

static void a_shared_prefix_is_computed_once(void **state) {
    (void)state;
    static reply r[MANY], alone;
    static int32_t tokens[MANY][SHARED + OWN];
    qn_engine *e = engine();
    for (int i = 0; i < MANY; i++) reply_submit(&r[i], e, numbered(tokens[i], i));
    run_all(e);
    qn_engine_stats s;
    qn_engine_get_stats(e, &s);
    qn_cache_spec spec;
    qn_model_cache_spec(model, &spec);
    size_t whole = SHARED / spec.block_tokens * spec.block_tokens;
    assert_int_equal(s.cached_tokens, (MANY - 1) * whole);
    qn_engine_free(e);
    for (int i = 0; i < MANY; i += MANY - 1) { // a hit has the tokens of a miss
        e = engine_for(model, &(qn_engine_options){.kv_cache_bytes = (size_t)64 << 20,
                                                   .no_prefix_cache = true});
        reply_submit(&alone, e, numbered(tokens[i], i));
        run_all(e);
        assert_same_reply(&r[i], &alone);
        qn_engine_free(e);
        reply_done(&alone);
    }
    for (int i = 0; i < MANY; i++) reply_done(&r[i]);
}

// n answers to one prompt: the states part where the draws part, and one that is cancelled on the
// way takes nothing from the others.
static void several_answers_to_one_prompt(void **state) {
    (void)state;
    enum { N = 4 };
    static reply r[N], alone;
    static int32_t tokens[SHARED + OWN];
    qn_request_options o = numbered(tokens, 0);
    o.n_tokens = 100;
    o.sampling.temperature = 1;
    o.sampling.seeded = true;
    qn_engine *e = engine();
    for (int i = 0; i < N; i++) {
        o.sampling.seed = (uint64_t)i + 1;
        r[i].cancel_after = i == 1 ? 4 : 0;
        reply_submit(&r[i], e, o);
    }
    run_all(e);
    qn_engine_stats s;
    qn_engine_get_stats(e, &s);
    assert_true(s.cached_tokens >= (N - 1) * 64);
    assert_int_equal(r[1].finish, QN_FINISH_CANCELLED);
    assert_memory_not_equal(r[0].tokens, r[2].tokens, OUTPUT * sizeof *r->tokens);
    qn_engine_free(e);
    for (int i = 0; i < N; i += 2) {
        e = engine();
        o.sampling.seed = (uint64_t)i + 1;
        reply_submit(&alone, e, o);
        run_all(e);
        assert_same_reply(&r[i], &alone);
        qn_engine_free(e);
        reply_done(&alone);
    }
    for (int i = 0; i < N; i++) reply_done(&r[i]);
}

// ---- memory ----

static void memory_is_what_inspect_says(void **state) {
    static const char *const folders[] = {FOLDER, "tests/data/families/qwen3_5",
                                          "tests/data/families/qwen3_5-same",
                                          "tests/data/families/qwen3_next"};
    (void)state;
    for (size_t f = 0; f < 4; f++) {
        qn_err err = {0};
        char *text = NULL;
        if (!qn_inspect(folders[f], false, &text, &err)) fail_msg("%s", err.text);
        json_t *j = json_loads(text, 0, NULL);
        qn_free(text);
        qn_model *m = qn_model_load(folders[f], &(qn_model_options){.n_threads = 1, .no_mtp = true},
                                    &err);
        if (!m) fail_msg("%s", err.text);
        const qn_model_info *i = qn_model_get_info(m);
        size_t token = (size_t)json_integer_value(json_object_get(j, "kv_bytes_per_token"));
        size_t sequence = (size_t)json_integer_value(json_object_get(j,
                                                     "state_bytes_per_sequence"));
        assert_int_equal(i->kv_bytes_per_token, token);
        assert_in_range(i->state_bytes_per_sequence, sequence, sequence + 64 * 8); // cache lines
        qn_engine *e = engine_for(m, &(qn_engine_options){.kv_cache_bytes = (size_t)1 << 20});
        qn_engine_stats s;
        qn_engine_get_stats(e, &s);
        qn_cache_spec spec;
        qn_model_cache_spec(m, &spec);
        assert_int_equal(s.kv_bytes, s.kv_blocks_total * spec.block_tokens * token);
        qn_engine_free(e);
        qn_model_free(m);
        json_decref(j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_conversation_with_two_pictures),
        cmocka_unit_test(refused_before_work),
        cmocka_unit_test(a_shared_prefix_is_computed_once),
        cmocka_unit_test(several_answers_to_one_prompt),
        cmocka_unit_test(memory_is_what_inspect_says),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
