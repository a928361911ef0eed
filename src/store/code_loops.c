// The loops of code_loops.h compiled plainly, and the choice between builds.
#include "store/code_loops_body.h"

#include "base/cpu.h"

const qn_code_loops qn_code_loops_plain = LOOPS;

const qn_code_loops *qn_code_loops_best(void) {
    if (qn_cpu_has(QN_ISA_AVX512)) return &qn_code_loops_avx512;
    return qn_cpu_has(QN_ISA_AVX2) ? &qn_code_loops_avx2 : &qn_code_loops_plain;
}
