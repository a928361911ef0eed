// NFC over generated tables. Most text is normalized already, so the common path only looks: eight
// ASCII bytes at a time, else one flag per character. Where something may change, the text is cut
// into stretches that cannot influence each other (a new one starts before every character that
// neither combines with what precedes nor is changed itself), and only those are worked on.
#include "text/nfc.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/unicode.h"

enum { UNSTEADY = QN_UNI_COMBINES | QN_UNI_UNSTABLE };

// Hangul syllables are arithmetic: lead, vowel and tail jamo.
enum { S0 = 0xAC00, L0 = 0x1100, V0 = 0x1161, T0 = 0x11A7 };
enum { L_N = 19, V_N = 21, T_N = 28, S_N = L_N * V_N * T_N };

typedef struct mark { // a character and its combining class
    uint32_t c;
    uint32_t ccc;
} mark;

typedef struct stretch {
    mark *marks;
    size_t n, cap;
} stretch;

static uint32_t ccc_of(uint32_t c) {
    if (!(qn_uni(c) & QN_UNI_COMBINES)) return 0;
    size_t lo = 0, hi = qn_uni_n_ccc_runs;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (qn_uni_ccc_runs[mid].first <= c) lo = mid;
        else hi = mid;
    }
    return qn_uni_ccc_runs[lo].ccc;
}

// How many of the first bytes are ASCII, in steps of eight.
static size_t ascii_words(const char *s, size_t n) {
    size_t at = 0;
    for (uint64_t w; at + 8 <= n; at += 8) {
        memcpy(&w, s + at, 8);
        if (w & 0x8080808080808080u) break;
    }
    return at;
}

bool qn_nfc_is(const char *s, size_t n) {
    uint32_t last = 0;
    for (size_t at = 0, len; at < n; at += len) {
        if ((signed char)s[at] >= 0) {
            len = ascii_words(s + at, n - at);
            if (len == 0) len = 1;
            last = 0;
            continue;
        }
        uint32_t c = qn_uni_decode(s + at, &len);
        unsigned flags = qn_uni(c);
        if (!(flags & UNSTEADY)) {
            last = 0;
            continue;
        }
        if (flags & QN_UNI_UNSTABLE) return false; // it may be fine, but finding out is the work
        uint32_t ccc = ccc_of(c);
        if (ccc < last) return false;
        last = ccc;
    }
    return true;
}

static void push(stretch *st, uint32_t c) {
    if (st->n == st->cap) {
        st->cap = st->cap ? st->cap * 2 : 64;
        st->marks = qn_realloc(st->marks, st->cap * sizeof *st->marks);
    }
    st->marks[st->n++] = (mark){c, ccc_of(c)};
}

static const qn_uni_pair *decomposition(uint32_t c) {
    size_t lo = 0, hi = qn_uni_n_decomp;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (qn_uni_decomp[mid].whole < c) lo = mid + 1;
        else hi = mid;
    }
    return lo < qn_uni_n_decomp && qn_uni_decomp[lo].whole == c ? &qn_uni_decomp[lo] : NULL;
}

// A decomposition's first part may decompose again (three levels at most); the second could by the
// letter of the standard.
static void decompose(stretch *st, uint32_t c) {
    if (c >= S0 && c < S0 + S_N) {
        uint32_t i = c - S0;
        push(st, L0 + i / (V_N * T_N));
        push(st, V0 + i % (V_N * T_N) / T_N);
        if (i % T_N) push(st, T0 + i % T_N);
        return;
    }
    uint32_t tail[8];
    size_t n_tail = 0;
    const qn_uni_pair *d;
    while ((d = decomposition(c)) && n_tail < 8) {
        if (d->second) tail[n_tail++] = d->second;
        c = d->first;
    }
    push(st, c);
    while (n_tail) {
        uint32_t second = tail[--n_tail];
        if (decomposition(second)) decompose(st, second);
        else push(st, second);
    }
}

// Stable sort of a run of marks by class: insertion while short, else one counting pass, because
// a hostile text may pile up a million marks on one letter.
static void sort_marks(mark *m, size_t n) {
    if (n <= 32) {
        for (size_t i = 1; i < n; i++) {
            mark x = m[i];
            size_t j = i;
            for (; j > 0 && m[j - 1].ccc > x.ccc; j--) m[j] = m[j - 1];
            m[j] = x;
        }
        return;
    }
    size_t from[257] = {0};
    for (size_t i = 0; i < n; i++) from[m[i].ccc + 1]++;
    for (size_t i = 0; i < 256; i++) from[i + 1] += from[i];
    mark *sorted = QN_NEW_ARRAY(mark, n);
    for (size_t i = 0; i < n; i++) sorted[from[m[i].ccc]++] = m[i];
    memcpy(m, sorted, n * sizeof *m);
    free(sorted);
}

static void reorder(stretch *st) {
    for (size_t i = 0; i < st->n;) {
        size_t j = i;
        while (j < st->n && st->marks[j].ccc) j++;
        if (j > i + 1) sort_marks(st->marks + i, j - i);
        i = j + 1;
    }
}

// The character that two make together, or 0.
static uint32_t composed(uint32_t a, uint32_t b) {
    if (a >= L0 && a < L0 + L_N && b >= V0 && b < V0 + V_N)
        return S0 + ((a - L0) * V_N + (b - V0)) * T_N;
    if (a >= S0 && a < S0 + S_N && (a - S0) % T_N == 0 && b > T0 && b < T0 + T_N)
        return a + (b - T0);
    size_t lo = 0, hi = qn_uni_n_comp;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const qn_uni_pair *p = &qn_uni_comp[mid];
        if (p->first < a || (p->first == a && p->second < b)) lo = mid + 1;
        else hi = mid;
    }
    const qn_uni_pair *p = &qn_uni_comp[lo];
    return lo < qn_uni_n_comp && p->first == a && p->second == b ? p->whole : 0;
}

// The standard's composition: a character joins the last starter unless something between them
// has the same or a higher class (or class 0).
static void compose(stretch *st) {
    size_t out = 0, starter = SIZE_MAX;
    uint32_t last = 0; // class of the last character kept behind the starter
    for (size_t i = 0; i < st->n; i++) {
        mark m = st->marks[i];
        bool blocked = starter == SIZE_MAX || (out > starter + 1 && last >= m.ccc);
        uint32_t c = blocked ? 0 : composed(st->marks[starter].c, m.c);
        if (c) {
            st->marks[starter].c = c;
            continue;
        }
        if (m.ccc == 0) starter = out;
        last = m.ccc;
        st->marks[out++] = m;
    }
    st->n = out;
}

static void flush(stretch *st, qn_buf *out) {
    reorder(st);
    compose(st);
    for (size_t i = 0; i < st->n; i++) qn_buf_add_utf8(out, st->marks[i].c);
    st->n = 0;
}

void qn_nfc_add(const char *s, size_t n, qn_buf *out) {
    stretch st = {0};
    size_t copied = 0, steady = 0; // steady: where the last character that starts afresh begins
    qn_buf_reserve(out, n);
    for (size_t at = 0, len; at < n;) {
        size_t skip = ascii_words(s + at, n - at);
        if (skip) steady = at + skip - 1, at += skip;
        if (at == n) break;
        uint32_t c = qn_uni_decode(s + at, &len);
        if (!(qn_uni(c) & UNSTEADY)) {
            steady = at;
            at += len;
            continue;
        }
        qn_buf_add(out, s + copied, steady - copied);
        for (copied = steady; copied < at; copied += len)
            decompose(&st, qn_uni_decode(s + copied, &len));
        for (; at < n && (qn_uni(c = qn_uni_decode(s + at, &len)) & UNSTEADY); at += len)
            decompose(&st, c);
        flush(&st, out);
        copied = steady = at;
    }
    qn_buf_add(out, s + copied, n - copied);
    free(st.marks);
}
