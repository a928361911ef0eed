// Blocks put by many threads: every byte in its place, and a disk that is full told once.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"
#include "quant/put_queue.h"

enum { BLOCKS = 400, SIZE = 5000, THREADS = 7 };

typedef struct job {
    qn_put_queue *q;
    qn_shards *s;
    qn_err errs[THREADS];
    atomic_int failed;
} job;

static uint8_t byte_of(size_t block, size_t i) { return (uint8_t)(block * 31 + i * 7 + i / 256); }

static void make(void *ctx, size_t b, int thread) {
    job *j = ctx;
    uint8_t *out = qn_put_queue_take(j->q, SIZE + b); // blocks grow
    for (size_t i = 0; i < SIZE; i++) out[i] = byte_of(b, i);
    if (!qn_put_queue_put(j->q, j->s, b * SIZE, out, SIZE, &j->errs[thread]))
        atomic_fetch_add(&j->failed, 1);
}

static bool put_all(const char *path, job *j) {
    size_t shape = (size_t)BLOCKS * SIZE;
    qn_err err = {0};
    qn_pool *pool = qn_pool_new(THREADS, &err);
    j->q = qn_put_queue_new(THREADS);
    j->s = qn_shards_new_file(path, NULL, &err);
    assert_true(pool && j->s && qn_shards_declare(j->s, "x", QN_DT_U8, &shape, 1, &err));
    bool ok = qn_shards_reserve(j->s, &err);
    if (ok) qn_pool_run(pool, BLOCKS, make, j);
    ok = ok && j->failed == 0 && qn_shards_release(j->s, &err) && qn_shards_finish(j->s, &err);
    if (err.code) j->errs[0] = err;
    qn_shards_free(j->s);
    qn_put_queue_free(j->q);
    qn_pool_free(pool);
    return ok;
}

static void every_byte_in_its_place(void **state) {
    (void)state;
    char path[] = "/tmp/quern-put-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (int round = 0; round < 5; round++) {
        job j = {0};
        assert_true(put_all(path, &j));
        qn_err err = {0};
        qn_ckpt *c = qn_ckpt_open(path, 0, &err);
        assert_non_null(c);
        const qn_tensor *t = qn_ckpt_find(c, "x");
        assert_int_equal(t->bytes, (size_t)BLOCKS * SIZE);
        for (size_t i = 0; i < t->bytes; i++)
            if (t->data[i] != byte_of(i / SIZE, i % SIZE)) fail_msg("byte %zu differs", i);
        qn_ckpt_free(c);
    }
    close(fd);
    unlink(path);
}

// In /dev/shm room is not found beforehand, so the writes themselves fail.
static void a_full_disk(const char *path) {
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = SIZE * 10;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    job j = {0};
    bool ok = put_all(path, &j);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_false(ok);
    bool told = false;
    for (int i = 0; i < THREADS; i++) {
        if (!j.errs[i].code) continue;
        told = true;
        assert_int_equal(j.errs[i].code, QN_IO);
        assert_non_null(strstr(j.errs[i].text, "File too large"));
    }
    assert_true(told);
    assert_int_equal(access(path, F_OK), -1);
}

static void errors_come_back(void **state) {
    (void)state;
    a_full_disk("/tmp/quern-put-full");
    if (access("/dev/shm", W_OK) == 0) a_full_disk("/dev/shm/quern-put-full");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_in_its_place),
        cmocka_unit_test(errors_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
