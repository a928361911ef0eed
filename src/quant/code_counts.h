// What wrong_codes.c and wrong_codes_like.c look at: a sample of a matrix's rows, and the integers that
// its groups are under the scales that explain them.
#ifndef QN_QUANT_CODE_COUNTS_H
#define QN_QUANT_CODE_COUNTS_H

#include "quant/lattice.h"

enum { QN_SAMPLE_ROWS = 48, QN_CODE_MIDDLE = 132 };

typedef struct qn_code_sample {
    float *rows; // [n][cols], the caller frees them
    size_t n, cols;
    qn_dtype stored; // the coarsest format that holds every value
} qn_code_sample;

// Rows spread over the matrix; constant and damaged ones say nothing and are left out.
void qn_code_sample_take(const qn_tensor *t, qn_code_sample *s);

// The value that more than half of a group has, which is not all the same; NAN: there is none.
float qn_code_majority(const float *v, size_t n);

typedef struct qn_code_counts {
    uint64_t n, at[2 * QN_CODE_MIDDLE + 1]; // values; how many have code k, at [MIDDLE + k]
    int min, max, widest;           // over all groups; largest max − min of a group
    size_t groups, explained, varied; // varied: explained and not constant
    size_t precise, extreme;        // signed view: groups whose scale is not coarse; of those the
                                    // ones with a code at ±126 and beyond
    size_t both_ends;               // groups with codes at both ends
    size_t at_limit;                // groups with a wrong code ±128
    size_t beside_zero[2];          // widest groups that lie wholly below, above 0, next to it
    size_t straddling;              // groups with codes on both sides of 0
    double bits;                    // evidence that these are codes at all
    double sum, mean_of_means, square_of_means, expected_square; // of right codes, per group
    double w, x, xx, y, xy, yy;     // mean code y over 1 / scale x, for the line through groups
} qn_code_counts;

void qn_code_counts_make(const qn_lattice_rule *r, const qn_code_sample *s, size_t group,
                         qn_code_counts *c);
uint64_t qn_code_count(const qn_code_counts *c, int k);
// How many codes have a magnitude from … to.
uint64_t qn_code_count_sizes(const qn_code_counts *c, int from, int to);
// Many exact zeros, as they look in a signed view.
bool qn_code_counts_pruned_view(const qn_code_counts *c);
// How much better, in nats, the integers fit weights around 0 when read as a signed view (right code
// 128 − |k| from 0) than when taken as they are; *ratio: of the spreads.
double qn_code_counts_as_view(const qn_code_counts *c, double *ratio);

#endif
