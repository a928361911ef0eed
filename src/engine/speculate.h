// Whether and how far to draft. The configuration is vLLM's JSON; the decision is made from
// measured acceptance and measured step times, so that speculation that does not pay stops.
#ifndef QN_ENGINE_SPECULATE_H
#define QN_ENGINE_SPECULATE_H

#include "quern.h"

#define QN_MAX_DRAFTS 4
#define QN_BATCH_SIZES 8 // 1, 2, 3-4, 5-8, … sequences

typedef struct qn_pace { // seconds of a step of one kind, undisturbed
    double seconds;
    int samples;
} qn_pace;

typedef struct qn_speculator {
    int most;    // drafts asked for; 0: no speculation
    bool always; // whether it pays or not (measurements, tests)
    double chance[QN_MAX_DRAFTS]; // that draft i is right when those before it were
    int tried[QN_MAX_DRAFTS];
    qn_pace pace[QN_BATCH_SIZES][QN_MAX_DRAFTS + 1];
    double balance, spent; // seconds won by drafting so far, and seconds in all
    double saved;          // the same as balance, never forgotten
    bool asleep;
    uint64_t steps, sleep_left, sleep_length; // in admitted requests
} qn_speculator;

// config NULL: off.
bool qn_speculator_init(qn_speculator *s, const char *config, bool has_mtp, qn_err *err);
// Shall a request that starts now fill the draft layer's cache?
bool qn_speculator_admit(qn_speculator *s);
// Drafts per sequence for a step of n_seqs decoding sequences.
int qn_speculator_depth(qn_speculator *s, size_t n_seqs);
void qn_speculator_saw_drafts(qn_speculator *s, int n_drafts, int n_accepted);
// A pure decode step: n_seqs sequences with `depth` drafts each, `tokens` came out per sequence.
void qn_speculator_saw_step(qn_speculator *s, size_t n_seqs, int depth, double tokens,
                            double seconds);
// Time spent on filling the draft layer's cache for prompts, or on other steps.
void qn_speculator_saw_fill(qn_speculator *s, double seconds);
void qn_speculator_saw_other(qn_speculator *s, double seconds);

#endif
