// Raising and passing errors. The type itself is public (quern.h): {code, one line of text}.
//   return qn_fail(err, QN_INPUT, "tensor %s: shape …", name);
// Passing up may prefix context, never replace it.
#ifndef QN_BASE_ERR_H
#define QN_BASE_ERR_H

#include <stdarg.h>

#include "quern.h"

// Fills err (unless NULL) and returns false. Control characters and bytes that are not UTF-8 in
// the finished text are made visible, so that a hostile name cannot forge lines.
bool qn_fail(qn_err *err, qn_code code, const char *fmt, ...) QN_PRINTF(3, 4);

// The same for functions that return pointers.
void *qn_fail_null(qn_err *err, qn_code code, const char *fmt, ...) QN_PRINTF(3, 4);

// errno in words behind the formatted text: "…: No space left on device". ENOMEM becomes
// QN_NOMEM, ENOENT QN_NOT_FOUND, anything else QN_IO.
bool qn_fail_errno(qn_err *err, int errnum, const char *fmt, ...) QN_PRINTF(3, 4);

// Puts "prefix: " in front of err's text. Returns false, for `return qn_err_prefix(…)`.
bool qn_err_prefix(qn_err *err, const char *fmt, ...) QN_PRINTF(2, 3);

#endif
