// Finding added tokens: the patterns lie sorted, so those that share a prefix are neighbours, and
// walking the text narrows the range byte by byte; that is a trie without nodes.
#include "text/added.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "text/nfc.h"
#include "text/unicode.h"

bool qn_added_add(qn_added *a, const char *content, size_t n, const qn_added_token *flags,
                  const char *what, qn_err *err) {
    if (n == 0)
        return qn_fail(err, QN_INPUT, "%s: added token %d is empty, expected some text", what,
                       flags->id);
    if (memchr(content, 0, n))
        return qn_fail(err, QN_UNSUPPORTED, "%s: added token %d has U+0000 in it", what, flags->id);
    if (n > QN_ADDED_MAX_BYTES)
        return qn_fail(err, QN_LIMIT, "%s: added token %d has %zu bytes, at most %d", what,
                       flags->id, n, QN_ADDED_MAX_BYTES);
    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 64;
        a->tokens = qn_realloc(a->tokens, a->cap * sizeof *a->tokens);
    }
    qn_added_token *t = &a->tokens[a->n++];
    *t = *flags;
    t->content = qn_strndup(content, n);
    t->pattern = NULL;
    return true;
}

static int by_id(const void *x, const void *y) {
    int32_t a = ((const qn_added_token *)x)->id, b = ((const qn_added_token *)y)->id;
    return (a > b) - (a < b);
}

static int by_id_and_source(const void *x, const void *y) {
    int a = ((const qn_added_token *)x)->source, b = ((const qn_added_token *)y)->source;
    int order = by_id(x, y);
    return order ? order : (a > b) - (a < b);
}

// Of several declarations of one id the first source's stays.
static bool drop_repeated(qn_added *a, const char *what, qn_err *err) {
    if (a->n) qsort(a->tokens, a->n, sizeof *a->tokens, by_id_and_source);
    size_t n = 0;
    for (size_t i = 0; i < a->n; i++) {
        qn_added_token *t = &a->tokens[i], *kept = n ? &a->tokens[n - 1] : NULL;
        if (!kept || kept->id != t->id) {
            a->tokens[n++] = *t;
            continue;
        }
        if (kept->source == t->source) {
            qn_fail(err, QN_INPUT, "%s: %.80s and %.80s both have id %d", what, kept->content,
                    t->content, t->id);
            memmove(&a->tokens[n], t, (a->n - i) * sizeof *t); // what is still owned
            a->n -= i - n;
            return false;
        }
        if (strcmp(kept->content, t->content) != 0)
            qn_note("added token %d is declared as %.80s and as %.80s; the first one counts", t->id,
                    kept->content, t->content);
        free(t->content);
    }
    a->n = n;
    return true;
}

static int compare(const char *a, size_t n, const char *b, size_t m) {
    int order = memcmp(a, b, n < m ? n : m);
    return order ? order : (n > m) - (n < m);
}

static int by_pattern(const void *x, const void *y, void *tokens) {
    const qn_added_token *a = (qn_added_token *)tokens + *(const uint32_t *)x;
    const qn_added_token *b = (qn_added_token *)tokens + *(const uint32_t *)y;
    return compare(a->pattern, a->n, b->pattern, b->n);
}

static void set_pattern(qn_added_token *t, bool nfc) {
    qn_buf text = {0};
    if (nfc && t->normalized) qn_nfc_add(t->content, strlen(t->content), &text);
    else qn_buf_adds(&text, t->content);
    t->pattern = qn_buf_take(&text, &t->n);
}

static bool sort_kind(qn_added *a, int kind, const char *what, qn_err *err) {
    uint32_t *sorted = a->sorted[kind] = QN_NEW_ARRAY(uint32_t, a->n);
    size_t n = 0, at = 0;
    for (size_t i = 0; i < a->n; i++)
        if (a->tokens[i].normalized == (kind == 1)) sorted[n++] = (uint32_t)i;
    if (n) qsort_r(sorted, n, sizeof *sorted, by_pattern, a->tokens);
    for (unsigned b = 0; b <= 256; b++) {
        while (at < n && (unsigned char)a->tokens[sorted[at]].pattern[0] < b) at++;
        a->from[kind][b] = (uint32_t)at;
    }
    a->n_sorted[kind] = n;
    for (size_t i = 1; i < n; i++) {
        const qn_added_token *x = &a->tokens[sorted[i - 1]], *y = &a->tokens[sorted[i]];
        if (compare(x->pattern, x->n, y->pattern, y->n) == 0)
            return qn_fail(err, QN_INPUT, "%s: added token %.80s has two ids, %d and %d", what,
                           x->content, x->id, y->id);
    }
    return true;
}

bool qn_added_ready(qn_added *a, bool nfc, const char *what, qn_err *err) {
    if (!drop_repeated(a, what, err)) return false;
    for (size_t i = 0; i < a->n; i++) set_pattern(&a->tokens[i], nfc);
    return sort_kind(a, 0, what, err) && sort_kind(a, 1, what, err);
}

void qn_added_done(qn_added *a) {
    for (size_t i = 0; i < a->n; i++) {
        free(a->tokens[i].content);
        free(a->tokens[i].pattern);
    }
    free(a->tokens);
    free(a->sorted[0]);
    free(a->sorted[1]);
    *a = (qn_added){0};
}

const qn_added_token *qn_added_by_id(const qn_added *a, int32_t id) {
    qn_added_token key = {.id = id};
    return a->n ? bsearch(&key, a->tokens, a->n, sizeof key, by_id) : NULL;
}

// Rare (names of tokens), and lists are short: no index of its own.
const qn_added_token *qn_added_by_content(const qn_added *a, const char *content, size_t n) {
    for (size_t i = 0; i < a->n; i++)
        if (strncmp(a->tokens[i].content, content, n) == 0 && a->tokens[i].content[n] == 0)
            return &a->tokens[i];
    return NULL;
}

// First index in [lo, hi) whose pattern has a byte >= b at position k; all share the k before it.
static uint32_t bound(const qn_added *a, const uint32_t *sorted, uint32_t lo, uint32_t hi, size_t k,
                      unsigned b) {
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const qn_added_token *t = &a->tokens[sorted[mid]];
        if (t->n <= k || (unsigned char)t->pattern[k] < b) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

// The longest token at the start of s, or NULL.
static const qn_added_token *longest(const qn_added *a, int kind, const char *s, size_t n) {
    const uint32_t *sorted = a->sorted[kind];
    uint32_t lo = a->from[kind][(unsigned char)s[0]], hi = a->from[kind][(unsigned char)s[0] + 1];
    const qn_added_token *found = NULL;
    for (size_t k = 1; lo < hi; k++) {
        const qn_added_token *t = &a->tokens[sorted[lo]]; // the shortest comes first
        if (t->n == k) found = t;
        if (k == n) break;
        unsigned b = (unsigned char)s[k];
        lo = bound(a, sorted, lo, hi, k, b);
        hi = bound(a, sorted, lo, hi, k, b + 1);
    }
    return found;
}

static bool space_before(const char *s, size_t from, size_t *at) {
    size_t i = *at, len;
    if (i <= from) return false;
    do i--;
    while (i > from && ((unsigned char)s[i] & 0xC0) == 0x80);
    if (!(qn_uni(qn_uni_decode(s + i, &len)) & QN_UNI_SPACE)) return false;
    *at = i;
    return true;
}

static bool space_behind(const char *s, size_t n, size_t *at) {
    size_t len;
    if (*at >= n || !(qn_uni(qn_uni_decode(s + *at, &len)) & QN_UNI_SPACE)) return false;
    *at += len;
    return true;
}

const qn_added_token *qn_added_find(const qn_added *a, bool normalized, const char *s, size_t n,
                                    size_t from, size_t *first, size_t *last) {
    int kind = normalized;
    if (a->n_sorted[kind] == 0) return NULL;
    for (size_t at = from; at < n; at++) {
        unsigned b = (unsigned char)s[at];
        if (a->from[kind][b] == a->from[kind][b + 1]) continue;
        const qn_added_token *t = longest(a, kind, s + at, n - at);
        if (!t) continue;
        *first = at;
        *last = at + t->n;
        while (t->lstrip && space_before(s, from, first)) {}
        while (t->rstrip && space_behind(s, n, last)) {}
        return t;
    }
    return NULL;
}
