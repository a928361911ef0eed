// A quantization config that says what the tensors are.
#ifndef QN_QUANT_LABEL_MEND_H
#define QN_QUANT_LABEL_MEND_H

#include "quant/source_model.h"

// old, corrected where the tensors prove it wrong; one made from the tensors when old is NULL or of
// another method. NULL, with the reason in why (a literal), when they do not tell what to say.
json_t *qn_label_mend(const json_t *old, const qn_source_model *m, const char **why);

#endif
