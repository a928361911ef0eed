// f16: panels [cols][16]; widened to f32, one chain per output, exact and fast alike.
#include "base/f16.h"
#include "kernel/formats.h"

static size_t pad(size_t group) { return group; }

static void put_row(qn_mat *m, size_t row, const qn_rows *src, size_t i) {
    uint16_t *to = (uint16_t *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL;
    for (size_t k = 0; k < m->cols; k++)
        to[k * QN_PANEL] = src->h16 ? src->h16[i * m->cols + k]
                                    : qn_f32_to_f16(src->f32[i * m->cols + k]);
}

static void get_row(const qn_mat *m, size_t row, float *out) {
    const uint16_t *from = (const uint16_t *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL;
    for (size_t k = 0; k < m->cols; k++) out[k] = qn_f16_to_f32(from[k * QN_PANEL]);
}

static void unpack(const qn_table *t, const qn_mat *m, const qn_span *s, float *out) {
    t->unpack_f16(&(qn_unpack){.w = qn_mat_at(m, s), .n = s->n, .out = out});
}

extern const qn_format qn_format_f16;
const qn_format qn_format_f16 = {
    .id = QN_FORMAT_F16, .name = "f16", .bits = 16, .act = QN_ACT_F32, .pad = pad,
    .put_row = put_row, .get_row = get_row, .unpack = unpack,
};
