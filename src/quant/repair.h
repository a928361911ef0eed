// Undoing what check recognises.
#ifndef QN_QUANT_REPAIR_H
#define QN_QUANT_REPAIR_H

#include <jansson.h>

#include "quern.h"

typedef struct qn_repair_options {
    size_t group_size;     // 0: inferred
    const char *reference; // a checkpoint of the original that settles open groups; or NULL
    uint64_t shard_bytes;
    bool overwrite;
    int n_threads;
    qn_progress_fn progress;
    void *user;
} qn_repair_options;

// Dense checkpoints: signed-view and zero-offset matrices are put right group by group, all others
// copied. Quantized ones: a config that misdescribes the tensors is corrected, the tensors copied.
// Refuses (QN_INPUT, no OUT) when there is nothing to repair, when a finding is not certain, when a
// group has no solution, or when a damaged matrix holds values that are not finite. The result is
// read back: broken again, every group must give what was read, bit for bit. Matrices that may be
// damaged like the others, but give no answer alone, are left as they are: the report's verdict is then
// "incomplete" (else "complete"), and its entries and notes name them.
bool qn_repair(const char *model, const char *out, const qn_repair_options *o, json_t **report,
               qn_err *err);

#endif
