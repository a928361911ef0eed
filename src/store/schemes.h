// On-disk schemes: how one logical matrix lies in several tensors P.qweight, P.scales, … Every
// scheme says which tensors it is made of, recognises and checks them, and gives codes, scales and
// zeros of rows; everything else (floats, packing, threads) is the same for all and not here. One
// file per family (scheme_*.c), one line per scheme in schemes.c.
#ifndef QN_STORE_SCHEMES_H
#define QN_STORE_SCHEMES_H

#include "store/damage.h"
#include "store/label.h"
#include "store/weight.h"

struct qn_scheme {
    const char *family; // as quant_method says: "gptq", "awq", "fp8", "compressed-tensors"
    const char *format; // as configs spell the layout; NULL: qn_weight.layout
    const char *parts[QN_MAX_PARTS]; // suffixes after P in qn_weight.parts' order; [0] marks a set
    unsigned required;               // bit i: part i has to be there
    int scale_part, g_idx_part;      // which parts these are; 0: the scheme has none
    bool floats;                     // codes are e4m3 bytes, there are no zeros
    // Do these parts (all required ones are there) look like this scheme, by type and shape?
    bool (*claims)(const qn_weight *w);
    // Checks everything and fills w's shape, bits, group, sym, act_order, layout.
    bool (*bind)(qn_weight *w, const qn_label_entry *said, qn_err *err);
    // What only all sets of the checkpoint together decide; NULL: nothing. One that does not go with
    // the others fails, or is a damage where d is given.
    bool (*settle)(qn_weight *const *list, size_t n, const qn_label *label, qn_damages *d,
                   qn_err *err);
    // Rows in natural column order: codes [n][cols], scales and zeros [n][n_groups].
    void (*codes)(const qn_weight *w, size_t row0, size_t n, uint8_t *out);
    void (*scales)(const qn_weight *w, size_t row0, size_t n, float *out);
    void (*zeros)(const qn_weight *w, size_t row0, size_t n, uint8_t *out); // NULL when floats
};

extern const qn_scheme *const qn_schemes[];
extern const size_t qn_n_schemes;

// ---- what schemes share (scheme_parts.c) ----

// Fails with "tensor …: shape […], expected …".
bool qn_part_mismatch(const qn_tensor *t, qn_err *err, const char *expected, ...) QN_PRINTF(3, 4);
// Shape is [a, b]? A part with other rank or size is a mismatch.
bool qn_part_is(const qn_tensor *t, size_t a, size_t b, qn_err *err);
// Scales may be F16, BF16 or F32.
bool qn_part_is_scale(const qn_tensor *t, qn_err *err);
// Group of n_groups over cols inputs: the one the label names if it fits, else cols / n_groups;
// what does not divide is an error.
bool qn_group_from_count(qn_weight *w, int64_t said, qn_err *err);
// Reads g_idx (int32, [cols]) into w->group and w->act_order; an all-zero placeholder or one of -1
// counts as none: *none is then true and nothing is filled.
bool qn_group_from_index(qn_weight *w, const qn_tensor *g_idx, bool *none, qn_err *err);
// Input i's group.
size_t qn_weight_group_of(const qn_weight *w, size_t i);
// Scales stored [rows][stride] or [n_groups][rows], as floats [n][n_groups].
void qn_scales_by_row(const qn_weight *w, const qn_tensor *t, size_t stride, size_t row0, size_t n,
                      float *out);
void qn_scales_by_group(const qn_weight *w, const qn_tensor *t, size_t row0, size_t n, float *out);

// Whether all tensors of the set lie in the file (tolerant openings), and the rows in the weight.
bool qn_weight_readable(const qn_weight *w, size_t row0, size_t n, qn_err *err);
// qn_weight_codes with the order already known (NULL: natural).
void qn_weight_codes_in(const qn_weight *w, const int32_t *perm, size_t row0, size_t n,
                        uint8_t *codes, float *scales, uint8_t *zeros);

#endif
