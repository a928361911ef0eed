// check: everything that can be wrong with a checkpoint, found by reading every tensor once.
#ifndef QN_QUANT_CHECK_H
#define QN_QUANT_CHECK_H

#include <jansson.h>

#include "quern.h"

typedef struct qn_check_options {
    const char *against; // a reference checkpoint, or NULL
    bool forward;        // run a short text and look at the activations' range
    size_t group_size;   // hint for signed-view and zero-offset; 0: inferred
    int n_threads;
    qn_progress_fn progress;
    void *user;
} qn_check_options;

// *report gets the JSON document of cli.md: verdict, problems, summary, tensors. Damaged files are
// reported, not refused; false is only for what cannot be looked at at all.
bool qn_check(const char *model, const qn_check_options *o, json_t **report, qn_err *err);

#endif
