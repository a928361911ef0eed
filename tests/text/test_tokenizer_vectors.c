// Every vector of the original tokenizers: ids, text, plain text, streaming.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "text/tokenizer_support.h"

static qn_tokenizer *qwen3, *regex35, *qwen35;

static int load(void **state) {
    (void)state;
    qwen3 = qwen3_tokenizer("qwen3");
    regex35 = qwen3_tokenizer("qwen3_5");
    qwen35 = qwen35_tokenizer();
    return 0;
}

static int unload(void **state) {
    (void)state;
    qn_tokenizer_free(qwen3);
    qn_tokenizer_free(regex35);
    qn_tokenizer_free(qwen35);
    return 0;
}

// Feeds the ids one by one. Nothing may be shown early that has to be taken back, so U+FFFD may
// come out only where the whole has it: equality of the whole with what was shown proves that.
static void check_stream(const qn_tokenizer *t, const int32_t *ids, size_t n, unsigned flags,
                         qn_span expected, int number) {
    qn_stream *s = qn_stream_new(t, flags);
    qn_buf shown = {0};
    qn_err err = {0};
    const char *text;
    size_t n_text;
    for (size_t i = 0; i < n; i++) {
        if (!qn_stream_push(s, ids[i], &text, &n_text, &err)) fail_msg("%s", err.text);
        assert_int_equal(text[n_text], 0);
        qn_buf_add(&shown, text, n_text);
        if (shown.n > expected.n || memcmp(shown.data, expected.text, shown.n) != 0)
            fail_msg("line %d, stream: \"%s\" after %zu ids", number, shown.data, i + 1);
    }
    qn_stream_finish(s, &text, &n_text);
    qn_buf_add(&shown, text, n_text);
    check_bytes(shown.data, shown.n, expected, "stream", number);
    qn_buf_done(&shown);
    qn_stream_free(s);
}

static void check_decode(const qn_tokenizer *t, const int32_t *ids, size_t n, unsigned flags,
                         qn_span expected, int number) {
    char *text;
    size_t n_text;
    qn_err err = {0};
    if (!qn_decode(t, ids, n, flags, &text, &n_text, &err)) fail_msg("%s", err.text);
    assert_int_equal(text[n_text], 0);
    check_bytes(text, n_text, expected, flags ? "decoded_skip" : "decoded", number);
    qn_free(text);
    check_stream(t, ids, n, flags, expected, number);
}

static void check_case(const json_t *line, int number, void *user) {
    const qn_tokenizer *t = user;
    qn_span text = text_in(line, "text");
    int32_t *ids;
    size_t n;
    qn_err err = {0};
    if (!qn_encode(t, text.text, text.n, 0, &ids, &n, &err)) fail_msg("%s", err.text);
    check_ids(ids, n, json_object_get(line, "ids"), "ids", number);
    check_decode(t, ids, n, 0, text_in(line, "decoded"), number);
    check_decode(t, ids, n, QN_TEXT_SKIP_SPECIAL, text_in(line, "decoded_skip"), number);
    qn_free(ids);
    const json_t *plain = json_object_get(line, "ids_plain");
    if (!plain) plain = json_object_get(line, "ids");
    if (!qn_encode(t, text.text, text.n, QN_TEXT_PLAIN, &ids, &n, &err)) fail_msg("%s", err.text);
    check_ids(ids, n, plain, "ids_plain", number);
    qn_free(ids);
}

static void qwen3_vectors(void **state) {
    (void)state;
    assert_int_equal(each_line(TOKENIZERS "vectors/qwen3.jsonl", check_case, qwen3), 430);
}

static void regex35_vectors(void **state) {
    (void)state;
    const char *path = TOKENIZERS "vectors/qwen3-regex35.jsonl";
    assert_int_equal(each_line(path, check_case, regex35), 160);
}

static void qwen35_vectors(void **state) {
    (void)state;
    assert_int_equal(each_line(TOKENIZERS "vectors/qwen3.5.jsonl", check_case, qwen35), 260);
}

static void check_golden(const json_t *x, int number) {
    qn_span text = text_in(x, "text");
    int32_t *ids;
    size_t n;
    qn_err err = {0};
    assert_true(qn_encode(qwen35, text.text, text.n, 0, &ids, &n, &err));
    check_ids(ids, n, json_object_get(x, "ids"), "golden", number);
    qn_free(ids);
}

static void qwen35_golden(void **state) {
    (void)state;
    qn_err err = {0};
    json_t *all = qn_json_load(TOKENIZERS "qwen3.5/golden.json", 1 << 20, &err), *x;
    size_t i;
    assert_non_null(all);
    json_array_foreach(all, i, x) check_golden(x, (int)i);
    assert_int_equal(json_array_size(all), 34);
    json_decref(all);
}

static void check_folder(const char *folder, const char *vectors) {
    qn_err err = {0};
    qn_tokenizer *t = qn_tokenizer_load(folder, &err);
    if (!t) fail_msg("%s", err.text);
    assert_int_equal(each_line(vectors, check_case, t), 220);
    qn_tokenizer_free(t);
}

static void tiny3_vectors(void **state) {
    (void)state;
    check_folder("models/tiny-qwen3", TOKENIZERS "vectors/tiny3.jsonl");
}

static void tiny35_vectors(void **state) {
    (void)state;
    check_folder("tests/data/tiny-qwen3.5", TOKENIZERS "vectors/tiny35.jsonl");
}

// The older form of the same tokenizer.
static void tiny3_from_vocab_and_merges(void **state) {
    (void)state;
    qn_tokenizer_files files = {
        .vocab_json = file_span("models/tiny-qwen3/vocab.json"),
        .merges_txt = file_span("models/tiny-qwen3/merges.txt"),
        .tokenizer_config = file_span("models/tiny-qwen3/tokenizer_config.json")};
    qn_err err = {0};
    qn_tokenizer *t = qn_tokenizer_parse(&files, "test", &err);
    if (!t) fail_msg("%s", err.text);
    each_line(TOKENIZERS "vectors/tiny3.jsonl", check_case, t);
    qn_tokenizer_free(t);
    free((void *)(uintptr_t)files.vocab_json.text);
    free((void *)(uintptr_t)files.merges_txt.text);
    free((void *)(uintptr_t)files.tokenizer_config.text);
}

static void check_stream_case(const json_t *line, int number, void *user) {
    (void)user;
    const json_t *list = json_object_get(line, "ids");
    size_t n = json_array_size(list);
    int32_t *ids = calloc(n + 1, sizeof *ids);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    check_decode(qwen3, ids, n, 0, text_in(line, "text"), number);
    if (json_object_get(line, "text_skip"))
        check_decode(qwen3, ids, n, QN_TEXT_SKIP_SPECIAL, text_in(line, "text_skip"), number);
    free(ids);
}

static void stream_vectors(void **state) {
    (void)state;
    const char *path = TOKENIZERS "vectors/stream.jsonl";
    assert_int_equal(each_line(path, check_stream_case, NULL), 88);
}

// The llama.cpp project's Qwen2 vectors: texts between separator lines, ids one text a line.
static void qwen2_vectors(void **state) {
    (void)state;
    qn_span in = file_span(TOKENIZERS "qwen2/vectors.inp");
    qn_span out = file_span(TOKENIZERS "qwen2/vectors.out");
    const char *separator = "\n__ggml_vocab_test__\n", *text = in.text, *expected = out.text;
    int n_cases = 0;
    for (const char *end; (end = strstr(text, separator)); text = end + strlen(separator)) {
        int32_t *ids;
        size_t n;
        qn_err err = {0};
        assert_true(qn_encode(qwen3, text, (size_t)(end - text), 0, &ids, &n, &err));
        for (size_t i = 0; i < n; i++) {
            char *next;
            assert_int_equal(ids[i], strtol(expected, &next, 10));
            expected = next;
        }
        expected += strspn(expected, " ");
        assert_int_equal(*expected++, '\n');
        qn_free(ids);
        n_cases++;
    }
    assert_int_equal(n_cases, 46);
    free((void *)(uintptr_t)in.text);
    free((void *)(uintptr_t)out.text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen3_vectors),  cmocka_unit_test(regex35_vectors),
        cmocka_unit_test(qwen35_vectors), cmocka_unit_test(qwen35_golden),
        cmocka_unit_test(tiny3_vectors),  cmocka_unit_test(tiny35_vectors),
        cmocka_unit_test(stream_vectors), cmocka_unit_test(qwen2_vectors),
        cmocka_unit_test(tiny3_from_vocab_and_merges),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
