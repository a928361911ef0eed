// The row operations of row_math.h, compiled for AVX2 and FMA.
#if defined(__AVX2__) && defined(__FMA__)
#include "kernel/row_math.h"

void qn_rows_avx2(qn_table *t) { fill_rows(t); }
#else
typedef int nothing_here; // another architecture
#endif
