// Rotary positions: the frequencies of a config and the table of cosines and sines of a step.
#ifndef QN_MODEL_ROPE_H
#define QN_MODEL_ROPE_H

#include "base/pool.h"
#include "model/family.h"

// Reads rope_parameters, or rope_theta with rope_scaling, into c->rope. head_dim must be known.
bool qn_rope_read(qn_config *c, const json_t *text, const char *what, qn_err *err);

// [dims / 2] angles per position, as stretched; allocated.
double *qn_rope_frequencies(const qn_rope_config *r);

// For each of m rows dims / 2 cosines, then as many sines, of positions[row] = (t, h, w).
void qn_rope_table(qn_pool *pool, const qn_rope_config *r, const double *frequencies,
                   const int32_t (*positions)[3], size_t m, float *table);

#endif
