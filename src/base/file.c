// Reading files: mapping and whole reads. What cannot be opened for reading is the user's input
// (QN_INPUT, QN_NOT_FOUND), what breaks while reading is the system (QN_IO). Writing is in
// file_output.c.
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/interrupt.h"
#include "base/map_guard.h"
#include "base/mem.h"

// ---- reading ----

static bool cannot_open(const char *path, int e, qn_err *err) {
    bool system = e == EIO || e == EMFILE || e == ENFILE || e == ENOMEM;
    if (e == ENOENT || system) return qn_fail_errno(err, e, "cannot open %s", path);
    char why[128];
    return qn_fail(err, QN_INPUT, "cannot open %s: %s", path, strerror_r(e, why, sizeof why));
}

// Without O_NONBLOCK a named pipe in a checkpoint's place would hang us.
static int open_regular(const char *path, struct stat *st, qn_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, st) < 0) {
        cannot_open(path, errno, err);
        if (fd >= 0) close(fd);
        return -1;
    }
    if (S_ISREG(st->st_mode)) return fd;
    qn_fail(err, QN_INPUT, "%s is %s, expected a file", path,
            S_ISDIR(st->st_mode) ? "a folder" : "not a regular file");
    close(fd);
    return -1;
}

bool qn_map_open(qn_map *m, const char *path, qn_err *err) {
    struct stat st;
    *m = (qn_map){0};
    int fd = open_regular(path, &st, err);
    if (fd < 0) return false;
    m->n = (size_t)st.st_size;
    if (m->n > 0) {
        void *p = mmap(NULL, m->n, PROT_READ, MAP_PRIVATE, fd, 0);
        int e = errno;
        close(fd);
        if (p == MAP_FAILED) {
            *m = (qn_map){0};
            return qn_fail_errno(err, e, "cannot map %s", path);
        }
        m->data = p;
        qn_map_enlist(m, path, &st);
    } else {
        close(fd);
    }
    return true;
}

void qn_map_close(qn_map *m) {
    if (m->data) {
        qn_map_dismiss(m);
        munmap((void *)(uintptr_t)m->data, m->n);
    }
    *m = (qn_map){0};
}

static void advise(const qn_map *m, size_t from, size_t n, int advice) {
    if (!m->data || from >= m->n) return;
    if (n > m->n - from) n = m->n - from;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), start = from / page * page;
    madvise((void *)(uintptr_t)(m->data + start), n + (from - start), advice);
}

void qn_map_will_need(const qn_map *m, size_t from, size_t n) { advise(m, from, n, MADV_WILLNEED); }

void qn_map_dont_need(const qn_map *m, size_t from, size_t n) { advise(m, from, n, MADV_DONTNEED); }

static bool read_all(int fd, const char *path, size_t max, qn_buf *out, qn_err *err) {
    for (;;) {
        qn_buf_reserve(out, 65536);
        ssize_t got = read(fd, out->data + out->n, 65536);
        if (got < 0 && errno == EINTR && !qn_interrupted()) continue;
        if (got < 0 && errno == EINTR) return qn_fail(err, QN_CANCELLED, "interrupted");
        if (got < 0) return qn_fail_errno(err, errno, "cannot read %s", path);
        out->n += (size_t)got;
        out->data[out->n] = 0;
        if (out->n > max)
            return qn_fail(err, QN_LIMIT, "%s is larger than %zu bytes", path, max);
        if (got == 0) return true;
    }
}

bool qn_file_read(const char *path, size_t max, qn_buf *out, qn_err *err) {
    qn_buf_clear(out);
    if (strcmp(path, "-") == 0) return read_all(STDIN_FILENO, "stdin", max, out, err);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return cannot_open(path, errno, err);
    struct stat st;
    bool known = fstat(fd, &st) == 0, ok;
    if (known && S_ISREG(st.st_mode) && (size_t)st.st_size <= max)
        qn_buf_reserve(out, (size_t)st.st_size + 65536);
    if (known && S_ISDIR(st.st_mode))
        ok = qn_fail(err, QN_INPUT, "%s is a folder, expected a file", path);
    else
        ok = read_all(fd, path, max, out, err);
    close(fd);
    return ok;
}

bool qn_file_exists(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0;
}

bool qn_file_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int64_t qn_file_size(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

char *qn_path_join(const char *dir, const char *name) {
    size_t n = strlen(dir);
    return qn_strf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}
