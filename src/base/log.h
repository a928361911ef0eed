// What goes to stderr beside errors: notes for the user, silenced by --quiet.
#ifndef QN_BASE_LOG_H
#define QN_BASE_LOG_H

#include <stdbool.h>

#include "quern.h"

void qn_log_set_quiet(bool quiet);
bool qn_log_quiet(void);
// One line "note: …" on stderr; clears a progress bar that stands there. Thread-safe. The same
// text is printed once per process: notes come from loops over layers.
void qn_note(const char *fmt, ...) QN_PRINTF(1, 2);
void qn_note_each(const char *fmt, ...) QN_PRINTF(1, 2); // without that filter

#endif
