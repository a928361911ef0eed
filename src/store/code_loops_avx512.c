// The loops of code_loops.h for AVX-512 (elsewhere: plainly once more).
#include "store/code_loops_body.h"

const qn_code_loops qn_code_loops_avx512 = LOOPS;
