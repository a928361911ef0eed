// Dense weights that were derived from codes the wrong way, recognised from the weights alone.
//   signed-view: an 8-bit code's byte was taken as signed and the zero point (128) forgotten:
//                value = k s with k = c + 128 or c − 128. Codes gather at ±128 around a hole at 0.
//   zero-offset: the zero point was off by one: value = (c ± 1) s. Codes leave the range that their
//                bits allow, and every group's mean is shifted by a scale.
#ifndef QN_QUANT_WRONG_CODES_H
#define QN_QUANT_WRONG_CODES_H

#include "base/pool.h"
#include "quant/lattice.h"
#include "store/weight.h"

typedef enum qn_wrong { QN_RIGHT, QN_SIGNED_VIEW, QN_ZERO_OFFSET, QN_N_WRONG } qn_wrong;
const char *qn_wrong_name(qn_wrong kind); // "signed-view", …: a literal; "" for QN_RIGHT

typedef struct qn_wrong_finding {
    qn_wrong kind;
    bool certain;        // an error; else only worth a warning
    double confidence;   // 0 … 1
    qn_lattice_rule rule;
    size_t group;        // inputs per scale
    bool channel;        // which are all
    int shift;           // zero-offset: the right code is k + shift (1 or −1)
    int bits;            // of the codes
    bool mirrored;       // some scales are negative
    bool asymmetric;     // signed-view: zero points differ from group to group and are not in the file
    bool scattered;      // signed-view: act-order; which scale a column belongs to is not in the file
    size_t groups_tried, groups_explained;
    double mean_code, hole; // mean k; share of |k| below a quarter of the range
    bool unclear;        // kind is QN_RIGHT, but other matrices are damaged and this one may be, too:
    qn_wrong suspected;  // like this, under the rule and group given here
    char evidence[320];  // one line for people: of the damage, or why it is unclear
} qn_wrong_finding;

// Whether it is a plain float matrix, with values.
bool qn_wrong_codes_may_be(const qn_weight *w);

// Looks at some rows (spread over the matrix) of a plain float matrix. hint is a group size to use
// when it is not 0. A healthy one gives kind QN_RIGHT; damaged rows (not finite) are left out.
bool qn_wrong_codes_find(const qn_weight *w, size_t hint, qn_wrong_finding *out, qn_err *err);

// What is certain in some matrices of a model settles what others leave open: findings that were likely
// become certain; matrices in which nothing was found are looked at again, under the group size and
// scales of the damaged ones, and become damaged, stay right or are unclear. NULL in list: none.
void qn_wrong_codes_settle(qn_pool *pool, const qn_weight *const *list, size_t n,
                           qn_wrong_finding *findings);

// Whether few of a matrix's values are near 0: no proof, but what a signed view looks like, also one
// whose columns are in another order.
bool qn_wrong_codes_hole(const qn_weight *w);

// How many bits the codes have that a plain float matrix was made from, rightly or wrongly: 2, 3, 4 or
// 8, in groups of *group; 0 when it was not made from codes.
int qn_wrong_codes_bits(const qn_weight *w, size_t *group);

// One row put right: exact floats of the row. bounds gets, per group, the most that the values
// chosen may be off (0: proven exact; infinite: the scale is gone), and scales its scale, as it was
// stored (0: gone). reference, when not NULL, is the row of the original: it decides where several
// scales stand, and supplies zero points that differ. False with a reason when a group has no solution.
typedef struct qn_mended_row {
    float *values;    // [cols]
    double *bounds;   // [n_groups]
    const float *reference; // [cols] or NULL
    float *scales;    // [n_groups]
    int code_min, code_max; // of the right codes: a signed view's bytes, 0 … 255; else from the zero
                            // point, which is not in the file
} qn_mended_row;
bool qn_wrong_codes_mend(const qn_wrong_finding *f, const float *broken, size_t cols,
                         const char *name, qn_mended_row *out, qn_err *err);

// Whether one group of a result, as stored, when broken again gives the damaged values bit for bit:
// some scale makes the one of the right codes and the other of the wrong ones.
bool qn_wrong_codes_rebreaks(const qn_wrong_finding *f, qn_dtype stored, const float *broken,
                             const float *right, size_t n);

#endif
