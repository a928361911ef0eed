// AWQ, 4 bits, true zeros, groups of consecutive inputs.
// gemm: P.qweight [in, out / 8], P.qzeros [groups, out / 8], P.scales [groups, out]; a word's
// nibble k holds output 8c + order[k], order = 0 2 4 6 1 3 5 7.
// gemv: P.qweight [out, in / 8] and P.qzeros [out, zw] in natural order, P.scales [out, 8 zw];
// zeros and scales are padded to 8 zw groups.
// gemv_fast and marlin are other layouts; they are refused by name or for their types.
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "store/bitfields.h"
#include "store/schemes.h"

enum { QWEIGHT, QZEROS, SCALES };
#define BITS 4

// Nibble of output j among a word's eight.
static const int nibble_of[8] = {0, 4, 1, 5, 2, 6, 3, 7};

static bool is_word(const qn_tensor *t) {
    return (t->dtype == QN_DT_I32 || t->dtype == QN_DT_U32) && t->n_dims == 2;
}

static bool all_words(const qn_weight *w) {
    return is_word(w->parts[QWEIGHT]) && is_word(w->parts[QZEROS]) &&
           w->parts[SCALES]->n_dims == 2;
}

static bool parts_are_there(const qn_weight *w) {
    return w->parts[QWEIGHT]->data && w->parts[QZEROS]->data && w->parts[SCALES]->data;
}

static bool zeros_are(const qn_weight *w, uint8_t middle) {
    size_t step = 64;
    uint8_t *z = QN_NEW_ARRAY(uint8_t, step * w->n_groups);
    bool all = true;
    for (size_t r = 0; all && r < w->rows; r += step) {
        size_t n = w->rows - r < step ? w->rows - r : step;
        w->scheme->zeros(w, r, n, z);
        for (size_t i = 0; i < n * w->n_groups; i++) all = all && z[i] == middle;
    }
    free(z);
    return all;
}

// ---- gemm ----

static bool gemm_claims(const qn_weight *w) {
    const qn_tensor *q = w->parts[QWEIGHT], *z = w->parts[QZEROS], *s = w->parts[SCALES];
    return all_words(w) && z->shape[1] == q->shape[1] && s->shape[0] == z->shape[0] &&
           s->shape[1] / 8 == q->shape[1] && s->shape[1] % 8 == 0;
}

static bool gemm_bind(qn_weight *w, const qn_label_entry *said, qn_err *err) {
    const qn_tensor *q = w->parts[QWEIGHT], *s = w->parts[SCALES];
    (void)said;
    w->bits = BITS;
    w->rows = s->shape[1];
    w->cols = q->shape[0];
    w->n_groups = s->shape[0];
    w->layout = "awq-gemm";
    if (!w->rows) return qn_part_mismatch(s, err, "outputs");
    if (!qn_part_is_scale(s, err)) return false;
    if (!qn_group_from_count(w, 0, err)) return false; // every group is full
    w->sym = parts_are_there(w) && zeros_are(w, 8);
    return true;
}

// Eight outputs of one input lie in a word, so a tile of 64 inputs is turned over in between: its
// rows then go out as whole cache lines.
#define TILE 64

static void gemm_codes(const qn_weight *w, size_t row0, size_t n, uint8_t *out) {
    const qn_tensor *q = w->parts[QWEIGHT];
    size_t width = q->shape[1];
    for (size_t i0 = 0; i0 < w->cols; i0 += TILE)
        for (size_t c = row0 / 8; c * 8 < row0 + n; c++) {
            uint8_t tile[8][TILE];
            size_t m = w->cols - i0 < TILE ? w->cols - i0 : TILE;
            const uint8_t *from = q->data + (i0 * width + c) * 4;
            for (size_t i = 0; i < m; i++) {
                uint32_t word = qn_word_at(from + i * width * 4);
                for (int j = 0; j < 8; j++) tile[j][i] = word >> 4 * nibble_of[j] & 15;
            }
            for (size_t j = 0; j < 8; j++) {
                size_t row = 8 * c + j;
                if (row >= row0 && row < row0 + n)
                    memcpy(out + (row - row0) * w->cols + i0, tile[j], m);
            }
        }
}

static void gemm_scales(const qn_weight *w, size_t row0, size_t n, float *out) {
    qn_scales_by_group(w, w->parts[SCALES], row0, n, out);
}

static void gemm_zeros(const qn_weight *w, size_t row0, size_t n, uint8_t *out) {
    const qn_tensor *z = w->parts[QZEROS];
    for (size_t g = 0; g < w->n_groups; g++)
        for (size_t r = 0; r < n; r++) {
            size_t row = row0 + r;
            uint32_t word = qn_word_at(z->data + (g * z->shape[1] + row / 8) * 4);
            out[r * w->n_groups + g] = word >> 4 * nibble_of[row % 8] & 15;
        }
}

extern const qn_scheme qn_scheme_awq_gemm;
const qn_scheme qn_scheme_awq_gemm = {
    .family = "awq", .format = "gemm", .parts = {".qweight", ".qzeros", ".scales"},
    .required = 1 << QWEIGHT | 1 << QZEROS | 1 << SCALES, .scale_part = SCALES,
    .claims = gemm_claims, .bind = gemm_bind, .codes = gemm_codes, .scales = gemm_scales,
    .zeros = gemm_zeros,
};

// ---- gemv ----

static bool gemv_claims(const qn_weight *w) {
    const qn_tensor *q = w->parts[QWEIGHT], *z = w->parts[QZEROS], *s = w->parts[SCALES];
    return all_words(w) && z->shape[0] == q->shape[0] && s->shape[0] == q->shape[0] &&
           s->shape[1] / 8 == z->shape[1] && s->shape[1] % 8 == 0;
}

// Words of zeros for groups of `group` inputs, as AutoAWQ pads them.
static size_t zero_words(size_t cols, size_t group) {
    size_t words = (cols / group + 7) / 8, multiple = group >= 128 ? 1 : group >= 64 ? 2 : 4;
    return (words + multiple - 1) / multiple * multiple;
}

static bool gemv_bind(qn_weight *w, const qn_label_entry *said, qn_err *err) {
    const qn_tensor *q = w->parts[QWEIGHT], *z = w->parts[QZEROS];
    if (!q->shape[0] || !q->shape[1] || !qn_mul(q->shape[1], 8, &w->cols))
        return qn_part_mismatch(q, err, "[outputs, inputs / 8]");
    w->bits = BITS;
    w->rows = q->shape[0];
    w->layout = "awq-gemv";
    // The number of groups is hidden by the padding: the label's size, else the usual ones.
    size_t try[] = {said->group > 0 ? (size_t)said->group : w->cols, 128, 64, 32, w->cols};
    for (size_t i = 0; i < sizeof try / sizeof *try && !w->group; i++)
        if (try[i] <= w->cols && w->cols % try[i] == 0 &&
            zero_words(w->cols, try[i]) == z->shape[1])
            w->group = try[i];
    if (!w->group)
        return qn_part_mismatch(z, err, "as many words of zeros as a group size that divides %zu "
                                "inputs gives", w->cols);
    w->n_groups = w->cols / w->group;
    if (!qn_part_is_scale(w->parts[SCALES], err)) return false;
    w->sym = parts_are_there(w) && zeros_are(w, 8);
    return true;
}

static void gemv_codes(const qn_weight *w, size_t row0, size_t n, uint8_t *out) {
    size_t words = w->parts[QWEIGHT]->shape[1];
    qn_bitrows b = {.base = w->parts[QWEIGHT]->data, .row_stride = 4 * words, .word_stride = 4,
                    .words = words, .cols = w->cols, .bits = BITS};
    qn_bitrows_unpack(&b, row0, n, out);
}

static void gemv_scales(const qn_weight *w, size_t row0, size_t n, float *out) {
    qn_scales_by_row(w, w->parts[SCALES], w->parts[SCALES]->shape[1], row0, n, out);
}

static void gemv_zeros(const qn_weight *w, size_t row0, size_t n, uint8_t *out) {
    const qn_tensor *z = w->parts[QZEROS];
    for (size_t r = 0; r < n; r++)
        for (size_t g = 0; g < w->n_groups; g++)
            out[r * w->n_groups + g] =
                qn_field(z->data + (row0 + r) * z->shape[1] * 4, 4, g, BITS);
}

extern const qn_scheme qn_scheme_awq_gemv;
const qn_scheme qn_scheme_awq_gemv = {
    .family = "awq", .format = "gemv", .parts = {".qweight", ".qzeros", ".scales"},
    .required = 1 << QWEIGHT | 1 << QZEROS | 1 << SCALES, .scale_part = SCALES,
    .claims = gemv_claims, .bind = gemv_bind, .codes = gemv_codes, .scales = gemv_scales,
    .zeros = gemv_zeros,
};
