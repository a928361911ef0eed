// Perplexity of a text, and how far a model's predictions are from a reference's.
#ifndef QN_QUANT_EVAL_H
#define QN_QUANT_EVAL_H

#include <jansson.h>

#include "quern.h"

#define QN_EVAL_CONTEXT 512

typedef struct qn_eval_options {
    const char *text;      // UTF-8; NULL: the tokens of the reference, which is then a dump
    size_t n_text;
    const char *text_name; // for messages: its file; NULL: "the text"
    size_t context;        // tokens per window; 0: QN_EVAL_CONTEXT, or a dump's own length
    size_t stride;         // from one window's start to the next; 0: context
    bool tail;             // score what is behind the last whole window too
    const char *reference; // a model, or a dump of the windows; NULL: none
    qn_precision precision;
    qn_weights weights;
    size_t max_num_batched_tokens, max_num_seqs, kv_cache_bytes; // 0: chosen
    int n_threads;
    qn_progress_fn progress;
    void *user;
} qn_eval_options;

// The document of `quern eval --json`: docs/precision.md says how every figure is computed. The
// reference is loaded as stored and computed exactly; both run window by window, side by side.
bool qn_eval(const char *model, const qn_eval_options *o, json_t **report, qn_err *err);

#endif
