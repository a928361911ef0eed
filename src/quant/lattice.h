// Groups of dense values that once were scale * integer. From the values alone the scale and the
// integers can be found again: the group's largest value leaves, for each integer it may stand for,
// a short interval of scales, and every other value narrows it. A scale stands if every value of the
// group is a rounded multiple of it. One standing scale proves scale and integers bit for bit.
#ifndef QN_QUANT_LATTICE_H
#define QN_QUANT_LATTICE_H

#include "store/checkpoint.h"

// How the values came about: value = stored(first(k * s)), k from k_min to k_max, s a positive
// number of the scale's own format.
typedef struct qn_lattice_rule {
    qn_dtype stored;     // F16, BF16 or F32: the coarsest rounding that every value went through
    bool through_f16;    // k * s was rounded to f16 before it was stored (as bf16 or f32)
    qn_dtype scale;      // F16, BF16 or F32: where scales come from
    int k_min, k_max;
    bool outermost; // of scales side by side, the first, the last and the middle will do
} qn_lattice_rule;

enum { QN_MAX_STANDING = 64 };

typedef struct qn_lattice_fit {
    size_t n; // standing scales, at most QN_MAX_STANDING kept
    bool more; // there were more; of the scales of one integer the outermost are among those kept
    float scales[QN_MAX_STANDING];
    bool blank;    // every value is 0: nothing to find
    bool constant; // every value is the same
} qn_lattice_fit;

// All scales that stand for n values (finite).
void qn_lattice_find(const qn_lattice_rule *r, const float *v, size_t n, qn_lattice_fit *fit);
// Whether some scale stands, or every value is 0.
bool qn_lattice_explains(const qn_lattice_rule *r, const float *v, size_t n);
// The integer of one value under a scale; false when there is none in range.
bool qn_lattice_code(const qn_lattice_rule *r, float scale, float v, int *k);
// The same for many values: their integers, false when one has none.
bool qn_lattice_codes(const qn_lattice_rule *r, float scale, const float *v, size_t n,
                      int32_t *codes);
// What the rule makes of an integer and a scale: the value that the file holds.
float qn_lattice_value(const qn_lattice_rule *r, float scale, int k);
// Whether one scale stands.
bool qn_lattice_stands(const qn_lattice_rule *r, float scale, const float *v, size_t n);
// Length of the longest prefix of a row that one scale explains; at most max.
size_t qn_lattice_prefix(const qn_lattice_rule *r, const float *v, size_t max);
// How wide, in units of the scale, the interval is that rounds to v: the chance that a value met by
// accident is on the lattice. 1 at most.
double qn_lattice_chance(const qn_lattice_rule *r, float scale, float v);

#endif
