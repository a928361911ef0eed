// bf16: panels [cols/2][16][2], padded to 32 inputs: the B tile of AMX. Fast precision rounds the
// activations to bf16 and sums in TDPBF16PS's order.
#include "base/f16.h"
#include "kernel/formats.h"

static size_t pad(size_t group) { return (group + 31) / 32 * 32; }

static size_t place(size_t k) { return k / 2 * 2 * QN_PANEL + k % 2; }

static void put_row(qn_mat *m, size_t row, const qn_rows *src, size_t i) {
    uint16_t *to = (uint16_t *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL * 2;
    for (size_t k = 0; k < m->cols; k++)
        to[place(k)] = src->h16 ? src->h16[i * m->cols + k]
                                : qn_f32_to_bf16(src->f32[i * m->cols + k]);
}

static void get_row(const qn_mat *m, size_t row, float *out) {
    const uint16_t *from = (const uint16_t *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL * 2;
    for (size_t k = 0; k < m->cols; k++) out[k] = qn_bf16_to_f32(from[place(k)]);
}

static void unpack(const qn_table *t, const qn_mat *m, const qn_span *s, float *out) {
    t->unpack_bf16(&(qn_unpack){.w = qn_mat_at(m, s), .n = (s->n + 1) / 2 * 2, .out = out});
}

static void dot(const qn_table *t, const qn_dot *d) {
    t->dot_bf16(&(qn_tile){.m = d->m, .n_panels = d->n_panels, .x = d->x, .ldx = d->ldx,
                           .w = qn_mat_panel(d->w, d->panel), .ldw = qn_mat_panel_bytes(d->w),
                           .k = qn_mat_padded_group(d->w), .acc = d->acc, .ldacc = d->ldacc});
}

extern const qn_format qn_format_bf16;
const qn_format qn_format_bf16 = {
    .id = QN_FORMAT_BF16, .name = "bf16", .bits = 16, .act = QN_ACT_BF16, .pad = pad,
    .put_row = put_row, .get_row = get_row, .unpack = unpack, .dot = dot,
};
