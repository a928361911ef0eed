// Resampling and patch cutting as the original image processor does them. Pillow's bicubic is kept
// to the bit: weights in 22-bit fixed point, one rounding per pass.
#include "model/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"

#define PRECISION 22 // 32 - 8 bits of a pixel - 2 bits of head room

void qn_pixels_done(qn_pixels *p) {
    free(p->rgb);
    *p = (qn_pixels){0};
}

// ---- bicubic ----

// Keys' kernel with a = -0.5, support 2.
static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

// For each output position: the first input and the fixed-point weights of `taps` inputs.
typedef struct filter {
    int taps;
    int *first, *count;
    int32_t *weights; // [out][taps]
} filter;

static void filter_done(filter *f) {
    free(f->first);
    free(f->count);
    free(f->weights);
}

static void filter_init(filter *f, int in, int out) {
    double scale = (double)in / out, widened = scale < 1 ? 1 : scale, support = 2 * widened;
    f->taps = (int)ceil(support) * 2 + 1;
    f->first = QN_NEW_ARRAY(int, (size_t)out);
    f->count = QN_NEW_ARRAY(int, (size_t)out);
    f->weights = QN_NEW_ARRAY(int32_t, (size_t)out * (size_t)f->taps);
    double *w = QN_NEW_ARRAY(double, (size_t)f->taps);
    for (int o = 0; o < out; o++) {
        double center = (o + 0.5) * scale, sum = 0;
        int from = (int)(center - support + 0.5), to = (int)(center + support + 0.5);
        if (from < 0) from = 0;
        if (to > in) to = in;
        int n = to - from;
        for (int i = 0; i < n; i++) sum += w[i] = bicubic((i + from - center + 0.5) / widened);
        int32_t *fixed = f->weights + (size_t)o * (size_t)f->taps;
        for (int i = 0; i < n; i++) {
            double v = sum != 0 ? w[i] / sum : w[i];
            fixed[i] = (int32_t)(v * (1 << PRECISION) + (v < 0 ? -0.5 : 0.5));
        }
        f->first[o] = from;
        f->count[o] = n;
    }
    free(w);
}

static uint8_t clip8(int32_t v) {
    v >>= PRECISION;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

// One pass over `lines` lines; positions along a line are `step` bytes apart, lines `pitch`.
typedef struct plane {
    uint8_t *data;
    size_t step, pitch;
} plane;

static void pass(const filter *f, plane in, plane out, int lines, int n_out) {
    for (int l = 0; l < lines; l++) {
        const uint8_t *src = in.data + (size_t)l * in.pitch;
        for (int o = 0; o < n_out; o++) {
            const int32_t *w = f->weights + (size_t)o * (size_t)f->taps;
            const uint8_t *p = src + (size_t)f->first[o] * in.step;
            int32_t sum[3] = {1 << (PRECISION - 1), 1 << (PRECISION - 1), 1 << (PRECISION - 1)};
            for (int i = 0; i < f->count[o]; i++, p += in.step)
                for (int c = 0; c < 3; c++) sum[c] += p[c] * w[i];
            uint8_t *q = out.data + (size_t)l * out.pitch + (size_t)o * out.step;
            for (int c = 0; c < 3; c++) q[c] = clip8(sum[c]);
        }
    }
}

static bool pixels_new(qn_pixels *p, int width, int height, qn_err *err) {
    size_t n;
    *p = (qn_pixels){.width = width, .height = height};
    if (width > 0 && height > 0 && qn_mul((size_t)width, (size_t)height, &n) && qn_mul(n, 3, &n))
        p->rgb = malloc(n);
    if (p->rgb) return true;
    return qn_fail(err, QN_NOMEM, "image: no memory for %d x %d pixels", width, height);
}

static bool resize_width(const qn_pixels *in, int width, qn_pixels *out, qn_err *err) {
    filter f;
    if (!pixels_new(out, width, in->height, err)) return false;
    filter_init(&f, in->width, width);
    pass(&f, (plane){in->rgb, 3, (size_t)in->width * 3}, (plane){out->rgb, 3, (size_t)width * 3},
         in->height, width);
    filter_done(&f);
    return true;
}

static bool resize_height(const qn_pixels *in, int height, qn_pixels *out, qn_err *err) {
    filter f;
    size_t pitch = (size_t)in->width * 3;
    if (!pixels_new(out, in->width, height, err)) return false;
    filter_init(&f, in->height, height);
    pass(&f, (plane){in->rgb, pitch, 3}, (plane){out->rgb, pitch, 3}, in->width, height);
    filter_done(&f);
    return true;
}

// Pillow 13 takes the vertical pass first where that drops enough rows; older ones never do. Each
// pass rounds, so the order shows in the pixels (found by running the original on 2,465 sizes).
static bool vertical_first(const qn_pixels *in, int width, int height) {
    return height < in->height && in->height - height > 2 * (in->width - width);
}

bool qn_image_resize(const qn_pixels *in, int width, int height, qn_pixels *out, qn_err *err) {
    qn_pixels half = {0};
    bool ok;
    if (vertical_first(in, width, height))
        ok = resize_height(in, height, &half, err) && resize_width(&half, width, out, err);
    else
        ok = resize_width(in, width, &half, err) && resize_height(&half, height, out, err);
    qn_pixels_done(&half);
    return ok;
}

// ---- the processor's config ----

static bool read_triple(const json_t *o, const char *key, double out[3], const char *what,
                        qn_err *err) {
    const json_t *a = json_object_get(o, key);
    if (!a || json_is_null(a)) return true;
    if (!json_is_array(a) || json_array_size(a) != 3)
        return qn_fail(err, QN_INPUT, "%s: %s must be a list of 3 numbers", what, key);
    for (size_t i = 0; i < 3; i++) {
        const json_t *v = json_array_get(a, i);
        if (!json_is_number(v))
            return qn_fail(err, QN_INPUT, "%s: %s must be a list of 3 numbers", what, key);
        out[i] = json_number_value(v);
    }
    return true;
}

static bool read_size(const json_t *o, const char *what, qn_image_config *c, qn_err *err) {
    const json_t *size = json_object_get(o, "size");
    if (json_is_object(size) &&
        (!qn_json_real(size, "shortest_edge", &c->min_pixels, what, err) ||
         !qn_json_real(size, "longest_edge", &c->max_pixels, what, err)))
        return false;
    return qn_json_real(o, "min_pixels", &c->min_pixels, what, err) &&
           qn_json_real(o, "max_pixels", &c->max_pixels, what, err);
}

static bool read_int(const json_t *o, const char *key, int *out, const char *what, qn_err *err) {
    int64_t v = *out;
    if (!qn_json_int(o, key, 1, 1024, &v, what, err)) return false;
    *out = (int)v;
    return true;
}

bool qn_image_config_read(const json_t *o, const char *what, qn_image_config *c, qn_err *err) {
    // The defaults are the original class's, not ours: keys that a file leaves out mean these.
    *c = (qn_image_config){.patch_size = 14, .temporal_patch_size = 2, .merge_size = 2,
                           .min_pixels = 56 * 56, .max_pixels = 28 * 28 * 1280,
                           .do_resize = true, .do_rescale = true, .do_normalize = true,
                           .rescale_factor = 1 / 255.0,
                           .mean = {0.48145466, 0.4578275, 0.40821073},
                           .std = {0.26862954, 0.26130258, 0.27577711}};
    int64_t resample = 3;
    if (!json_is_object(o)) return qn_fail(err, QN_INPUT, "%s: not a JSON object", what);
    if (!read_int(o, "patch_size", &c->patch_size, what, err) ||
        !read_int(o, "temporal_patch_size", &c->temporal_patch_size, what, err) ||
        !read_int(o, "merge_size", &c->merge_size, what, err) || !read_size(o, what, c, err) ||
        !qn_json_bool(o, "do_resize", &c->do_resize, what, err) ||
        !qn_json_bool(o, "do_rescale", &c->do_rescale, what, err) ||
        !qn_json_bool(o, "do_normalize", &c->do_normalize, what, err) ||
        !qn_json_real(o, "rescale_factor", &c->rescale_factor, what, err) ||
        !qn_json_int(o, "resample", 0, 5, &resample, what, err) ||
        !read_triple(o, "image_mean", c->mean, what, err) ||
        !read_triple(o, "image_std", c->std, what, err))
        return false;
    if (resample != 3)
        return qn_fail(err, QN_UNSUPPORTED, "%s: resample is %d, expected 3 (bicubic)", what,
                       (int)resample);
    if (!(c->min_pixels >= 1) || !(c->max_pixels >= c->min_pixels) || c->max_pixels > 1e9)
        return qn_fail(err, QN_INPUT, "%s: size is %g to %g pixels, expected 1 ≤ shortest_edge ≤ "
                       "longest_edge ≤ 1e9", what, c->min_pixels, c->max_pixels);
    for (int i = 0; i < 3; i++)
        if (!(c->std[i] > 0)) return qn_fail(err, QN_INPUT, "%s: image_std must be positive", what);
    return true;
}

// ---- size and patches ----

// Python's round: half to even.
static double round_even(double x) { return rint(x); }

bool qn_smart_resize(int height, int width, const qn_image_config *c, int *new_height,
                     int *new_width, qn_err *err) {
    double f = c->patch_size * c->merge_size, h = height, w = width;
    double ratio = fmax(h, w) / fmin(h, w);
    if (ratio > 200)
        return qn_fail(err, QN_INPUT, "image: %d x %d has an aspect ratio of %.0f, expected at most "
                       "200", width, height, ratio);
    double nh = round_even(h / f) * f, nw = round_even(w / f) * f;
    if (nh * nw > c->max_pixels) {
        double beta = sqrt(h * w / c->max_pixels);
        nh = fmax(f, floor(h / beta / f) * f);
        nw = fmax(f, floor(w / beta / f) * f);
    } else if (nh * nw < c->min_pixels) {
        double beta = sqrt(c->min_pixels / (h * w));
        nh = ceil(h * beta / f) * f;
        nw = ceil(w * beta / f) * f;
    }
    if (nh < f || nw < f || nh > 65536 || nw > 65536)
        return qn_fail(err, QN_INPUT, "image: %d x %d would become %.0f x %.0f, expected sides of "
                       "%.0f to 65536", width, height, nw, nh, f);
    *new_height = (int)nh;
    *new_width = (int)nw;
    return true;
}

// A pixel's value as it enters the tower: (v * rescale - mean) / std, folded as the original does.
static void value_table(const qn_image_config *c, float table[3][256]) {
    for (int ch = 0; ch < 3; ch++)
        for (int v = 0; v < 256; v++) {
            double mean = c->do_normalize ? c->mean[ch] : 0, std = c->do_normalize ? c->std[ch] : 1;
            double scale = c->do_rescale ? c->rescale_factor : 1;
            table[ch][v] = ((float)v - (float)(mean / scale)) / (float)(std / scale);
        }
}

// One patch's vector; the frame fills all temporal slices alike.
static void cut_patch(const qn_pixels *p, const qn_image_config *c, float table[3][256], int row,
                      int col, float *out) {
    int side = c->patch_size;
    for (int ch = 0; ch < 3; ch++)
        for (int t = 0; t < c->temporal_patch_size; t++)
            for (int y = 0; y < side; y++) {
                const uint8_t *src = p->rgb + (((size_t)(row * side + y)) * (size_t)p->width +
                                               (size_t)(col * side)) * 3 + ch;
                for (int x = 0; x < side; x++) *out++ = table[ch][src[3 * x]];
            }
}

bool qn_image_patches(const qn_pixels *p, const qn_image_config *c, int grid[3], float **patches,
                      qn_err *err) {
    int width = p->width, height = p->height, unit = c->patch_size * c->merge_size;
    qn_pixels resized = {0};
    if (c->do_resize) {
        if (!qn_smart_resize(p->height, p->width, c, &height, &width, err)) return false;
        if (!qn_image_resize(p, width, height, &resized, err)) return false;
        p = &resized;
    } else if (width % unit || height % unit) {
        return qn_fail(err, QN_INPUT, "image: %d x %d is no multiple of %d and do_resize is false",
                       width, height, unit);
    }
    int gh = height / c->patch_size, gw = width / c->patch_size, m = c->merge_size;
    size_t dim = (size_t)(3 * c->temporal_patch_size * c->patch_size * c->patch_size);
    float *out = malloc((size_t)gh * (size_t)gw * dim * sizeof *out), *at = out;
    float table[3][256];
    value_table(c, table);
    for (int b = 0; out && b < gh / m * (gw / m); b++)
        for (int i = 0; i < m * m; i++, at += dim)
            cut_patch(p, c, table, b / (gw / m) * m + i / m, b % (gw / m) * m + i % m, at);
    qn_pixels_done(&resized);
    if (!out) return qn_fail(err, QN_NOMEM, "image: no memory for %d patches", gh * gw);
    grid[0] = 1;
    grid[1] = gh;
    grid[2] = gw;
    *patches = out;
    return true;
}
