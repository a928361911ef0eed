// Quantized weights that are far worse than others of their kind.
#ifndef QN_QUANT_CHECK_SIBLINGS_H
#define QN_QUANT_CHECK_SIBLINGS_H

#include "quant/problems.h"

// tensors: the entries of a report made against a reference. What has been reported already is left
// alone.
void qn_check_siblings(const json_t *tensors, qn_problems *problems);

#endif
