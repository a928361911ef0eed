// BPE itself: short and long pieces, short cuts against none, sharing between threads.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/pool.h"
#include "base/progress.h"
#include "base/rng.h"
#include "text/tokenizer_support.h"

static qn_tokenizer *tok;

static int load(void **state) {
    (void)state;
    tok = qwen3_tokenizer("qwen3");
    return 0;
}

static int unload(void **state) {
    (void)state;
    qn_tokenizer_free(tok);
    return 0;
}

static uint64_t counter;

static uint32_t below(uint32_t n) { return (uint32_t)(qn_rng_u64(7, 8, counter++) % n); }

// The definition, word for word: the lowest rank of all pairs, the leftmost of equals, until none.
static void encode_by_definition(const qn_bpe *b, const char *s, size_t n, qn_ids *ids) {
    ids->n = 0;
    for (size_t i = 0; i < n; i++) qn_ids_add(ids, b->vocab.byte_id[(unsigned char)s[i]]);
    for (;;) {
        int32_t best = QN_NO_RANK;
        size_t at = 0;
        for (size_t i = 0; i + 1 < ids->n; i++) {
            int32_t rank = qn_bpe_rank(b, ids->data[i], ids->data[i + 1]);
            if (rank < best) best = rank, at = i;
        }
        if (best == QN_NO_RANK) return;
        ids->data[at] = b->products[best];
        ids->n--;
        memmove(ids->data + at + 1, ids->data + at + 2, (ids->n - at - 1) * sizeof *ids->data);
    }
}

static void compare(const char *s, size_t n) {
    qn_ids expected = {0}, found = {0};
    qn_bpe_work work = {0};
    qn_err err = {0};
    encode_by_definition(&tok->bpe, s, n, &expected);
    assert_true(qn_bpe_encode(&tok->bpe, &work, s, n, &found, &err));
    if (found.n != expected.n || memcmp(found.data, expected.data, found.n * sizeof(int32_t)) != 0)
        fail_msg("\"%.*s\"", (int)n, s);
    free(expected.data);
    free(found.data);
    qn_bpe_work_done(&work);
}

static uint32_t random_char(uint32_t kind) {
    switch (kind) {
    case 0: return 'a' + below(26);
    case 1: return 0x20 + below(95);
    case 2: return 0x4E00 + below(0x5200);
    case 3: return 0x80 + below(0x780);
    case 4: return 0x3000 + below(0x100);
    case 5: return 0xAC00 + below(11172);
    case 6: return 0xFF00 + below(0xE0);
    case 7: return 0x1F300 + below(0x400);
    default: return 0x800 + below(0xD000);
    }
}

// Text of tokens of the vocabulary, joined where they are whole characters: closer to real text
// than random characters, and full of pairs that merge.
static void random_tokens(qn_buf *b) {
    const qn_vocab *v = &tok->bpe.vocab;
    for (uint32_t n = 1 + below(6); n > 0; n--) {
        const qn_token *t = &v->tokens[below((uint32_t)v->n)];
        const char *s = v->bytes.data + t->bytes;
        if (qn_utf8_valid(s, t->n_bytes) == t->n_bytes) qn_buf_add(b, s, t->n_bytes);
    }
}

static void any_piece_is_encoded_by_definition(void **state) {
    (void)state;
    qn_buf b = {0};
    for (int i = 0; i < 60000; i++) {
        qn_buf_clear(&b);
        uint32_t kind = below(12), mixed = below(3);
        if (kind > 8) random_tokens(&b);
        else
            for (uint32_t n = 1 + below(12); n > 0; n--)
                qn_buf_add_utf8(&b, random_char(mixed ? kind : below(9)));
        if (b.n) compare(b.data, b.n);
    }
    qn_buf_done(&b);
}

// Around the length where the heap takes over, and beyond.
static void long_pieces_too(void **state) {
    (void)state;
    qn_buf b = {0};
    for (int i = 0; i < 300; i++) {
        qn_buf_clear(&b);
        uint32_t n = 100 + below(400), kind = below(10);
        while (b.n < n) {
            if (kind == 9) random_tokens(&b);
            else qn_buf_add_utf8(&b, random_char(kind));
        }
        compare(b.data, b.n);
    }
    for (size_t n = 120; n < 140; n++) {
        qn_buf_clear(&b);
        while (b.n < n) qn_buf_addc(&b, 'a');
        compare(b.data, b.n);
    }
    qn_buf_done(&b);
}

// A megabyte without a break. Quadratic work would take hours.
static void a_huge_word_is_not_quadratic(void **state) {
    (void)state;
    qn_buf b = {0};
    for (int i = 0; i < 1 << 20; i++) qn_buf_addc(&b, (char)('a' + below(26)));
    int32_t *ids;
    size_t n, n_text;
    char *text;
    qn_err err = {0};
    double start = qn_now();
    assert_true(qn_encode(tok, b.data, b.n, 0, &ids, &n, &err));
    assert_true(qn_now() - start < 150); // a second, but sanitizers are slow
    assert_true(qn_decode(tok, ids, n, 0, &text, &n_text, &err));
    assert_int_equal(n_text, b.n);
    assert_memory_equal(text, b.data, b.n);
    qn_free(ids);
    qn_free(text);
    qn_buf_done(&b);
}

// ---- what is shared ----

enum { TASKS = 8 };

typedef struct shared {
    qn_tokenizer *t;
    qn_buf text;
    int32_t *ids[TASKS];
    size_t n[TASKS];
} shared;

static void encode_task(void *ctx, size_t task, int thread) {
    (void)thread;
    shared *s = ctx;
    qn_err err = {0};
    if (!qn_encode(s->t, s->text.data, s->text.n, 0, &s->ids[task], &s->n[task], &err))
        s->n[task] = 0;
}

// A fresh tokenizer, so that the threads meet every token for the first time together.
static void threads_share_a_tokenizer(void **state) {
    (void)state;
    shared s = {.t = qwen3_tokenizer("qwen3")};
    for (int i = 0; i < 3000; i++) {
        random_tokens(&s.text);
        qn_buf_addc(&s.text, ' ');
    }
    qn_err err = {0};
    qn_pool *pool = qn_pool_new(4, &err);
    assert_non_null(pool);
    qn_pool_run(pool, TASKS, encode_task, &s);
    qn_pool_free(pool);
    for (int i = 0; i < TASKS; i++) {
        assert_true(s.n[0] > 0 && s.n[i] == s.n[0]);
        assert_memory_equal(s.ids[i], s.ids[0], s.n[0] * sizeof(int32_t));
        if (i) qn_free(s.ids[i]);
    }
    qn_free(s.ids[0]);
    qn_buf_done(&s.text);
    qn_tokenizer_free(s.t);
}

// What is encoded comes back, whatever it is (in NFC, which the text already has).
static void decoding_inverts_encoding(void **state) {
    (void)state;
    qn_buf b = {0};
    for (int i = 0; i < 2000; i++) {
        qn_buf_clear(&b);
        for (uint32_t n = below(60), kind = below(3); n > 0; n--)
            qn_buf_add_utf8(&b, random_char(kind));
        int32_t *ids;
        char *text;
        size_t n, n_text;
        qn_err err = {0};
        assert_true(qn_encode(tok, b.n ? b.data : "", b.n, below(2), &ids, &n, &err));
        assert_true(qn_decode(tok, ids, n, 0, &text, &n_text, &err));
        check_bytes(text, n_text, (qn_span){b.data, b.n}, "round trip", i);
        qn_free(ids);
        qn_free(text);
    }
    qn_buf_done(&b);
}

static void tokens_have_names(void **state) {
    (void)state;
    assert_int_equal(qn_tokenizer_size(tok), 151669);
    assert_string_equal(qn_token_spelling(tok, 9707), "Hello");
    assert_string_equal(qn_token_spelling(tok, 151645), "<|im_end|>");
    assert_null(qn_token_spelling(tok, 151669));
    assert_null(qn_token_spelling(tok, -1));
    assert_int_equal(qn_token_id(tok, "<|im_end|>"), 151645);
    assert_int_equal(qn_token_id(tok, "\xC4\xA0world"), 1879); // spelled with U+0120 for the blank
    assert_int_equal(qn_token_id(tok, " world"), -1);
    assert_int_equal(qn_token_id(tok, ""), -1);
    for (int32_t id = 0; id < qn_tokenizer_size(tok); id++)
        assert_int_equal(qn_token_id(tok, qn_token_spelling(tok, id)), id);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_piece_is_encoded_by_definition),
        cmocka_unit_test(long_pieces_too),
        cmocka_unit_test(a_huge_word_is_not_quadratic),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(decoding_inverts_encoding),
        cmocka_unit_test(tokens_have_names),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
