// Which way a pattern is run, and the PCRE2 way: matches found one after the other, the gaps
// between them being pieces too (the original's "isolated" splitting).
#include "text/pretok.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "text/scan_qwen.h"

// Patterns come from strangers: so many steps per match and no more.
#define MATCH_LIMIT 1000000
#define PATTERN_MAX 65536

struct qn_pretok {
    size_t (*scan)(const char *s, size_t n); // NULL: PCRE2
    pcre2_code *code;
    pcre2_match_context *limits;
    char *what;
};

static pcre2_code *compile(const char *pattern, const char *what, qn_err *err) {
    size_t n = strlen(pattern);
    if (n > PATTERN_MAX)
        return qn_fail_null(err, QN_LIMIT, "%s: pattern of %zu bytes, at most %d", what, n,
                            PATTERN_MAX);
    int code;
    PCRE2_SIZE at;
    uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    pcre2_code *p = pcre2_compile((PCRE2_SPTR)pattern, n, flags, &code, &at, NULL);
    if (p) return p;
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(code, text, sizeof text);
    return qn_fail_null(err, QN_UNSUPPORTED, "%s: pattern not understood at byte %zu: %s", what,
                        (size_t)at, (char *)text);
}

qn_pretok *qn_pretok_new(const char *pattern, bool oracle, const char *what, qn_err *err) {
    qn_pretok *p = QN_NEW(qn_pretok);
    p->what = qn_strdup(what);
    if (!oracle && strcmp(pattern, QN_PATTERN_QWEN2) == 0) {
        p->scan = qn_scan_qwen2;
        return p;
    }
    if (!oracle && strcmp(pattern, QN_PATTERN_QWEN35) == 0) {
        p->scan = qn_scan_qwen35;
        return p;
    }
    p->code = compile(pattern, what, err);
    if (!p->code) {
        qn_pretok_free(p);
        return NULL;
    }
    p->limits = pcre2_match_context_create(NULL);
    if (!p->limits) {
        qn_pretok_free(p);
        return qn_fail_null(err, QN_NOMEM, "%s: no memory for a match context", what);
    }
    pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    return p;
}

void qn_pretok_free(qn_pretok *p) {
    if (!p) return;
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->limits);
    free(p->what);
    free(p);
}

bool qn_pretok_is_scanner(const qn_pretok *p) { return p->scan != NULL; }

bool qn_cut_init(qn_cut *c, const qn_pretok *p, const char *s, size_t n, qn_err *err) {
    *c = (qn_cut){.p = p, .s = s, .n = n};
    if (p->scan) return true;
    c->match = pcre2_match_data_create_from_pattern(p->code, NULL);
    return c->match || qn_fail(err, QN_NOMEM, "%s: no memory for a match", p->what);
}

void qn_cut_done(qn_cut *c) { pcre2_match_data_free(c->match); }

// The next match at or behind c->search into match_from and match_to; a text without one counts
// as a gap up to its end.
static bool find(qn_cut *c, qn_err *err) {
    int rc = pcre2_match(c->p->code, (PCRE2_SPTR)c->s, c->n, c->search, PCRE2_NO_UTF_CHECK,
                         c->match, c->p->limits);
    c->match_from = c->match_to = c->n;
    if (rc == PCRE2_ERROR_NOMATCH) {
        c->search = c->n;
        return true;
    }
    PCRE2_UCHAR text[128];
    if (rc < 0) {
        pcre2_get_error_message(rc, text, sizeof text);
        return qn_fail(err, QN_LIMIT, "%s: the pattern gave up at byte %zu of a text: %s",
                       c->p->what, c->search, (char *)text);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(c->match);
    if (at[0] < c->at || at[1] < at[0] || at[1] > c->n) // \K can do that
        return qn_fail(err, QN_UNSUPPORTED, "%s: the pattern matches backwards", c->p->what);
    c->match_from = at[0], c->match_to = at[1];
    c->search = at[1];
    if (at[1] == at[0] && at[1] < c->n) { // an empty match cuts, and the search moves on
        int32_t ignored;
        c->search += qn_utf8_next(c->s + at[1], c->n - at[1], &ignored);
    }
    return true;
}

static bool next_match(qn_cut *c, size_t *len, qn_err *err) {
    while (c->at < c->n) {
        if (!c->pending && !find(c, err)) return false;
        c->pending = c->at < c->match_from; // first the gap, if there is one
        *len = (c->pending ? c->match_from : c->match_to) - c->at;
        c->at += *len;
        if (*len) return true;
    }
    return true;
}

bool qn_cut_next(qn_cut *c, size_t *len, qn_err *err) {
    *len = 0;
    if (c->at >= c->n) return true;
    if (!c->p->scan) return next_match(c, len, err);
    *len = c->p->scan(c->s + c->at, c->n - c->at);
    c->at += *len;
    return true;
}
