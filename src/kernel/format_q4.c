// q4: panels of [n_groups][group/8][16][4] bytes, two codes 0 … 15 each: byte j of an output holds
// input j of the eight in its low and input j + 4 in its high nibble, so that one load feeds two
// integer dots. Groups are padded to 64 inputs (8 when shorter than 64). 2- and 3-bit codes too.
#include <string.h>

#include "base/mem.h"
#include "kernel/formats.h"

static size_t pad(size_t group) {
    size_t to = group >= 64 ? 64 : 8;
    return (group + to - 1) / to * to;
}

// Eight codes of a row become four bytes.
static void put_eight(uint8_t *to, const uint8_t *codes) {
    uint32_t low, high;
    memcpy(&low, codes, 4);
    memcpy(&high, codes + 4, 4);
    low = (low & 0x0F0F0F0Fu) | (high & 0x0F0F0F0Fu) << 4;
    memcpy(to, &low, 4);
}

static void put_codes(qn_mat *m, size_t row, const uint8_t *codes) {
    uint8_t *to = (uint8_t *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL * 4;
    size_t padded = pad(m->group);
    for (size_t g = 0; g < m->n_groups; g++) {
        const uint8_t *from = codes + g * m->group;
        size_t n = qn_mat_group_length(m, g), k = 0;
        for (; k + 8 <= n; k += 8) put_eight(to + (g * padded + k) * (QN_PANEL / 2), from + k);
        if (k == n) continue;
        uint8_t last[8] = {0};
        memcpy(last, from + k, n - k);
        put_eight(to + (g * padded + k) * (QN_PANEL / 2), last);
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

static int code_at(const uint8_t *row, size_t at) {
    int two = row[at / 8 * 4 * QN_PANEL + at % 4];
    return at % 8 < 4 ? two & 15 : two >> 4;
}

static void get_row(const qn_mat *m, size_t row, float *out) {
    const uint8_t *from = (const uint8_t *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL * 4;
    size_t padded = pad(m->group);
    for (size_t g = 0; g < m->n_groups; g++) {
        float scale = qn_mat_scale(m, row, g);
        int zero = qn_mat_zero(m, row, g);
        size_t n = qn_mat_group_length(m, g);
        for (size_t k = 0; k < n; k++)
            out[g * m->group + k] = scale * (float)(code_at(from, g * padded + k) - zero);
    }
}

static void unpack(const qn_table *t, const qn_mat *m, const qn_span *s, float *out) {
    _Alignas(64) float scale[QN_PANEL];
    _Alignas(64) int32_t zero[QN_PANEL];
    qn_mat_panel_scales(m, s, scale, zero);
    t->unpack_q4(&(qn_unpack){qn_mat_at(m, s), (s->n + 7) / 8 * 8, scale, zero, out});
}

static void dot(const qn_table *t, const qn_dot *d) {
    qn_tile tile;
    qn_mat_group_tile(d, &tile);
    t->dot_q4(&tile);
}

extern const qn_format qn_format_q4;
const qn_format qn_format_q4 = {
    .id = QN_FORMAT_Q4, .name = "q4", .bits = 4, .grouped = true, .middle = 8, .act = QN_ACT_S8,
    .pad = pad, .put_row = put_row, .get_row = get_row, .unpack = unpack, .dot = dot,
};
