// A checkpoint written for one test: another one's tensors with some left out, changed or added.
#ifndef TESTS_MODEL_SCRATCH_CHECKPOINT_H
#define TESTS_MODEL_SCRATCH_CHECKPOINT_H

#include <jansson.h>

#include "store/checkpoint.h"

typedef struct edit {
    const char *name;   // of a tensor, or the start of several when drop is set
    bool drop;
    bool poison;        // its first value becomes a NaN
    size_t add;         // not in the source: a float vector of so many values
    float value;        // … of this value
    // A matrix as 2-bit GPTQ (16 inputs a group, act-order), or as the exact floats of that.
    enum { EDIT_NONE, EDIT_GPTQ, EDIT_GPTQ_FLOATS } quantize;
} edit;

// With quantize, a name stands for all tensors whose names contain it.
// A new folder under the system's temporary folder, removed by scratch_remove. config NULL: the
// source's.
void scratch_write(char folder[64], const char *source, const json_t *config, const edit *edits,
                   size_t n_edits);
void scratch_copy(const char *folder, const char *source, const char *name); // a side file
void scratch_remove(const char *folder);

#endif
