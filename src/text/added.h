// Added tokens: strings that are cut out of a text before anything else happens to it.
#ifndef QN_TEXT_ADDED_H
#define QN_TEXT_ADDED_H

#include "base/str.h"

#define QN_ADDED_MAX_BYTES 1024

typedef struct qn_added_token {
    char *content;  // as declared
    char *pattern;  // what is looked for: the content, or its NFC for normalized ones
    size_t n;       // bytes of the pattern
    int32_t id;
    int source;     // of two declarations of one id, the one with the smaller number counts
    bool special;    // left out by QN_TEXT_SKIP_SPECIAL
    bool normalized; // looked for in the normalized text instead of the raw one
    bool lstrip, rstrip; // takes the white space before / behind it along
} qn_added_token;

typedef struct qn_added {
    qn_added_token *tokens; // in the order of ids once ready
    size_t n, cap;
    uint32_t *sorted[2];    // raw and normalized: tokens by pattern
    size_t n_sorted[2];
    uint32_t from[2][257];  // sorted[k][from[b] … from[b + 1]) start with byte b
} qn_added;

// Copies content. Within one source, ids must not repeat; that is found by qn_added_ready.
bool qn_added_add(qn_added *a, const char *content, size_t n, const qn_added_token *flags,
                  const char *what, qn_err *err);
// After the last one. nfc: normalized ones are looked for in their NFC.
bool qn_added_ready(qn_added *a, bool nfc, const char *what, qn_err *err);
void qn_added_done(qn_added *a);
const qn_added_token *qn_added_by_id(const qn_added *a, int32_t id); // NULL: none
const qn_added_token *qn_added_by_content(const qn_added *a, const char *content, size_t n);

// The leftmost token at or behind `from`, the longest of those there; NULL when there is none.
// first and last get its bytes, with the white space that it takes (never before `from`).
const qn_added_token *qn_added_find(const qn_added *a, bool normalized, const char *s, size_t n,
                                    size_t from, size_t *first, size_t *last);

#endif
