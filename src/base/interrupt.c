// Three signals, one flag; any thread may raise it (map_guard.c).
#include "base/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

static atomic_int flag; // lock-free, so that a handler may set it
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "atomic_int takes a lock");

static void on_signal(int number) {
    (void)number;
    flag = 1;
}

// A program started by nohup is meant to outlive its terminal.
static bool is_ignored(int number) {
    struct sigaction a;
    return sigaction(number, NULL, &a) == 0 && a.sa_handler == SIG_IGN;
}

void qn_interrupt_install(void) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    a.sa_flags = (int)SA_RESETHAND; // the second signal ends the program the usual way
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    if (!is_ignored(SIGHUP)) sigaction(SIGHUP, &a, NULL);
    signal(SIGXFSZ, SIG_IGN); // a file size limit is then an error of write(), not a death
}

bool qn_interrupted(void) { return flag != 0; }

void qn_interrupt_raise(void) { flag = 1; }

void qn_interrupt_reset(void) {
    flag = 0;
    qn_interrupt_install();
}
