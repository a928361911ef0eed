// The trained hybrid model looks at drawings and says what the original implementation says,
// whether they come alone or together, in chunks, twice, or with drafts.
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

enum { MOST = 32 };

static qn_model *model;
static json_t *answers;
static reply replies[MOST];

static int setup(void **state) {
    (void)state;
    qn_err err = {0};
    model = qn_model_load(FOLDER, &(qn_model_options){.precision = QN_EXACT, .n_threads = 2}, &err);
    if (!model) fail_msg("%s", err.text);
    answers = qn_json_load(DRAWINGS "/answers.json", (size_t)1 << 20, &err);
    if (!answers) fail_msg("%s", err.text);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < MOST; i++) reply_done(&replies[i]);
    qn_model_free(model);
    json_decref(answers);
    return 0;
}

static int32_t *prompt(const char *question, size_t n_images, size_t *n) {
    qn_err err = {0};
    json_t *parts = json_array();
    for (size_t i = 0; i < n_images; i++)
        json_array_append_new(parts, json_pack("{s:s}", "type", "image"));
    json_array_append_new(parts, json_pack("{s:s,s:s}", "type", "text", "text", question));
    json_t *m = json_pack("[{s:s,s:o}]", "role", "user", "content", parts);
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

static void show(qn_engine *e, const char *file, const char *question, reply *r) {
    char *path = qn_path_join(DRAWINGS, file);
    qn_buf bytes = {0};
    assert_true(qn_file_read(path, (size_t)1 << 20, &bytes, NULL));
    qn_image image = {bytes.data, bytes.n, 0, 0};
    size_t n;
    int32_t *ids = prompt(question, 1, &n);
    reply_submit(r, e, (qn_request_options){.tokens = ids, .n_tokens = n, .images = &image,
                                            .n_images = 1, .sampling = {.max_tokens = 32}});
    qn_free(ids);
    qn_buf_done(&bytes);
    free(path);
}

static const char *field(size_t i, const char *key) {
    return json_string_value(json_object_get(json_array_get(answers, i), key));
}

static void check(size_t i) {
    const char *expected = field(i, "original_answers");
    if (replies[i].text.n != strlen(expected) ||
        memcmp(replies[i].text.data, expected, replies[i].text.n))
        fail_msg("%s: \"%.*s\", expected \"%s\"", field(i, "file"), (int)replies[i].text.n,
                 replies[i].text.data, expected);
}

static void answers_are_the_originals(void **state) {
    (void)state;
    qn_engine *e = engine_for(model, &(qn_engine_options){.kv_cache_bytes = (size_t)64 << 20});
    uint64_t before = 0;
    for (size_t i = 0; i < json_array_size(answers); i++) {
        show(e, field(i, "file"), field(i, "question"), &replies[i]);
        run_all(e);
        qn_engine_stats s;
        qn_engine_get_stats(e, &s);
        json_t *want = json_object_get(json_array_get(answers, i), "prompt_tokens");
        assert_int_equal(s.prompt_tokens - before, json_integer_value(want));
        before = s.prompt_tokens;
        check(i);
    }
    qn_engine_free(e);
}

static void together_in_chunks_with_drafts(void **state) {
    (void)state;
    qn_engine *e = engine_for(model, &(qn_engine_options){
        .kv_cache_bytes = (size_t)64 << 20, .max_num_batched_tokens = 23,
        .speculative_config = "{\"method\":\"mtp\",\"num_speculative_tokens\":3,\"always\":true}"});
    for (int round = 0; round < 2; round++) { // the second finds pictures and prefixes
        size_t n = json_array_size(answers);
        for (size_t i = 0; i < n; i++)
            show(e, field(i, "file"), field(i, "question"), &replies[i]);
        run_all(e);
        for (size_t i = 0; i < n; i++) check(i);
    }
    qn_engine_stats s;
    qn_engine_get_stats(e, &s);
    assert_true(s.accepted_tokens > 0);
    assert_true(e->pictures.hits >= json_array_size(answers));
    qn_engine_free(e);
}

static void numbers_of_pictures_must_agree(void **state) {
    (void)state;
    qn_engine *e = engine_for(model, &(qn_engine_options){.kv_cache_bytes = (size_t)64 << 20});
    uint8_t white[64 * 64 * 3];
    memset(white, 255, sizeof white);
    qn_image image[2] = {{white, sizeof white, 64, 64}, {white, sizeof white, 64, 64}};
    for (size_t placeholders = 0; placeholders < 3; placeholders++)
        for (size_t images = 0; images < 3; images++) {
            qn_err err = {0};
            size_t n;
            int32_t *ids = prompt("What?", placeholders, &n);
            qn_request_options o = {.tokens = ids, .n_tokens = n, .images = image,
                                    .n_images = images, .sampling = {.max_tokens = 2}};
            qn_request *r = qn_engine_submit(e, &o, &err);
            assert_int_equal(r != NULL, placeholders == images);
            if (!r) assert_int_equal(err.code, QN_INPUT);
            run_all(e);
            qn_free(ids);
        }
    qn_engine_free(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_originals),
        cmocka_unit_test(together_in_chunks_with_drafts),
        cmocka_unit_test(numbers_of_pictures_must_agree),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
