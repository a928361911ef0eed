// Growable byte buffers and small string helpers.
#ifndef QN_BASE_STR_H
#define QN_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quern.h"

// A growable run of bytes. {0} is empty and valid; data, once anything was added, always has a 0
// byte behind its n bytes. Memory failure ends the program: buffers are small or capped by their
// users.
typedef struct qn_buf {
    char *data;
    size_t n, cap;
} qn_buf;

void qn_buf_done(qn_buf *b); // frees and zeroes
void qn_buf_clear(qn_buf *b); // n = 0, keeps the memory
void qn_buf_reserve(qn_buf *b, size_t more);
void qn_buf_add(qn_buf *b, const void *data, size_t n);
void qn_buf_addc(qn_buf *b, char c);
void qn_buf_adds(qn_buf *b, const char *s);
void qn_buf_addf(qn_buf *b, const char *fmt, ...) QN_PRINTF(2, 3);
void qn_buf_add_utf8(qn_buf *b, uint32_t codepoint);
// Hands the bytes over (free with qn_free) and leaves b empty. Never NULL.
char *qn_buf_take(qn_buf *b, size_t *n);

char *qn_strdup(const char *s);
char *qn_strndup(const char *s, size_t n);
char *qn_strf(const char *fmt, ...) QN_PRINTF(1, 2); // allocated
bool qn_str_starts(const char *s, const char *prefix);
bool qn_str_ends(const char *s, const char *suffix);

// Copies src with control characters and invalid UTF-8 written as \xNN; always ends with 0.
void qn_str_visible(const char *src, char *dst, size_t cap);

// Decodes one character of valid or invalid UTF-8 at s (n > 0 bytes left). Returns its length and
// stores the code point; for an invalid sequence stores -1 and returns the length of the maximal
// invalid part (Rust's and Python's rule), at least 1.
size_t qn_utf8_next(const char *s, size_t n, int32_t *codepoint);
// Position of the first byte that is not UTF-8, or n.
size_t qn_utf8_valid(const char *s, size_t n);

// The ending of a counted noun: "1 tensor", "2 tensors".
static inline const char *qn_plural_s(uint64_t n) { return n == 1 ? "" : "s"; }

// Which of n words is nearest to s (edit distance), or NULL when none is near; for suggestions.
const char *qn_str_nearest(const char *s, const char *const *words, size_t n);

#endif
