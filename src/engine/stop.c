// A stop string is searched in the text, not in the tokens, so it does not matter where tokens
// end. Text is shown up to the longest tail that is a beginning of a stop string.
#include "engine/stop.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

#define MAX_STOPS 64
#define MAX_STOP_BYTES 4096

static bool check_stop(const char *s, qn_err *err) {
    if (!s || !*s) return qn_fail(err, QN_USAGE, "stop string: empty, expected some text");
    size_t n = strlen(s);
    if (n > MAX_STOP_BYTES)
        return qn_fail(err, QN_LIMIT, "stop string: %zu bytes, expected at most %d", n,
                       MAX_STOP_BYTES);
    return true;
}

bool qn_output_init(qn_output *o, const qn_tokenizer *t, const char *const *stop, size_t n_stop,
                    qn_err *err) {
    *o = (qn_output){0};
    if (n_stop > MAX_STOPS)
        return qn_fail(err, QN_LIMIT, "stop strings: %zu, expected at most %d", n_stop, MAX_STOPS);
    for (size_t i = 0; i < n_stop; i++)
        if (!check_stop(stop[i], err)) return false;
    o->stop = QN_NEW_ARRAY(char *, n_stop);
    o->stop_len = QN_NEW_ARRAY(size_t, n_stop);
    for (; o->n_stop < n_stop; o->n_stop++) {
        size_t n = strlen(stop[o->n_stop]);
        o->stop[o->n_stop] = qn_strdup(stop[o->n_stop]);
        o->stop_len[o->n_stop] = n;
        if (n > o->longest) o->longest = n;
    }
    if (t) o->stream = qn_stream_new(t, QN_TEXT_SKIP_SPECIAL);
    return true;
}

void qn_output_done(qn_output *o) {
    for (size_t i = 0; i < o->n_stop; i++) free(o->stop[i]);
    free(o->stop);
    free(o->stop_len);
    qn_stream_free(o->stream);
    qn_buf_done(&o->text);
    *o = (qn_output){0};
}

// Cuts the text at the first stop string that ends behind `from`.
static void search(qn_output *o, size_t from) {
    size_t best = o->text.n;
    for (size_t i = 0; i < o->n_stop; i++) {
        size_t len = o->stop_len[i];
        size_t start = from > len - 1 ? from - (len - 1) : 0;
        if (start >= best) continue;
        const char *hit = memmem(o->text.data + start, o->text.n - start, o->stop[i], len);
        if (hit && (size_t)(hit - o->text.data) < best) {
            best = (size_t)(hit - o->text.data);
            o->stopped = true;
        }
    }
    if (!o->stopped) return;
    o->text.n = best;
    o->text.data[best] = 0;
}

static void add(qn_output *o, const char *text, size_t n) {
    if (!n || o->stopped) return;
    size_t from = o->text.n;
    qn_buf_add(&o->text, text, n);
    search(o, from);
}

bool qn_output_push(qn_output *o, int32_t id, qn_err *err) {
    if (!o->stream) return true;
    const char *text;
    size_t n;
    if (!qn_stream_push(o->stream, id, &text, &n, err)) return false;
    add(o, text, n);
    return true;
}

void qn_output_finish(qn_output *o) {
    if (o->finished) return;
    o->finished = true;
    if (!o->stream || o->stopped) return;
    const char *text;
    size_t n;
    qn_stream_finish(o->stream, &text, &n);
    add(o, text, n);
}

// Bytes at the end of the text that may be the beginning of a stop string.
static size_t held(const qn_output *o) {
    size_t most = o->longest ? o->longest - 1 : 0, left = o->text.n - o->shown;
    for (size_t n = most < left ? most : left; n > 0; n--)
        for (size_t i = 0; i < o->n_stop; i++)
            if (n < o->stop_len[i] && !memcmp(o->text.data + o->text.n - n, o->stop[i], n))
                return n;
    return 0;
}

void qn_output_next(qn_output *o, const char **text, size_t *n) {
    size_t end = o->text.n - (o->stopped || o->finished ? 0 : held(o));
    *text = o->text.data ? o->text.data + o->shown : "";
    *n = end - o->shown;
    o->shown = end;
}
