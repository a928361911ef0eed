// What a weight format is: how rows get in and out, and how blocks of outputs are computed. One
// file per format (format_*.c), one line each in formats.c. A new format needs put_row, get_row and
// unpack; it then works everywhere through unpack and dot_f32, and gets a fast dot later.
//
// Storage: panels of 16 outputs, each [n_groups][padded group] inputs; within, the layout that the
// dot leaf of the format wants (table.h). Plain floats are one group of all inputs. Scales and
// zeros lie apart as [panels][n_groups][16]. Padding (outputs and inputs) is zero.
#ifndef QN_KERNEL_FORMATS_H
#define QN_KERNEL_FORMATS_H

#include "kernel/mat.h"
#include "kernel/table.h"

// What fast precision makes of the activations first.
typedef enum qn_act_kind {
    QN_ACT_F32,  // as they are
    QN_ACT_BF16, // rounded to bf16 (kept as floats), groups padded with zeros
    QN_ACT_S8,   // int8 with a scale and a sum per weight group, groups padded with zeros
} qn_act_kind;

// Inputs k … k + n - 1 of group g in one panel; k is a multiple of 64.
typedef struct qn_span {
    size_t panel, g, k, n;
} qn_span;

// A block of outputs of a matrix over a block of activation rows.
typedef struct qn_dot {
    const qn_mat *w;
    size_t panel, n_panels; // at most QN_DOT_PANELS
    size_t m;               // at most QN_DOT_ROWS
    const void *x;          // in the kind the format wants, ldx elements from row to row
    size_t ldx;
    const float *x_scale; // [m][n_groups] for S8
    const int32_t *x_sum;
    float *acc; // [m][n_panels * 16], ldacc apart; zeroed by the caller
    size_t ldacc;
} qn_dot;
#define QN_DOT_PANELS 4
#define QN_DOT_ROWS 48

struct qn_format {
    qn_format_id id;
    const char *name;
    int bits;      // of a stored value
    bool grouped;  // has scales
    int middle;    // the zero of matrices without zeros
    qn_act_kind act;
    size_t (*pad)(size_t group); // inputs that a group of so many takes
    // Row `row` of the matrix from row i of src, columns in packed order.
    void (*put_row)(qn_mat *m, size_t row, const qn_rows *src, size_t i);
    void (*get_row)(const qn_mat *m, size_t row, float *out); // exact, packed order
    // A span as exact floats out[n][16]; out has room for n rounded up to a multiple of 8.
    void (*unpack)(const qn_table *t, const qn_mat *m, const qn_span *s, float *out);
    void (*dot)(const qn_table *t, const qn_dot *d);      // fast; NULL: as exact
    void (*dot_exact)(const qn_table *t, const qn_dot *d); // NULL: unpack and dot_f32
};

const qn_format *qn_format_get(qn_format_id id); // NULL: no such format
void qn_format_dot_exact(const qn_table *t, const qn_dot *d);

// Shapes. Group length of plain floats is cols.
size_t qn_mat_group(const qn_mat *m);
size_t qn_mat_padded_group(const qn_mat *m);
size_t qn_mat_panel_bytes(const qn_mat *m);
void *qn_mat_panel(const qn_mat *m, size_t panel);
const void *qn_mat_at(const qn_mat *m, const qn_span *s); // the span's first byte
size_t qn_mat_group_length(const qn_mat *m, size_t g); // real inputs; the last may be short

float qn_mat_scale(const qn_mat *m, size_t row, size_t g);
int qn_mat_zero(const qn_mat *m, size_t row, size_t g);
qn_scale_type qn_mat_scale_type(const qn_mat *m);
// Stores scales and zeros of row i of src.
void qn_mat_put_scales(qn_mat *m, size_t row, const qn_rows *src, size_t i);
// Symmetric codes of one row of floats over the whole code range, scales stored in the matrix.
void qn_mat_quantize_row(qn_mat *m, size_t row, const float *x, uint8_t *codes);
// The tile of a quantized dot, and scales and zeros of one panel's group as [16].
void qn_mat_group_tile(const qn_dot *d, qn_tile *t);
void qn_mat_panel_scales(const qn_mat *m, const qn_span *s, float *scale, int32_t *zero);

#endif
