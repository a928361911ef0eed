// The loops over runs of values for AVX-512 (elsewhere: plainly once more).
#include "quant/lanes_avx512.h"
#include "quant/value_runs_lanes.h"

const qn_value_runs qn_value_runs_avx512 = LANES_RUNS;
