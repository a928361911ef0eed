// A thread pool for data-parallel loops. Tasks must not depend on each other or on who runs them:
// work is split by output rows or heads, never inside a sum.
#ifndef QN_BASE_POOL_H
#define QN_BASE_POOL_H

#include "quern.h"

typedef struct qn_pool qn_pool;
// task runs from 0 to n_tasks - 1; thread from 0 (the caller) to qn_pool_threads - 1.
typedef void (*qn_task_fn)(void *ctx, size_t task, int thread);

qn_pool *qn_pool_new(int n_threads, qn_err *err); // 0: qn_cpu_cores()
void qn_pool_free(qn_pool *p);
int qn_pool_threads(const qn_pool *p); // p NULL: 1
// Runs all tasks and returns when they are done. The calling thread works too. Workers spin for
// some 50 µs for the next loop, then sleep. p NULL runs everything here. Not reentrant.
void qn_pool_run(qn_pool *p, size_t n_tasks, qn_task_fn fn, void *ctx);

#endif
