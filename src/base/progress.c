// One line, redrawn at most ten times a second.
#include "base/progress.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/interrupt.h"
#include "base/log.h"

static atomic_bool bar_stands;

double qn_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void qn_progress_clear_line(void) {
    if (atomic_exchange(&bar_stands, false)) fputs("\r\033[K", stderr);
}

static void draw(const char *what, double fraction, double elapsed) {
    enum { WIDTH = 30 };
    char bar[WIDTH * 3 + 1] = "";
    int full = (int)(fraction * WIDTH);
    for (int i = 0; i < WIDTH; i++) strcat(bar, i < full ? "█" : "░");
    double left = fraction > 0.01 ? elapsed * (1 - fraction) / fraction : 0;
    fprintf(stderr, "\r\033[K%s %s %3.0f %%  %.0f s left", what, bar, fraction * 100, left);
    fflush(stderr);
    atomic_store(&bar_stands, true);
}

bool qn_progress_show(void *user, const char *what, uint64_t done, uint64_t total) {
    qn_progress *p = user;
    double now = qn_now();
    if (p->started == 0) p->started = now;
    if (done >= total) {
        qn_progress_clear_line();
    } else if (now - p->started > 1 && now - p->drawn > 0.1 && !qn_log_quiet() &&
               isatty(STDERR_FILENO)) {
        draw(what, (double)done / (double)total, now - p->started);
        p->drawn = now;
    }
    return !qn_interrupted();
}
