// Byte buffers, UTF-8 and a few string helpers.
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void qn_buf_done(qn_buf *b) {
    free(b->data);
    *b = (qn_buf){0};
}

void qn_buf_clear(qn_buf *b) {
    b->n = 0;
    if (b->data) b->data[0] = 0;
}

void qn_buf_reserve(qn_buf *b, size_t more) {
    size_t need;
    if (!qn_plus(b->n, more, &need) || !qn_plus(need, 1, &need)) need = SIZE_MAX; // out of memory
    if (need <= b->cap) return;
    size_t cap = b->cap ? b->cap + b->cap / 2 : 64;
    if (cap < need) cap = need;
    b->data = qn_realloc(b->data, cap);
    b->cap = cap;
}

void qn_buf_add(qn_buf *b, const void *data, size_t n) {
    qn_buf_reserve(b, n);
    if (n) memcpy(b->data + b->n, data, n);
    b->n += n;
    b->data[b->n] = 0;
}

void qn_buf_addc(qn_buf *b, char c) { qn_buf_add(b, &c, 1); }

void qn_buf_adds(qn_buf *b, const char *s) { qn_buf_add(b, s, strlen(s)); }

void qn_buf_addf(qn_buf *b, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) abort();
    qn_buf_reserve(b, (size_t)n);
    va_start(args, fmt);
    vsnprintf(b->data + b->n, (size_t)n + 1, fmt, args);
    va_end(args);
    b->n += (size_t)n;
}

void qn_buf_add_utf8(qn_buf *b, uint32_t c) {
    char s[4];
    size_t n;
    if (c < 0x80) {
        s[0] = (char)c, n = 1;
    } else if (c < 0x800) {
        s[0] = (char)(0xC0 | c >> 6), s[1] = (char)(0x80 | (c & 63)), n = 2;
    } else if (c < 0x10000) {
        s[0] = (char)(0xE0 | c >> 12), s[1] = (char)(0x80 | (c >> 6 & 63));
        s[2] = (char)(0x80 | (c & 63)), n = 3;
    } else {
        s[0] = (char)(0xF0 | c >> 18), s[1] = (char)(0x80 | (c >> 12 & 63));
        s[2] = (char)(0x80 | (c >> 6 & 63)), s[3] = (char)(0x80 | (c & 63)), n = 4;
    }
    qn_buf_add(b, s, n);
}

char *qn_buf_take(qn_buf *b, size_t *n) {
    qn_buf_add(b, "", 0); // makes sure that there is a buffer
    char *data = b->data;
    if (n) *n = b->n;
    *b = (qn_buf){0};
    return data;
}

char *qn_strndup(const char *s, size_t n) {
    char *copy = qn_alloc(n + 1);
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

char *qn_strdup(const char *s) { return qn_strndup(s, strlen(s)); }

char *qn_strf(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) abort();
    char *s = qn_alloc((size_t)n + 1);
    va_start(args, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, args);
    va_end(args);
    return s;
}

bool qn_str_starts(const char *s, const char *prefix) {
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool qn_str_ends(const char *s, const char *suffix) {
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

void qn_str_visible(const char *src, char *dst, size_t cap) {
    size_t n = strlen(src), at = 0, out = 0;
    while (at < n) {
        int32_t c;
        size_t len = qn_utf8_next(src + at, n - at, &c);
        bool plain = c >= 0x20 && c != 0x7F && !(c >= 0x80 && c < 0xA0) && c != 0x2028 &&
                     c != 0x2029;
        if (plain) {
            if (out + len + 1 > cap) break;
            memcpy(dst + out, src + at, len);
            out += len;
        } else {
            if (out + 4 * len + 1 > cap) break;
            for (size_t i = 0; i < len; i++)
                out += (size_t)snprintf(dst + out, 5, "\\x%02x", (unsigned char)src[at + i]);
        }
        at += len;
    }
    dst[out] = 0;
}

// Well-formed UTF-8 by the Unicode standard's table 3-7: the second byte's range depends on the
// first, and the maximal invalid part ends before the first byte that does not fit.
size_t qn_utf8_next(const char *s, size_t n, int32_t *codepoint) {
    const unsigned char *p = (const unsigned char *)s;
    unsigned char b = p[0];
    *codepoint = -1;
    if (b < 0x80) {
        *codepoint = b;
        return 1;
    }
    if (b < 0xC2 || b > 0xF4) return 1;
    size_t len = b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
    unsigned lo = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80;
    unsigned hi = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
    uint32_t c = b & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if (i >= n || p[i] < lo || p[i] > hi) return i;
        c = c << 6 | (p[i] & 63u);
        lo = 0x80, hi = 0xBF;
    }
    *codepoint = (int32_t)c;
    return len;
}

size_t qn_utf8_valid(const char *s, size_t n) {
    for (size_t at = 0; at < n;) {
        int32_t c;
        size_t len = qn_utf8_next(s + at, n - at, &c);
        if (c < 0) return at;
        at += len;
    }
    return n;
}

static size_t distance(const char *a, const char *b) {
    size_t row[64], n = strlen(b);
    if (n >= 63) return n;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t replaced = diagonal + (a[i] != b[j]);
            size_t other = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = replaced < other ? replaced : other;
        }
    }
    return row[n];
}

const char *qn_str_nearest(const char *s, const char *const *words, size_t n) {
    const char *best = NULL;
    size_t best_distance = strlen(s) / 3 + 2;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(s, words[i]);
        if (d < best_distance) best = words[i], best_distance = d;
    }
    return best;
}
