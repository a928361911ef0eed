// The loops over a group's values, compiled plainly, and the choice between builds.
#include "quant/lattice_loops_body.h"

#include "base/cpu.h"

const qn_lattice_loops qn_lattice_loops_plain = QN_LATTICE_LOOPS;

const qn_lattice_loops *qn_lattice_loops_best(void) {
    if (qn_cpu_has(QN_ISA_AVX512)) return &qn_lattice_loops_avx512;
    return qn_cpu_has(QN_ISA_AVX2) ? &qn_lattice_loops_avx2 : &qn_lattice_loops_plain;
}
