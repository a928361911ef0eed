// Text to ids: added tokens out of the raw text, NFC on what lies between, the pattern's pieces,
// BPE. A tokenizer is read-only, so everything that changes lives in one encoder per call, also a
// small cache of words that take more than one token (the others need none, see bpe.c).
#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "text/nfc.h"
#include "text/tokenizer.h"

#define TEXT_MAX ((size_t)1 << 30)

enum { WORD_BYTES = 22, WORD_IDS = 8, MAX_WORDS = 4096 };

typedef struct word { // 64 bytes; direct-mapped: a newer word takes an older one's place
    uint64_t hash;
    uint8_t n, n_ids;
    char bytes[WORD_BYTES];
    int32_t ids[WORD_IDS];
} word;

typedef struct encoder {
    const qn_tokenizer *t;
    bool plain;
    qn_ids ids;
    qn_bpe_work work;
    qn_buf nfc;
    word *words;
    size_t mask;
} encoder;

static bool encode_word(encoder *e, const char *s, size_t n, uint64_t hash, qn_err *err) {
    word *w = &e->words[hash >> 32 & e->mask];
    if (n > WORD_BYTES) return qn_bpe_encode(&e->t->bpe, &e->work, s, n, &e->ids, err);
    if (w->hash == hash && w->n == n && memcmp(w->bytes, s, n) == 0) {
        qn_ids_reserve(&e->ids, WORD_IDS);
        memcpy(e->ids.data + e->ids.n, w->ids, sizeof w->ids);
        e->ids.n += w->n_ids;
        return true;
    }
    size_t from = e->ids.n;
    if (!qn_bpe_encode(&e->t->bpe, &e->work, s, n, &e->ids, err)) return false;
    size_t n_ids = e->ids.n - from;
    if (n_ids > WORD_IDS) return true;
    w->hash = hash;
    w->n = (uint8_t)n, w->n_ids = (uint8_t)n_ids;
    memcpy(w->bytes, s, n);
    if (n_ids) memcpy(w->ids, e->ids.data + from, n_ids * sizeof *w->ids);
    return true;
}

static bool encode_piece(encoder *e, const char *s, size_t n, qn_err *err) {
    const qn_vocab *v = &e->t->bpe.vocab;
    if (n == 1) {
        int32_t id = v->byte_id[(unsigned char)*s];
        if (id >= 0) qn_ids_add(&e->ids, id);
        return true;
    }
    uint64_t hash = qn_hash_bytes(s, n, v->seed);
    int32_t id = qn_bpe_whole(&e->t->bpe, &e->work, s, n, hash);
    if (id < 0) return encode_word(e, s, n, hash, err);
    qn_ids_add(&e->ids, id);
    return true;
}

static bool encode_pieces(encoder *e, const char *s, size_t n, qn_err *err) {
    qn_cut cut;
    if (!qn_cut_init(&cut, e->t->pretok, s, n, err)) return false;
    bool ok = true;
    for (size_t len; (ok = qn_cut_next(&cut, &len, err)) && len;)
        if (!(ok = encode_piece(e, s + cut.at - len, len, err))) break;
    qn_cut_done(&cut);
    return ok;
}

typedef bool (*part_fn)(encoder *e, const char *s, size_t n, qn_err *err);

// Cuts the added tokens of one kind out and gives what lies between to `rest`.
static bool encode_around(encoder *e, const char *s, size_t n, bool normalized, part_fn rest,
                          qn_err *err) {
    size_t at = 0, first, last;
    const qn_added_token *a;
    while (!e->plain && (a = qn_added_find(&e->t->added, normalized, s, n, at, &first, &last))) {
        if (first > at && !rest(e, s + at, first - at, err)) return false;
        qn_ids_add(&e->ids, a->id);
        at = last;
    }
    return at == n || rest(e, s + at, n - at, err);
}

static bool encode_raw(encoder *e, const char *s, size_t n, qn_err *err) {
    if (e->t->nfc && !qn_nfc_is(s, n)) {
        qn_buf_clear(&e->nfc);
        qn_nfc_add(s, n, &e->nfc);
        s = e->nfc.data, n = e->nfc.n;
    }
    return encode_around(e, s, n, true, encode_pieces, err);
}

static size_t words_for(size_t n) {
    size_t words = 16;
    while (words < MAX_WORDS && words * 16 < n) words *= 2;
    return words;
}

// Position of the first byte that is not UTF-8, or n; eight ASCII bytes at a time.
static size_t valid_prefix(const char *s, size_t n) {
    for (size_t at = 0; at < n;) {
        uint64_t x;
        for (; at + 8 <= n; at += 8) {
            memcpy(&x, s + at, 8);
            if (x & 0x8080808080808080u) break;
        }
        if (at == n) break;
        int32_t c;
        size_t len = qn_utf8_next(s + at, n - at, &c);
        if (c < 0) return at;
        at += len;
    }
    return n;
}

bool qn_encode(const qn_tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids,
               size_t *n_ids, qn_err *err) {
    *ids = NULL;
    *n_ids = 0;
    if (n > TEXT_MAX)
        return qn_fail(err, QN_LIMIT, "text of %zu bytes, at most %zu", n, TEXT_MAX);
    size_t valid = valid_prefix(text, n);
    if (valid < n)
        return qn_fail(err, QN_INPUT, "text is not UTF-8 at byte %zu (0x%02x)", valid,
                       (unsigned)(unsigned char)text[valid]);
    size_t n_words = words_for(n);
    encoder e = {.t = t, .plain = flags & QN_TEXT_PLAIN, .mask = n_words - 1};
    e.words = QN_NEW_ARRAY(word, n_words);
    qn_ids_reserve(&e.ids, n < (1 << 20) ? n / 3 + 16 : 1 << 20);
    bool ok = encode_around(&e, text, n, false, encode_raw, err);
    free(e.words);
    qn_buf_done(&e.nfc);
    qn_bpe_work_done(&e.work);
    if (!ok) {
        free(e.ids.data);
        return false;
    }
    *ids = e.ids.data;
    *n_ids = e.ids.n;
    return true;
}
