// Building tokenizers from fixtures, and walking vectors.
#include "text/tokenizer_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "support/sha256.h"
#include "text/byte_alphabet.h"

#define MERGES_SHA256 "a9d356d7bdf1ef4949e3e748e95b8e10ad9d4e2e838eddc38a0a7b6b94d1db8d"

qn_span span_of(const char *text) { return (qn_span){text, strlen(text)}; }

qn_span file_span(const char *path) {
    qn_buf b = {0};
    qn_err err = {0};
    if (!qn_file_read(path, (size_t)1 << 28, &b, &err)) fail_msg("%s", err.text);
    size_t n;
    char *text = qn_buf_take(&b, &n);
    return (qn_span){text, n};
}

qn_span xz_span(const char *path) {
    char command[512];
    snprintf(command, sizeof command, "xz -dc %s", path);
    FILE *f = popen(command, "r");
    qn_buf b = {0};
    char chunk[65536];
    for (size_t n; f && (n = fread(chunk, 1, sizeof chunk, f)) > 0;) qn_buf_add(&b, chunk, n);
    if (!f || pclose(f) != 0) fail_msg("%s failed (is xz-utils installed?)", command);
    size_t n;
    char *text = qn_buf_take(&b, &n);
    return (qn_span){text, n};
}

static void drop(qn_span s) { free((void *)(uintptr_t)s.text); }

static qn_tokenizer *parse(const qn_tokenizer_files *files) {
    qn_err err = {0};
    qn_tokenizer *t = qn_tokenizer_parse(files, "test", &err);
    if (!t) fail_msg("%s", err.text);
    return t;
}

qn_tokenizer *qwen3_tokenizer(const char *model_type) {
    char config[64];
    snprintf(config, sizeof config, "{\"model_type\": \"%s\"}", model_type);
    qn_tokenizer_files files = {.vocab_json = file_span(TOKENIZERS "qwen2/vocab.json"),
                                .merges_txt = file_span(TOKENIZERS "qwen2/merges.txt"),
                                .tokenizer_config = file_span(TOKENIZERS
                                                              "qwen3/tokenizer_config.json"),
                                .config = span_of(config)};
    qn_tokenizer *t = parse(&files);
    drop(files.vocab_json);
    drop(files.merges_txt);
    drop(files.tokenizer_config);
    return t;
}

// ---- merges from ranks ----

typedef struct part {
    size_t from, n;
} part;

static int32_t rank_of(const qn_vocab *v, const char *s, size_t n) {
    return qn_vocab_find_hashed(v, s, n, qn_hash_bytes(s, n, v->seed));
}

// Merges the bytes of token by rank, below limit and never into the token itself, down to two.
static size_t pieces(const qn_vocab *v, int32_t token, int32_t limit, part *p) {
    const char *s = v->bytes.data + v->tokens[token].bytes;
    size_t m = v->tokens[token].n_bytes;
    for (size_t i = 0; i < m; i++) p[i] = (part){i, 1};
    while (m > 2) {
        int32_t best = INT32_MAX;
        size_t at = 0;
        for (size_t i = 0; i + 1 < m; i++) {
            int32_t rank = rank_of(v, s + p[i].from, p[i].n + p[i + 1].n);
            if (rank >= 0 && rank != token && rank < best) best = rank, at = i;
        }
        if (best >= limit) break;
        p[at].n += p[at + 1].n;
        for (size_t i = at + 1; i + 1 < m; i++) p[i] = p[i + 1];
        m--;
    }
    return m;
}

void derive_merges(const qn_vocab *v, qn_buf *out) {
    part *p = QN_NEW_ARRAY(part, v->longest + 1);
    for (int32_t id = 0; (size_t)id < v->n; id++) {
        const qn_token *t = &v->tokens[id];
        if (!t->present || t->odd || t->n_bytes < 2) continue;
        size_t m = pieces(v, id, id, p);
        if (m != 2) m = pieces(v, id, INT32_MAX, p);
        if (m != 2) continue; // no merge makes it
        const char *s = v->bytes.data + t->bytes;
        for (size_t i = 0; i < t->n_bytes; i++) {
            if (i == p[1].from) qn_buf_addc(out, ' ');
            qn_buf_add_utf8(out, qn_alphabet_char((uint8_t)s[i]));
        }
        qn_buf_addc(out, '\n');
    }
    free(p);
}

static void check_sha256(const qn_buf *b, const char *expected) {
    sha256 sum;
    char hex[65];
    sha256_init(&sum);
    sha256_update(&sum, b->data, b->n);
    sha256_hex(&sum, hex);
    assert_string_equal(hex, expected);
}

qn_tokenizer *qwen35_tokenizer(void) {
    qn_span vocab = xz_span(TOKENIZERS "qwen3.5/vocab.json.xz");
    qn_bpe b;
    qn_buf merges = {0};
    qn_err err = {0};
    qn_bpe_init(&b);
    if (!qn_vocab_json_read(vocab, &b, &err)) fail_msg("%s", err.text);
    derive_merges(&b.vocab, &merges);
    qn_bpe_done(&b);
    check_sha256(&merges, MERGES_SHA256);
    qn_tokenizer_files files = {.vocab_json = vocab,
                                .merges_txt = {merges.data, merges.n},
                                .added_tokens = file_span(TOKENIZERS "qwen3.5/added_tokens.json"),
                                .config = span_of("{\"model_type\": \"qwen3_5\"}")};
    qn_tokenizer *t = parse(&files);
    drop(files.added_tokens);
    drop(vocab);
    qn_buf_done(&merges);
    return t;
}

// ---- vectors ----

int each_line(const char *path, case_fn fn, void *user) {
    qn_span file = file_span(path);
    int number = 0;
    for (size_t at = 0; at < file.n;) {
        const char *line = file.text + at, *end = memchr(line, '\n', file.n - at);
        size_t n = end ? (size_t)(end - line) : file.n - at;
        at += n + 1;
        qn_err err = {0};
        json_t *j = qn_json_parse(line, n, path, &err);
        if (!j) fail_msg("line %d: %s", number + 1, err.text);
        fn(j, ++number, user);
        json_decref(j);
    }
    drop(file);
    return number;
}

qn_span text_in(const json_t *line, const char *key) {
    const json_t *s = json_object_get(line, key);
    return json_is_string(s) ? (qn_span){json_string_value(s), json_string_length(s)}
                             : (qn_span){0};
}

void check_bytes(const char *found, size_t n, qn_span expected, const char *what, int number) {
    if (n == expected.n && (n == 0 || memcmp(found, expected.text, n) == 0)) return;
    fail_msg("line %d, %s: found \"%.*s\", expected \"%.*s\"", number, what, (int)n, found,
             (int)expected.n, expected.text);
}

void check_ids(const int32_t *found, size_t n, const json_t *expected, const char *what,
               int number) {
    size_t m = json_array_size(expected);
    for (size_t i = 0; i < n && i < m; i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(expected, i));
        if (found[i] != id)
            fail_msg("line %d, %s: id %zu is %d, expected %d", number, what, i, found[i], id);
    }
    if (n != m) fail_msg("line %d, %s: %zu ids, expected %zu", number, what, n, m);
}
