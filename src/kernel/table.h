// The leaves: single-threaded pure functions, one slot each, scalar first and then overwritten by
// every instruction set that the processor has and QUERN_CPU allows. Each leaf equals the scalar
// one bit for bit under the mode of fp_mode.h (a NaN's payload excepted).
#ifndef QN_KERNEL_TABLE_H
#define QN_KERNEL_TABLE_H

#include "quern.h"

typedef enum qn_scale_type { QN_SCALE_F32, QN_SCALE_BF16, QN_SCALE_F16 } qn_scale_type;

// A block of outputs: acc[m][n_panels * 16] += x[m][k] * panels of 16 outputs. Layouts per kernel:
//   dot_f32:  x float, w float [k][16]
//   dot_bf16: x float holding bf16 values, w bf16 [k/2][16][2], k even
//   dot_q8:   x int8, w uint8 [n_groups][group/4][16][4], group padded to a multiple of 8
//   dot_q4:   x int8, w two codes a byte [n_groups][group/8][16][4]: byte j of an output holds
//             inputs j (low) and j + 4 (high) of the eight
typedef struct qn_tile {
    size_t m, n_panels;
    const void *x;
    size_t ldx; // elements from row to row
    const void *w;
    size_t ldw; // bytes from panel to panel
    size_t k;   // inputs; for q8 and q4 those of one group, padded
    float *acc;
    size_t ldacc;
    // Groups (q8, q4): activations' scales and sums [m][n_groups], weights' scales and zeros
    // [n_panels][n_groups][16]. zeros NULL: zero is 128 (q8), 8 (q4).
    size_t n_groups;
    const float *x_scale;
    const int32_t *x_sum;
    const void *w_scale;
    const uint8_t *w_zero;
    qn_scale_type scale_type;
} qn_tile;

// n inputs of one panel's group as floats [n][16]: scale * (code - zero), or the code alone.
typedef struct qn_unpack {
    const void *w; // at the first input (q8, q4: of its quad or eight); n a multiple of that
    size_t n;
    const float *scale; // [16]
    const int32_t *zero; // [16]
    float *out;
} qn_unpack;

// One block of an online softmax for one query: scores s[n] become weights in place.
typedef struct qn_softmax_step {
    float *s;
    size_t n, from, to; // n slots (multiple of 16), visible ones from … to - 1 (to > from)
    float scale;
    bool round_bf16;    // weights rounded to bf16
    float max, sum;     // running; max starts at -inf, sum at 0
} qn_softmax_step;

// QN_DELTA_COLUMNS or fewer columns of one head's state, one token (ops.h, gated delta rule).
#define QN_DELTA_COLUMNS 64
typedef struct qn_delta_slice {
    float *state; // [dk][dv], at the first column
    size_t dk, dv, n;
    const float *q, *k, *v; // v at the first column
    float decay, beta, kq;  // kq = k . q
    float *out;
} qn_delta_slice;

typedef struct qn_table {
    void (*dot_f32)(const qn_tile *t);
    void (*dot_bf16)(const qn_tile *t);
    void (*dot_q8)(const qn_tile *t);
    void (*dot_q4)(const qn_tile *t);
    void (*unpack_bf16)(const qn_unpack *u);
    void (*unpack_f16)(const qn_unpack *u);
    void (*unpack_q8)(const qn_unpack *u);
    void (*unpack_q4)(const qn_unpack *u);
    void (*unpack_f8)(const qn_unpack *u);
    void (*f8_to_bf16)(const uint8_t *w, size_t n, uint16_t *out); // n a multiple of 16
    void (*round_bf16)(const float *x, float *y, size_t n); // to bf16, kept as float
    // One group: codes, padded with zeros up to n_pad; scale and sum of the codes.
    void (*quantize_s8)(const float *x, size_t n, size_t n_pad, int8_t *codes, float *scale,
                        int32_t *sum);
    void (*rmsnorm)(const float *x, const float *w, float eps, float *y, size_t n);
    void (*layernorm)(const float *x, const float *w, const float *b, float eps, float *y,
                      size_t n);
    void (*rope)(float *x, const float *cos_sin, size_t n_freq);
    void (*silu_mul)(const float *gate, const float *up, float *y, size_t n);
    void (*add)(float *x, const float *y, size_t n);
    void (*sigmoid_mul)(float *x, const float *g, size_t n);
    void (*gelu_tanh)(float *x, size_t n);
    void (*gelu_erf)(float *x, size_t n);
    void (*softmax)(float *x, size_t n);
    float (*softmax_step)(qn_softmax_step *s); // returns what earlier sums are multiplied with
    void (*scale)(float *x, float factor, size_t n); // x *= factor
    void (*add_scaled)(float *acc, const float *x, const float *f, size_t n); // acc += x * f, fused
    float (*dot_lanes)(const float *x, const float *y, size_t n);
    void (*delta)(const qn_delta_slice *d);
    // What the machine can do at most (`quern cpu --measure`): loops of the instructions that the
    // dots use, on registers; they return the operations done. read sums n bytes (a multiple of
    // 1024) in four streams.
    uint64_t (*peak_f32)(size_t turns);
    uint64_t (*peak_int8)(size_t turns);
    uint64_t (*read)(const void *p, size_t n);
} qn_table;

#define QN_N_SLOTS (sizeof(qn_table) / sizeof(void (*)(void)))

// The table for what is allowed now. Cheap; the pointer stays valid.
const qn_table *qn_table_get(void);
const char *qn_slot_name(size_t slot);
const char *qn_slot_isa(size_t slot); // who serves it now: "scalar", "avx2", …

// Each instruction set's assignments; qn_rows_… are the part compiled from row_math.h.
void qn_rows_scalar(qn_table *t);
void qn_rows_avx2(qn_table *t);
void qn_rows_avx512(qn_table *t);
void qn_table_scalar(qn_table *t);
void qn_table_avx2(qn_table *t);
void qn_table_avx512(qn_table *t);
void qn_table_vnni(qn_table *t);

#endif
