// The operator norm's inner loop for AVX2 + FMA; empty elsewhere.
#include "quant/krylov_rows.h"

void qn_krylov_rows_avx2(const qn_krylov_rows *k) { krylov_all(k); }
