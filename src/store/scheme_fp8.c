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

static bool is_block(size_t n) { return n >= 8 && (n & (n - 1)) == 0; }

// Elements per factor along one side: as the label says, 128 as everybody has it, or an even split
// into blocks of a size that blocks have. A row of factors that got lost gives other sizes.
static size_t block_of(size_t n, size_t factors, size_t said) {
    if (factors == n) return 1;
    if (factors == 1) return n;
    if (said && ceil_div(n, said) == factors) return said;
    if (ceil_div(n, 128) == factors) return 128;
    return factors && n % factors == 0 && is_block(n / factors) ? n / factors : 0;
}

static bool refuse_factors(const qn_weight *w, size_t down, size_t across, qn_err *err) {
    down = down ? down : 128;
    across = across ? across : 128;
    return qn_part_mismatch(w->parts[SCALE], err, "[%zu, %zu]: blocks of %zu by %zu that tile "
                            "[%zu, %zu]", ceil_div(w->rows, down), ceil_div(w->cols, across), down,
                            across, w->rows, w->cols);
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
        return refuse_factors(w, said->block[0], said->block[1], err);
    // One block may be as large as the matrix, or larger.
    bool blocks = s->n_dims == 2 && said->block[0] && said->block[1] &&
                  ceil_div(w->rows, said->block[0]) == down &&
                  ceil_div(w->cols, said->block[1]) == across;
    w->layout = down == 1 && across == 1 && !blocks            ? "fp8-tensor"
                : across == 1 && w->scale_rows == 1 && !blocks ? "fp8-channel" : "fp8-block";
    return true;
}

// ---- all together ----

// Factors of blocks: not one for the matrix nor one a row, which need no block size.
static bool in_blocks(const qn_weight *w) {
    const qn_tensor *s = w->parts[SCALE];
    bool rows = w->scale_rows == 1 && w->n_groups == 1;
    return s->n_dims == 2 && !rows;
}

static bool tiled_by(const qn_weight *w, const size_t block[2]) {
    const qn_tensor *s = w->parts[SCALE];
    return block[0] && block[1] && s->shape[0] == ceil_div(w->rows, block[0]) &&
           s->shape[1] == ceil_div(w->cols, block[1]);
}

// The blocks that all have: the label's if they fit any matrix, the usual ones, else those of the
// first matrix with several. False: there are no blocks.
static bool common_block(qn_weight *const *list, size_t n, size_t block[2]) {
    for (int way = 0; way < 3; way++)
        for (size_t i = 0; i < n; i++) {
            const qn_weight *w = list[i];
            size_t seen[2] = {w->scale_rows, w->group}, usual[2] = {128, 128};
            memcpy(block, way == 0 ? w->said_block : way == 1 ? usual : seen, sizeof seen);
            if (in_blocks(w) && w->parts[SCALE]->n > 1 && is_block(block[0]) &&
                is_block(block[1]) && tiled_by(w, block))
                return true;
        }
    return false;
}

// Where a row of factors is lost, a matrix alone may look as if it just had larger blocks.
static bool settle(qn_weight *const *list, size_t n, const qn_label *label, qn_damages *d,
                   qn_err *err) {
    size_t block[2];
    (void)label;
    if (!common_block(list, n, block)) return true;
    for (size_t i = 0; i < n; i++) {
        qn_weight *w = list[i];
        if (!in_blocks(w) || tiled_by(w, w->said_block) || tiled_by(w, block)) continue;
        refuse_factors(w, block[0], block[1], err);
        w->said_block[0] = 0; // the label is not to blame
        if (!qn_damage_take(d, "shape-mismatch", w->name, err)) return false;
    }
    return true;
}

// ---- rows ----

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
    .claims = claims, .bind = bind, .settle = settle, .codes = codes, .scales = scales,
};
const qn_scheme qn_scheme_ct_float = {
    .family = "compressed-tensors", .format = "float-quantized",
    .parts = {".weight", ".weight_scale"}, .required = 1 << WEIGHT | 1 << SCALE,
    .scale_part = SCALE, .floats = true, .claims = claims, .bind = bind,
    .settle = settle, .codes = codes, .scales = scales,
};
