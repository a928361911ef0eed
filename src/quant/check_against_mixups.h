// What happened to a matrix that differs from its reference.
#ifndef QN_QUANT_CHECK_AGAINST_MIXUPS_H
#define QN_QUANT_CHECK_AGAINST_MIXUPS_H

#include <stddef.h>

// Both matrices whole; b is the reference.
typedef struct qn_two_matrices {
    const float *a, *b;
    size_t rows, cols;
} qn_two_matrices;

enum { QN_MIXUP_TEXT = 192 };

// The known mix-up that a is of b ("; it is the reference transposed"), or "" when it is none.
void qn_mixup_name(const qn_two_matrices *m, char text[QN_MIXUP_TEXT]);

#endif
