// Walks JSON text without building anything. Strict: no comments, no trailing commas, escapes and
// surrogates checked, control characters refused, UTF-8 checked in every string.
#include "text/json_scan.h"

#include <string.h>

#include "base/err.h"

static bool wrong(const qn_scan *s, const char *expected, qn_err *err) {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < s->at && i < s->n; i++) {
        column = s->text[i] == '\n' ? 1 : column + 1;
        line += s->text[i] == '\n';
    }
    if (s->at >= s->n)
        return qn_fail(err, QN_INPUT, "%s: not valid JSON: ends after %zu bytes, expected %s",
                       s->what, s->n, expected);
    return qn_fail(err, QN_INPUT, "%s: not valid JSON at line %zu column %zu: expected %s", s->what,
                   line, column, expected);
}

char qn_scan_peek(qn_scan *s) {
    while (s->at < s->n) {
        char c = s->text[s->at];
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return c;
        s->at++;
    }
    return 0;
}

static bool take(qn_scan *s, char c) {
    if (qn_scan_peek(s) != c || s->at >= s->n) return false;
    s->at++;
    return true;
}

bool qn_scan_open(qn_scan *s, char bracket, qn_err *err) {
    if (!take(s, bracket)) return wrong(s, bracket == '{' ? "an object" : "an array", err);
    if (++s->depth > QN_SCAN_DEPTH)
        return qn_fail(err, QN_LIMIT, "%s: nested deeper than %d levels", s->what, QN_SCAN_DEPTH);
    s->fresh = true;
    return true;
}

// The comma or the closing bracket before the next element.
static bool advance(qn_scan *s, char closing, bool *more, qn_err *err) {
    *more = false;
    if (take(s, closing)) {
        s->depth--;
        s->fresh = false;
        return true;
    }
    if (!s->fresh && !take(s, ','))
        return wrong(s, closing == '}' ? "',' or '}'" : "',' or ']'", err);
    s->fresh = false;
    *more = true;
    return true;
}

bool qn_scan_member(qn_scan *s, qn_buf *key, bool *more, qn_err *err) {
    if (!advance(s, '}', more, err)) return false;
    if (!*more) return true;
    if (!qn_scan_string(s, key, err)) return false;
    return take(s, ':') || wrong(s, "':'", err);
}

bool qn_scan_item(qn_scan *s, bool *more, qn_err *err) { return advance(s, ']', more, err); }

static bool hex4(qn_scan *s, uint32_t *out, qn_err *err) {
    *out = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        char c = s->at < s->n ? s->text[s->at] : 0;
        char lower = (char)(c | 32);
        if (c >= '0' && c <= '9') *out = *out << 4 | (uint32_t)(c - '0');
        else if (lower >= 'a' && lower <= 'f') *out = *out << 4 | (uint32_t)(lower - 'a' + 10);
        else return wrong(s, "four hexadecimal digits", err);
    }
    return true;
}

static bool unicode_escape(qn_scan *s, qn_buf *out, qn_err *err) {
    uint32_t c, low;
    if (!hex4(s, &c, err)) return false;
    if (c >= 0xD800 && c < 0xDC00) {
        if (s->n - s->at < 2 || s->text[s->at] != '\\' || s->text[s->at + 1] != 'u')
            return wrong(s, "the second half of a surrogate pair", err);
        s->at += 2;
        if (!hex4(s, &low, err)) return false;
        if (low < 0xDC00 || low > 0xDFFF) return wrong(s, "a low surrogate before this", err);
        c = 0x10000 + ((c - 0xD800) << 10 | (low - 0xDC00));
    } else if (c >= 0xDC00 && c < 0xE000) {
        return wrong(s, "a high surrogate before this", err);
    }
    qn_buf_add_utf8(out, c);
    return true;
}

static bool escape(qn_scan *s, qn_buf *out, qn_err *err) {
    char c = s->at < s->n ? s->text[s->at] : 0;
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (c == 'u') {
        s->at++;
        return unicode_escape(s, out, err);
    }
    const char *found = c ? strchr(from, c) : NULL;
    if (!found) return wrong(s, "an escape such as \\n or \\u0020", err);
    s->at++;
    qn_buf_addc(out, to[found - from]);
    return true;
}

bool qn_scan_string(qn_scan *s, qn_buf *out, qn_err *err) {
    if (!take(s, '"')) return wrong(s, "a string", err);
    qn_buf_clear(out);
    for (;;) {
        size_t from = s->at;
        unsigned char high = 0, c = 0;
        for (; s->at < s->n; s->at++) {
            c = (unsigned char)s->text[s->at];
            if (c == '"' || c == '\\' || c < 0x20) break;
            high |= c;
        }
        size_t n = s->at - from;
        if (high >= 0x80) {
            size_t good = qn_utf8_valid(s->text + from, n);
            if (good < n) {
                s->at = from + good;
                return wrong(s, "UTF-8", err);
            }
        }
        qn_buf_add(out, s->text + from, n);
        if (s->at >= s->n || c < 0x20) return wrong(s, "'\"' at the end of a string", err);
        s->at++;
        if (c == '"') return true;
        if (!escape(s, out, err)) return false;
    }
}

bool qn_scan_int(qn_scan *s, int64_t *out, qn_err *err) {
    bool negative = take(s, '-');
    if (!negative) qn_scan_peek(s);
    size_t from = s->at;
    int64_t x = 0;
    for (; s->at < s->n && s->text[s->at] >= '0' && s->text[s->at] <= '9'; s->at++) {
        if (s->at - from >= 18) return wrong(s, "an integer of at most 18 digits", err);
        x = x * 10 + (s->text[s->at] - '0');
    }
    bool led = s->at > from + 1 && s->text[from] == '0';
    char c = s->at < s->n ? s->text[s->at] : 0;
    if (s->at == from || led || c == '.' || c == 'e' || c == 'E')
        return wrong(s, "an integer", err);
    *out = negative ? -x : x;
    return true;
}

static size_t digits(qn_scan *s) {
    size_t from = s->at;
    while (s->at < s->n && s->text[s->at] >= '0' && s->text[s->at] <= '9') s->at++;
    return s->at - from;
}

static bool skip_number(qn_scan *s, qn_err *err) {
    take(s, '-');
    bool zero = s->at < s->n && s->text[s->at] == '0';
    size_t whole = digits(s);
    if (whole == 0 || (zero && whole > 1)) return wrong(s, "a value", err);
    if (s->at < s->n && s->text[s->at] == '.') {
        s->at++;
        if (!digits(s)) return wrong(s, "a digit", err);
    }
    if (s->at < s->n && (s->text[s->at] | 32) == 'e') {
        s->at++;
        if (s->at < s->n && (s->text[s->at] == '+' || s->text[s->at] == '-')) s->at++;
        if (!digits(s)) return wrong(s, "a digit", err);
    }
    return true;
}

static bool skip_word(qn_scan *s, const char *word, qn_err *err) {
    size_t n = strlen(word);
    if (s->n - s->at < n || memcmp(s->text + s->at, word, n) != 0)
        return wrong(s, "a value", err);
    s->at += n;
    return true;
}

// Recursion is bounded by qn_scan_open.
static bool skip(qn_scan *s, qn_buf *text, qn_err *err) {
    char c = qn_scan_peek(s);
    bool more;
    switch (c) {
    case '"': return qn_scan_string(s, text, err);
    case 't': return skip_word(s, "true", err);
    case 'f': return skip_word(s, "false", err);
    case 'n': return skip_word(s, "null", err);
    case '{':
        if (!qn_scan_open(s, '{', err)) return false;
        while (qn_scan_member(s, text, &more, err)) {
            if (!more) return true;
            if (!skip(s, text, err)) return false;
        }
        return false;
    case '[':
        if (!qn_scan_open(s, '[', err)) return false;
        while (qn_scan_item(s, &more, err)) {
            if (!more) return true;
            if (!skip(s, text, err)) return false;
        }
        return false;
    default: return skip_number(s, err);
    }
}

bool qn_scan_skip(qn_scan *s, qn_span *span, qn_err *err) {
    qn_buf text = {0};
    qn_scan_peek(s);
    size_t from = s->at;
    bool ok = skip(s, &text, err);
    qn_buf_done(&text);
    if (ok && span) *span = (qn_span){s->text + from, s->at - from};
    return ok;
}

bool qn_scan_end(qn_scan *s, qn_err *err) {
    qn_scan_peek(s);
    return s->at >= s->n || wrong(s, "the end of the document", err);
}
