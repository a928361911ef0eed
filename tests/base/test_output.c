// Files: reading, and output that is whole or absent, through failures, kills and full disks.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/mem.h"

static char room[64]; // a fresh folder for each test

static int enter(void **state) {
    (void)state;
    snprintf(room, sizeof room, "/tmp/quern-output-XXXXXX");
    return mkdtemp(room) ? 0 : -1;
}

static int leave(void **state) {
    (void)state;
    qn_err err = {0};
    // An outdir over the folder, never committed after the swap, is a way to remove it.
    qn_outdir *d = qn_outdir_new(room, true, &err);
    bool ok = d && qn_outdir_commit(d, &err);
    qn_outdir_free(d);
    return ok && rmdir(room) == 0 ? 0 : -1;
}

static char *in_room(const char *name) { return qn_path_join(room, name); }

static int entries(const char *folder) {
    DIR *d = opendir(folder);
    int n = -2; // . and ..
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

static void assert_content(const char *path, const char *expected) {
    qn_buf b = {0};
    qn_err err = {0};
    assert_true(qn_file_read(path, 1 << 20, &b, &err));
    assert_string_equal(b.data, expected);
    qn_buf_done(&b);
}

static void put(const char *path, const char *text) {
    qn_err err = {0};
    assert_true(qn_file_write(path, text, strlen(text), &err));
}

static void reading_tells_what_is_wrong(void **state) {
    (void)state;
    qn_map m;
    qn_buf b = {0};
    qn_err err = {0};
    char *path = in_room("fifo"), *none = in_room("none"), *text = in_room("text");
    assert_false(qn_map_open(&m, none, &err));
    assert_int_equal(err.code, QN_NOT_FOUND);
    assert_false(qn_map_open(&m, room, &err));
    assert_int_equal(err.code, QN_INPUT);
    assert_non_null(strstr(err.text, "is a folder"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_false(qn_map_open(&m, path, &err)); // and does not wait for a writer
    assert_int_equal(err.code, QN_INPUT);
    put(text, "0123456789");
    assert_false(qn_file_read(text, 9, &b, &err));
    assert_int_equal(err.code, QN_LIMIT);
    assert_true(qn_file_read(text, 10, &b, &err));
    char *below = qn_path_join(text, "x"); // a file where a folder should be
    assert_false(qn_file_read(below, 10, &b, &err));
    assert_int_equal(err.code, QN_INPUT);
    assert_true(qn_map_open(&m, text, &err));
    assert_int_equal(m.n, 10);
    qn_map_will_need(&m, 3, 100);
    qn_map_dont_need(&m, 0, 10);
    assert_memory_equal(m.data, "0123456789", 10);
    qn_map_close(&m);
    put(text, "");
    assert_true(qn_map_open(&m, text, &err));
    assert_int_equal(m.n, 0);
    qn_map_close(&m);
    assert_int_equal(qn_file_size(text), 0);
    assert_int_equal(qn_file_size(none), -1);
    qn_buf_done(&b);
    free(below);
    free(path);
    free(none);
    free(text);
}

static void file_appears_at_commit(void **state) {
    (void)state;
    qn_err err = {0};
    char *path = in_room("out");
    put(path, "old");
    qn_writer *w = qn_writer_new(path, &err);
    assert_non_null(w);
    assert_true(qn_writer_add(w, "....new", 7, &err));
    assert_true(qn_writer_put_at(w, 0, "very", 4, &err));
    assert_true(qn_writer_add(w, "er", 2, &err));
    assert_int_equal(qn_writer_size(w), 9);
    assert_content(path, "old");
    assert_true(qn_writer_commit(w, &err));
    qn_writer_free(w);
    assert_content(path, "verynewer");
    assert_int_equal(entries(room), 1);
    free(path);
}

static void uncommitted_file_leaves_nothing(void **state) {
    (void)state;
    qn_err err = {0};
    char *path = in_room("out");
    qn_writer *w = qn_writer_new(path, &err);
    assert_true(qn_writer_add(w, "x", 1, &err));
    qn_writer_free(w);
    assert_int_equal(entries(room), 0);
    free(path);
}

static void large_pieces_arrive_in_order(void **state) {
    (void)state;
    enum { N = 5 << 20 };
    qn_err err = {0};
    char *path = in_room("big"), *data = qn_alloc(N);
    for (size_t i = 0; i < N; i++) data[i] = (char)(i * 2654435761u >> 13);
    qn_writer *w = qn_writer_new(path, &err);
    size_t at = 0, step = 1;
    while (at < N) {
        size_t n = step < N - at ? step : N - at;
        assert_true(qn_writer_add(w, data + at, n, &err));
        at += n;
        step = step * 3 + 1;
    }
    assert_true(qn_writer_commit(w, &err));
    qn_writer_free(w);
    qn_map m;
    assert_true(qn_map_open(&m, path, &err));
    assert_int_equal(m.n, N);
    assert_memory_equal(m.data, data, N);
    qn_map_close(&m);
    free(data);
    free(path);
}

static void unwritable_paths_are_the_systems(void **state) {
    (void)state;
    qn_err err = {0};
    char *missing = in_room("no/such/out"), *text = in_room("text");
    assert_false(qn_file_write(missing, "x", 1, &err));
    assert_int_equal(err.code, QN_IO);
    assert_non_null(strstr(err.text, "No such file or directory"));
    assert_false(qn_file_write(room, "x", 1, &err));
    assert_int_equal(err.code, QN_IO);
    assert_false(qn_file_write("", "x", 1, &err));
    assert_null(qn_outdir_new(missing, false, &err));
    assert_int_equal(err.code, QN_IO);
    put(text, "here");
    assert_null(qn_outdir_new(text, false, &err));
    assert_int_equal(err.code, QN_USAGE);
    assert_null(qn_outdir_new("", true, &err));
    assert_int_equal(err.code, QN_USAGE);
    free(text);
    free(missing);
}

static void devices_are_written_not_replaced(void **state) {
    (void)state;
    qn_err err = {0};
    assert_true(qn_file_write("/dev/null", "x", 1, &err));
    struct stat st;
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    if (access("/dev/full", W_OK) != 0) return;
    assert_false(qn_file_write("/dev/full", "x", 1, &err));
    assert_string_equal(err.text, "cannot write /dev/full: No space left on device");
    assert_int_equal(err.code, QN_IO);
}

// A file size limit stands in for a full disk.
static void full_disk_is_an_error_and_leaves_nothing(void **state) {
    (void)state;
    char *path = in_room("out"), *folder = in_room("folder");
    put(path, "old");
    pid_t child = fork();
    if (child == 0) {
        qn_interrupt_install(); // which ignores SIGXFSZ
        struct rlimit limit = {100000, 100000};
        setrlimit(RLIMIT_FSIZE, &limit);
        qn_err err = {0};
        char block[65536] = {1};
        qn_writer *w = qn_writer_new(path, &err);
        bool ok = w != NULL;
        for (int i = 0; ok && i < 64; i++) ok = qn_writer_add(w, block, sizeof block, &err);
        if (ok) ok = qn_writer_commit(w, &err);
        qn_writer_free(w);
        int bad = ok || err.code != QN_IO || !strstr(err.text, "File too large");
        qn_outdir *d = qn_outdir_new(folder, false, &err);
        char *inner = qn_path_join(qn_outdir_path(d), "weights");
        char *data = qn_zalloc(200000);
        bad |= qn_file_write(inner, data, 200000, &err);
        qn_outdir_free(d);
        _exit(bad);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_content(path, "old");
    assert_int_equal(entries(room), 1);
    free(path);
    free(folder);
}

// Room that is not there shows before anything is added; what was expected and never came is cut off.
static void room_is_found_beforehand(void **state) {
    (void)state;
    qn_err err = {0};
    char *path = in_room("file");
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 1 << 20;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    qn_writer *w = qn_writer_new(path, &err);
    bool enough = qn_writer_expect(w, 1 << 20, &err), more = qn_writer_expect(w, 2 << 20, &err);
    qn_writer_free(w);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_true(enough);
    struct statfs fs;
    bool memory = statfs(room, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
    if (!memory) { // there it would show when the pages are written
        assert_false(more);
        assert_non_null(strstr(err.text, "File too large"));
    }
    assert_int_equal(entries(room), 0);
    err = (qn_err){0};
    w = qn_writer_new(path, &err);
    assert_true(qn_writer_expect(w, 100000, &err) && qn_writer_add(w, "short", 5, &err) &&
                qn_writer_commit(w, &err));
    qn_writer_free(w);
    assert_int_equal(qn_file_size(path), 5);
    assert_content(path, "short");
    free(path);
}

// Enough for the helper to send some of it ahead: named it can be read, settled it stays.
static void a_name_before_the_disk(void **state) {
    (void)state;
    enum { PIECE = 1 << 20, PIECES = 40 };
    qn_err err = {0};
    char *path = in_room("file"), *piece = qn_alloc(PIECE);
    qn_writer *w = qn_writer_new(path, &err);
    assert_true(qn_writer_reserve(w, (uint64_t)PIECE * PIECES, &err));
    for (int i = PIECES; i-- > 0;) {
        memset(piece, i, PIECE);
        assert_true(qn_writer_put_at(w, (uint64_t)i * PIECE, piece, PIECE, &err));
    }
    assert_false(qn_file_exists(path));
    assert_true(qn_writer_name(w, &err));
    qn_map m;
    assert_true(qn_map_open(&m, path, &err));
    assert_int_equal(m.n, (size_t)PIECE * PIECES);
    for (size_t i = 0; i < m.n; i += 4095) assert_int_equal(m.data[i], i / PIECE);
    qn_map_close(&m);
    assert_true(qn_writer_settle(w, &err));
    qn_writer_free(w);
    assert_int_equal(entries(room), 1);
    w = qn_writer_new(path, &err); // given up with the helper at work: the old one stays
    for (int i = 0; i < PIECES; i++) assert_true(qn_writer_add(w, piece, PIECE, &err));
    qn_writer_free(w);
    assert_int_equal(qn_file_size(path), (int64_t)PIECE * PIECES);
    assert_int_equal(entries(room), 1);
    free(piece);
    free(path);
}

static void folder_appears_at_commit(void **state) {
    (void)state;
    qn_err err = {0};
    char *path = in_room("out///"), *target = in_room("out");
    qn_outdir *d = qn_outdir_new(path, false, &err);
    assert_non_null(d);
    char *sub = qn_path_join(qn_outdir_path(d), "sub"), *a = qn_path_join(qn_outdir_path(d), "a");
    char *b = qn_path_join(sub, "b");
    assert_int_equal(mkdir(sub, 0777), 0);
    put(a, "1");
    put(b, "2");
    assert_false(qn_file_exists(target));
    assert_true(qn_outdir_commit(d, &err));
    qn_outdir_free(d);
    assert_int_equal(entries(room), 1);
    char *moved = in_room("out/sub/b");
    assert_content(moved, "2");
    assert_null(qn_outdir_new(path, false, &err));
    assert_int_equal(err.code, QN_USAGE);
    assert_non_null(strstr(err.text, "--overwrite"));
    free(moved);
    free(a);
    free(b);
    free(sub);
    free(path);
    free(target);
}

static void overwrite_swaps_whole_folders(void **state) {
    (void)state;
    qn_err err = {0};
    char *target = in_room("out"), *old = in_room("out/old"), *fresh = in_room("out/new");
    assert_int_equal(mkdir(target, 0777), 0);
    put(old, "old");
    qn_outdir *d = qn_outdir_new(target, true, &err);
    char *inner = qn_path_join(qn_outdir_path(d), "new");
    put(inner, "new");
    assert_content(old, "old");
    assert_true(qn_outdir_commit(d, &err));
    qn_outdir_free(d);
    assert_content(fresh, "new");
    assert_false(qn_file_exists(old));
    assert_int_equal(entries(room), 1);
    // Given up, the old one stays.
    d = qn_outdir_new(target, true, &err);
    qn_outdir_free(d);
    assert_content(fresh, "new");
    assert_int_equal(entries(room), 1);
    free(inner);
    free(old);
    free(fresh);
    free(target);
}

// Killed in the middle: the target is untouched and the next run cleans up.
static void leftovers_of_a_killed_run_go(void **state) {
    (void)state;
    qn_err err = {0};
    char *target = in_room("out"), *file = in_room("file");
    pid_t child = fork();
    if (child == 0) {
        qn_outdir *d = qn_outdir_new(target, false, &err);
        put(qn_path_join(qn_outdir_path(d), "half"), "half");
        qn_writer *w = qn_writer_new(file, &err);
        qn_writer_add(w, "half", 4, &err);
        raise(SIGKILL);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_false(qn_file_exists(target));
    assert_int_equal(entries(room), 2);
    qn_outdir *d = qn_outdir_new(target, false, &err);
    assert_non_null(d);
    qn_outdir_free(d);
    put(file, "whole");
    assert_int_equal(entries(room), 1);
    free(target);
    free(file);
}

// A temporary with our own process id, left by an earlier container; and one that is in use by a
// process we cannot see by its id, but whose lock we feel.
static void locks_tell_leftovers_from_work(void **state) {
    (void)state;
    qn_err err = {0};
    char name[64], *target = in_room("out");
    snprintf(name, sizeof name, ".out.quern-tmp-%d", (int)getpid());
    char *mine = in_room(name), *used = in_room(".out.quern-tmp-999999999");
    assert_int_equal(mkdir(mine, 0777), 0);
    assert_int_equal(mkdir(used, 0777), 0);
    int fd = open(used, O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    qn_outdir *d = qn_outdir_new(target, false, &err);
    assert_non_null(d);
    assert_true(qn_file_exists(used));
    assert_true(qn_outdir_commit(d, &err));
    qn_outdir_free(d);
    close(fd);
    assert_int_equal(entries(room), 2);
    free(mine);
    free(used);
    free(target);
}

// Errors must tell the first cause, whatever cleaning up does to errno.
static void commit_reports_its_own_cause(void **state) {
    (void)state;
    qn_err err = {0};
    char *target = in_room("out"), *blocker = in_room("out/x");
    qn_writer *w = qn_writer_new(target, &err);
    assert_true(qn_writer_add(w, "x", 1, &err));
    assert_int_equal(mkdir(target, 0777), 0); // meanwhile a folder stands there
    assert_int_equal(mkdir(blocker, 0777), 0);
    assert_false(qn_writer_commit(w, &err));
    assert_int_equal(err.code, QN_IO);
    assert_non_null(strstr(err.text, "Is a directory"));
    qn_writer_free(w);
    assert_int_equal(entries(room), 1);
    qn_outdir *d;
    assert_int_equal(rmdir(blocker), 0);
    assert_int_equal(rmdir(target), 0);
    d = qn_outdir_new(target, false, &err);
    assert_int_equal(mkdir(target, 0777), 0);
    assert_false(qn_outdir_commit(d, &err)); // even an empty folder is somebody's
    assert_int_equal(err.code, QN_USAGE);
    qn_outdir_free(d);
    assert_int_equal(entries(room), 1);
    free(blocker);
    free(target);
}

#define IN_ROOM(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_ROOM(reading_tells_what_is_wrong),
        IN_ROOM(file_appears_at_commit),
        IN_ROOM(uncommitted_file_leaves_nothing),
        IN_ROOM(large_pieces_arrive_in_order),
        IN_ROOM(unwritable_paths_are_the_systems),
        IN_ROOM(devices_are_written_not_replaced),
        IN_ROOM(full_disk_is_an_error_and_leaves_nothing),
        IN_ROOM(room_is_found_beforehand),
        IN_ROOM(a_name_before_the_disk),
        IN_ROOM(folder_appears_at_commit),
        IN_ROOM(overwrite_swaps_whole_folders),
        IN_ROOM(leftovers_of_a_killed_run_go),
        IN_ROOM(locks_tell_leftovers_from_work),
        IN_ROOM(commit_reports_its_own_cause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
