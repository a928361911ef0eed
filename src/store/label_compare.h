// The label against the tensors: one line for each kind of difference.
#ifndef QN_STORE_LABEL_COMPARE_H
#define QN_STORE_LABEL_COMPARE_H

#include "store/checkpoint.h"

void qn_label_error_add(qn_ckpt *c, const char *text);
// Fills the checkpoint's label errors; in strict openings they are noted on stderr too.
void qn_label_compare(qn_ckpt *c);

#endif
