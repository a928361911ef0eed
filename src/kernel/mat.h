// Weight matrices in memory. A qn_mat is [rows = outputs, cols = inputs] in one of a few formats;
// whoever uses it never asks which. On-disk schemes (store) are decoded row by row and put into a
// matrix here; packing for the kernels happens in these calls and nowhere else.
#ifndef QN_KERNEL_MAT_H
#define QN_KERNEL_MAT_H

#include "quern.h"

typedef enum qn_format_id {
    QN_FORMAT_F32,
    QN_FORMAT_BF16,
    QN_FORMAT_F16,
    QN_FORMAT_Q8, // w = scale[group] * (code - zero[group]), code and zero 0..255
    QN_FORMAT_Q4, // the same with code and zero 0..15; 2- and 3-bit codes live here too
    QN_FORMAT_F8, // w = scale[group] * e4m3(code)
    QN_N_FORMATS
} qn_format_id;

typedef struct qn_format qn_format; // formats.h: pack, unpack, scalar and fast dot of one format

// The shape of what is put in. Scales keep the source's precision: scale_bits 16 promises that each
// scale is exactly a bf16 or f16 number (scale_is_bf16 tells which), 32 is float.
typedef struct qn_mat_spec {
    qn_format_id format;
    size_t rows, cols;
    size_t group;    // inputs per scale (last group may be short); cols for one group per row.
                     // 0 for the plain float formats
    bool has_zeros;  // false: zero is 128 (Q8), 8 (Q4) throughout
    int scale_bits;
    bool scale_is_bf16;
    const int32_t *perm; // act-order: packed column j is input perm[j]; NULL: none. Copied
    const char *name;    // the tensor's name, for messages; copied
} qn_mat_spec;

typedef struct qn_mat {
    const qn_format *format;
    size_t rows, cols, group, n_groups;
    bool has_zeros, scale_is_bf16;
    int scale_bits;
    int32_t *perm;
    float *bias; // [rows] or NULL; added by qn_matmul
    char *name;
    void *data, *scales, *zeros; // packed by the format (kernel/formats.h says how)
    size_t data_bytes, scales_bytes, zeros_bytes;
} qn_mat;

// Some consecutive rows as a scheme decodes them, columns already in packed order (perm applied).
// Exactly one of f32, h16, codes is given. Row i of the block is row row0 + i of the matrix.
typedef struct qn_rows {
    size_t row0, n;
    const float *f32;       // [n][cols], for F32, BF16, F16 (rounded to nearest even), and for Q8
                            // and Q4 where they are quantized here (--weights q8|q4; symmetric,
                            // the whole code range used, zero 128 / 8)
    const uint16_t *h16;    // [n][cols], bits of the matrix's own 16-bit format
    const uint8_t *codes;   // [n][cols], one code a byte
    const float *scales;    // [n][n_groups]
    const uint8_t *zeros;   // [n][n_groups] when has_zeros
} qn_rows;

#define QN_PANEL 16 // outputs packed together; blocks put in start at a multiple of it

// Allocates zeroed storage; the matrix is ready for qn_mat_put. Release with qn_mat_done.
bool qn_mat_init(qn_mat *m, const qn_mat_spec *spec, qn_err *err);
void qn_mat_done(qn_mat *m); // {0} is fine
// Packs rows. Threads may put disjoint blocks at once. row0 is a multiple of QN_PANEL.
void qn_mat_put(qn_mat *m, const qn_rows *rows);
bool qn_mat_set_bias(qn_mat *m, const float *bias, qn_err *err); // [rows], copied
size_t qn_mat_bytes(const qn_mat *m);

// Row `row` as exact floats in natural column order (embedding look-up, tests).
void qn_mat_row(const qn_mat *m, size_t row, float *out);

#endif
