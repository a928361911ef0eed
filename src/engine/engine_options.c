// How large the cache is and how long a sequence may get: what was asked for, against the model's
// context and the memory there is.
#include <stdio.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "engine/engine.h"

#define STEP_TOKENS 512
#define STEP_SEQS 64
#define MAX_SEQS 65536
#define MAX_STEP_TOKENS ((size_t)1 << 20)
#define LONG_SEQUENCES 4 // the arena is made for so many sequences of full length, or for a step
#define SHORT_TOKENS 512 // full of sequences of this length, when nobody says
#define STATE_BUDGET ((size_t)1 << 30)

static bool choose_step(qn_limits *l, const qn_engine_options *o, qn_err *err) {
    l->step_tokens = o->max_num_batched_tokens ? o->max_num_batched_tokens : STEP_TOKENS;
    l->step_seqs = o->max_num_seqs ? o->max_num_seqs : STEP_SEQS;
    if (l->step_tokens > MAX_STEP_TOKENS)
        return qn_fail(err, QN_USAGE, "max_num_batched_tokens is %zu, expected at most %zu",
                       l->step_tokens, MAX_STEP_TOKENS);
    if (l->step_seqs > MAX_SEQS)
        return qn_fail(err, QN_USAGE, "max_num_seqs is %zu, expected at most %d", l->step_seqs,
                       MAX_SEQS);
    return true;
}

static size_t context_of(const qn_model_info *info, const qn_engine_options *o) {
    size_t context = info->context_length > 0 ? (size_t)info->context_length : 1;
    if (!o->max_model_len) return context;
    if (o->max_model_len <= context) return o->max_model_len;
    qn_note("max_model_len is %zu, the model's context is %zu: using that", o->max_model_len,
            context);
    return context;
}

static bool too_small(size_t bytes, size_t len, size_t fits, qn_err *err) {
    return qn_fail(err, QN_NOMEM, "kv cache: %.1f MiB do not hold max_model_len %zu, only %zu "
                   "tokens would fit", (double)bytes / 1048576.0, len, fits);
}

// Blocks for a good day, at most what fits. Untouched ones cost nothing.
static size_t comfortable(size_t seqs, size_t len, size_t tokens, size_t fits) {
    size_t few = seqs < LONG_SEQUENCES ? seqs : LONG_SEQUENCES;
    size_t many = len < SHORT_TOKENS ? len : SHORT_TOKENS;
    size_t a = few * (len / tokens + 1), b = seqs * (many / tokens + 1);
    if (b > a) a = b;
    return a < fits ? a : fits;
}

bool qn_limits_choose(qn_limits *l, const qn_model_info *info, const qn_cache_spec *spec,
                      const qn_engine_options *o, qn_err *err) {
    *l = (qn_limits){.prefix_cache = !o->no_prefix_cache};
    if (!choose_step(l, o, err)) return false;
    size_t free_bytes = qn_memory_available(), tokens = spec->block_tokens;
    size_t per = spec->block_bytes ? spec->block_bytes : 1;
    size_t bytes = o->kv_cache_bytes ? o->kv_cache_bytes : free_bytes / 5 * 2;
    size_t fits = bytes / per;
    if (fits > (size_t)UINT32_MAX / 2) fits = (size_t)UINT32_MAX / 2;
    if (o->kv_cache_bytes > free_bytes)
        return qn_fail(err, QN_NOMEM, "kv cache: no memory for %.1f MiB, %.1f MiB are available, "
                       "which would fit %zu tokens", (double)bytes / 1048576.0,
                       (double)free_bytes / 1048576.0, free_bytes / per * tokens);
    size_t len = context_of(info, o), need = len / tokens + (len % tokens != 0);
    if (need > fits) {
        if (o->max_model_len || !fits) return too_small(bytes, len, fits * tokens, err);
        len = fits * tokens;
    }
    l->n_blocks = o->kv_cache_bytes ? fits : comfortable(l->step_seqs, len, tokens, fits);
    l->model_len = len;
    l->state_budget = o->prefix_cache_bytes;
    if (!l->state_budget)
        l->state_budget = free_bytes / 16 < STATE_BUDGET ? free_bytes / 16 : STATE_BUDGET;
    if (o->no_prefix_cache) l->state_budget = 0;
    return true;
}
