// Ids to text. Tokens are bytes; characters may be split over them. Invalid bytes become U+FFFD,
// one per maximal invalid part. A stream holds back what may still become a character: at most the
// first three bytes of one.
#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"

struct qn_stream {
    const qn_tokenizer *t;
    unsigned flags;
    qn_buf bytes; // not shown yet
    qn_buf text;  // what the last push gave
};

// Appends a token's bytes; none for a special token that is to be left out.
static bool add_bytes(const qn_tokenizer *t, int32_t id, unsigned flags, qn_buf *out,
                      qn_err *err) {
    const qn_added_token *a = qn_added_by_id(&t->added, id);
    if (a) {
        if (a->special && (flags & QN_TEXT_SKIP_SPECIAL)) return true;
        size_t n = strlen(a->content);
        // The original decodes added tokens by the alphabet too, where they fit it.
        if (!qn_alphabet_bytes(a->content, n, out)) qn_buf_add(out, a->content, n);
        return true;
    }
    const qn_vocab *v = &t->bpe.vocab;
    if (id < 0 || (size_t)id >= v->n || !v->tokens[id].present)
        return qn_fail(err, QN_INPUT, "token id %d has no text; ids go from 0 to %d%s", id,
                       t->size - 1, id >= 0 && id < t->size ? ", with holes" : "");
    qn_buf_add(out, v->bytes.data + v->tokens[id].bytes, v->tokens[id].n_bytes);
    return true;
}

// Whether the n bytes at s are the beginning of a character that more bytes could complete; len and
// c are what qn_utf8_next said.
static bool unfinished(const char *s, size_t n, size_t len, int32_t c) {
    unsigned char lead = (unsigned char)s[0];
    return c < 0 && len == n && lead >= 0xC2 && lead <= 0xF4;
}

// Moves characters from bytes to text; with hold, an unfinished one at the end stays.
static void show(qn_buf *bytes, qn_buf *text, bool hold) {
    size_t at = 0;
    qn_buf_reserve(text, bytes->n);
    while (at < bytes->n) {
        size_t good = qn_utf8_valid(bytes->data + at, bytes->n - at);
        qn_buf_add(text, bytes->data + at, good);
        at += good;
        if (at == bytes->n) break;
        int32_t c;
        size_t n = bytes->n - at, len = qn_utf8_next(bytes->data + at, n, &c);
        if (hold && unfinished(bytes->data + at, n, len, c)) break;
        qn_buf_adds(text, "\xEF\xBF\xBD");
        at += len;
    }
    size_t left = bytes->n - at;
    if (left) memmove(bytes->data, bytes->data + at, left);
    bytes->n = left;
}

bool qn_decode(const qn_tokenizer *t, const int32_t *ids, size_t n, unsigned flags, char **text,
               size_t *n_text, qn_err *err) {
    qn_buf bytes = {0}, out = {0};
    *text = NULL;
    *n_text = 0;
    for (size_t i = 0; i < n; i++)
        if (!add_bytes(t, ids[i], flags, &bytes, err)) {
            qn_buf_done(&bytes);
            return false;
        }
    show(&bytes, &out, false);
    qn_buf_done(&bytes);
    *text = qn_buf_take(&out, n_text);
    return true;
}

qn_stream *qn_stream_new(const qn_tokenizer *t, unsigned flags) {
    qn_stream *s = QN_NEW(qn_stream);
    s->t = t;
    s->flags = flags;
    return s;
}

void qn_stream_free(qn_stream *s) {
    if (!s) return;
    qn_buf_done(&s->bytes);
    qn_buf_done(&s->text);
    free(s);
}

static void give(qn_stream *s, const char **text, size_t *n) {
    qn_buf_add(&s->text, "", 0); // there is a buffer, with a 0 behind its bytes
    *text = s->text.data;
    *n = s->text.n;
}

bool qn_stream_push(qn_stream *s, int32_t id, const char **text, size_t *n, qn_err *err) {
    qn_buf_clear(&s->text);
    bool ok = add_bytes(s->t, id, s->flags, &s->bytes, err);
    if (ok) show(&s->bytes, &s->text, true);
    give(s, text, n);
    return ok;
}

void qn_stream_finish(qn_stream *s, const char **text, size_t *n) {
    qn_buf_clear(&s->text);
    show(&s->bytes, &s->text, false);
    give(s, text, n);
}
