// Proving a written checkpoint against its source with the second decoder.
#ifndef QN_QUANT_PROOF_H
#define QN_QUANT_PROOF_H

#include "quant/rewrite.h"

// Reads the folder dir back and, for every float tensor of the rewrite that has a source, compares
// randomly drawn whole rows and columns, bit for bit, with the second decoder's values rounded to
// the stored dtype. Adds report.independent_check {decoder, seed, tensors, rows_checked,
// columns_checked, values_checked, mismatches}. The first mismatch is an error that names tensor,
// position, found and expected.
bool qn_prove_decoded(const qn_rewrite *r, const char *dir, json_t *report, qn_err *err);

#endif
