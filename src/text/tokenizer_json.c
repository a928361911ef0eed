// Reads what is big in tokenizer.json (vocabulary and merges) in one walk over its text, without
// building a document: as one it would take a hundred megabytes and longer than the rest of loading
// together. The small parts are handed out as text. Also vocab.json and merges.txt, the older form.
#include "base/err.h"
#include "text/tokenizer.h"

typedef struct doc {
    qn_scan s;
    qn_bpe *b;
    qn_buf key, left, right;
    char type[32];        // of the model; "" when it does not say
    qn_scan merges_later; // merges that stand before the vocabulary wait here
    bool vocab_seen, vocab_is_object, merges_seen, merges_wait;
} doc;

bool qn_vocab_object_read(qn_scan *s, qn_vocab *v, qn_err *err) {
    qn_buf key = {0};
    bool more = true, ok = qn_scan_open(s, '{', err);
    while (ok && (ok = qn_scan_member(s, &key, &more, err)) && more) {
        int64_t id;
        ok = qn_scan_int(s, &id, err) && qn_vocab_add(v, key.data, key.n, id, s->what, err);
    }
    qn_buf_done(&key);
    return ok;
}

// ---- merges ----

// "a b": exactly one blank, and something on both sides.
static bool split_rule(const char *line, size_t n, qn_span *left, qn_span *right) {
    const char *blank = memchr(line, ' ', n);
    if (!blank) return false;
    size_t at = (size_t)(blank - line);
    *left = (qn_span){line, at};
    *right = (qn_span){blank + 1, n - at - 1};
    return left->n && right->n && !memchr(right->text, ' ', right->n);
}

static bool add_line(qn_bpe *b, const char *line, size_t n, const char *what, qn_err *err) {
    qn_span left, right;
    if (!split_rule(line, n, &left, &right))
        return qn_fail(err, QN_INPUT, "%s: merge %zu is \"%.*s\", expected two tokens and a blank "
                       "between them", what, b->n_rules + 1, (int)(n < 80 ? n : 80), line);
    return qn_bpe_add_merge(b, left, right, what, err);
}

static bool read_pair(doc *d, qn_err *err) {
    qn_scan *s = &d->s;
    bool more;
    if (!qn_scan_open(s, '[', err)) return false;
    if (!qn_scan_item(s, &more, err) || (more && !qn_scan_string(s, &d->left, err))) return false;
    if (more && !qn_scan_item(s, &more, err)) return false;
    if (more && !qn_scan_string(s, &d->right, err)) return false;
    bool two = more;
    if (more && !qn_scan_item(s, &more, err)) return false;
    if (!two || more)
        return qn_fail(err, QN_INPUT, "%s: merge %zu is a list of %s than two, expected two tokens",
                       s->what, d->b->n_rules + 1, two ? "more" : "less");
    return qn_bpe_add_merge(d->b, (qn_span){d->left.data, d->left.n},
                            (qn_span){d->right.data, d->right.n}, s->what, err);
}

static bool read_merges(doc *d, qn_err *err) {
    qn_scan *s = &d->s;
    if (!qn_scan_open(s, '[', err)) return false;
    for (bool more;;) {
        if (!qn_scan_item(s, &more, err)) return false;
        if (!more) return true;
        if (qn_scan_peek(s) == '[') {
            if (!read_pair(d, err)) return false;
        } else if (!qn_scan_string(s, &d->left, err) ||
                   !add_line(d->b, d->left.data, d->left.n, s->what, err)) {
            return false;
        }
    }
}

// ---- the model object ----

static bool is_null(qn_span v) { return v.n == 4 && memcmp(v.text, "null", 4) == 0; }

static bool is_zero(qn_span v) { // 0, 0.0; the span has no 0 byte behind it
    for (size_t i = 0; i < v.n; i++)
        if (v.text[i] != '0' && v.text[i] != '.') return false;
    return v.n > 0;
}

// Options of the original's BPE that would change ids must be off.
static bool check_option(const doc *d, qn_span v, qn_err *err) {
    static const char *const off[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    const char *key = d->key.data;
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        if (strcmp(key, off[i]) != 0 || is_null(v)) continue;
        bool empty = v.n == 2 && v.text[0] == '"';
        if (!empty && !is_zero(v))
            return qn_fail(err, QN_UNSUPPORTED, "%s: model.%s is %.*s, expected null", d->s.what,
                           key, (int)(v.n < 40 ? v.n : 40), v.text);
    }
    return true;
}

static bool read_type(doc *d, qn_err *err) {
    if (!qn_scan_string(&d->s, &d->left, err)) return false;
    snprintf(d->type, sizeof d->type, "%s", d->left.data);
    return true;
}

static bool read_vocab(doc *d, qn_err *err) {
    if (d->vocab_seen)
        return qn_fail(err, QN_INPUT, "%s: model.vocab occurs twice", d->s.what);
    d->vocab_seen = true;
    d->vocab_is_object = qn_scan_peek(&d->s) == '{'; // a list in other models; told apart later
    if (!d->vocab_is_object) return qn_scan_skip(&d->s, NULL, err);
    return qn_vocab_object_read(&d->s, &d->b->vocab, err);
}

static bool read_or_keep_merges(doc *d, qn_err *err) {
    if (d->merges_seen)
        return qn_fail(err, QN_INPUT, "%s: model.merges occurs twice", d->s.what);
    d->merges_seen = true;
    if (d->vocab_seen && d->vocab_is_object) return read_merges(d, err);
    d->merges_wait = true;
    d->merges_later = d->s;
    return qn_scan_skip(&d->s, NULL, err);
}

static bool read_model(doc *d, qn_err *err) {
    qn_scan *s = &d->s;
    if (!qn_scan_open(s, '{', err)) return false;
    for (bool more;;) {
        if (!qn_scan_member(s, &d->key, &more, err)) return false;
        if (!more) return true;
        const char *key = d->key.data;
        qn_span v = {0};
        bool ok;
        if (strcmp(key, "type") == 0) ok = read_type(d, err);
        else if (strcmp(key, "vocab") == 0) ok = read_vocab(d, err);
        else if (strcmp(key, "merges") == 0) ok = read_or_keep_merges(d, err);
        else ok = qn_scan_skip(s, &v, err) && check_option(d, v, err);
        if (!ok) return false;
        if (v.n && strcmp(d->key.data, "ignore_merges") == 0) d->b->ignore_merges = *v.text == 't';
    }
}

static bool finish_model(doc *d, qn_err *err) {
    if (d->type[0] && strcmp(d->type, "BPE") != 0)
        return qn_fail(err, QN_UNSUPPORTED, "%s: model.type is %s, expected BPE", d->s.what,
                       d->type);
    if (!d->vocab_is_object || !d->merges_seen)
        return qn_fail(err, QN_INPUT, "%s: model.%s is %s, expected %s", d->s.what,
                       d->vocab_is_object ? "merges" : "vocab",
                       !d->vocab_is_object && d->vocab_seen ? "not an object" : "missing",
                       d->vocab_is_object ? "a list" : "an object of tokens");
    if (!d->merges_wait) return true;
    d->s = d->merges_later;
    return read_merges(d, err);
}

// ---- the document ----

static qn_span *part_named(qn_tokenizer_parts *p, const char *key) {
    if (strcmp(key, "normalizer") == 0) return &p->normalizer;
    if (strcmp(key, "pre_tokenizer") == 0) return &p->pre_tokenizer;
    if (strcmp(key, "decoder") == 0) return &p->decoder;
    if (strcmp(key, "post_processor") == 0) return &p->post_processor;
    if (strcmp(key, "added_tokens") == 0) return &p->added_tokens;
    return NULL;
}

static bool read_document(doc *d, qn_tokenizer_parts *parts, qn_err *err) {
    qn_scan *s = &d->s;
    bool model = false;
    if (!qn_scan_open(s, '{', err)) return false;
    for (bool more;;) {
        if (!qn_scan_member(s, &d->key, &more, err)) return false;
        if (!more) break;
        qn_span *part = part_named(parts, d->key.data);
        bool is_model = strcmp(d->key.data, "model") == 0;
        if ((is_model && model) || (part && part->text))
            return qn_fail(err, QN_INPUT, "%s: %s occurs twice", s->what, d->key.data);
        if (!(is_model ? read_model(d, err) : qn_scan_skip(s, part, err))) return false;
        model |= is_model;
    }
    if (!qn_scan_end(s, err)) return false;
    if (!model) return qn_fail(err, QN_INPUT, "%s: model is missing", s->what);
    return finish_model(d, err);
}

bool qn_tokenizer_json_read(qn_span text, qn_bpe *b, qn_tokenizer_parts *parts, qn_err *err) {
    doc d = {.s = {.text = text.text, .n = text.n, .what = "tokenizer.json"}, .b = b};
    *parts = (qn_tokenizer_parts){0};
    bool ok = read_document(&d, parts, err);
    qn_buf_done(&d.key);
    qn_buf_done(&d.left);
    qn_buf_done(&d.right);
    return ok;
}

// ---- the older form ----

bool qn_vocab_json_read(qn_span text, qn_bpe *b, qn_err *err) {
    qn_scan s = {.text = text.text, .n = text.n, .what = "vocab.json"};
    return qn_vocab_object_read(&s, &b->vocab, err) && qn_scan_end(&s, err);
}

// One rule a line. A line that starts with #version is a heading; other lines may start with #.
bool qn_merges_txt_read(qn_span text, qn_bpe *b, qn_err *err) {
    for (size_t at = 0; at < text.n;) {
        const char *line = text.text + at, *end = memchr(line, '\n', text.n - at);
        size_t n = end ? (size_t)(end - line) : text.n - at;
        at += n + 1;
        if (n && line[n - 1] == '\r') n--;
        if (n == 0 || (n >= 8 && memcmp(line, "#version", 8) == 0)) continue;
        if (qn_utf8_valid(line, n) < n)
            return qn_fail(err, QN_INPUT, "merges.txt: merge %zu is not UTF-8", b->n_rules + 1);
        if (!add_line(b, line, n, "merges.txt", err)) return false;
    }
    return true;
}
