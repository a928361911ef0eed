// A table of the process's maps. The handler looks into it without a lock: the thread that faults
// is using the map, so its entry stands still. What the handler cannot see, a file rewritten in
// place or cut within a page, shows in the file's size and time of change, which are compared when
// a result is about to be kept and when the map ends. A file replaced by another of the same name
// is no change: the map keeps the old one.
#include "base/map_guard.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "base/interrupt.h"

#define CAP 4096 // maps at once; more are not watched
#define RESIDENT ((size_t)32 << 20) // bytes read before maps are let go

typedef struct entry { // what the handler looks at is atomic: it comes in any thread
    _Atomic(const uint8_t *) data; // NULL: free
    atomic_size_t n;
    char *path;
    struct stat st;
    atomic_int cut; // set by the handler
} entry;

static entry table[CAP];
static atomic_size_t used; // entries beyond were never taken
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *first_changed; // path of the first map found changed; kept for ever
static uintptr_t page = 4096;

void qn_map_enlist(const qn_map *m, const char *path, const struct stat *st) {
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < used && table[i].data) i++;
    if (i < CAP) {
        table[i].n = m->n;
        table[i].path = strdup(path);
        table[i].st = *st;
        table[i].cut = 0;
        table[i].data = m->data;
        if (i == used) used++;
    }
    pthread_mutex_unlock(&lock);
}

static bool changed(const entry *e) {
    struct stat now;
    const struct stat *then = &e->st;
    if (e->cut) return true;
    if (!e->path || stat(e->path, &now) != 0) return false;
    if (now.st_dev != then->st_dev || now.st_ino != then->st_ino) return false;
    return now.st_size != then->st_size || now.st_mtim.tv_sec != then->st_mtim.tv_sec ||
           now.st_mtim.tv_nsec != then->st_mtim.tv_nsec;
}

static void remember(const entry *e) {
    if (!first_changed && e->path) first_changed = strdup(e->path);
}

void qn_map_dismiss(const qn_map *m) {
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < used; i++) {
        if (table[i].data != m->data) continue;
        if (changed(&table[i])) remember(&table[i]);
        table[i].data = NULL;
        free(table[i].path);
        table[i].path = NULL;
        break;
    }
    pthread_mutex_unlock(&lock);
}

static bool fail_changed(const char *path, qn_err *err) {
    return qn_fail(err, QN_IO, "%s was changed or cut short while it was being read", path);
}

bool qn_maps_unchanged(qn_err *err) {
    bool ok = true;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < used && ok; i++) {
        if (!table[i].data || !changed(&table[i])) continue;
        remember(&table[i]);
        ok = fail_changed(table[i].path ? table[i].path : "a file", err);
    }
    pthread_mutex_unlock(&lock);
    return ok;
}

bool qn_maps_never_changed(qn_err *err) {
    if (!qn_maps_unchanged(err)) return false;
    return !first_changed || fail_changed(first_changed, err);
}

void qn_maps_touched(size_t n) {
    static atomic_size_t touched;
    if (atomic_fetch_add_explicit(&touched, n, memory_order_relaxed) + n < RESIDENT) return;
    atomic_store_explicit(&touched, 0, memory_order_relaxed);
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < used; i++)
        if (table[i].data) madvise((void *)(uintptr_t)table[i].data, table[i].n, MADV_DONTNEED);
    pthread_mutex_unlock(&lock);
}

// ---- the signal ----

// From the missing page to the map's end zeros take the file's place.
static bool cover(entry *e, uintptr_t at) {
    uintptr_t from = at / page * page, end = (uintptr_t)e->data + e->n;
    void *p = mmap((void *)from, end - from, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                   0);
    return p != MAP_FAILED;
}

static void on_bus(int number, siginfo_t *info, void *context) {
    (void)context;
    uintptr_t at = (uintptr_t)info->si_addr;
    for (size_t i = 0; i < used; i++) {
        entry *e = &table[i];
        uintptr_t from = (uintptr_t)e->data;
        if (!from || at < from || at - from >= e->n || !cover(e, at)) continue;
        e->cut = 1;
        qn_interrupt_raise();
        return;
    }
    signal(number, SIG_DFL); // not a map of ours: the fault comes again and is what it is
}

void qn_map_guard_install(void) {
    page = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_sigaction = on_bus;
    a.sa_flags = SA_SIGINFO;
    sigemptyset(&a.sa_mask);
    sigaction(SIGBUS, &a, NULL);
}
