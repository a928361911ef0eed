// What check found wrong, collected from several threads and printed in order of severity.
#ifndef QN_QUANT_PROBLEMS_H
#define QN_QUANT_PROBLEMS_H

#include <jansson.h>
#include <pthread.h>

#include "quern.h"

typedef enum qn_severity { QN_WARNING, QN_ERROR } qn_severity;

typedef struct qn_problem {
    const char *code; // "non-finite", "signed-view", …: a literal
    qn_severity severity;
    char *tensor, *message; // tensor may be NULL
    size_t order;           // of the tensor, so that threads do not shuffle the list
} qn_problem;

typedef struct qn_problems {
    qn_problem *list;
    size_t n, cap;
    pthread_mutex_t lock;
} qn_problems;

void qn_problems_init(qn_problems *p);
void qn_problems_done(qn_problems *p);
void qn_problem_add(qn_problems *p, qn_severity severity, const char *code, const char *tensor,
                    size_t order, const char *fmt, ...) QN_PRINTF(6, 7);
size_t qn_problems_errors(const qn_problems *p);
// Errors first, then by tensor.
json_t *qn_problems_json(qn_problems *p);

#endif
