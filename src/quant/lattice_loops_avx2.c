// The loops over a group's values for AVX2 (elsewhere: plainly once more).
#include "quant/lattice_loops_body.h"

const qn_lattice_loops qn_lattice_loops_avx2 = QN_LATTICE_LOOPS;
