// A progress bar on stderr, shown when stderr is a terminal, not quiet, and the work has taken
// longer than a second. Its function is a qn_progress_fn; it also honours Ctrl-C.
#ifndef QN_BASE_PROGRESS_H
#define QN_BASE_PROGRESS_H

#include "quern.h"

typedef struct qn_progress {
    double started, drawn; // seconds, monotonic
    const char *what;
} qn_progress;

// user is a qn_progress, zeroed at the start of the work. Returns false once interrupted.
bool qn_progress_show(void *user, const char *what, uint64_t done, uint64_t total);
void qn_progress_clear_line(void); // removes a bar that stands on the terminal
double qn_now(void);               // monotonic seconds

#endif
