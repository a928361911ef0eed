// The row operations of row_math.h, compiled for AVX-512.
#if defined(__AVX512F__)
#include "kernel/row_math.h"

void qn_rows_avx512(qn_table *t) { fill_rows(t); }
#else
typedef int nothing_here; // another architecture
#endif
