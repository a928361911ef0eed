// Cutting text into the pieces that byte-level BPE works on.
#ifndef QN_TEXT_PRETOK_H
#define QN_TEXT_PRETOK_H

#include "quern.h"

// The two Qwen patterns as published; they differ in whether marks belong to words.
#define QN_PATTERN_QWEN2                                                                           \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QN_PATTERN_QWEN35                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"                    \
    "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
// What a ByteLevel pre-tokenizer with use_regex stands for.
#define QN_PATTERN_GPT2                                                                            \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

typedef struct qn_pretok qn_pretok;

// The Qwen patterns get hand-written scanners, any other text runs in PCRE2 (UTF, UCP) as written,
// or through it always when oracle is set (tests). what names the pattern's origin in errors.
qn_pretok *qn_pretok_new(const char *pattern, bool oracle, const char *what, qn_err *err);
void qn_pretok_free(qn_pretok *p);
bool qn_pretok_is_scanner(const qn_pretok *p);

// A run over n bytes of valid UTF-8. Every byte belongs to exactly one piece.
typedef struct qn_cut {
    const qn_pretok *p;
    const char *s;
    size_t n, at;
    size_t match_from, match_to, search; // PCRE2 only: a match found and not handed out yet
    bool pending;
    void *match; // PCRE2's match data
} qn_cut;

bool qn_cut_init(qn_cut *c, const qn_pretok *p, const char *s, size_t n, qn_err *err);
void qn_cut_done(qn_cut *c);
// Length of the next piece, which starts at s + at before the call; 0 at the end. Only PCRE2 can
// fail (its match limit, QN_LIMIT): then false.
bool qn_cut_next(qn_cut *c, size_t *len, qn_err *err);

#endif
