// generation_config.json: how a checkpoint wants to be sampled.
#ifndef QN_MODEL_GENERATION_H
#define QN_MODEL_GENERATION_H

#include <jansson.h>

#include "quern.h"

// Over neutral defaults (temperature 1, all else off); do_sample false means temperature 0.
// o may be NULL.
bool qn_generation_read(const json_t *o, qn_sampling *s, const char *what, qn_err *err);

#endif
