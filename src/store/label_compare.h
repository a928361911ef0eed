// The label against the tensors, one line for each kind of difference, and tensors against each other.
#ifndef QN_STORE_LABEL_COMPARE_H
#define QN_STORE_LABEL_COMPARE_H

#include "store/label.h"
#include "store/weight.h"

void qn_label_error_add(qn_ckpt *c, const char *text);
// Why strict openings refuse the label: a method, format or value that quern does not know. Only in
// tolerant ones; NULL: it can be read.
const char *qn_ckpt_label_fault(const qn_ckpt *c);
// Fills the checkpoint's label errors; in strict openings they are noted on stderr too.
void qn_label_compare(qn_ckpt *c);
// A weight's name without ".weight", as labels have it (qn_free), and what a label says of it.
char *qn_weight_module(const qn_weight *w);
qn_label_entry qn_label_of(const qn_label *l, const qn_weight *w);
// Whether w is a dense matrix that this label would have quantized.
bool qn_label_misses(const qn_label *l, const qn_weight *w);

// Plain tensors "P.weight" beside a quantized set of the same module, which is what quern reads; they
// are no weights (noted on stderr in strict openings).
size_t qn_ckpt_n_doubles(const qn_ckpt *c);
const qn_tensor *qn_ckpt_double(const qn_ckpt *c, size_t i);

#endif
