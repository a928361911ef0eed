// The loops over a group's values for AVX-512 (elsewhere: plainly once more).
#include "quant/lattice_loops_body.h"

const qn_lattice_loops qn_lattice_loops_avx512 = QN_LATTICE_LOOPS;
