// GPTQ: P.qweight [in * bits / 32, out] packed along the inputs, P.qzeros [groups, out * bits / 32]
// packed along the outputs, P.scales [groups, out], P.g_idx [in] (may be absent, or zeros as a
// placeholder). W[o, i] = scales[g, o] * (code[i, o] - zero[g, o]).
//
// v1 stores zero - 1, v2 the zero. Labels are wrong often enough that the content decides. All
// fields equal: 2^(bits-1) - 1 is v1, 2^(bits-1) is v2, there is no third reading of a symmetric
// file. Mixed fields fit both; then the label counts, unless the codes refute it: weights are
// centred on zero, so code - zero has mean 0, and a label off by one shifts that mean by a whole
// step, far beyond the error of a sample.
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "store/bitfields.h"
#include "store/schemes.h"

enum { QWEIGHT, QZEROS, SCALES, G_IDX };

static bool is_word(const qn_tensor *t) {
    return (t->dtype == QN_DT_I32 || t->dtype == QN_DT_U32) && t->n_dims == 2;
}

static bool claims(const qn_weight *w) {
    const qn_tensor *q = w->parts[QWEIGHT], *z = w->parts[QZEROS], *s = w->parts[SCALES];
    return is_word(q) && is_word(z) && s->n_dims == 2 && s->shape[1] == q->shape[1] &&
           z->shape[0] == s->shape[0];
}

static bool bind_shape(qn_weight *w, qn_err *err) {
    const qn_tensor *q = w->parts[QWEIGHT], *z = w->parts[QZEROS], *s = w->parts[SCALES];
    size_t out = q->shape[1], words = q->shape[0], zero_bits, code_bits;
    if (!out || !words || !qn_mul(z->shape[1], 32, &zero_bits) || !qn_mul(words, 32, &code_bits))
        return qn_part_mismatch(q, err, "[inputs * bits / 32, outputs]");
    size_t bits = zero_bits / out;
    if (zero_bits % out || (bits != 2 && bits != 3 && bits != 4 && bits != 8))
        return qn_part_mismatch(z, err, "[groups, %zu * bits / 32] with 2, 3, 4 or 8 bits", out);
    if (code_bits % bits)
        return qn_part_mismatch(q, err, "whole inputs of %zu bits", bits);
    w->bits = (int)bits;
    w->rows = out;
    w->cols = code_bits / bits;
    w->n_groups = s->shape[0];
    return qn_part_is_scale(s, err);
}

static uint8_t stored_zero(const qn_weight *w, size_t g, size_t row) {
    const qn_tensor *z = w->parts[QZEROS];
    return qn_field(z->data + g * z->shape[1] * 4, 4, row, w->bits);
}

// The one value of all stored zeros, or -1.
static int constant_zero(const qn_weight *w) {
    uint8_t first = stored_zero(w, 0, 0);
    if (w->bits == 3) {
        for (size_t g = 0; g < w->n_groups; g++)
            for (size_t r = 0; r < w->rows; r++)
                if (stored_zero(w, g, r) != first) return -1;
        return first;
    }
    uint32_t ones = w->bits == 2 ? 0x55555555u : w->bits == 4 ? 0x11111111u : 0x01010101u;
    const qn_tensor *z = w->parts[QZEROS];
    for (size_t i = 0; i < z->n; i++)
        if (qn_word_at(z->data + 4 * i) != ones * first) return -1;
    return first;
}

#define UNSETTLED (-1)

static bool bind(qn_weight *w, const qn_label_entry *said, qn_err *err) {
    bool none = true;
    if (!bind_shape(w, err)) return false;
    if (!w->n_groups) return qn_part_mismatch(w->parts[SCALES], err, "at least one group");
    w->group = (w->cols + w->n_groups - 1) / w->n_groups;
    w->zero_offset = 1;
    for (int i = QWEIGHT; i <= G_IDX; i++)
        if (w->parts[i] && !w->parts[i]->data) return true; // damaged: nobody will read it
    if (w->parts[G_IDX] && !qn_group_from_index(w, w->parts[G_IDX], &none, err)) return false;
    if (none && !qn_group_from_count(w, said->group, err)) return false;
    int middle = 1 << (w->bits - 1), zero = constant_zero(w);
    w->sym = zero == middle || zero == middle - 1;
    w->zero_offset = w->sym ? middle - zero : UNSETTLED;
    return true;
}

// ---- v1 or v2 for mixed zeros ----

typedef struct sample {
    double n, sum, squares; // of code - stored zero
} sample;

// Zeros at the ends of the range belong to groups of one sign, whose codes are not centred; and all
// ones is 0 in v1, the largest zero in v2. Neither says anything.
static bool telling(int stored, int bits) {
    int most = (1 << bits) - 1;
    return stored != most && (bits == 2 || (stored != 0 && stored != most - 1));
}

static void sample_weight(const qn_weight *w, sample *s) {
    const qn_tensor *q = w->parts[QWEIGHT];
    size_t row_step = w->rows < 64 ? 1 : w->rows / 64, col_step = w->cols < 256 ? 1 : w->cols / 256;
    for (size_t i = 0; i < w->cols; i += col_step) {
        size_t g = qn_weight_group_of(w, i);
        for (size_t r = 0; r < w->rows; r += row_step) {
            int zero = stored_zero(w, g, r);
            if (!telling(zero, w->bits)) continue;
            double d = qn_field(q->data + 4 * r, 4 * w->rows, i, w->bits) - zero;
            s->n++;
            s->sum += d;
            s->squares += d * d;
        }
    }
}

// The mean of code - stored is 0 in v2 content and 1 in v1. -1: cannot tell.
static int offset_by_codes(qn_weight *const *list, size_t n) {
    sample s = {0};
    size_t step = n < 32 ? 1 : n / 32;
    for (size_t i = 0; i < n; i += step)
        if (list[i]->zero_offset == UNSETTLED && qn_weight_readable(list[i], 0, 0, NULL))
            sample_weight(list[i], &s);
    if (s.n < 4096) return -1;
    double mean = s.sum / s.n, spread = sqrt((s.squares / s.n - mean * mean) / s.n);
    if (6 * spread > 0.25) return -1;
    return fabs(mean) < 0.25 ? 0 : fabs(mean - 1) < 0.25 ? 1 : -1;
}

static bool settle(qn_weight *const *list, size_t n, const qn_label *label, qn_damages *d,
                   qn_err *err) {
    bool v2 = label->format && strcmp(label->format, "gptq_v2") == 0;
    int offset = -1;
    (void)d, (void)err;
    for (size_t i = 0; i < n; i++) {
        qn_weight *w = list[i];
        if (w->zero_offset == UNSETTLED) {
            if (offset < 0) offset = offset_by_codes(list, n);
            if (offset < 0) offset = v2 ? 0 : 1;
            w->zero_offset = offset;
        }
        w->layout = w->zero_offset ? "gptq" : "gptq_v2";
    }
    return true;
}

// ---- rows ----

static void codes(const qn_weight *w, size_t row0, size_t n, uint8_t *out) {
    const qn_tensor *q = w->parts[QWEIGHT];
    qn_bitrows b = {.base = q->data, .row_stride = 4, .word_stride = 4 * w->rows,
                    .words = q->shape[0], .cols = w->cols, .bits = w->bits};
    qn_bitrows_unpack(&b, row0, n, out);
}

static void scales(const qn_weight *w, size_t row0, size_t n, float *out) {
    qn_scales_by_group(w, w->parts[SCALES], row0, n, out);
}

// A stored all-ones field is zero 0 in v1 (written as 0 - 1 under the mask).
static void zeros(const qn_weight *w, size_t row0, size_t n, uint8_t *out) {
    uint8_t mask = (uint8_t)((1u << w->bits) - 1);
    for (size_t g = 0; g < w->n_groups; g++)
        for (size_t r = 0; r < n; r++)
            out[r * w->n_groups + g] =
                (uint8_t)(stored_zero(w, g, row0 + r) + w->zero_offset) & mask;
}

extern const qn_scheme qn_scheme_gptq;
const qn_scheme qn_scheme_gptq = {
    .family = "gptq", .parts = {".qweight", ".qzeros", ".scales", ".g_idx"},
    .required = 1 << QWEIGHT | 1 << QZEROS | 1 << SCALES, .scale_part = SCALES,
    .g_idx_part = G_IDX, .claims = claims, .bind = bind, .settle = settle, .codes = codes,
    .scales = scales, .zeros = zeros,
};
