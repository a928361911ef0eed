// What tokenizer files may carry, and every way in which they can be wrong, with its message.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer_support.h"

#define SPLIT_WORDS                                                                                \
    "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": " \
    "{\"Regex\": \"[a-z]+\"}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": " \
    "\"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]}"

static qn_buf built;

// {"!": 0, …}: the 256 bytes in order, then ab = 256 and abc = 257, then `more`.
static const char *vocab(const char *more) {
    static char text[65536];
    qn_buf b = {0};
    qn_buf_addc(&b, '{');
    for (int i = 0; i < 256; i++) {
        char c[8] = "";
        qn_buf s = {.data = c, .cap = sizeof c};
        qn_buf_add_utf8(&s, qn_alphabet_char((uint8_t)i));
        qn_buf_addf(&b, "\"%s%s\": %d, ", c[0] == '"' || c[0] == '\\' ? "\\" : "", c, i);
    }
    qn_buf_addf(&b, "\"ab\": 256, \"abc\": 257%s}", more);
    snprintf(text, sizeof text, "%s", b.data);
    qn_buf_done(&b);
    return text;
}

// A tokenizer.json; NULL takes what is right.
static const char *document(const char *model, const char *merges, const char *rest) {
    qn_buf_clear(&built);
    qn_buf_addf(&built, "{\"model\": {%s, \"vocab\": %s, \"merges\": %s}%s}",
                model ? model : "\"type\": \"BPE\"", vocab(""),
                merges ? merges : "[[\"a\", \"b\"], \"ab c\"]",
                rest ? rest
                     : ", \"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": " SPLIT_WORDS
                       ", \"decoder\": {\"type\": \"ByteLevel\"}");
    return built.data;
}

static qn_tokenizer *from_json(const char *text, const char *config, qn_err *err) {
    qn_tokenizer_files files = {.tokenizer_json = span_of(text)};
    if (config) files.config = span_of(config);
    return qn_tokenizer_parse(&files, "test", err);
}

static void expect_error(qn_tokenizer *t, const qn_err *err, qn_code code, const char *part) {
    assert_null(t);
    if (err->code != code || !strstr(err->text, part))
        fail_msg("code %d, \"%s\"; expected %d, \"%s\"", (int)err->code, err->text, (int)code,
                 part);
    assert_null(strchr(err->text, '\n'));
}

static void json_fails(const char *text, qn_code code, const char *part) {
    qn_err err = {0};
    expect_error(from_json(text, NULL, &err), &err, code, part);
}

static void expect_ids(const qn_tokenizer *t, const char *text, const char *expected) {
    int32_t *ids;
    size_t n;
    qn_err err = {0};
    qn_buf found = {0};
    if (!qn_encode(t, text, strlen(text), 0, &ids, &n, &err)) fail_msg("%s", err.text);
    qn_buf_adds(&found, "");
    for (size_t i = 0; i < n; i++) qn_buf_addf(&found, "%s%d", i ? " " : "", ids[i]);
    assert_string_equal(found.data, expected);
    qn_buf_done(&found);
    qn_free(ids);
}

static void json_gives(const char *json, const char *config, const char *text, const char *ids) {
    qn_err err = {0};
    qn_tokenizer *t = from_json(json, config, &err);
    if (!t) fail_msg("%s", err.text);
    expect_ids(t, text, ids);
    qn_tokenizer_free(t);
}

// ---- what is accepted ----

static void well_formed(void **state) {
    (void)state;
    json_gives(document(NULL, NULL, NULL), NULL, "abcab", "257 256");
    // Merges before the vocabulary, no type, everything in another order.
    qn_buf_clear(&built);
    qn_buf_addf(&built, "{\"model\": {\"merges\": [\"a b\"], \"vocab\": %s}, \"decoder\": "
                "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"ByteLevel\"}]}, "
                "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}}",
                vocab(""));
    json_gives(built.data, NULL, "abc", "256 99");
    json_gives(document("\"ignore_merges\": true", "[]", NULL), NULL, "abc", "257");
    json_gives(document("\"dropout\": 0.0, \"end_of_word_suffix\": \"\"", NULL, NULL), NULL, "ab",
               "256");
}

#define GPT2_REST(normalizer)                                                                      \
    ", \"normalizer\": " normalizer ", \"pre_tokenizer\": {\"type\": \"ByteLevel\", "              \
    "\"add_prefix_space\": false}, \"decoder\": {\"type\": \"ByteLevel\"}"

// The family's rules win over the file's, the file's count for a family that is not known.
static void rules_by_family(void **state) {
    (void)state;
    qn_log_set_quiet(true);
    const char *decomposed = "e\xCC\x81"; // NFC makes it U+00E9
    json_gives(document(NULL, NULL, GPT2_REST("null")), NULL, decomposed, "101 204 129");
    json_gives(document(NULL, NULL, GPT2_REST("{\"type\": \"NFC\"}")), "{}", decomposed, "195 169");
    json_gives(document(NULL, NULL, GPT2_REST("null")), "{\"model_type\": \"qwen3\"}", decomposed,
               "195 169");
    json_gives(document(NULL, NULL, GPT2_REST("{\"type\": \"NFKC\"}")),
               "{\"model_type\": \"x\", \"text_config\": {\"model_type\": \"qwen3_5_text\"}}",
               decomposed, "195 169");
    qn_log_set_quiet(false);
    json_fails(document(NULL, NULL, GPT2_REST("{\"type\": \"NFKC\"}")), QN_UNSUPPORTED,
               "normalizer is NFKC, expected NFC");
}

static bool is_scanner(const char *config) {
    qn_err err = {0};
    qn_tokenizer *t = from_json(document(NULL, NULL, NULL), config, &err);
    if (!t) fail_msg("%s", err.text);
    bool yes = qn_pretok_is_scanner(t->pretok);
    qn_tokenizer_free(t);
    return yes;
}

static void patterns_by_model_type(void **state) {
    (void)state;
    qn_log_set_quiet(true);
    assert_true(is_scanner("{\"model_type\": \"qwen2\"}"));
    assert_true(is_scanner("{\"model_type\": \"qwen3_next\"}"));
    assert_true(is_scanner("{\"model_type\": \"qwen3_5_moe\"}"));
    assert_true(is_scanner("{\"text_config\": {\"model_type\": \"qwen3_5_text\"}}"));
    assert_false(is_scanner("{\"model_type\": \"mistral\"}"));
    assert_false(is_scanner(NULL));
    qn_log_set_quiet(false);
}

// ---- added tokens ----

#define ADDED(list)                                                                                \
    ", \"added_tokens\": [" list "], \"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": "     \
    SPLIT_WORDS ", \"decoder\": {\"type\": \"ByteLevel\"}"

static void added_tokens_are_cut_out(void **state) {
    (void)state;
    json_gives(document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"<a>\"}, {\"id\": 301, "
               "\"content\": \"<a><a>\"}, {\"id\": 257, \"content\": \"abc\"}")), NULL,
               "<a><a><a>xabcab", "301 300 120 257 256");
    // Normalized ones are looked for behind NFC, the others before.
    json_gives(document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"\xC3\xA9!\", "
               "\"normalized\": true}, {\"id\": 301, \"content\": \"\xC3\xA9?\", \"normalized\": "
               "false}")), NULL, "e\xCC\x81!e\xCC\x81?", "300 195 169 63");
    json_gives(document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"<m>\", \"lstrip\": true, "
               "\"rstrip\": true}")), NULL, "a \xE3\x80\x80<m> \nb", "97 300 98");
}

static void added_tokens_go_wrong(void **state) {
    (void)state;
    json_fails(document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"\"}")), QN_INPUT,
               "tokenizer.json: added token 300 is empty");
    json_fails(document(NULL, NULL, ADDED("{\"id\": 300}")), QN_INPUT, "has no content");
    json_fails(document(NULL, NULL, ADDED("{\"content\": \"x\"}")), QN_INPUT, "has id -1");
    json_fails(document(NULL, NULL, ADDED("{\"id\": 99999999, \"content\": \"x\"}")), QN_INPUT,
               "has id 99999999, expected 0 to 4194303");
    json_fails(document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"x\"}, {\"id\": 300, "
               "\"content\": \"y\"}")), QN_INPUT, "x and y both have id 300");
    json_fails(document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"xx\"}, {\"id\": 301, "
               "\"content\": \"xx\"}")), QN_INPUT, "xx has two ids, 300 and 301");
    json_fails(document(NULL, NULL, ADDED("{\"id\": 256, \"content\": \"x!\"}")), QN_INPUT,
               "x! has id 256, which is ab in the vocabulary");
    json_fails(document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"abc\"}")), QN_INPUT,
               "abc has id 300, but 257 in the vocabulary");
    json_fails(document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"x!\", \"single_word\": "
               "true}")), QN_UNSUPPORTED, "single_word true");
    json_fails(document(NULL, NULL, ADDED("{\"id\": \"7\", \"content\": \"x!\"}")), QN_INPUT,
               "id is \"7\", expected an integer");
    json_fails(document(NULL, NULL, ", \"added_tokens\": {}" GPT2_REST("null")), QN_INPUT,
               "added tokens are not a list");
    json_fails(document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"a\\u0000b\"}")),
               QN_UNSUPPORTED, "U+0000");
}

static qn_tokenizer *older(const char *config, const char *added, qn_err *err) {
    qn_tokenizer_files files = {.vocab_json = span_of(vocab("")),
                                .merges_txt = span_of("#version: 0.2\na b\r\nab c\n\n"),
                                .tokenizer_config = {config, config ? strlen(config) : 0},
                                .added_tokens = {added, added ? strlen(added) : 0}};
    return qn_tokenizer_parse(&files, "test", err);
}

static void the_older_form(void **state) {
    (void)state;
    qn_err err = {0};
    qn_tokenizer *t = older("{\"added_tokens_decoder\": {\"300\": {\"content\": \"<s>\", "
                            "\"special\": true}}, \"eos_token\": \"<e>\"}",
                            "{\"<s>\": 300, \"<e>\": 301, \"<f>\": 302}", &err);
    if (!t) fail_msg("%s", err.text);
    expect_ids(t, "abc<s>ab<e><f>", "257 300 256 301 302");
    char *text;
    size_t n;
    int32_t ids[] = {300, 301, 302};
    assert_true(qn_decode(t, ids, 3, QN_TEXT_SKIP_SPECIAL, &text, &n, &err));
    assert_string_equal(text, "<f>"); // <e> has a role, so it is special
    qn_free(text);
    qn_tokenizer_free(t);
    expect_error(older("{\"added_tokens_decoder\": {\"x\": {}}}", NULL, &err), &err, QN_INPUT,
                 "tokenizer_config.json: added_tokens_decoder has \"x\"");
    expect_error(older(NULL, "{\"<s>\": \"300\"}", &err), &err, QN_INPUT, "has no integer id");
    expect_error(older("[", NULL, &err), &err, QN_INPUT, "tokenizer_config.json: not valid JSON");
}

// ---- the model ----

static void models_go_wrong(void **state) {
    (void)state;
    json_fails(document("\"type\": \"WordPiece\"", NULL, NULL), QN_UNSUPPORTED,
               "model.type is WordPiece, expected BPE");
    json_fails("{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", -1.5]]}}", QN_UNSUPPORTED,
               "model.type is Unigram, expected BPE");
    json_fails("{\"version\": \"1.0\"}", QN_INPUT, "tokenizer.json: model is missing");
    json_fails("{\"model\": {\"type\": \"BPE\", \"merges\": []}}", QN_INPUT,
               "model.vocab is missing");
    json_fails("{\"model\": {\"vocab\": {\"a\": 0}}}", QN_INPUT, "model.merges is missing");
    json_fails("{\"model\": {\"vocab\": {}, \"vocab\": {}}}", QN_INPUT, "model.vocab occurs twice");
    json_fails("{\"model\": {\"vocab\": {}, \"merges\": []}}", QN_UNSUPPORTED,
               "none for a single byte");
    json_fails("{\"model\": {\"vocab\": {\"a\": 0, \"b\": 0}}}", QN_INPUT,
               "tokens a and b both have id 0");
    json_fails("{\"model\": {\"vocab\": {\"a\": 0, \"a\": 1}}}", QN_INPUT,
               "token a occurs twice, with ids 0 and 1");
    json_fails("{\"model\": {\"vocab\": {\"a\": -1}}}", QN_INPUT, "has id -1");
    json_fails("{\"model\": {\"vocab\": {\"a\": 4000000000}}}", QN_INPUT, "has id 4000000000");
    json_fails("{\"model\": {\"vocab\": {\"a\": 4611686018427387904}}}", QN_INPUT, "18 digits");
    json_fails("{\"model\": {\"vocab\": {\"a\": 1.5}}}", QN_INPUT, "expected an integer");
    json_fails("{\"model\": {\"vocab\": {\"a\\u0000\": 1}}}", QN_UNSUPPORTED, "U+0000");
    json_fails(document(NULL, "[\"a x!\"]", NULL), QN_INPUT,
               "merge 1: x! is not in the vocabulary");
    json_fails(document(NULL, "[[\"a\", \"b\"], [\"a\", \"c\"]]", NULL), QN_INPUT,
               "merge 2: ac is not in the vocabulary");
    json_fails(document(NULL, "[\"ab\"]", NULL), QN_INPUT, "merge 1 is \"ab\", expected two");
    json_fails(document(NULL, "[\"a b c\"]", NULL), QN_INPUT, "merge 1 is \"a b c\"");
    json_fails(document(NULL, "[[\"a\"]]", NULL), QN_INPUT, "a list of less than two");
    json_fails(document(NULL, "[[]]", NULL), QN_INPUT, "a list of less than two");
    json_fails(document(NULL, "[[\"a\", \"b\", \"c\"]]", NULL), QN_INPUT, "a list of more");
    json_fails(document(NULL, "[7]", NULL), QN_INPUT, "expected a string");
    json_fails(document("\"dropout\": 0.1", NULL, NULL), QN_UNSUPPORTED, "model.dropout is 0.1");
    json_fails(document("\"end_of_word_suffix\": \"</w>\"", NULL, NULL), QN_UNSUPPORTED,
               "model.end_of_word_suffix is \"</w>\"");
}

static void rules_go_wrong(void **state) {
    (void)state;
    json_fails(document(NULL, NULL, ""), QN_UNSUPPORTED, "pre_tokenizer: null");
    json_fails(document(NULL, NULL, ", \"pre_tokenizer\": {\"type\": \"Whitespace\"}"),
               QN_UNSUPPORTED, "pre_tokenizer: Whitespace, expected Split and ByteLevel");
    json_fails(document(NULL, NULL, ", \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
               "\"add_prefix_space\": true}"), QN_UNSUPPORTED, "add_prefix_space is true");
    json_fails(document(NULL, NULL, ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": "
               "{\"Regex\": \"a\"}, \"behavior\": \"Removed\"}"), QN_UNSUPPORTED, "Removed");
    json_fails(document(NULL, NULL, ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": "
               "{\"String\": \"a\"}}"), QN_UNSUPPORTED, "without a Regex");
    json_fails(document(NULL, NULL, ", \"pre_tokenizer\": {\"type\": \"Sequence\", "
               "\"pretokenizers\": []}, \"normalizer\": null"), QN_UNSUPPORTED, "no ByteLevel");
    json_fails(document(NULL, NULL, ", \"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"decoder\": "
               "{\"type\": \"WordPiece\"}"), QN_UNSUPPORTED, "decoder is WordPiece");
    json_fails(document(NULL, NULL, ", \"pre_tokenizer\": {\"type\": \"ByteLevel\"}"),
               QN_UNSUPPORTED, "decoder is null, expected ByteLevel");
    json_fails(document(NULL, NULL, ", \"decoder\": {}, \"decoder\": {}"), QN_INPUT,
               "decoder occurs twice");
    qn_err err = {0};
    expect_error(from_json(document(NULL, NULL, NULL), "{\"model_type\": 3}", &err), &err, QN_INPUT,
                 "config.json: model_type is 3, expected a string");
    expect_error(from_json(document(NULL, NULL, NULL), "[1,]", &err), &err, QN_INPUT,
                 "config.json: not valid JSON");
}

// ---- JSON ----

static void json_goes_wrong(void **state) {
    (void)state;
    static const char *const bad[] = {
        "", "{", "[]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1 2}", "{a:1}", "{\"a\":01}",
        "{\"a\":1.}", "{\"a\":1e}", "{\"a\":-}", "{\"a\":tru}", "{\"a\":[1,]}", "{\"a\":\"x",
        "{\"a\":\"\n\"}", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12\"}", "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\udc00\"}", "{\"a\":\"\\ud800\\u0041\"}", "{\"a\":\"\xFF\"}",
        "{\"a\":\"\xED\xA0\x80\"}", "{\"a\":1}x", "{\"model\": {\"vocab\": {\"a\" 1}}}",
        "{\"a\":\"\\", "{\"a\":\"\\u", "{\"a\":+1}", "{\"a\":.5}", "{\"a\":[1}", "{\"a\":{]",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        json_fails(bad[i], QN_INPUT, "tokenizer.json: not valid JSON");
    json_fails("{\"a\":\n [1,\n  x]}", QN_INPUT, "line 3 column 3: expected a value");
}

static void deep_json_is_a_limit(void **state) {
    (void)state;
    qn_buf b = {0};
    qn_buf_adds(&b, "{\"a\": ");
    for (int i = 0; i < 10000; i++) qn_buf_addc(&b, '[');
    json_fails(b.data, QN_LIMIT, "nested deeper than 1000 levels");
    qn_buf_clear(&b);
    for (int i = 0; i < 10000; i++) qn_buf_adds(&b, "{\"model\":");
    json_fails(b.data, QN_LIMIT, "nested deeper than 1000 levels");
    qn_buf_clear(&b);
    qn_buf_adds(&b, "{\"x\": ");
    for (int i = 0; i < 10000; i++) qn_buf_addc(&b, '[');
    qn_err err = {0};
    expect_error(from_json(document(NULL, NULL, NULL), b.data, &err), &err, QN_LIMIT,
                 "config.json: nested deeper than");
    qn_buf_done(&b);
}

// Every prefix of a good document is bad, and none of them crashes.
static void truncated_documents(void **state) {
    (void)state;
    size_t n;
    document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"<a>\"}"));
    char *whole = qn_buf_take(&built, &n);
    for (size_t i = 0; i < n; i += 1 + i % 3) {
        char *part = qn_strndup(whole, i); // its own allocation, so that a sanitizer sees its end
        qn_tokenizer_files files = {.tokenizer_json = {part, i}};
        qn_err err = {0};
        expect_error(qn_tokenizer_parse(&files, "test", &err), &err, QN_INPUT, "tokenizer.json: ");
        free(part);
    }
    free(whole);
}

// ---- files ----

static void folders_go_wrong(void **state) {
    (void)state;
    qn_err err = {0};
    expect_error(qn_tokenizer_load("tests/data/no-such-folder", &err), &err, QN_NOT_FOUND,
                 "tests/data/no-such-folder is not a folder");
    expect_error(qn_tokenizer_load("README.md", &err), &err, QN_NOT_FOUND, "is not a folder");
    expect_error(qn_tokenizer_load(TOKENIZERS "vectors", &err), &err, QN_NOT_FOUND,
                 "vectors: no tokenizer here: neither tokenizer.json nor both of");
    char folder[] = "/tmp/quern-tokenizer-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = qn_path_join(folder, "tokenizer.json");
    assert_true(qn_file_write(path, "", 0, &err));
    expect_error(qn_tokenizer_load(folder, &err), &err, QN_INPUT, "ends after 0 bytes");
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
    free(path);
}

// ---- use ----

static void bad_text_and_ids(void **state) {
    (void)state;
    qn_err err = {0};
    qn_tokenizer *t = from_json(document(NULL, NULL, ADDED("{\"id\": 300, \"content\": \"<a>\"}")),
                                NULL, &err);
    int32_t *ids, hole = 299, beyond = 301, negative = -1;
    char *text;
    size_t n;
    assert_non_null(t);
    assert_false(qn_encode(t, "abcdefghij\xE4\xB8z", 13, 0, &ids, &n, &err));
    assert_int_equal(err.code, QN_INPUT);
    assert_string_equal(err.text, "text is not UTF-8 at byte 10 (0xe4)");
    assert_false(qn_decode(t, &beyond, 1, 0, &text, &n, &err));
    assert_string_equal(err.text, "token id 301 has no text; ids go from 0 to 300");
    assert_false(qn_decode(t, &negative, 1, 0, &text, &n, &err));
    assert_int_equal(err.code, QN_INPUT);
    assert_false(qn_decode(t, &hole, 1, 0, &text, &n, &err));
    assert_string_equal(err.text, "token id 299 has no text; ids go from 0 to 300, with holes");
    qn_stream *s = qn_stream_new(t, 0);
    const char *shown;
    assert_false(qn_stream_push(s, 299, &shown, &n, &err));
    assert_int_equal(n, 0);
    qn_stream_free(s);
    assert_true(qn_encode(t, "", 0, 0, &ids, &n, &err));
    assert_int_equal(n, 0);
    qn_free(ids);
    assert_true(qn_decode(t, NULL, 0, 0, &text, &n, &err));
    assert_string_equal(text, "");
    qn_free(text);
    qn_tokenizer_free(t);
}

// Tokens outside the byte-level alphabet are printed as they are; bytes without a token are left
// out of what is encoded.
static void odd_vocabularies(void **state) {
    (void)state;
    qn_err err = {0};
    qn_tokenizer_files files = {
        .vocab_json = span_of("{\"a\": 0, \"b\": 1, \"ab\": 5, \"\xE4\xB8\xAD\": 2, \"x y\": 3}"),
        .merges_txt = span_of("a b\n")};
    qn_log_set_quiet(true);
    qn_tokenizer *t = qn_tokenizer_parse(&files, "test", &err);
    qn_log_set_quiet(false);
    if (!t) fail_msg("%s", err.text);
    assert_int_equal(qn_tokenizer_size(t), 6);
    expect_ids(t, "axb", "5"); // as in the original, a and b meet
    int32_t ids[] = {2, 3, 0};
    char *text;
    size_t n;
    assert_true(qn_decode(t, ids, 3, 0, &text, &n, &err));
    assert_string_equal(text, "\xE4\xB8\xAD" "x ya");
    qn_free(text);
    assert_int_equal(qn_token_id(t, "x y"), 3);
    assert_null(qn_token_spelling(t, 4));
    qn_tokenizer_free(t);
}

static int clean(void **state) {
    (void)state;
    qn_buf_done(&built);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed),
        cmocka_unit_test(rules_by_family),
        cmocka_unit_test(patterns_by_model_type),
        cmocka_unit_test(added_tokens_are_cut_out),
        cmocka_unit_test(added_tokens_go_wrong),
        cmocka_unit_test(the_older_form),
        cmocka_unit_test(models_go_wrong),
        cmocka_unit_test(rules_go_wrong),
        cmocka_unit_test(json_goes_wrong),
        cmocka_unit_test(deep_json_is_a_limit),
        cmocka_unit_test(truncated_documents),
        cmocka_unit_test(folders_go_wrong),
        cmocka_unit_test(bad_text_and_ids),
        cmocka_unit_test(odd_vocabularies),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
