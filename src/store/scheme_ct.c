// compressed-tensors, integer layouts. W = scale * (code - zero), scale per group or row.
// pack: P.weight_packed int32 [out, ceil(in * bits / 32)] along the inputs, stored = value +
// 2^(bits-1); P.weight_shape [2]; zeros in P.weight_zero_point packed the same way along the
// OUTPUTS, [ceil(out * bits / 32), groups]; P.weight_g_idx for act-order.
// int: P.weight int8 [out, in], truly signed; zeros int8. Shifting both by 128 makes them codes.
// (float-quantized is in scheme_fp8.c.)
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "store/bitfields.h"
#include "store/schemes.h"

enum { WEIGHT, SCALE, ZERO, SHAPE, G_IDX };

// Scales are [out, groups], [out] or [1].
static bool bind_scales(qn_weight *w, const qn_label_entry *said, qn_err *err) {
    const qn_tensor *s = w->parts[SCALE];
    if (!qn_part_is_scale(s, err)) return false;
    bool flat = s->n == 1 || (s->n_dims == 1 && s->n == w->rows);
    if (!flat && (s->n_dims != 2 || s->shape[0] != w->rows || !s->shape[1]))
        return qn_part_mismatch(s, err, "[%zu, groups]", w->rows);
    w->n_groups = flat ? 1 : s->shape[1];
    w->scale_rows = s->n == 1 ? w->rows : 1;
    return qn_group_from_count(w, said->group, err);
}

static void scales(const qn_weight *w, size_t row0, size_t n, float *out) {
    for (size_t r = 0; r < n; r++)
        qn_tensor_to_f32(w->parts[SCALE], (row0 + r) / w->scale_rows * w->n_groups, w->n_groups,
                         out + r * w->n_groups);
}

static bool readable(const qn_weight *w) {
    for (int i = 0; i < QN_MAX_PARTS; i++)
        if (w->parts[i] && !w->parts[i]->data) return false;
    return true;
}

static uint8_t zero_at(const qn_weight *w, size_t row, size_t g) {
    const qn_tensor *z = w->parts[ZERO];
    uint8_t middle = (uint8_t)(1u << (w->bits - 1));
    if (!z) return middle;
    if (z->dtype == QN_DT_I32)
        return qn_field(z->data + 4 * g, 4 * w->n_groups, row, w->bits);
    return (uint8_t)(z->data[row / w->scale_rows * w->n_groups + g] + middle);
}

static void zeros(const qn_weight *w, size_t row0, size_t n, uint8_t *out) {
    for (size_t r = 0; r < n; r++)
        for (size_t g = 0; g < w->n_groups; g++) out[r * w->n_groups + g] = zero_at(w, row0 + r, g);
}

// Zeros as bytes have to be codes, one per scale; also finds out whether all are the middle. Without
// them codes are symmetric, unless the label says that they are not: then they are lost.
static bool check_zeros(qn_weight *w, const qn_label_entry *said, qn_err *err) {
    const qn_tensor *z = w->parts[ZERO];
    w->sym = true;
    if (!z && said->sym == 0 && !said->skip)
        return qn_fail(err, QN_NOT_FOUND, "tensor %.*s%s is missing, and the config says that %s is "
                       "not symmetric", (int)(strlen(w->name) - strlen(".weight")), w->name,
                       w->scheme->parts[ZERO], w->parts[WEIGHT]->name);
    if (!z) return true;
    if (z->dtype == QN_DT_I32) {
        if (!qn_part_is(z, (w->rows * (size_t)w->bits + 31) / 32, w->n_groups, err)) return false;
    } else if (z->dtype != QN_DT_I8 || z->n != w->parts[SCALE]->n) {
        return qn_part_mismatch(z, err, "I8, one per scale");
    }
    if (!readable(w)) return true;
    int middle = 1 << (w->bits - 1);
    for (size_t i = 0; z->dtype == QN_DT_I8 && i < z->n; i++) {
        int v = (int8_t)z->data[i];
        if (v < -middle || v >= middle)
            return qn_fail(err, QN_INPUT, "tensor %s: zero point %d, expected %d to %d", z->name, v,
                           -middle, middle - 1);
    }
    for (size_t r = 0; r < w->rows && w->sym; r++)
        for (size_t g = 0; g < w->n_groups; g++) w->sym = w->sym && zero_at(w, r, g) == middle;
    return true;
}

// ---- pack ----

static bool pack_claims(const qn_weight *w) {
    return w->parts[WEIGHT]->dtype == QN_DT_I32 && w->parts[WEIGHT]->n_dims == 2;
}

static bool read_shape(qn_weight *w, qn_err *err) {
    const qn_tensor *s = w->parts[SHAPE], *q = w->parts[WEIGHT];
    int64_t v[2] = {0, 0};
    if (s->n != 2 || (s->dtype != QN_DT_I64 && s->dtype != QN_DT_I32))
        return qn_part_mismatch(s, err, "I64 [2]");
    if (!s->data) return qn_fail(err, QN_INPUT, "tensor %s: cut off", s->name);
    for (size_t i = 0; i < 2; i++) {
        int32_t half;
        if (s->dtype == QN_DT_I64) memcpy(&v[i], s->data + 8 * i, 8);
        else memcpy(&half, s->data + 4 * i, 4), v[i] = half;
    }
    if (v[0] < 1 || v[1] < 1 || v[1] > INT32_MAX || (uint64_t)v[0] != q->shape[0])
        return qn_fail(err, QN_INPUT, "tensor %s holds %lld and %lld, expected %zu rows as %s has",
                       s->name, (long long)v[0], (long long)v[1], q->shape[0], q->name);
    w->rows = (size_t)v[0];
    w->cols = (size_t)v[1];
    return true;
}

static bool fits(size_t cols, int bits, size_t words) {
    return (cols * (size_t)bits + 31) / 32 == words;
}

// From the number of words; for narrow matrices several widths fit, then the label's counts.
static bool find_bits(qn_weight *w, int said, qn_err *err) {
    size_t words = w->parts[WEIGHT]->shape[1];
    if (said >= 1 && said <= 8 && fits(w->cols, said, words)) w->bits = said;
    for (int b = 8; b >= 1 && !w->bits; b--)
        if (fits(w->cols, b, words)) w->bits = b;
    return w->bits || qn_part_mismatch(w->parts[WEIGHT], err, "%zu inputs of 1 to 8 bits", w->cols);
}

static bool pack_bind(qn_weight *w, const qn_label_entry *said, qn_err *err) {
    bool none;
    w->layout = "ct-pack";
    if (!read_shape(w, err) || !find_bits(w, said->bits, err) || !bind_scales(w, said, err))
        return false;
    if (w->parts[G_IDX] && w->parts[G_IDX]->data) {
        size_t group = w->group;
        if (!qn_group_from_index(w, w->parts[G_IDX], &none, err)) return false;
        if (none) w->group = group;
    }
    return check_zeros(w, said, err);
}

static void pack_codes(const qn_weight *w, size_t row0, size_t n, uint8_t *out) {
    size_t words = w->parts[WEIGHT]->shape[1];
    qn_bitrows b = {.base = w->parts[WEIGHT]->data, .row_stride = 4 * words, .word_stride = 4,
                    .words = words, .cols = w->cols, .bits = w->bits};
    qn_bitrows_unpack(&b, row0, n, out);
}

extern const qn_scheme qn_scheme_ct_pack;
const qn_scheme qn_scheme_ct_pack = {
    .family = "compressed-tensors", .format = "pack-quantized",
    .parts = {".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape",
              ".weight_g_idx"},
    .required = 1 << WEIGHT | 1 << SCALE | 1 << SHAPE, .scale_part = SCALE,
    .g_idx_part = G_IDX, .claims = pack_claims, .bind = pack_bind, .codes = pack_codes,
    .scales = scales, .zeros = zeros,
};

// ---- int ----

static bool int_claims(const qn_weight *w) {
    return w->parts[WEIGHT]->dtype == QN_DT_I8 && w->parts[WEIGHT]->n_dims == 2;
}

static bool int_bind(qn_weight *w, const qn_label_entry *said, qn_err *err) {
    const qn_tensor *q = w->parts[WEIGHT];
    w->bits = 8;
    w->rows = q->shape[0];
    w->cols = q->shape[1];
    w->layout = "ct-int";
    if (!w->rows || !w->cols) return qn_part_mismatch(q, err, "rows and columns");
    return bind_scales(w, said, err) && check_zeros(w, said, err);
}

static void int_codes(const qn_weight *w, size_t row0, size_t n, uint8_t *out) {
    const uint8_t *from = w->parts[WEIGHT]->data + row0 * w->cols;
    for (size_t i = 0; i < n * w->cols; i++) out[i] = from[i] ^ 0x80;
}

extern const qn_scheme qn_scheme_ct_int;
const qn_scheme qn_scheme_ct_int = {
    .family = "compressed-tensors", .format = "int-quantized",
    .parts = {".weight", ".weight_scale", ".weight_zero_point"},
    .required = 1 << WEIGHT | 1 << SCALE, .scale_part = SCALE, .claims = int_claims,
    .bind = int_bind, .codes = int_codes, .scales = scales, .zeros = zeros,
};
