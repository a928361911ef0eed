// The list of weight formats, and what they share: shapes, scales, the exact dot.
#include "kernel/formats.h"

#include <math.h>
#include <string.h>

#include "base/f16.h"

extern const qn_format qn_format_f32, qn_format_bf16, qn_format_f16, qn_format_q8, qn_format_q4,
    qn_format_f8;

static const qn_format *const formats[] = {
    &qn_format_f32, &qn_format_bf16, &qn_format_f16, &qn_format_q8, &qn_format_q4, &qn_format_f8,
};

const qn_format *qn_format_get(qn_format_id id) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i]->id == id) return formats[i];
    return NULL;
}

size_t qn_mat_group(const qn_mat *m) { return m->format->grouped ? m->group : m->cols; }

size_t qn_mat_padded_group(const qn_mat *m) { return m->format->pad(qn_mat_group(m)); }

size_t qn_mat_panel_bytes(const qn_mat *m) {
    return m->n_groups * qn_mat_padded_group(m) * QN_PANEL * (size_t)m->format->bits / 8;
}

void *qn_mat_panel(const qn_mat *m, size_t panel) {
    return (char *)m->data + panel * qn_mat_panel_bytes(m);
}

const void *qn_mat_at(const qn_mat *m, const qn_span *s) {
    size_t input = s->g * qn_mat_padded_group(m) + s->k;
    return (const char *)qn_mat_panel(m, s->panel) + input * QN_PANEL * (size_t)m->format->bits / 8;
}

size_t qn_mat_group_length(const qn_mat *m, size_t g) {
    size_t group = qn_mat_group(m), left = m->cols - g * group;
    return left < group ? left : group;
}

qn_scale_type qn_mat_scale_type(const qn_mat *m) {
    if (m->scale_bits == 32) return QN_SCALE_F32;
    return m->scale_is_bf16 ? QN_SCALE_BF16 : QN_SCALE_F16;
}

static size_t scale_index(const qn_mat *m, size_t row, size_t g) {
    return (row / QN_PANEL * m->n_groups + g) * QN_PANEL + row % QN_PANEL;
}

float qn_mat_scale(const qn_mat *m, size_t row, size_t g) {
    size_t i = scale_index(m, row, g);
    if (m->scale_bits == 32) return ((const float *)m->scales)[i];
    uint16_t h = ((const uint16_t *)m->scales)[i];
    return m->scale_is_bf16 ? qn_bf16_to_f32(h) : qn_f16_to_f32(h);
}

int qn_mat_zero(const qn_mat *m, size_t row, size_t g) {
    return m->has_zeros ? ((const uint8_t *)m->zeros)[scale_index(m, row, g)] : m->format->middle;
}

static void set_scale(qn_mat *m, size_t row, size_t g, float s) {
    size_t i = scale_index(m, row, g);
    if (m->scale_bits == 32)
        ((float *)m->scales)[i] = s;
    else
        ((uint16_t *)m->scales)[i] = m->scale_is_bf16 ? qn_f32_to_bf16(s) : qn_f32_to_f16(s);
}

static void set_zero(qn_mat *m, size_t row, size_t g, int zero) {
    if (m->has_zeros) ((uint8_t *)m->zeros)[scale_index(m, row, g)] = (uint8_t)zero;
}

void qn_mat_put_scales(qn_mat *m, size_t row, const qn_rows *src, size_t i) {
    for (size_t g = 0; g < m->n_groups; g++) {
        set_scale(m, row, g, src->scales[i * m->n_groups + g]);
        if (m->has_zeros) set_zero(m, row, g, src->zeros[i * m->n_groups + g]);
    }
}

// The largest value, with its sign, gets the lowest code: scale = extreme / -middle. All codes are
// in use then; a scale may be negative. It is rounded to the stored type before codes are formed.
void qn_mat_quantize_row(qn_mat *m, size_t row, const float *x, uint8_t *codes) {
    int middle = m->format->middle, last = 2 * middle - 1;
    for (size_t g = 0; g < m->n_groups; g++) {
        const float *from = x + g * m->group;
        size_t n = qn_mat_group_length(m, g);
        float extreme = 0;
        bool finite = true;
        for (size_t k = 0; k < n; k++) {
            if (fabsf(from[k]) > fabsf(extreme)) extreme = from[k];
            finite = finite && isfinite(from[k]);
        }
        set_scale(m, row, g, finite ? extreme / (float)-middle : NAN);
        set_zero(m, row, g, middle);
        float s = qn_mat_scale(m, row, g);
        for (size_t k = 0; k < n; k++) {
            float c = s != 0 && isfinite(s) ? rintf(from[k] / s) + (float)middle : (float)middle;
            codes[g * m->group + k] = (uint8_t)(c < 0 ? 0 : c > (float)last ? (float)last : c);
        }
    }
}

void qn_mat_panel_scales(const qn_mat *m, const qn_span *s, float *scale, int32_t *zero) {
    for (size_t o = 0; o < QN_PANEL; o++) {
        scale[o] = qn_mat_scale(m, s->panel * QN_PANEL + o, s->g);
        zero[o] = qn_mat_zero(m, s->panel * QN_PANEL + o, s->g);
    }
}

void qn_mat_group_tile(const qn_dot *d, qn_tile *t) {
    const qn_mat *m = d->w;
    size_t at = d->panel * m->n_groups * QN_PANEL, width = (size_t)m->scale_bits / 8;
    *t = (qn_tile){
        .m = d->m, .n_panels = d->n_panels, .x = d->x, .ldx = d->ldx,
        .w = qn_mat_panel(m, d->panel), .ldw = qn_mat_panel_bytes(m), .k = qn_mat_padded_group(m),
        .acc = d->acc, .ldacc = d->ldacc, .n_groups = m->n_groups, .x_scale = d->x_scale,
        .x_sum = d->x_sum, .w_scale = (const char *)m->scales + at * width,
        .w_zero = m->has_zeros ? (const uint8_t *)m->zeros + at : NULL,
        .scale_type = qn_mat_scale_type(m),
    };
}

// Exact precision: weights become floats a stretch at a time, small enough to stay in the nearest
// cache, and every output is one chain of fused multiply-adds in input order.
#define STRETCH 64
void qn_format_dot_exact(const qn_table *t, const qn_dot *d) {
    _Alignas(64) float w[QN_DOT_PANELS][STRETCH * QN_PANEL];
    const qn_mat *m = d->w;
    if (m->format->dot_exact) {
        m->format->dot_exact(t, d);
        return;
    }
    for (size_t g = 0; g < m->n_groups; g++) {
        size_t n = qn_mat_group_length(m, g);
        for (size_t k = 0; k < n; k += STRETCH) {
            size_t len = n - k < STRETCH ? n - k : STRETCH;
            for (size_t p = 0; p < d->n_panels; p++)
                m->format->unpack(t, m, &(qn_span){d->panel + p, g, k, len}, w[p]);
            const float *x = (const float *)d->x + g * qn_mat_group(m) + k;
            t->dot_f32(&(qn_tile){.m = d->m, .n_panels = d->n_panels, .x = x, .ldx = d->ldx,
                                  .w = w, .ldw = sizeof w[0], .k = len, .acc = d->acc,
                                  .ldacc = d->ldacc});
        }
    }
}
