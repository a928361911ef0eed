// From a row of logits to a token. Order as in vLLM: penalties, temperature, min-p, top-k, top-p,
// draw. A draw depends on (seed, counter) and the logits alone.
#ifndef QN_ENGINE_SAMPLER_H
#define QN_ENGINE_SAMPLER_H

#include "quern.h"

typedef struct qn_id_range {
    int32_t from, to; // ids from … to - 1
} qn_id_range;

// The ids that may be sampled: rows of the head that have a spelling.
typedef struct qn_choices {
    size_t n_rows;
    qn_id_range *ranges;
    size_t n_ranges;
} qn_choices;

void qn_choices_init(qn_choices *v, size_t n_rows, const qn_tokenizer *t);
void qn_choices_done(qn_choices *v);

// How often tokens occurred, for the penalties: an open-addressing table, id -1 is empty.
typedef struct qn_count {
    int32_t id;
    uint32_t output; // times generated
    bool prompt;
} qn_count;

typedef struct qn_counts {
    qn_count *slots;
    size_t n, cap;
} qn_counts;

void qn_counts_add(qn_counts *c, int32_t id, bool prompt);
void qn_counts_done(qn_counts *c);

typedef struct qn_candidate {
    float x; // logit, later weight
    int32_t id;
} qn_candidate;

// Scratch of one thread; made on first use.
typedef struct qn_sampler {
    const qn_choices *choices;
    float *row;
    qn_candidate *candidates;
} qn_sampler;

void qn_sampler_done(qn_sampler *s);

typedef struct qn_draw {
    const qn_sampling *how;
    const qn_counts *counts; // NULL when there are no penalties
    uint64_t seed, counter;
} qn_draw;

// The token, or -1 when a logit that could be chosen is not finite.
int32_t qn_sample(qn_sampler *s, const float *logits, const qn_draw *d);
// The greatest logit, lowest id on ties; -1 as above.
int32_t qn_greatest_logit(const qn_choices *v, const float *logits);

bool qn_sampling_has_penalties(const qn_sampling *p);
bool qn_sampling_check(qn_sampling *p, qn_err *err); // and fills what a zeroed struct leaves out

#endif
