// One generation counter announces a loop, one counter hands out its tasks, one counts workers
// that are done. Waiting spins briefly, then sleeps on a condition variable.
//
// Why no worker can be late: a loop ends only when `busy`, set to the number of workers before the
// loop is announced, has come down to 0, and each worker takes 1 off, once per generation, after
// its last look at `next`, `fn` and `ctx`. So between two loops every worker stands in
// await_generation, none can miss a generation or see two, and the plain fields may be written.
// What they hold reaches a worker by the release of `generation`; what tasks wrote reaches the
// caller by the release of `busy`.
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/err.h"
#include "base/mem.h"

#define SPINS 4000
#define LINE 64

struct qn_pool {
    _Alignas(LINE) atomic_uint generation;
    _Alignas(LINE) atomic_size_t next;
    _Alignas(LINE) atomic_int busy; // workers that have not finished this generation
    _Alignas(LINE) qn_task_fn fn;
    void *ctx;
    size_t n_tasks;
    bool stop;
    int n_threads, n_started;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    pthread_t *threads;
};

typedef struct start {
    qn_pool *pool;
    int thread;
} start;

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work(qn_pool *p, int thread) {
    for (;;) {
        size_t task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= p->n_tasks) return;
        p->fn(p->ctx, task, thread);
    }
}

static unsigned await_generation(qn_pool *p, unsigned old) {
    for (int i = 0; i < SPINS; i++) {
        unsigned now = atomic_load_explicit(&p->generation, memory_order_acquire);
        if (now != old) return now;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    unsigned now;
    while ((now = atomic_load_explicit(&p->generation, memory_order_acquire)) == old)
        pthread_cond_wait(&p->wake, &p->lock);
    pthread_mutex_unlock(&p->lock);
    return now;
}

static void *worker(void *arg) {
    start s = *(start *)arg;
    free(arg);
    unsigned generation = 0;
    for (;;) {
        generation = await_generation(s.pool, generation);
        if (s.pool->stop) return NULL;
        work(s.pool, s.thread);
        if (atomic_fetch_sub_explicit(&s.pool->busy, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&s.pool->lock);
            pthread_cond_signal(&s.pool->done);
            pthread_mutex_unlock(&s.pool->lock);
        }
    }
}

qn_pool *qn_pool_new(int n_threads, qn_err *err) {
    if (n_threads <= 0) n_threads = qn_cpu_cores();
    if (n_threads > 1024)
        return qn_fail_null(err, QN_USAGE, "threads is %d, expected at most 1024", n_threads);
    qn_pool *p = aligned_alloc(LINE, (sizeof *p + LINE - 1) / LINE * LINE);
    if (!p) return qn_fail_null(err, QN_NOMEM, "thread pool: no memory");
    *p = (qn_pool){.n_threads = n_threads};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    p->threads = QN_NEW_ARRAY(pthread_t, (size_t)n_threads);
    for (int i = 1; i < n_threads; i++) {
        start *s = QN_NEW(start);
        *s = (start){p, i};
        int e = pthread_create(&p->threads[i], NULL, worker, s);
        if (e) {
            free(s);
            qn_pool_free(p);
            qn_fail_errno(err, e, "cannot start thread %d", i);
            return NULL;
        }
        p->n_started++;
    }
    return p;
}

static void announce(qn_pool *p) {
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void qn_pool_free(qn_pool *p) {
    if (!p) return;
    p->stop = true;
    announce(p);
    for (int i = 1; i <= p->n_started; i++) pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    free(p->threads);
    free(p);
}

int qn_pool_threads(const qn_pool *p) { return p ? p->n_threads : 1; }

void qn_pool_run(qn_pool *p, size_t n_tasks, qn_task_fn fn, void *ctx) {
    if (!p || p->n_threads == 1 || n_tasks <= 1) {
        for (size_t i = 0; i < n_tasks; i++) fn(ctx, i, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->n_tasks = n_tasks;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->busy, p->n_threads - 1, memory_order_relaxed);
    announce(p);
    work(p, 0);
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&p->busy, memory_order_acquire) == 0) return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    while (atomic_load_explicit(&p->busy, memory_order_acquire) != 0)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
