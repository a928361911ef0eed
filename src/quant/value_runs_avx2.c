// The loops over runs of values for AVX2 (elsewhere: plainly once more).
#include "quant/lanes_avx2.h"
#include "quant/value_runs_lanes.h"

const qn_value_runs qn_value_runs_avx2 = LANES_RUNS;
