// The inner loops over a group's values: lattice.h's definitions, many values at a time. Written once
// in lattice_loops_body.h and compiled plainly, for AVX2 and for AVX-512: all give the same answers.
#ifndef QN_QUANT_LATTICE_LOOPS_H
#define QN_QUANT_LATTICE_LOOPS_H

#include <stdint.h>

#include "quant/lattice.h"

// What a value allows: the integer j stands for it beside the integer k of the largest value only if
// there is an integer from lo * k to hi * k, at least 1 and at most limit. A little wide.
typedef struct qn_lattice_probe {
    float lo, hi, limit;
} qn_lattice_probe;

enum { QN_MAX_PROBES = 16, QN_PROBED = 144 }; // integers of the largest value: 1 … 143

// How a group was made wrong: stored code = sign * c + zero; its byte read as signed (view), or its
// zero point off by shift.
typedef struct qn_lattice_mistake {
    bool view;
    int sign, zero, shift;
} qn_lattice_mistake;

typedef struct qn_lattice_loops {
    // Whether every value has an integer under the scale: qn_lattice_code's, into codes.
    bool (*codes)(const qn_lattice_rule *r, float scale, const float *v, size_t n, int32_t *codes);
    bool (*stands)(const qn_lattice_rule *r, float scale, const float *v, size_t n);
    // Whether some value would also be one more or one less under the scale, in the rule's range.
    bool (*doubled)(const qn_lattice_rule *r, float scale, const float *v, const int32_t *codes,
                    size_t n);
    // may[k]: whether no probe speaks against k, for 0 … QN_PROBED − 1.
    void (*may)(const qn_lattice_probe *probes, size_t n, uint8_t *may);
    // What may round to the magnitude of each value, which is not 0, rather too wide than too narrow;
    // and, unless NULL, the largest integer that its sign allows.
    void (*spans)(const qn_lattice_rule *r, const float *v, size_t n, double *lo, double *hi,
                  float *limit);
    // The largest magnitude; *constant: all values are the same.
    float (*largest)(const float *v, size_t n, bool *constant);
    // Whether right codes c under the scale exist with stored(c * scale) = right and a wrong value that
    // is broken.
    bool (*breaks)(const qn_lattice_rule *r, float scale, const qn_lattice_mistake *m,
                   qn_dtype stored, const float *broken, const float *right, size_t n);
} qn_lattice_loops;

extern const qn_lattice_loops qn_lattice_loops_plain, qn_lattice_loops_avx2,
    qn_lattice_loops_avx512;
const qn_lattice_loops *qn_lattice_loops_best(void);

#endif
