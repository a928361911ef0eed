// A strict reader that walks JSON text in place, for the one document that is too big to be built
// in memory: a tokenizer.json has some 150,000 members and as many pairs.
//   qn_scan s = {.text = …, .n = …, .what = "tokenizer.json"};
//   if (!qn_scan_open(&s, '{', err)) …
//   while (qn_scan_member(&s, &key, &more, err) && more) … read one value …
// Every call that returns false has filled err. Depth is limited (QN_LIMIT), text has to be UTF-8.
#ifndef QN_TEXT_JSON_SCAN_H
#define QN_TEXT_JSON_SCAN_H

#include "base/str.h"

#define QN_SCAN_DEPTH 1000

typedef struct qn_scan {
    const char *text;
    size_t n, at;
    const char *what;
    int depth;
    bool fresh; // just behind an opening bracket
} qn_scan;

typedef struct qn_span { // a value's text, to be read by other means
    const char *text;
    size_t n;
} qn_span;

char qn_scan_peek(qn_scan *s); // first character of the next token; 0 at the end
bool qn_scan_open(qn_scan *s, char bracket, qn_err *err);
// *more false: the bracket was closed. The key replaces what was in it.
bool qn_scan_member(qn_scan *s, qn_buf *key, bool *more, qn_err *err);
bool qn_scan_item(qn_scan *s, bool *more, qn_err *err);
bool qn_scan_string(qn_scan *s, qn_buf *out, qn_err *err); // replaces what was in out
bool qn_scan_int(qn_scan *s, int64_t *out, qn_err *err);   // plain digits only
bool qn_scan_skip(qn_scan *s, qn_span *span, qn_err *err); // any value; span may be NULL
bool qn_scan_end(qn_scan *s, qn_err *err);                 // nothing but white space is left

#endif
