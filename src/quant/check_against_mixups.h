// What happened to a matrix that differs from its reference.
#ifndef QN_QUANT_CHECK_AGAINST_MIXUPS_H
#define QN_QUANT_CHECK_AGAINST_MIXUPS_H

#include <stdbool.h>
#include <stddef.h>

// Both matrices whole; b is the reference.
typedef struct qn_two_matrices {
    const float *a, *b;
    size_t rows, cols;
    bool heads;    // its rows are those of heads that are rotated: q or k
    double enough; // the cosine that a, put right, has to have with b to be named
} qn_two_matrices;

enum { QN_MIXUP_TEXT = 256 };

// The known mix-up that a is of b ("; it is the reference transposed"), or "" when it is none.
void qn_mixup_name(const qn_two_matrices *m, char text[QN_MIXUP_TEXT]);

#endif
