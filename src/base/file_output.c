// Output that appears complete or not at all. A file or folder is built under a temporary name
// beside its target, ".NAME.quern-tmp-PID", synced, and moved into place by one rename. Every
// failure here is the system's (QN_IO, QN_NOMEM), whatever errno says: the path was asked for.
//
// A temporary is locked (flock) while its maker lives, so that the next run over the same target
// can tell an interrupted run's leftovers from somebody else's work in progress, also across
// containers, where process ids mean nothing.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/map_guard.h"
#include "base/mem.h"

#define BUFFER ((size_t)1 << 20)
#define SENT ((size_t)16 << 20) // bytes after which the helper is woken
#define MARK ".quern-tmp-"

static bool cannot(const char *verb, const char *path, int e, qn_err *err) {
    char why[128];
    return qn_fail(err, e == ENOMEM ? QN_NOMEM : QN_IO, "cannot %s %s: %s", verb, path,
                   strerror_r(e, why, sizeof why));
}

// ---- folders and names ----

static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return qn_strdup(".");
    return slash == path ? qn_strdup("/") : qn_strndup(path, (size_t)(slash - path));
}

// "dir/name" becomes "dir/.name.quern-tmp-PID".
static char *temporary_name(const char *path) {
    const char *slash = strrchr(path, '/');
    size_t dir = slash ? (size_t)(slash - path) + 1 : 0;
    return qn_strf("%.*s.%s" MARK "%d", (int)dir, path, path + dir, (int)getpid());
}

// Applies fn to every entry of a folder, deepest first, links not followed; stops at the first
// failure, whose errno it leaves.
static bool walk(const char *path, bool (*fn)(const char *path, bool is_link)) {
    struct stat st;
    if (lstat(path, &st) != 0) return false;
    bool ok = true;
    if (S_ISDIR(st.st_mode)) {
        DIR *d = opendir(path);
        if (!d) return false;
        struct dirent *e;
        while (ok && (e = readdir(d))) {
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
            char *inner = qn_path_join(path, e->d_name);
            ok = walk(inner, fn);
            free(inner);
        }
        int kept = errno;
        closedir(d);
        errno = kept;
    }
    return ok && fn(path, S_ISLNK(st.st_mode));
}

static bool remove_one(const char *path, bool is_link) {
    (void)is_link;
    return remove(path) == 0;
}

static bool sync_one(const char *path, bool is_link) {
    if (is_link) return true;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = fsync(fd) == 0 || errno == EINVAL;
    int kept = errno;
    close(fd);
    errno = kept;
    return ok;
}

static void sync_parent(const char *path) {
    char *parent = parent_of(path);
    sync_one(parent, false); // the data is safe already; an unsyncable parent is no failure
    free(parent);
}

static bool alive(int pid) {
    char proc[32];
    snprintf(proc, sizeof proc, "/proc/%d", pid);
    return pid != (int)getpid() && qn_file_exists(proc);
}

// Only what nobody holds a lock on is removed. The process id guards the moment between making
// a temporary and locking it.
static void remove_if_abandoned(const char *path, int pid) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return;
    if (!alive(pid) && flock(fd, LOCK_EX | LOCK_NB) == 0) walk(path, remove_one);
    close(fd);
}

static void remove_leftovers(const char *path) {
    const char *slash = strrchr(path, '/');
    char *parent = parent_of(path), *prefix = qn_strf(".%s" MARK, slash ? slash + 1 : path);
    DIR *d = opendir(parent);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        if (!qn_str_starts(e->d_name, prefix)) continue;
        char *left = qn_path_join(parent, e->d_name);
        remove_if_abandoned(left, atoi(e->d_name + strlen(prefix)));
        free(left);
    }
    if (d) closedir(d);
    free(prefix);
    free(parent);
}

// ---- one file ----

struct qn_writer {
    char *path, *temporary; // temporary NULL: a device or pipe, written in place
    int fd;
    bool committed;
    uint64_t flushed, expected;
    size_t n; // bytes waiting in buffer
    char *buffer;
    atomic_size_t unsent; // bytes written since the helper was last woken
    struct helper {
        bool there, stop, woken;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t wake;
    } helper;
};

// Renaming over /dev/null or a pipe would destroy it: such targets are written as they are.
static int open_target(qn_writer *w) {
    struct stat st;
    bool there = stat(w->path, &st) == 0;
    if (!*w->path || (there && S_ISDIR(st.st_mode))) {
        errno = *w->path ? EISDIR : ENOENT;
        return -1;
    }
    if (there && !S_ISREG(st.st_mode)) return open(w->path, O_WRONLY | O_CLOEXEC);
    remove_leftovers(w->path);
    w->temporary = temporary_name(w->path);
    int fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd >= 0) flock(fd, LOCK_EX | LOCK_NB);
    return fd;
}

qn_writer *qn_writer_new(const char *path, qn_err *err) {
    qn_writer *w = QN_NEW(qn_writer);
    pthread_mutex_init(&w->helper.lock, NULL);
    pthread_cond_init(&w->helper.wake, NULL);
    w->path = qn_strdup(path);
    w->fd = open_target(w);
    if (w->fd < 0) {
        cannot("write", path, errno, err);
        w->committed = true; // nothing of ours to remove
        qn_writer_free(w);
        return NULL;
    }
    w->buffer = qn_alloc(BUFFER);
    return w;
}

// The helper has the system begin to bring what is dirty to the disk, every few megabytes: the disk
// then works while the next bytes are made, and a sync waits for the last few only. A thread of its
// own, because the call waits where the disk is the slower one. A hint: without the helper the work
// is left to fsync, and failures show there.
static void *help(void *arg) {
    qn_writer *w = arg;
    struct helper *h = &w->helper;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        while (!h->woken && !h->stop) pthread_cond_wait(&h->wake, &h->lock);
        if (h->stop) break;
        h->woken = false;
        pthread_mutex_unlock(&h->lock);
#ifdef SYNC_FILE_RANGE_WRITE
        (void)sync_file_range(w->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static void wake_helper(qn_writer *w) {
    struct helper *h = &w->helper;
    pthread_mutex_lock(&h->lock);
    if (!h->there) h->there = pthread_create(&h->thread, NULL, help, w) == 0;
    h->woken = true;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
}

static void end_helper(qn_writer *w) {
    struct helper *h = &w->helper;
    if (!h->there) return;
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    h->there = false;
}

static void wrote(qn_writer *w, size_t n) {
    if (!w->temporary || atomic_fetch_add(&w->unsent, n) + n < SENT) return;
    atomic_store(&w->unsent, 0);
    wake_helper(w);
}

static bool write_all(qn_writer *w, const char *data, size_t n, qn_err *err) {
    while (n > 0) {
        ssize_t put = write(w->fd, data, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return cannot("write", w->path, errno, err);
        data += put;
        n -= (size_t)put;
        w->flushed += (uint64_t)put;
        wrote(w, (size_t)put);
    }
    return true;
}

static bool flush(qn_writer *w, qn_err *err) {
    size_t n = w->n;
    w->n = 0;
    return write_all(w, w->buffer, n, err);
}

bool qn_writer_add(qn_writer *w, const void *data, size_t n, qn_err *err) {
    if (n > BUFFER - w->n && !flush(w, err)) return false;
    if (n >= BUFFER) return write_all(w, data, n, err);
    if (n) memcpy(w->buffer + w->n, data, n);
    w->n += n;
    return true;
}

// A file system in memory would fill the pages one by one, here and now.
static bool is_disk(int fd) {
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC;
}

// Blocks found at once need not be sought by every write, and a disk that is too small shows before
// the work and not after it. File systems that cannot do it go on without.
bool qn_writer_expect(qn_writer *w, uint64_t n, qn_err *err) {
    if (!w->temporary || n == 0 || !is_disk(w->fd)) return true;
    w->expected = n;
    if (fallocate(w->fd, 0, 0, (off_t)n) == 0) return true;
    if (errno != ENOSPC && errno != EDQUOT && errno != EFBIG) return true;
    return cannot("write", w->path, errno, err);
}

uint64_t qn_writer_size(const qn_writer *w) { return w->flushed + w->n; }

bool qn_writer_put_at(qn_writer *w, uint64_t at, const void *data, size_t n, qn_err *err) {
    if (w->n && !flush(w, err)) return false;
    const char *p = data;
    while (n > 0) {
        ssize_t put = pwrite(w->fd, p, n, (off_t)at);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return cannot("write", w->path, errno, err);
        p += put;
        n -= (size_t)put;
        at += (uint64_t)put;
        wrote(w, (size_t)put);
    }
    return true;
}

bool qn_writer_reserve(qn_writer *w, uint64_t n, qn_err *err) {
    if (!flush(w, err)) return false;
    if (lseek(w->fd, (off_t)n, SEEK_CUR) < 0) return cannot("write", w->path, errno, err);
    w->flushed += n;
    return true;
}

static bool sync_file(qn_writer *w, qn_err *err) {
    end_helper(w);
    if (w->temporary && fsync(w->fd) != 0 && errno != EINVAL)
        return cannot("write", w->path, errno, err);
    return true;
}

static bool complete(qn_writer *w, qn_err *err) {
    if (!qn_maps_unchanged(err) || !flush(w, err)) return false;
    if (w->expected > w->flushed && ftruncate(w->fd, (off_t)w->flushed) != 0)
        return cannot("write", w->path, errno, err);
    return true;
}

static bool give_name(qn_writer *w, qn_err *err) {
    if (w->temporary && rename(w->temporary, w->path) != 0)
        return cannot("write", w->path, errno, err);
    w->committed = true;
    return true;
}

// Closed last, for the lock; an error that close would tell (NFS) fsync has told already.
static void close_target(qn_writer *w) {
    close(w->fd);
    w->fd = -1;
}

bool qn_writer_commit(qn_writer *w, qn_err *err) {
    if (!complete(w, err) || !sync_file(w, err) || !give_name(w, err)) return false;
    close_target(w);
    if (w->temporary) sync_parent(w->path);
    return true;
}

bool qn_writer_name(qn_writer *w, qn_err *err) {
    if (!complete(w, err)) return false;
    if (w->helper.there) wake_helper(w); // for the last bytes
    return give_name(w, err);
}

bool qn_writer_settle(qn_writer *w, qn_err *err) {
    if (!sync_file(w, err)) return false;
    close_target(w);
    return true;
}

void qn_writer_free(qn_writer *w) {
    if (!w) return;
    end_helper(w);
    if (!w->committed && w->temporary) unlink(w->temporary);
    if (w->fd >= 0) close(w->fd);
    pthread_mutex_destroy(&w->helper.lock);
    pthread_cond_destroy(&w->helper.wake);
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

// ---- a folder ----

struct qn_outdir {
    char *path, *temporary;
    int fd; // of the temporary folder, for its lock
    bool committed, overwrite;
};

qn_outdir *qn_outdir_new(const char *path, bool overwrite, qn_err *err) {
    char *clean = qn_strdup(path);
    for (size_t n = strlen(clean); n > 1 && clean[n - 1] == '/'; n--) clean[n - 1] = 0;
    qn_outdir *d = QN_NEW(qn_outdir);
    *d = (qn_outdir){clean, temporary_name(clean), -1, false, overwrite};
    if (!*clean || (qn_file_exists(clean) && !overwrite)) {
        if (*clean)
            qn_fail(err, QN_USAGE, "%s exists already (--overwrite replaces it)", clean);
        else
            qn_fail(err, QN_USAGE, "the output folder's name is empty");
        goto fail;
    }
    remove_leftovers(clean);
    if (mkdir(d->temporary, 0777) != 0) {
        cannot("create", clean, errno, err);
        goto fail;
    }
    d->fd = open(d->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->fd >= 0) flock(d->fd, LOCK_EX | LOCK_NB);
    return d;
fail:
    d->committed = true; // nothing of ours to remove
    qn_outdir_free(d);
    return NULL;
}

const char *qn_outdir_path(const qn_outdir *d) { return d->temporary; }

// Swaps new and old in one step where the file system can; the old one is then what lies under
// the temporary name. Elsewhere two renames, with the old one put back if the second fails.
static bool replace_folder(const char *fresh, const char *target) {
    if (renameat2(AT_FDCWD, fresh, AT_FDCWD, target, RENAME_EXCHANGE) == 0) {
        walk(fresh, remove_one);
        return true;
    }
    if (errno != EINVAL && errno != ENOSYS) return false;
    char *aside = qn_strf("%s-old", fresh);
    bool ok = rename(target, aside) == 0;
    if (ok && rename(fresh, target) != 0) {
        int kept = errno;
        rename(aside, target);
        errno = kept;
        ok = false;
    }
    if (ok) walk(aside, remove_one);
    free(aside);
    return ok;
}

bool qn_outdir_commit(qn_outdir *d, qn_err *err) {
    if (!qn_maps_unchanged(err)) return false; // what was made from a moving file is not kept
    if (!walk(d->temporary, sync_one)) return cannot("write", d->path, errno, err);
    bool there = qn_file_exists(d->path);
    if (there && !d->overwrite)
        return qn_fail(err, QN_USAGE, "%s has come into being meanwhile", d->path);
    bool ok = there ? replace_folder(d->temporary, d->path) : rename(d->temporary, d->path) == 0;
    if (!ok) return cannot(there ? "replace" : "write", d->path, errno, err);
    d->committed = true;
    sync_parent(d->path);
    return true;
}

void qn_outdir_free(qn_outdir *d) {
    if (!d) return;
    if (!d->committed) walk(d->temporary, remove_one);
    if (d->fd >= 0) close(d->fd);
    free(d->path);
    free(d->temporary);
    free(d);
}
