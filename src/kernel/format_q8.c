// q8: panels of [n_groups][group/4][16][4] codes 0 … 255, the B tile of AMX and the unsigned
// operand of VPDPBUSD. Groups are padded to 64 inputs (8 when shorter than 64).
#include <string.h>

#include "base/mem.h"
#include "kernel/formats.h"

static size_t pad(size_t group) {
    size_t to = group >= 64 ? 64 : 8;
    return (group + to - 1) / to * to;
}

static size_t place(const qn_mat *m, size_t padded, size_t k) {
    size_t at = k / m->group * padded + k % m->group;
    return at / 4 * 4 * QN_PANEL + at % 4;
}

static void put_codes(qn_mat *m, size_t row, const uint8_t *codes) {
    uint8_t *to = (uint8_t *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL * 4;
    size_t padded = pad(m->group);
    for (size_t g = 0; g < m->n_groups; g++) {
        const uint8_t *from = codes + g * m->group;
        size_t n = qn_mat_group_length(m, g), k = 0;
        for (; k + 4 <= n; k += 4) memcpy(to + (g * padded + k) * QN_PANEL, from + k, 4);
        memcpy(to + (g * padded + k) * QN_PANEL, from + k, n - k);
    }
}

static void put_row(qn_mat *m, size_t row, const qn_rows *src, size_t i) {
    if (src->codes) {
        put_codes(m, row, src->codes + i * m->cols);
        qn_mat_put_scales(m, row, src, i);
        return;
    }
    uint8_t *codes = qn_alloc(m->cols);
    qn_mat_quantize_row(m, row, src->f32 + i * m->cols, codes);
    put_codes(m, row, codes);
    qn_free(codes);
}

static void get_row(const qn_mat *m, size_t row, float *out) {
    const uint8_t *from = (const uint8_t *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL * 4;
    size_t padded = pad(m->group);
    for (size_t g = 0; g < m->n_groups; g++) {
        float scale = qn_mat_scale(m, row, g);
        int zero = qn_mat_zero(m, row, g);
        size_t k0 = g * m->group, end = k0 + qn_mat_group_length(m, g);
        for (size_t k = k0; k < end; k++)
            out[k] = scale * (float)(from[place(m, padded, k)] - zero);
    }
}

static void unpack(const qn_table *t, const qn_mat *m, const qn_span *s, float *out) {
    _Alignas(64) float scale[QN_PANEL];
    _Alignas(64) int32_t zero[QN_PANEL];
    qn_mat_panel_scales(m, s, scale, zero);
    t->unpack_q8(&(qn_unpack){qn_mat_at(m, s), (s->n + 3) / 4 * 4, scale, zero, out});
}

static void dot(const qn_table *t, const qn_dot *d) {
    qn_tile tile;
    qn_mat_group_tile(d, &tile);
    t->dot_q8(&tile);
}

extern const qn_format qn_format_q8;
const qn_format qn_format_q8 = {
    .id = QN_FORMAT_Q8, .name = "q8", .bits = 8, .grouped = true, .middle = 128, .act = QN_ACT_S8,
    .pad = pad, .put_row = put_row, .get_row = get_row, .unpack = unpack, .dot = dot,
};
