// The files a tokenizer is read from, in this order: tokenizer.json, vocab.json, merges.txt,
// tokenizer_config.json, added_tokens.json, config.json. An empty part is a file that is not there.
// What can be read then works on a text.
#include "base/err.h"
#include "fuzz_target.h"
#include "text/tokenizer.h"

static qn_span span_of(fuzz_part p) {
    return p.n ? (qn_span){(const char *)p.data, p.n} : (qn_span){NULL, 0};
}

static void use(const qn_tokenizer *t, unsigned flags) {
    static const char text[] = "It's 12 <|im_end|>\u4f60 e\u0301 \U0001F600\n\n  ab ab";
    int32_t *ids = NULL;
    char *back = NULL;
    size_t n = 0, n_back = 0;
    qn_err err = {0};
    bool ok = qn_encode(t, text, sizeof text - 1, flags, &ids, &n, &err);
    FUZZ_CHECK(ok == (err.code == QN_OK));
    for (size_t i = 0; ok && i < n; i++)
        FUZZ_CHECK(ids[i] >= 0 && ids[i] < qn_tokenizer_size(t) && qn_token_spelling(t, ids[i]));
    if (ok) ok = qn_decode(t, ids, n, flags, &back, &n_back, &err);
    qn_stream *s = qn_stream_new(t, QN_TEXT_SKIP_SPECIAL);
    const char *piece;
    size_t len;
    for (size_t i = 0; ok && i < n; i++) FUZZ_CHECK(qn_stream_push(s, ids[i], &piece, &len, &err));
    qn_stream_finish(s, &piece, &len);
    qn_stream_free(s);
    qn_free(ids);
    qn_free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    fuzz_part part[6];
    for (size_t i = 0; i < 6; i++) part[i] = fuzz_next(&data, &n);
    qn_tokenizer_files files = {
        .tokenizer_json = span_of(part[0]), .vocab_json = span_of(part[1]),
        .merges_txt = span_of(part[2]), .tokenizer_config = span_of(part[3]),
        .added_tokens = span_of(part[4]), .config = span_of(part[5])};
    qn_err err = {0};
    qn_tokenizer *t = qn_tokenizer_parse(&files, "folder", &err);
    FUZZ_CHECK((t != NULL) == (err.code == QN_OK));
    if (!t) return 0;
    use(t, 0);
    use(t, QN_TEXT_PLAIN);
    qn_tokenizer_free(t);
    return 0;
}
