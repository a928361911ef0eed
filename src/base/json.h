// JSON over jansson: loading with limits and one-line errors, and typed look-ups.
#ifndef QN_BASE_JSON_H
#define QN_BASE_JSON_H

#include <jansson.h>

#include "quern.h"

// Parses text; duplicate keys are refused, depth is jansson's limit (2048) and reported as such.
// what names the source in errors ("config.json"). NULL on failure; release with json_decref.
json_t *qn_json_parse(const char *text, size_t n, const char *what, qn_err *err);
// At most max bytes.
json_t *qn_json_load(const char *path, size_t max, qn_err *err);

// Typed look-ups: an absent or null key leaves *out alone and succeeds; a value of another kind or
// outside [lo, hi] is QN_INPUT: "WHAT: KEY is …, expected …". Integers given as 1e6 or 128.0 count.
bool qn_json_int(const json_t *o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                 const char *what, qn_err *err);
bool qn_json_real(const json_t *o, const char *key, double *out, const char *what, qn_err *err);
bool qn_json_bool(const json_t *o, const char *key, bool *out, const char *what, qn_err *err);
// *out lives with o.
bool qn_json_str(const json_t *o, const char *key, const char **out, const char *what, qn_err *err);
// The first of several spellings of a key that is present and not null, or NULL.
json_t *qn_json_any(const json_t *o, const char *const *keys, size_t n);

// A text from outside (a path, an argument) for output: JSON has no bytes that are not UTF-8, so every
// run of them becomes U+FFFD. Never NULL.
json_t *qn_json_string(const char *s);
// A number for output: non-finite ones become the strings "nan", "inf", "-inf".
json_t *qn_json_number(double x);
// Compact or indented text, allocated (qn_free).
char *qn_json_text(const json_t *j, bool indent);

#endif
