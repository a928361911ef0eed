// Logical weights: what a checkpoint means, whatever scheme it is stored in. A quantized matrix of
// several tensors (P.qweight, P.scales, …) is one weight "P.weight"; a plain tensor is itself.
#ifndef QN_STORE_WEIGHT_H
#define QN_STORE_WEIGHT_H

#include "base/pool.h"
#include "kernel/mat.h"
#include "store/checkpoint.h"

#define QN_MAX_PARTS 6

typedef struct qn_scheme qn_scheme; // schemes.h

typedef struct qn_weight {
    char *name;               // "model.layers.0.mlp.up_proj.weight"
    const qn_scheme *scheme;  // NULL: a plain tensor (any dtype and rank)
    const qn_tensor *parts[QN_MAX_PARTS]; // by the scheme's own order; parts[0] holds the codes
    size_t rows, cols;        // [out, in]; a plain vector has rows 1; 3-D plain: rows = d0 * d1
    int bits;                 // of a code; 0 for plain
    size_t group, n_groups;   // inputs per scale as stored; the last group may be short
    size_t scale_rows;        // outputs that share a scale: 1, or more in fp8 blocks
    bool sym;                 // every zero is the middle
    bool act_order;           // groups are not consecutive inputs
    int zero_offset;          // GPTQ: what is added to a stored zero (1: v1, 0: v2), by content
    const char *layout;       // "gptq", "gptq_v2", "awq-gemm", "awq-gemv", "fp8-block", …
    int64_t said_group;       // inputs per scale as the label has it; -1: all of them; 0: unsaid
    size_t said_block[2];     // rows and columns of an fp8 block, likewise
} qn_weight;

// All logical weights in file order. Parsed once per checkpoint and kept there. A set of parts that
// makes no sense (shapes, missing part) fails strict openings and is a damage in tolerant ones.
// Where content and config differ (bits, group, v1/v2, sym) the content counts and is noted.
bool qn_ckpt_weights(qn_ckpt *c, const qn_weight **list, size_t *n, qn_err *err);
const qn_weight *qn_ckpt_weight(qn_ckpt *c, const char *name); // NULL: none. After qn_ckpt_weights

// Differences between the quantization config and the tensors, one line each (empty: it matches).
size_t qn_ckpt_n_label_errors(const qn_ckpt *c);
const char *qn_ckpt_label_error(const qn_ckpt *c, size_t i);
// What the label says less well than it could, though not wrongly; NULL: nothing.
const char *qn_ckpt_label_note(const qn_ckpt *c);

// What the checkpoint's quantization is, by content; for `inspect`. method and format are spelled
// as configs spell them. False when nothing is quantized. After qn_ckpt_weights.
typedef struct qn_quant_info {
    const char *method, *format; // "gptq", "gptq_v2"; "awq", "gemm"; "fp8", "e4m3"; …
    int bits;                    // of most matrices
    int64_t group_size;          // of most matrices; -1: one group for all inputs
    bool sym, desc_act, label_matches;
    size_t modules;
} qn_quant_info;
bool qn_ckpt_quant_info(const qn_ckpt *c, qn_quant_info *out);

// Rows row0 … row0 + n - 1 as exact floats [n][cols] in natural column order:
// scale * (code - zero), formed in float from the stored scale.
bool qn_weight_decode(const qn_weight *w, size_t row0, size_t n, float *out, qn_err *err);
// The same, and widens the range of codes seen by those of these rows (what is not quantized has
// none).
typedef struct qn_codes_seen {
    uint8_t lo, hi; // {255, 0}: none yet
} qn_codes_seen;
bool qn_weight_decode_seen(const qn_weight *w, size_t row0, size_t n, float *out,
                           qn_codes_seen *seen, qn_err *err);

// The same rows as codes, scales and zeros for quantized weights: columns permuted so that groups
// are consecutive (see qn_weight_perm). codes [n][cols], scales and zeros [n][n_groups]. For fp8
// the codes are the e4m3 bytes and zeros is untouched. Any pointer may be NULL.
bool qn_weight_codes(const qn_weight *w, size_t row0, size_t n, uint8_t *codes, float *scales,
                     uint8_t *zeros, qn_err *err);
// Both at once, for weights without act_order (whose orders differ): floats, and what they are made
// of. No pointer may be NULL.
bool qn_weight_decode_parts(const qn_weight *w, size_t row0, size_t n, float *out, uint8_t *codes,
                            float *scales, uint8_t *zeros, qn_err *err);
// Column order of qn_weight_codes: NULL when natural, else an allocated array [cols] (qn_free):
// packed column j is input perm[j]. False when the groups are uneven (then only decode works).
bool qn_weight_perm(const qn_weight *w, int32_t **perm, qn_err *err);

// Packs rows row0 … row0 + rows - 1 of a weight (all: 0, w->rows; a slice: one expert of a fused
// tensor) into a matrix, threaded, at most one block of rows per thread in flight. want says which
// format; QN_STORED keeps the stored values exactly in the smallest format that holds them.
bool qn_weight_load(const qn_weight *w, size_t row0, size_t rows, qn_weights want, qn_pool *pool,
                    qn_mat *out, qn_err *err);
// A plain tensor of any rank as floats, n elements expected ("shape …, expected n").
bool qn_weight_floats(const qn_weight *w, size_t n, float *out, qn_err *err);

#endif
