// Random matrices of every format, with what was put in kept as doubles: for comparing kernels.
#ifndef TEST_RANDOM_MATRIX_H
#define TEST_RANDOM_MATRIX_H

#include "kernel/matmul.h"

typedef struct random_spec {
    qn_format_id format;
    size_t rows, cols, group;
    bool zeros, perm, bias, adversarial; // adversarial: extreme codes, tiny and huge scales
    int scale_bits;
    bool scale_is_bf16;
    uint64_t seed;
} random_spec;

typedef struct random_mat {
    qn_mat mat;
    float *values; // [rows][cols] exact weights, natural column order
    float *bias;
} random_mat;

void random_mat_make(random_mat *r, const random_spec *s);
void random_mat_free(random_mat *r);
float *random_floats(size_t n, uint64_t seed); // normal; qn_free
const char *random_spec_text(const random_spec *s); // static buffer
// The i-th of a fixed variety of specs (format, groups with tails, zeros, scale types, perm).
random_spec random_spec_at(size_t i, size_t rows, size_t cols);
#define N_RANDOM_SPECS 16

#endif
