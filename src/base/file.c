// Files: mapping, whole reads, and output that appears complete or not at all.
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"

// ---- reading ----

static int open_regular(const char *path, struct stat *st, qn_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, st) < 0) {
        qn_fail_errno(err, errno, "cannot open %s", path);
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
    } else {
        close(fd);
    }
    return true;
}

void qn_map_close(qn_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->n);
    *m = (qn_map){0};
}

static void advise(const qn_map *m, size_t from, size_t n, int advice) {
    if (!m->data || from >= m->n) return;
    if (n > m->n - from) n = m->n - from;
    size_t page = 4096, start = from / page * page;
    madvise((void *)(uintptr_t)(m->data + start), n + (from - start), advice);
}

void qn_map_will_need(const qn_map *m, size_t from, size_t n) { advise(m, from, n, MADV_WILLNEED); }

void qn_map_dont_need(const qn_map *m, size_t from, size_t n) { advise(m, from, n, MADV_DONTNEED); }

static bool read_all(int fd, const char *path, size_t max, qn_buf *out, qn_err *err) {
    for (;;) {
        qn_buf_reserve(out, 65536);
        ssize_t got = read(fd, out->data + out->n, 65536);
        if (got < 0 && errno == EINTR) continue;
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
    if (fd < 0) return qn_fail_errno(err, errno, "cannot open %s", path);
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (size_t)st.st_size <= max)
        qn_buf_reserve(out, (size_t)st.st_size + 65536);
    bool ok = read_all(fd, path, max, out, err);
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

// ---- writing one file ----

#define BUFFER ((size_t)1 << 20)

struct qn_writer {
    char *path, *temporary;
    int fd;
    bool committed;
    uint64_t flushed;
    size_t n; // bytes waiting in buffer
    char *buffer;
};

// "dir/name" becomes "dir/.name.quern-tmp-PID".
static char *temporary_name(const char *path) {
    const char *slash = strrchr(path, '/');
    size_t dir = slash ? (size_t)(slash - path) + 1 : 0;
    return qn_strf("%.*s.%s.quern-tmp-%d", (int)dir, path, path + dir, (int)getpid());
}

qn_writer *qn_writer_new(const char *path, qn_err *err) {
    qn_writer *w = QN_NEW(qn_writer);
    w->path = qn_strdup(path);
    w->temporary = temporary_name(path);
    w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0 || qn_file_is_dir(path)) {
        int e = w->fd < 0 ? errno : EISDIR;
        if (e == ENOENT) e = ENOTDIR; // an output folder that is missing is a system failure
        qn_fail_errno(err, e, "cannot write %s", path);
        qn_writer_free(w);
        return NULL;
    }
    w->buffer = qn_alloc(BUFFER);
    return w;
}

static bool write_all(qn_writer *w, const char *data, size_t n, qn_err *err) {
    while (n > 0) {
        ssize_t put = write(w->fd, data, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return qn_fail_errno(err, errno, "cannot write %s", w->path);
        data += put;
        n -= (size_t)put;
        w->flushed += (uint64_t)put;
    }
    return true;
}

static bool flush(qn_writer *w, qn_err *err) {
    size_t n = w->n;
    w->n = 0;
    return write_all(w, w->buffer, n, err);
}

bool qn_writer_add(qn_writer *w, const void *data, size_t n, qn_err *err) {
    if (w->n + n > BUFFER && !flush(w, err)) return false;
    if (n >= BUFFER) return write_all(w, data, n, err);
    if (n) memcpy(w->buffer + w->n, data, n);
    w->n += n;
    return true;
}

uint64_t qn_writer_size(const qn_writer *w) { return w->flushed + w->n; }

bool qn_writer_put_at(qn_writer *w, uint64_t at, const void *data, size_t n, qn_err *err) {
    if (!flush(w, err)) return false;
    const char *p = data;
    while (n > 0) {
        ssize_t put = pwrite(w->fd, p, n, (off_t)at);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return qn_fail_errno(err, errno, "cannot write %s", w->path);
        p += put;
        n -= (size_t)put;
        at += (uint64_t)put;
    }
    return true;
}

static bool sync_path(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = fsync(fd) == 0 || errno == EINVAL;
    close(fd);
    return ok;
}

static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return qn_strdup(".");
    return slash == path ? qn_strdup("/") : qn_strndup(path, (size_t)(slash - path));
}

bool qn_writer_commit(qn_writer *w, qn_err *err) {
    if (!flush(w, err)) return false;
    bool ok = fsync(w->fd) == 0 || errno == EINVAL;
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0) ok = false;
    if (!ok || rename(w->temporary, w->path) != 0)
        return qn_fail_errno(err, errno, "cannot write %s", w->path);
    w->committed = true;
    char *parent = parent_of(w->path);
    sync_path(parent);
    free(parent);
    return true;
}

void qn_writer_free(qn_writer *w) {
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    if (!w->committed) unlink(w->temporary);
    free(w->path);
    free(w->temporary);
    free(w->buffer);
    free(w);
}

bool qn_file_write(const char *path, const void *data, size_t n, qn_err *err) {
    qn_writer *w = qn_writer_new(path, err);
    bool ok = w && qn_writer_add(w, data, n, err) && qn_writer_commit(w, err);
    qn_writer_free(w);
    return ok;
}

// ---- writing a folder ----

struct qn_outdir {
    char *path, *temporary;
    bool committed, overwrite;
};

// Applies fn to every entry of a folder, deepest first; removal and syncing are both this walk.
static bool walk(const char *path, bool (*fn)(const char *path)) {
    struct stat st;
    if (lstat(path, &st) != 0) return false;
    bool ok = true;
    if (S_ISDIR(st.st_mode)) {
        DIR *d = opendir(path);
        struct dirent *e;
        while (d && (e = readdir(d))) {
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
            char *inner = qn_path_join(path, e->d_name);
            ok = walk(inner, fn) && ok;
            free(inner);
        }
        if (d) closedir(d);
    }
    return fn(path) && ok;
}

static bool remove_one(const char *path) { return remove(path) == 0; }

// Folders that earlier, interrupted runs over the same target left behind.
static void remove_leftovers(const char *path) {
    char *parent = parent_of(path);
    const char *slash = strrchr(path, '/');
    char *prefix = qn_strf(".%s.quern-tmp-", slash ? slash + 1 : path);
    DIR *d = opendir(parent);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        if (!qn_str_starts(e->d_name, prefix)) continue;
        int pid = atoi(e->d_name + strlen(prefix));
        char *proc = qn_strf("/proc/%d", pid), *left = qn_path_join(parent, e->d_name);
        if (pid != (int)getpid() && !qn_file_exists(proc)) walk(left, remove_one);
        free(proc);
        free(left);
    }
    if (d) closedir(d);
    free(prefix);
    free(parent);
}

qn_outdir *qn_outdir_new(const char *path, bool overwrite, qn_err *err) {
    char *clean = qn_strdup(path);
    for (size_t n = strlen(clean); n > 1 && clean[n - 1] == '/'; n--) clean[n - 1] = 0;
    qn_outdir *d = QN_NEW(qn_outdir);
    d->path = clean;
    d->temporary = temporary_name(clean);
    d->overwrite = overwrite;
    remove_leftovers(clean);
    if (qn_file_exists(clean) && !overwrite) {
        qn_fail(err, QN_USAGE, "%s exists already (--overwrite replaces it)", clean);
        goto fail;
    }
    if (mkdir(d->temporary, 0777) != 0) {
        qn_fail_errno(err, errno == ENOENT ? ENOTDIR : errno, "cannot create %s", clean);
        goto fail;
    }
    return d;
fail:
    d->committed = true; // nothing of ours to remove
    qn_outdir_free(d);
    return NULL;
}

const char *qn_outdir_path(const qn_outdir *d) { return d->temporary; }

bool qn_outdir_commit(qn_outdir *d, qn_err *err) {
    if (!walk(d->temporary, sync_path))
        return qn_fail_errno(err, errno, "cannot write %s", d->path);
    char *aside = NULL;
    if (d->overwrite && qn_file_exists(d->path)) {
        aside = qn_strf("%s-old", d->temporary);
        if (rename(d->path, aside) != 0) {
            free(aside);
            return qn_fail_errno(err, errno, "cannot replace %s", d->path);
        }
    }
    if (rename(d->temporary, d->path) != 0) {
        qn_fail_errno(err, errno, "cannot write %s", d->path);
        if (aside) rename(aside, d->path);
        free(aside);
        return false;
    }
    d->committed = true;
    if (aside) walk(aside, remove_one);
    free(aside);
    char *parent = parent_of(d->path);
    sync_path(parent);
    free(parent);
    return true;
}

void qn_outdir_free(qn_outdir *d) {
    if (!d) return;
    if (!d->committed) walk(d->temporary, remove_one);
    free(d->path);
    free(d->temporary);
    free(d);
}
