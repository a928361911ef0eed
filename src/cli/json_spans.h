// The members of a JSON object as pieces of its own text. Chat templates tell 1 from 1.0 and print
// integers of any length, so messages travel to the template engine as they were written, never
// through a parser that keeps numbers as doubles. Only the outer structure is read here; the pieces
// are judged by whoever parses them.
#ifndef QN_CLI_JSON_SPANS_H
#define QN_CLI_JSON_SPANS_H

#include "base/str.h"

typedef struct qn_json_span {
    const char *text;
    size_t n;
} qn_json_span;

typedef struct qn_json_member {
    char *key; // decoded, allocated
    qn_json_span value;
} qn_json_member;

typedef struct qn_json_object { // {0} is empty; spans borrow the text they were read from
    qn_json_member *members;
    size_t n;
} qn_json_object;

// The first character that is not white space (0: none), to tell arrays from objects.
char qn_json_first(const char *text, size_t n);
// Reads an object's members. A key given twice, or text around the object, is an error.
bool qn_json_members(const char *text, size_t n, const char *what, qn_json_object *out,
                     qn_err *err);
void qn_json_object_done(qn_json_object *o);
const qn_json_member *qn_json_find(const qn_json_object *o, const char *key); // NULL: none
void qn_json_set(qn_json_object *o, const char *key, const char *text, size_t n); // or replaces
bool qn_json_span_is_null(qn_json_span s);
char *qn_json_span_text(qn_json_span s); // a copy with a 0 behind it
void qn_json_write(const qn_json_object *o, qn_buf *out);

#endif
