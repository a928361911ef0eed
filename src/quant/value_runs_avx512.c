// The loops over runs of values for AVX-512 (elsewhere: plainly once more).
#include "quant/lanes_avx512.h"
#include "quant/value_runs_lanes.h"

const qn_value_runs qn_value_runs_avx512 = {
    lanes_finite, lanes_widen,      lanes_stats,
    lanes_round,  lanes_seven_bits, lanes_stats_stored, lanes_seven_bits_stored,
    lanes_dot,    lanes_rows_times,
};
