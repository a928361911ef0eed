// Characters as Python 3.11 sees them (Unicode 14.0): case, kind, printability. The tokenizers'
// classes are another library's and another Unicode's; they live in unicode.h. The tables are
// generated: tools/case_tables.py.
#ifndef QN_TEXT_CHAR_CASE_H
#define QN_TEXT_CHAR_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

enum {
    QN_CHAR_PRINTABLE = 1,
    QN_CHAR_ALPHA = 2,
    QN_CHAR_NUMERIC = 4,
    QN_CHAR_DIGIT = 8,
    QN_CHAR_DECIMAL = 16,
    QN_CHAR_UPPER = 32,
    QN_CHAR_LOWER = 64,
    QN_CHAR_TITLE = 128,      // neither upper nor lower: a digraph such as U+01C5
    QN_CHAR_NAME = 256,       // may stand in an identifier
    QN_CHAR_IGNORABLE = 512,  // invisible to the rule of the final sigma
    QN_CHAR_CASED = QN_CHAR_UPPER | QN_CHAR_LOWER | QN_CHAR_TITLE,
    QN_CHAR_ALNUM = QN_CHAR_ALPHA | QN_CHAR_NUMERIC,
};

typedef enum qn_case { QN_CASE_UPPER, QN_CASE_LOWER, QN_CASE_TITLE } qn_case;

#define QN_CHAR_BLOCK 256

typedef struct qn_char_record {
    uint16_t flags;
    int32_t delta[3]; // to the upper, lower and title case form
} qn_char_record;

typedef struct qn_char_special { // a form of several characters
    uint32_t c;
    uint8_t which; // qn_case
    const char *text;
} qn_char_special;

extern const uint8_t qn_char_index[0x110000 / QN_CHAR_BLOCK];
extern const uint8_t qn_char_kind[];
extern const qn_char_record qn_char_records[];
extern const qn_char_special qn_char_specials[]; // ascending by character
extern const size_t qn_char_n_specials;

static inline const qn_char_record *qn_char(uint32_t c) {
    size_t block = qn_char_index[c / QN_CHAR_BLOCK];
    return &qn_char_records[qn_char_kind[block * QN_CHAR_BLOCK + c % QN_CHAR_BLOCK]];
}

static inline bool qn_char_is(uint32_t c, unsigned flags) { return qn_char(c)->flags & flags; }

bool qn_char_space(uint32_t c); // str.isspace, also the white space of str.strip and of the lexer
bool qn_char_line_end(uint32_t c); // str.splitlines
void qn_char_convert(qn_buf *out, uint32_t c, qn_case to);
// A whole valid UTF-8 text: lower case minds the final sigma.
void qn_text_convert(qn_buf *out, const char *s, size_t n, qn_case to);
void qn_text_title(qn_buf *out, const char *s, size_t n);      // str.title
void qn_text_capitalize(qn_buf *out, const char *s, size_t n); // str.capitalize
void qn_text_swapcase(qn_buf *out, const char *s, size_t n);

#endif
