// The Qwen patterns by hand. In the order of the alternation (M only in Qwen3.5's word class):
//   1  (?i:'s|'t|'re|'ve|'m|'ll|'d)
//   2  [^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+     a word and the one character before it
//   3  \p{N}                               every digit by itself
//   4   ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*      punctuation, a blank before, line ends behind
//   5  \s*[\r\n]+                          white space up to its last line end
//   6  \s+(?!\S)                           white space but for what the next word takes
//   7  \s+
// No alternative but 2 to 5's tails can end in more than one place, so nothing backtracks. Both
// scanners are this one text; the word class is a constant in each.
#include "text/scan_qwen.h"

#include <stdbool.h>

#include "text/unicode.h"

enum { L = QN_UNI_L, N = QN_UNI_N, M = QN_UNI_M, SPACE = QN_UNI_SPACE };

// Class and length of the character at s[at]; 0 and 0 behind the end.
static inline unsigned class_at(const char *s, size_t n, size_t at, size_t *len) {
    if (at >= n) return *len = 0, 0;
    return qn_uni(qn_uni_decode(s + at, len));
}

static inline bool is_newline(char c) { return c == '\r' || c == '\n'; }

static inline size_t word_end(const char *s, size_t n, size_t at, unsigned word) {
    for (size_t len; at < n; at += len)
        if (!(class_at(s, n, at, &len) & word)) break;
    return at;
}

// Length of a contraction at s, whose first byte is an apostrophe, or 0. U+017F folds to s.
static size_t contraction(const char *s, size_t n) {
    if (n < 2) return 0;
    char a = (char)(s[1] | 32);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (n < 3) return 0;
    if (s[1] == '\xC5' && s[2] == '\xBF') return 3;
    char b = (char)(s[2] | 32);
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

static inline size_t punctuation_end(const char *s, size_t n, size_t at, unsigned word) {
    for (size_t len; at < n; at += len)
        if (class_at(s, n, at, &len) & (word | N | SPACE)) break;
    while (at < n && is_newline(s[at])) at++;
    return at;
}

// Alternatives 5 to 7 at a white space character.
static size_t space_end(const char *s, size_t n) {
    size_t at = 0, last = 0, newline = 0, len;
    for (; at < n && (class_at(s, n, at, &len) & SPACE); at += len) {
        if (is_newline(s[at])) newline = at + 1;
        last = at;
    }
    if (newline) return newline;
    return at == n || last == 0 ? at : last;
}

static inline size_t scan(const char *s, size_t n, unsigned word) {
    size_t len, next_len;
    unsigned class = class_at(s, n, 0, &len);
    if (class & word) return word_end(s, n, len, word);
    if (class & N) return len;
    size_t short_form = s[0] == '\'' ? contraction(s, n) : 0;
    if (short_form) return short_form;
    unsigned next = class_at(s, n, len, &next_len);
    if ((next & word) && !is_newline(s[0])) return word_end(s, n, len + next_len, word);
    if (!(class & SPACE)) return punctuation_end(s, n, len, word);
    if (s[0] == ' ' && next_len && !(next & (word | N | SPACE)))
        return punctuation_end(s, n, len + next_len, word);
    return space_end(s, n);
}

size_t qn_scan_qwen2(const char *s, size_t n) { return scan(s, n, L); }

size_t qn_scan_qwen35(const char *s, size_t n) { return scan(s, n, L | M); }
