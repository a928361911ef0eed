// What the values of a matrix tell of the codes behind them, beside a reference.
#ifndef QN_QUANT_CHECK_AGAINST_CODES_H
#define QN_QUANT_CHECK_AGAINST_CODES_H

#include "base/pool.h"
#include "store/weight.h"

// Whether a plain matrix was made from e4m3 codes: within a short run of a row, which has one scale,
// no more than eight different significands occur.
bool qn_looks_fp8(const qn_weight *w);

// The difference (relative rms) that would be left between quantized w and the reference if the scale
// of each group were the best one for its codes. Negative: cannot be said.
double qn_fitted_rms(qn_pool *pool, const qn_weight *w, const qn_weight *reference);

#endif
