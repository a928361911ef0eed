// FP8: P.weight F8_E4M3 [out, in] and one factor per block, row or matrix, by which it is
// multiplied (also where the name says _inv): P.weight_scale_inv in "fp8" files, P.weight_scale in
// those of compressed-tensors. The factors' shape tells: [ceil(out / br), ceil(in / bc)], [out, 1]
// or [1].
#include <string.h>

#include "base/err.h"
#include "store/schemes.h"

enum { WEIGHT, SCALE };

static bool claims(const qn_weight *w) {
    return w->parts[WEIGHT]->dtype == QN_DT_F8_E4M3 && w->parts[WEIGHT]->n_dims == 2 &&
           w->parts[SCALE] && qn_dtype_is_float(w->parts[SCALE]->dtype);
}

static size_t ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }

// Elements per factor along one side: as the label says, 128 as everybody has it, or an even split.
static size_t block_of(size_t n, size_t factors, size_t said) {
    if (factors == n) return 1;
    if (factors == 1) return n;
    if (said && ceil_div(n, said) == factors) return said;
    if (ceil_div(n, 128) == factors) return 128;
    return factors && n % factors == 0 ? n / factors : 0;
}

static bool bind(qn_weight *w, const qn_label_entry *said, qn_err *err) {
    const qn_tensor *q = w->parts[WEIGHT], *s = w->parts[SCALE];
    w->bits = 8;
    w->rows = q->shape[0];
    w->cols = q->shape[1];
    w->sym = true;
    if (!w->rows || !w->cols) return qn_part_mismatch(q, err, "rows and columns");
    if (!qn_part_is_scale(s, err)) return false;
    bool flat = s->n == 1 || (s->n_dims == 1 && s->n == w->rows);
    if (!flat && s->n_dims != 2)
        return qn_part_mismatch(s, err, "one factor per block, row or matrix");
    size_t down = flat ? s->n : s->shape[0], across = flat ? 1 : s->shape[1];
    w->scale_rows = block_of(w->rows, down, said->block[0]);
    w->group = block_of(w->cols, across, said->block[1]);
    w->n_groups = across;
    if (!w->scale_rows || !w->group)
        return qn_part_mismatch(s, err, "blocks that tile [%zu, %zu]", w->rows, w->cols);
    // One block may be as large as the matrix, or larger.
    bool blocks = s->n_dims == 2 && said->block[0] && said->block[1] &&
                  ceil_div(w->rows, said->block[0]) == down &&
                  ceil_div(w->cols, said->block[1]) == across;
    w->layout = down == 1 && across == 1 && !blocks            ? "fp8-tensor"
                : across == 1 && w->scale_rows == 1 && !blocks ? "fp8-channel" : "fp8-block";
    return true;
}

static void codes(const qn_weight *w, size_t row0, size_t n, uint8_t *out) {
    memcpy(out, w->parts[WEIGHT]->data + row0 * w->cols, n * w->cols);
}

static void scales(const qn_weight *w, size_t row0, size_t n, float *out) {
    for (size_t r = 0; r < n; r++)
        qn_tensor_to_f32(w->parts[SCALE], (row0 + r) / w->scale_rows * w->n_groups, w->n_groups,
                         out + r * w->n_groups);
}

extern const qn_scheme qn_scheme_fp8, qn_scheme_ct_float;
const qn_scheme qn_scheme_fp8 = {
    .family = "fp8", .format = "e4m3", .parts = {".weight", ".weight_scale_inv"},
    .required = 1 << WEIGHT | 1 << SCALE, .scale_part = SCALE, .floats = true,
    .claims = claims, .bind = bind, .codes = codes, .scales = scales,
};
const qn_scheme qn_scheme_ct_float = {
    .family = "compressed-tensors", .format = "float-quantized",
    .parts = {".weight", ".weight_scale"}, .required = 1 << WEIGHT | 1 << SCALE,
    .scale_part = SCALE, .floats = true, .claims = claims, .bind = bind,
    .codes = codes, .scales = scales,
};
