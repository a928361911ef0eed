// check --forward: how large activations become on a built-in text, and whether f16 could hold them.
#ifndef QN_QUANT_FORWARD_RANGE_H
#define QN_QUANT_FORWARD_RANGE_H

#include <jansson.h>

#include "quant/problems.h"

// Runs a short text in exact precision; adds summary.forward {tokens, largest, first_over (or null),
// layers} and an fp16-range warning naming the first layer, activation, channel and value beyond
// 65504, or a non-finite error. A model that cannot be run gives a warning. largest and first_over
// are {name, expert (of experts), max_abs, channel, position, over: how many values pass 65504};
// layers has embed_tokens, layers.N, norm and logits as {name, activation, … as above, activations:
// each}. Activations are named as QN_PROBE_ACTIVATIONS does; channels are counted as the rows of
// the module's weight, except where the projection interleaves (a gated q_proj: all heads, then all
// gates; in_proj_qkvz: q, k, v of all heads).
void qn_check_forward(const char *path, int n_threads, qn_problems *problems, json_t *summary);

#endif
