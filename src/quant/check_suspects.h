// Weights that can be read and are hardly what was meant.
#ifndef QN_QUANT_CHECK_SUSPECTS_H
#define QN_QUANT_CHECK_SUSPECTS_H

#include "quant/check_tensor.h"

// Dense tensors beside the codes of the same matrix (label_compare.h): equal ones are a warning,
// others an error.
void qn_check_doubles(qn_ckpt *c, qn_problems *problems);

// What a weight's entry of the report shows: nothing but zeros, fp8 without its scale. zero_centred:
// the family's norms are stored as w - 1.
void qn_check_suspect(const qn_check_tensor *t, const json_t *entry, bool zero_centred,
                      qn_problems *problems);

#endif
