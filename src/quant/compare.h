// Two dumps, or two checkpoints, side by side: how far apart they are, where they part, and whether
// that is within thresholds. B is the reference: relative errors are relative to B, the divergence is
// KL(B ‖ A).
#ifndef QN_QUANT_COMPARE_H
#define QN_QUANT_COMPARE_H

#include <jansson.h>

#include "quern.h"

#define QN_COMPARE_COSINE 0.99
#define QN_COMPARE_MAX_ABS 0.001
#define QN_COMPARE_TOP1 1.0

typedef struct qn_compare_options {
    double cosine, max_abs, top1; // least, most, least
    bool page; // adds what only the page needs: histograms, words in Chinese
    int n_threads;
    qn_progress_fn progress;
    void *user;
} qn_compare_options;

// The document of `quern compare --json` (docs/precision.md names every key). verdict is "ok" or
// "different".
bool qn_compare(const char *a, const char *b, const qn_compare_options *o, json_t **report,
                qn_err *err);

#endif
