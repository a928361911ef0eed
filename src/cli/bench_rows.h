// What `quern bench` measures: one kind of work at one size, several times.
#ifndef QN_CLI_BENCH_ROWS_H
#define QN_CLI_BENCH_ROWS_H

#include <jansson.h>

#include "cli/session.h"

typedef struct qn_bench_work {
    bool decode;   // else prefill
    size_t batch;  // sequences
    size_t prompt; // tokens each (decode: the context, at least one)
    size_t n;      // decode: tokens each
} qn_bench_work;

typedef struct qn_bench_times {
    double tok_s, tok_s_min, tok_s_max; // median and bounds of the repeats
    double step_s;                      // mean of an engine step in the median repeat
    double steps;                       // engine steps in it
} qn_bench_times;

// Interrupted: QN_CANCELLED.
bool qn_bench_measure(qn_session *s, const qn_bench_work *w, int repeats, qn_bench_times *out,
                      qn_err *err);

#endif
