// check --forward: how large activations become on a built-in text, and whether f16 could hold them.
#ifndef QN_QUANT_FORWARD_RANGE_H
#define QN_QUANT_FORWARD_RANGE_H

#include <jansson.h>

#include "quant/problems.h"

// Runs a short text in exact precision; adds summary.forward {tokens, layers[{name, max_abs,
// channel, position}]} and an fp16-range warning naming the first layer, channel and value beyond
// 65504, or a non-finite error. A model that cannot be run gives a warning.
void qn_check_forward(const char *path, int n_threads, qn_problems *problems, json_t *summary);

#endif
