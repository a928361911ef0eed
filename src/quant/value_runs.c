// The loops over runs of values, compiled plainly, and the choice between them.
#include "base/cpu.h"
#include "quant/value_runs_lanes.h"

const qn_value_runs qn_value_runs_plain = {lanes_finite, lanes_stats, lanes_round};

const qn_value_runs *qn_value_runs_best(void) {
    return qn_cpu_has(QN_ISA_AVX2) ? &qn_value_runs_avx2 : &qn_value_runs_plain;
}
