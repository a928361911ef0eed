// The thread pool: every task once, by a thread that exists, with what it wrote visible; loop after
// loop without a pause, which is where a late worker would show (and ThreadSanitizer would see it).
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/pool.h"

enum { MAX_TASKS = 300 };

typedef struct tally {
    unsigned count[MAX_TASKS]; // plain on purpose: each task is one thread's
    uint64_t value[MAX_TASKS];
    uint64_t salt;
    int n_threads;
    bool stranger;
} tally;

static void count_task(void *ctx, size_t task, int thread) {
    tally *t = ctx;
    if (thread < 0 || thread >= t->n_threads) t->stranger = true;
    t->count[task]++;
    t->value[task] = task * 31 + t->salt;
}

static void check(const tally *t, size_t n_tasks) {
    assert_false(t->stranger);
    for (size_t i = 0; i < MAX_TASKS; i++) {
        assert_int_equal(t->count[i], i < n_tasks ? 1 : 0);
        assert_int_equal(t->value[i], i < n_tasks ? i * 31 + t->salt : 0);
    }
}

static void loops(int n_threads, int n_loops) {
    qn_err err = {0};
    qn_pool *p = qn_pool_new(n_threads, &err);
    assert_non_null(p);
    assert_int_equal(qn_pool_threads(p), n_threads);
    for (int i = 0; i < n_loops; i++) {
        // A tally of its own on the stack: a late worker would write into a dead one.
        tally t = {.salt = (uint64_t)i, .n_threads = n_threads};
        size_t n_tasks = (size_t)(i * 7) % (MAX_TASKS + 1);
        qn_pool_run(p, n_tasks, count_task, &t);
        check(&t, n_tasks);
    }
    qn_pool_free(p);
}

static void every_task_runs_once(void **state) {
    (void)state;
    loops(1, 100);
    loops(2, 20000);
    loops(3, 2000);
    loops(8, 500);
}

static void sleeping_workers_wake(void **state) {
    (void)state;
    qn_err err = {0};
    qn_pool *p = qn_pool_new(3, &err);
    for (int i = 0; i < 20; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); // longer than anyone spins
        tally t = {.n_threads = 3};
        qn_pool_run(p, 40, count_task, &t);
        check(&t, 40);
    }
    qn_pool_free(p);
}

static void pools_come_and_go(void **state) {
    (void)state;
    qn_err err = {0};
    for (int i = 0; i < 50; i++) {
        qn_pool *p = qn_pool_new(1 + i % 5, &err);
        tally t = {.n_threads = 1 + i % 5};
        if (i % 3) {
            qn_pool_run(p, 17, count_task, &t);
            check(&t, 17);
        }
        qn_pool_free(p);
    }
    qn_pool_free(NULL);
}

static void no_pool_runs_here(void **state) {
    (void)state;
    tally t = {.n_threads = 1};
    qn_pool_run(NULL, 20, count_task, &t);
    check(&t, 20);
    assert_int_equal(qn_pool_threads(NULL), 1);
}

static void too_many_threads_are_refused(void **state) {
    (void)state;
    qn_err err = {0};
    assert_null(qn_pool_new(1025, &err));
    assert_int_equal(err.code, QN_USAGE);
    assert_string_equal(err.text, "threads is 1025, expected at most 1024");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once), cmocka_unit_test(sleeping_workers_wake),
        cmocka_unit_test(pools_come_and_go),    cmocka_unit_test(no_pool_runs_here),
        cmocka_unit_test(too_many_threads_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
