// Allocation with two tempers, and what the system says about memory.
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/err.h"

#define HUGE_PAGE ((size_t)2 << 20)

// The system failed, and that is exit status 3; abort() would be a signal of our own making.
static void *or_end(void *p) {
    if (p) return p;
    fputs("quern: out of memory\n", stderr);
    _Exit(3);
}

void *qn_alloc(size_t n) { return or_end(malloc(n ? n : 1)); }

void *qn_zalloc(size_t n) { return or_end(calloc(n ? n : 1, 1)); }

void *qn_realloc(void *p, size_t n) { return or_end(realloc(p, n ? n : 1)); }

void *qn_calloc(size_t count, size_t size) {
    return or_end(calloc(count ? count : 1, size ? size : 1));
}

static size_t whole_pages(size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (n + page - 1) / page * page;
}

// Mapped with room to cut a huge-page-aligned piece out of the middle.
static void *map_aligned(size_t n) {
    size_t span = n + HUGE_PAGE;
    if (span < n) return NULL;
    char *base = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    size_t head = (HUGE_PAGE - (size_t)base % HUGE_PAGE) % HUGE_PAGE;
    char *p = base + head;
    size_t used = whole_pages(n);
    if (head) munmap(base, head);
    if (span - head > used) munmap(p + used, span - head - used);
    madvise(p, used, MADV_HUGEPAGE);
    return p;
}

void *qn_big_alloc(size_t n, const char *what, qn_err *err) {
    void *p = NULL;
    if (n == 0) n = 64;
    if (n >= 2 * HUGE_PAGE) {
        // Overcommit would let this succeed and kill us later; ask first.
        if (n <= qn_memory_available()) p = map_aligned(n);
    } else {
        p = aligned_alloc(64, (n + 63) & ~(size_t)63);
        if (p) memset(p, 0, n);
    }
    if (p) return p;
    return qn_fail_null(err, QN_NOMEM, "%s: no memory for %.1f MiB (%.1f MiB available)", what,
                        (double)n / 1048576.0, (double)qn_memory_available() / 1048576.0);
}

void qn_big_free(void *p, size_t n) {
    if (!p) return;
    if (n >= 2 * HUGE_PAGE)
        munmap(p, whole_pages(n));
    else
        free(p);
}

bool qn_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }

bool qn_plus(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

// The number behind `key` in a "Key:   123 kB" file, in bytes; 0 when absent.
static size_t kb_field(const char *path, const char *key) {
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    char line[256];
    size_t kb = 0, n = strlen(key);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0) {
            kb = strtoull(line + n, NULL, 10);
            break;
        }
    fclose(f);
    return kb * 1024;
}

size_t qn_rss_bytes(void) { return kb_field("/proc/self/status", "VmRSS:"); }

size_t qn_rss_peak_bytes(void) { return kb_field("/proc/self/status", "VmHWM:"); }

size_t qn_memory_available(void) {
    size_t free_bytes = kb_field("/proc/meminfo", "MemAvailable:");
    size_t left = qn_cgroup_memory_left("");
    if (free_bytes == 0) free_bytes = SIZE_MAX;
    return left < free_bytes ? left : free_bytes;
}
