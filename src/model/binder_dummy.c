// Made-up weights for benchmarks of shapes whose weights are not at hand (bench --load-format
// dummy): random, of plausible size, and quick to make. One block of noise serves all matrices,
// each panel of rows starting at another place of it.
#include <string.h>

#include "base/f16.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/parts.h"

#define SLACK 4099  // places at which a panel may start
#define GROUP 128   // inputs per scale of made-up quantized weights
#define LARGEST 0.049 // of the noise; its standard deviation is 0.02, as models start out with

static qn_mat_spec dummy_spec(const qn_expected *e, qn_weights want, size_t rows, size_t cols) {
    static const qn_format_id formats[] = {[QN_STORED] = QN_FORMAT_BF16, [QN_F32] = QN_FORMAT_F32,
                                           [QN_BF16] = QN_FORMAT_BF16, [QN_Q8] = QN_FORMAT_Q8,
                                           [QN_Q4] = QN_FORMAT_Q4};
    qn_weights as = e->role == QN_ROLE_SMALL && want != QN_F32 ? QN_BF16 : want;
    return (qn_mat_spec){.format = formats[as], .rows = rows, .cols = cols,
                         .group = as == QN_Q8 || as == QN_Q4 ? GROUP : 0, .scale_bits = 16,
                         .scale_is_bf16 = true, .name = e->name};
}

// Noise for the widest matrix so far: as floats, as bf16, and as codes around a format's middle.
static void make_noise(qn_dummy *d, size_t cols) {
    size_t n = cols * QN_PANEL + SLACK;
    if (n <= d->n_noise) return;
    d->noise = qn_realloc(d->noise, n * sizeof *d->noise);
    d->halves = qn_realloc(d->halves, n * sizeof *d->halves);
    d->codes8 = qn_realloc(d->codes8, n);
    d->codes4 = qn_realloc(d->codes4, n);
    for (size_t i = d->n_noise; i < n; i++) { // triangular: quick, and close enough to normal
        double u = qn_rng_uniform(1, 0, i) + qn_rng_uniform(1, 1, i) - 1;
        d->noise[i] = (float)(u * LARGEST);
        d->halves[i] = qn_f32_to_bf16(d->noise[i]);
        d->codes8[i] = (uint8_t)(128.5 + u * 127);
        d->codes4[i] = (uint8_t)(8.5 + u * 7);
    }
    d->n_noise = n;
}

typedef struct fill {
    qn_dummy *d;
    qn_mat *m;
    qn_format_id format;
    const float *scales; // [QN_PANEL][groups], all the same
} fill;

static void fill_panel(void *ctx, size_t panel, int thread) {
    fill *f = ctx;
    size_t row = panel * QN_PANEL, at = panel * 577 % SLACK;
    qn_rows r = {.row0 = row, .n = f->m->rows - row < QN_PANEL ? f->m->rows - row : QN_PANEL};
    (void)thread;
    if (f->format == QN_FORMAT_Q8) r.codes = f->d->codes8 + at;
    else if (f->format == QN_FORMAT_Q4) r.codes = f->d->codes4 + at;
    else if (f->format == QN_FORMAT_BF16) r.h16 = f->d->halves + at;
    else r.f32 = f->d->noise + at;
    if (r.codes) r.scales = f->scales;
    qn_mat_put(f->m, &r);
}

static void fill_matrix(qn_dummy *d, qn_mat *m, qn_format_id format) {
    size_t n = QN_PANEL * m->n_groups;
    float *scales = qn_alloc(n * sizeof *scales);
    float one = (float)(format == QN_FORMAT_Q4 ? LARGEST / 7 : LARGEST / 127);
    for (size_t i = 0; i < n; i++) scales[i] = qn_bf16_to_f32(qn_f32_to_bf16(one));
    fill f = {d, m, format, scales};
    qn_pool_run(d->pool, (m->rows + QN_PANEL - 1) / QN_PANEL, fill_panel, &f);
    qn_free(scales);
}

static bool dummy_matrix(qn_binder *b, const qn_expected *e, const qn_cut *cuts, size_t n,
                         qn_err *err) {
    qn_dummy *d = (qn_dummy *)b;
    size_t cols = e->shape[e->n_dims - 1];
    make_noise(d, cols);
    for (size_t i = 0; i < n; i++) {
        qn_mat_spec spec = dummy_spec(e, d->want, cuts[i].rows, cols);
        if (!qn_mat_init(cuts[i].out, &spec, err)) return false;
        fill_matrix(d, cuts[i].out, spec.format);
    }
    return true;
}

static bool dummy_floats(qn_binder *b, const qn_expected *e, float *out, qn_err *err) {
    size_t n = 1;
    (void)err;
    for (int i = 0; i < e->n_dims; i++) n *= e->shape[i];
    bool zero = e->role == QN_ROLE_NORM && b->config->family->zero_centred &&
                !strstr(e->name, "linear_attn.norm");
    for (size_t i = 0; i < n; i++) {
        double u = qn_rng_uniform(2, 0, i);
        out[i] = e->role == QN_ROLE_NORM  ? (zero ? 0.0f : 1.0f)
                 : e->role == QN_ROLE_BIAS ? (float)(0.02 * (u - 0.5))
                                           : (float)(u - 0.5);
    }
    return true;
}

bool qn_dummy_init(qn_dummy *d, const qn_config *c, qn_err *err) {
    (void)err;
    d->binder = (qn_binder){.config = c, .spelling = qn_spelling_release(c),
                            .matrix = dummy_matrix, .floats = dummy_floats};
    return true;
}

void qn_dummy_done(qn_dummy *d) {
    qn_free(d->noise);
    qn_free(d->halves);
    qn_free(d->codes8);
    qn_free(d->codes4);
    qn_binder_done(&d->binder);
}
