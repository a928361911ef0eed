// The inner part of `eval`: windows in, one figure per scored token out.
#ifndef QN_QUANT_EVAL_ROWS_H
#define QN_QUANT_EVAL_ROWS_H

#include "base/pool.h"
#include "store/checkpoint.h"

// Tokens begin … end - 1 are read; tokens score … end - 1 are predicted, each from those before it.
// The first of them is result number first.
typedef struct qn_eval_window {
    size_t begin, score, end, first;
} qn_eval_window;

typedef struct qn_eval_rows {
    const qn_model *model, *reference; // reference may be NULL,
    const qn_tensor *dump;             // and so may be the dump: row w * context + i is window w's
    const int32_t *tokens;
    const qn_eval_window *windows;
    size_t n_windows, n_scored, context;
    qn_engine_options engine;          // for both; tokens and sequences per step are set
    qn_pool *pool;
    qn_progress_fn progress;
    void *user;
    // Results, n_scored each; the last three only with a reference.
    double *nll, *reference_nll, *kl, *agree;
} qn_eval_rows;

bool qn_eval_rows_run(qn_eval_rows *r, qn_err *err);

#endif
