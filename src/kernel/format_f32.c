// f32: panels [cols][16]. Exact and fast are the same: one chain per output.
#include <string.h>

#include "kernel/formats.h"

static size_t pad(size_t group) { return group; }

static void put_row(qn_mat *m, size_t row, const qn_rows *src, size_t i) {
    float *to = (float *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL;
    for (size_t k = 0; k < m->cols; k++) to[k * QN_PANEL] = src->f32[i * m->cols + k];
}

static void get_row(const qn_mat *m, size_t row, float *out) {
    const float *from = (const float *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL;
    for (size_t k = 0; k < m->cols; k++) out[k] = from[k * QN_PANEL];
}

static void unpack(const qn_table *t, const qn_mat *m, const qn_span *s, float *out) {
    (void)t;
    memcpy(out, qn_mat_at(m, s), s->n * QN_PANEL * sizeof *out);
}

// The panels are what dot_f32 wants already.
static void dot(const qn_table *t, const qn_dot *d) {
    t->dot_f32(&(qn_tile){.m = d->m, .n_panels = d->n_panels, .x = d->x, .ldx = d->ldx,
                          .w = qn_mat_panel(d->w, d->panel), .ldw = qn_mat_panel_bytes(d->w),
                          .k = d->w->cols, .acc = d->acc, .ldacc = d->ldacc});
}

extern const qn_format qn_format_f32;
const qn_format qn_format_f32 = {
    .id = QN_FORMAT_F32, .name = "f32", .bits = 32, .act = QN_ACT_F32, .pad = pad,
    .put_row = put_row, .get_row = get_row, .unpack = unpack, .dot_exact = dot,
};
