// Notes on stderr.
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/progress.h"
#include "base/str.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool quiet_flag;

#define REMEMBERED 256
static uint64_t seen[REMEMBERED];
static size_t n_seen;

void qn_log_set_quiet(bool quiet) { quiet_flag = quiet; }

bool qn_log_quiet(void) { return quiet_flag; }

static bool seen_before(const char *text) {
    uint64_t h = 1469598103934665603u;
    for (const char *p = text; *p; p++) h = (h ^ (unsigned char)*p) * 1099511628211u;
    for (size_t i = 0; i < n_seen && i < REMEMBERED; i++)
        if (seen[i] == h) return true;
    seen[n_seen++ % REMEMBERED] = h;
    return false;
}

static void note(bool once, const char *fmt, va_list args) {
    if (quiet_flag) return;
    char raw[2048], text[2048];
    vsnprintf(raw, sizeof raw, fmt, args);
    qn_str_visible(raw, text, sizeof text);
    pthread_mutex_lock(&lock);
    if (!once || !seen_before(text)) {
        qn_progress_clear_line();
        fprintf(stderr, "note: %s\n", text);
    }
    pthread_mutex_unlock(&lock);
}

void qn_note(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    note(true, fmt, args);
    va_end(args);
}

void qn_note_each(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    note(false, fmt, args);
    va_end(args);
}
