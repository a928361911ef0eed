// Changing case as Python's str does: single characters through the tables, whole texts with the
// one rule that looks around (a Greek capital sigma at a word's end becomes the final form).
#include "text/char_case.h"

#include "text/unicode.h"

bool qn_char_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool qn_char_line_end(uint32_t c) {
    return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

static const char *special(uint32_t c, qn_case to) {
    size_t lo = 0, hi = qn_char_n_specials;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (qn_char_specials[mid].c < c) lo = mid + 1;
        else hi = mid;
    }
    for (; lo < qn_char_n_specials && qn_char_specials[lo].c == c; lo++)
        if (qn_char_specials[lo].which == to) return qn_char_specials[lo].text;
    return NULL;
}

void qn_char_convert(qn_buf *out, uint32_t c, qn_case to) {
    if (c < 0x80) {
        bool change = to == QN_CASE_LOWER ? c >= 'A' && c <= 'Z' : c >= 'a' && c <= 'z';
        qn_buf_addc(out, (char)(change ? c ^ 32 : c));
        return;
    }
    const char *text = special(c, to);
    if (text) qn_buf_adds(out, text);
    else qn_buf_add_utf8(out, (uint32_t)((int32_t)c + qn_char(c)->delta[to]));
}

static uint32_t before(const char *s, size_t *at) { // the character in front of *at
    do (*at)--;
    while (*at && ((unsigned char)s[*at] & 0xC0) == 0x80);
    size_t len;
    return qn_uni_decode(s + *at, &len);
}

// A sigma at `at` (2 bytes long) ends a word: a cased letter before it, none behind it.
static bool final_sigma(const char *s, size_t n, size_t at) {
    size_t i = at, len;
    uint32_t c = 0;
    while (i && qn_char_is(c = before(s, &i), QN_CHAR_IGNORABLE)) c = 0;
    if (!c || !qn_char_is(c, QN_CHAR_CASED)) return false;
    for (i = at + 2; i < n; i += len) {
        c = qn_uni_decode(s + i, &len);
        if (!qn_char_is(c, QN_CHAR_IGNORABLE)) return !qn_char_is(c, QN_CHAR_CASED);
    }
    return true;
}

static void lower(qn_buf *out, const char *s, size_t n, size_t at, uint32_t c) {
    if (c == 0x3A3 && final_sigma(s, n, at)) qn_buf_add_utf8(out, 0x3C2);
    else qn_char_convert(out, c, QN_CASE_LOWER);
}

void qn_text_convert(qn_buf *out, const char *s, size_t n, qn_case to) {
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c = qn_uni_decode(s + i, &len);
        if (to == QN_CASE_LOWER) lower(out, s, n, i, c);
        else qn_char_convert(out, c, to);
    }
}

void qn_text_title(qn_buf *out, const char *s, size_t n) {
    bool inside = false;
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c = qn_uni_decode(s + i, &len);
        if (inside) lower(out, s, n, i, c);
        else qn_char_convert(out, c, QN_CASE_TITLE);
        inside = qn_char_is(c, QN_CHAR_CASED);
    }
}

void qn_text_capitalize(qn_buf *out, const char *s, size_t n) {
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c = qn_uni_decode(s + i, &len);
        if (i) lower(out, s, n, i, c);
        else qn_char_convert(out, c, QN_CASE_TITLE);
    }
}

void qn_text_swapcase(qn_buf *out, const char *s, size_t n) {
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c = qn_uni_decode(s + i, &len);
        if (qn_char_is(c, QN_CHAR_UPPER)) lower(out, s, n, i, c);
        else if (qn_char_is(c, QN_CHAR_LOWER)) qn_char_convert(out, c, QN_CASE_UPPER);
        else qn_buf_add_utf8(out, c);
    }
}
