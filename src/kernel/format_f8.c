// f8 (e4m3): panels of [n_groups][group/2][16][2] codes, groups padded to 32 inputs. Every e4m3
// number is a bf16 number, so fast precision works as bf16 within a group and then adds
// scale * sum: acc = fma(sum, scale, acc), group by group.
#include <string.h>

#include "base/f16.h"
#include "kernel/formats.h"

static size_t pad(size_t group) { return (group + 31) / 32 * 32; }

static size_t place(size_t at) { return at / 2 * 2 * QN_PANEL + at % 2; }

static void put_row(qn_mat *m, size_t row, const qn_rows *src, size_t i) {
    uint8_t *to = (uint8_t *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL * 2;
    size_t padded = pad(m->group);
    for (size_t g = 0; g < m->n_groups; g++) {
        const uint8_t *from = src->codes + i * m->cols + g * m->group;
        size_t n = qn_mat_group_length(m, g);
        for (size_t k = 0; k < n; k++) to[place(g * padded + k)] = from[k];
    }
    qn_mat_put_scales(m, row, src, i);
}

static void get_row(const qn_mat *m, size_t row, float *out) {
    const uint8_t *from = (const uint8_t *)qn_mat_panel(m, row / QN_PANEL) + row % QN_PANEL * 2;
    size_t padded = pad(m->group);
    for (size_t g = 0; g < m->n_groups; g++) {
        float scale = qn_mat_scale(m, row, g);
        size_t n = qn_mat_group_length(m, g);
        for (size_t k = 0; k < n; k++)
            out[g * m->group + k] = scale * qn_f8e4m3_to_f32(from[place(g * padded + k)]);
    }
}

static void unpack(const qn_table *t, const qn_mat *m, const qn_span *s, float *out) {
    _Alignas(64) float scale[QN_PANEL];
    _Alignas(64) int32_t zero[QN_PANEL];
    qn_mat_panel_scales(m, s, scale, zero);
    t->unpack_f8(&(qn_unpack){qn_mat_at(m, s), (s->n + 1) / 2 * 2, scale, zero, out});
}

#define STRETCH 128 // inputs widened at once; a multiple of the 32 of bf16's order
#define WIDTH (QN_DOT_PANELS * QN_PANEL)

// sum[m][n_panels * 16] of one group.
static void group_sum(const qn_table *t, const qn_dot *d, size_t g, float *sum) {
    _Alignas(64) uint16_t w[QN_DOT_PANELS][STRETCH * QN_PANEL];
    size_t padded = qn_mat_padded_group(d->w);
    memset(sum, 0, d->m * WIDTH * sizeof *sum);
    for (size_t k = 0; k < padded; k += STRETCH) {
        size_t n = padded - k < STRETCH ? padded - k : STRETCH;
        for (size_t p = 0; p < d->n_panels; p++)
            t->f8_to_bf16(qn_mat_at(d->w, &(qn_span){d->panel + p, g, k, n}), n * QN_PANEL, w[p]);
        t->dot_bf16(&(qn_tile){.m = d->m, .n_panels = d->n_panels,
                               .x = (const float *)d->x + g * padded + k, .ldx = d->ldx, .w = w,
                               .ldw = sizeof w[0], .k = n, .acc = sum, .ldacc = WIDTH});
    }
}

static void dot(const qn_table *t, const qn_dot *d) {
    _Alignas(64) float sum[QN_DOT_ROWS * WIDTH], scale[WIDTH];
    int32_t zero[QN_PANEL];
    for (size_t g = 0; g < d->w->n_groups; g++) {
        group_sum(t, d, g, sum);
        for (size_t p = 0; p < d->n_panels; p++)
            qn_mat_panel_scales(d->w, &(qn_span){.panel = d->panel + p, .g = g},
                                scale + p * QN_PANEL, zero);
        for (size_t r = 0; r < d->m; r++)
            t->add_scaled(d->acc + r * d->ldacc, sum + r * WIDTH, scale, d->n_panels * QN_PANEL);
    }
}

extern const qn_format qn_format_f8;
const qn_format qn_format_f8 = {
    .id = QN_FORMAT_F8, .name = "f8", .bits = 8, .grouped = true, .act = QN_ACT_BF16, .pad = pad,
    .put_row = put_row, .get_row = get_row, .unpack = unpack, .dot = dot,
};
