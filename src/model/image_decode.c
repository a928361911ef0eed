// From the bytes of a PNG, JPEG or WebP file to upright RGB pixels. The libraries do the decoding;
// this file holds them to limits, turns their errors into ours, and applies EXIF orientation.
#include "model/image.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>
#include <png.h>
#include <webp/decode.h>

#include "base/err.h"
#include "base/mem.h"

#define MAX_FILE ((size_t)256 << 20)
#define MAX_SIDE 16384
#define MAX_PIXELS ((size_t)64000000)
#define MAX_SCANS 200 // of a progressive JPEG: each costs a pass over the whole picture

static bool start_pixels(qn_pixels *out, size_t width, size_t height, const char *kind,
                         qn_err *err) {
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE ||
        width * height > MAX_PIXELS)
        return qn_fail(err, QN_LIMIT, "%s image: %zu x %zu pixels, expected at most %d a side and "
                       "%zu in all", kind, width, height, MAX_SIDE, MAX_PIXELS);
    out->width = (int)width;
    out->height = (int)height;
    out->rgb = malloc(width * height * 3);
    if (out->rgb) return true;
    return qn_fail(err, QN_NOMEM, "%s image: no memory for %zu x %zu pixels", kind, width, height);
}

// ---- orientation ----

typedef struct tiff {
    const uint8_t *data;
    size_t n;
    bool big;
} tiff;

static uint32_t tiff_int(const tiff *t, size_t at, size_t bytes) {
    uint32_t v = 0;
    if (at > t->n || bytes > t->n - at) return 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint32_t)t->data[at + i] << 8 * (t->big ? bytes - 1 - i : i);
    return v;
}

int qn_exif_orientation(const uint8_t *data, size_t n) {
    if (n >= 6 && memcmp(data, "Exif\0\0", 6) == 0) data += 6, n -= 6;
    if (n < 8 || (memcmp(data, "II", 2) != 0 && memcmp(data, "MM", 2) != 0)) return 1;
    tiff t = {data, n, data[0] == 'M'};
    size_t ifd = tiff_int(&t, 4, 4);
    uint32_t entries = tiff_int(&t, ifd, 2);
    for (uint32_t i = 0; i < entries; i++) {
        size_t at = ifd + 2 + 12 * (size_t)i;
        if (at + 12 > n) break;
        if (tiff_int(&t, at, 2) != 0x0112) continue;
        uint32_t v = tiff_int(&t, at + 8, 2);
        return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}

// EXIF 2.3, tag Orientation: where the picture's row 0 and column 0 lie when shown. (x, y) of the
// upright picture comes from (sx, sy) of the stored one.
void qn_pixels_orient(qn_pixels *p, int orientation) {
    if (orientation <= 1 || orientation > 8) return;
    int w = p->width, h = p->height, nw = orientation > 4 ? h : w, nh = orientation > 4 ? w : h;
    uint8_t *out = qn_alloc((size_t)w * (size_t)h * 3), *q = out;
    for (int y = 0; y < nh; y++)
        for (int x = 0; x < nw; x++, q += 3) {
            int sx = orientation > 4 ? y : x, sy = orientation > 4 ? x : y;
            if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8)
                sx = w - 1 - sx;
            if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7)
                sy = h - 1 - sy;
            memcpy(q, p->rgb + ((size_t)sy * (size_t)w + (size_t)sx) * 3, 3);
        }
    free(p->rgb);
    *p = (qn_pixels){out, nw, nh};
}

// ---- PNG ----

typedef struct png_input {
    const uint8_t *data;
    size_t n, at;
    jmp_buf jump;
    char message[128];
    png_structp png;
    png_infop info;
    qn_pixels *out;
    png_bytep *rows;
} png_input;

static void png_on_error(png_structp png, png_const_charp message) {
    png_input *in = png_get_error_ptr(png);
    snprintf(in->message, sizeof in->message, "%s", message);
    longjmp(in->jump, 1);
}

static void png_on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

static void png_on_read(png_structp png, png_bytep to, size_t n) {
    png_input *in = png_get_io_ptr(png);
    if (n > in->n - in->at) png_error(png, "the file is truncated");
    memcpy(to, in->data + in->at, n);
    in->at += n;
}

static int png_orientation(png_input *in) {
    png_bytep exif = NULL;
    png_uint_32 n = 0;
    if (!png_get_eXIf_1(in->png, in->info, &n, &exif)) return 1;
    return qn_exif_orientation(exif, n);
}

// Everything between setjmp and the end lives in *in, so a longjmp loses nothing.
static bool png_run(png_input *in, qn_err *err) {
    if (setjmp(in->jump))
        return qn_fail(err, QN_INPUT, "PNG image: %s", in->message);
    png_set_read_fn(in->png, in, png_on_read);
    png_set_user_limits(in->png, MAX_SIDE, MAX_SIDE);
    png_read_info(in->png, in->info);
    png_uint_32 width = png_get_image_width(in->png, in->info);
    png_uint_32 height = png_get_image_height(in->png, in->info);
    if (!start_pixels(in->out, width, height, "PNG", err)) return false;
    png_set_expand(in->png);
    png_set_scale_16(in->png);
    png_set_gray_to_rgb(in->png);
    png_set_strip_alpha(in->png);
    png_set_interlace_handling(in->png);
    png_read_update_info(in->png, in->info);
    if (png_get_rowbytes(in->png, in->info) != (size_t)width * 3)
        png_error(in->png, "rows do not decode to RGB");
    in->rows = QN_NEW_ARRAY(png_bytep, height);
    for (png_uint_32 y = 0; y < height; y++) in->rows[y] = in->out->rgb + (size_t)y * width * 3;
    png_read_image(in->png, in->rows);
    png_read_end(in->png, in->info);
    qn_pixels_orient(in->out, png_orientation(in));
    return true;
}

static bool decode_png(const void *data, size_t n, qn_pixels *out, qn_err *err) {
    png_input *in = QN_NEW(png_input);
    in->data = data;
    in->n = n;
    in->out = out;
    in->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, in, png_on_error, png_on_warning);
    if (in->png) in->info = png_create_info_struct(in->png);
    bool ok = in->info ? png_run(in, err) : qn_fail(err, QN_NOMEM, "PNG image: no memory");
    png_destroy_read_struct(&in->png, &in->info, NULL);
    free(in->rows);
    free(in);
    return ok;
}

// ---- JPEG ----

typedef struct jpeg_input {
    struct jpeg_error_mgr errors; // first, so that libjpeg's pointer is ours
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct cinfo;
    jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
    qn_pixels *out;
    uint8_t *line; // one row of CMYK
} jpeg_input;

static void jpeg_stop(j_common_ptr cinfo) {
    jpeg_input *in = (jpeg_input *)cinfo->err;
    in->errors.format_message(cinfo, in->message);
    longjmp(in->jump, 1);
}

// libjpeg goes on with grey where data is missing; a picture that is not all there is refused.
static void jpeg_on_message(j_common_ptr cinfo, int level) {
    int code = cinfo->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER)) jpeg_stop(cinfo);
}

static void jpeg_on_progress(j_common_ptr cinfo) {
    jpeg_input *in = (jpeg_input *)cinfo->err;
    if (in->cinfo.input_scan_number <= MAX_SCANS) return;
    snprintf(in->message, sizeof in->message, "more than %d scans", MAX_SCANS);
    longjmp(in->jump, 1);
}

// Pillow's CMYK to RGB; Adobe's files store the complement.
static void cmyk_row(const jpeg_input *in, const uint8_t *line, uint8_t *rgb) {
    bool inverted = in->cinfo.saw_Adobe_marker;
    for (JDIMENSION x = 0; x < in->cinfo.output_width; x++) {
        const uint8_t *p = line + 4 * x;
        int black = inverted ? p[3] : 255 - p[3];
        for (int c = 0; c < 3; c++) {
            int ink = inverted ? 255 - p[c] : p[c], t = ink * black + 128;
            int v = black - ((t >> 8) + t) / 256;
            rgb[3 * x + (JDIMENSION)c] = (uint8_t)(v < 0 ? 0 : v);
        }
    }
}

static int jpeg_orientation(const jpeg_input *in) {
    for (jpeg_saved_marker_ptr m = in->cinfo.marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length >= 6 && memcmp(m->data, "Exif\0\0", 6) == 0)
            return qn_exif_orientation(m->data, m->data_length);
    return 1;
}

static bool jpeg_run(jpeg_input *in, const void *data, size_t n, qn_err *err) {
    if (setjmp(in->jump))
        return qn_fail(err, QN_INPUT, "JPEG image: %s", in->message);
    struct jpeg_decompress_struct *c = &in->cinfo;
    jpeg_mem_src(c, data, (unsigned long)n);
    jpeg_save_markers(c, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(c, TRUE);
    if (!start_pixels(in->out, c->image_width, c->image_height, "JPEG", err)) return false;
    bool cmyk = c->jpeg_color_space == JCS_CMYK || c->jpeg_color_space == JCS_YCCK;
    c->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    c->progress = &in->progress;
    jpeg_start_decompress(c);
    if (cmyk) in->line = qn_alloc((size_t)c->output_width * 4);
    while (c->output_scanline < c->output_height) {
        uint8_t *rgb = in->out->rgb + (size_t)c->output_scanline * c->output_width * 3;
        JSAMPROW row = cmyk ? in->line : rgb;
        jpeg_read_scanlines(c, &row, 1);
        if (cmyk) cmyk_row(in, in->line, rgb);
    }
    int orientation = jpeg_orientation(in); // finishing lets go of the markers
    jpeg_finish_decompress(c);
    qn_pixels_orient(in->out, orientation);
    return true;
}

static bool decode_jpeg(const void *data, size_t n, qn_pixels *out, qn_err *err) {
    jpeg_input *in = QN_NEW(jpeg_input);
    in->out = out;
    in->cinfo.err = jpeg_std_error(&in->errors);
    in->errors.error_exit = jpeg_stop;
    in->errors.emit_message = jpeg_on_message;
    in->progress.progress_monitor = jpeg_on_progress;
    jpeg_create_decompress(&in->cinfo);
    in->cinfo.mem->max_memory_to_use = 1L << 30;
    bool ok = jpeg_run(in, data, n, err);
    jpeg_destroy_decompress(&in->cinfo);
    free(in->line);
    free(in);
    return ok;
}

// ---- WebP ----

// The EXIF chunk of a RIFF container (chunks are padded to even sizes).
static int webp_orientation(const uint8_t *data, size_t n) {
    for (size_t at = 12; at + 8 <= n;) {
        size_t size = data[at + 4] | (size_t)data[at + 5] << 8 | (size_t)data[at + 6] << 16 |
                      (size_t)data[at + 7] << 24;
        if (size > n - at - 8) break;
        if (memcmp(data + at, "EXIF", 4) == 0) return qn_exif_orientation(data + at + 8, size);
        at += 8 + size + (size & 1);
    }
    return 1;
}

static bool decode_webp(const void *data, size_t n, qn_pixels *out, qn_err *err) {
    WebPBitstreamFeatures f;
    if (WebPGetFeatures(data, n, &f) != VP8_STATUS_OK)
        return qn_fail(err, QN_INPUT, "WebP image: the header is damaged");
    if (f.has_animation)
        return qn_fail(err, QN_UNSUPPORTED, "WebP image: an animation, expected a still picture");
    if (!start_pixels(out, (size_t)f.width, (size_t)f.height, "WebP", err)) return false;
    size_t bytes = (size_t)out->width * (size_t)out->height * 3;
    if (!WebPDecodeRGBInto(data, n, out->rgb, bytes, out->width * 3))
        return qn_fail(err, QN_INPUT, "WebP image: the data is damaged or truncated");
    qn_pixels_orient(out, webp_orientation(data, n));
    return true;
}

bool qn_image_decode(const void *data, size_t n, qn_pixels *out, qn_err *err) {
    const uint8_t *p = data;
    bool ok;
    *out = (qn_pixels){0};
    if (n > MAX_FILE)
        return qn_fail(err, QN_LIMIT, "image: the file has %zu bytes, expected at most %zu", n,
                       MAX_FILE);
    if (n >= 8 && memcmp(p, "\x89PNG\r\n\x1a\n", 8) == 0)
        ok = decode_png(data, n, out, err);
    else if (n >= 3 && memcmp(p, "\xFF\xD8\xFF", 3) == 0)
        ok = decode_jpeg(data, n, out, err);
    else if (n >= 12 && memcmp(p, "RIFF", 4) == 0 && memcmp(p + 8, "WEBP", 4) == 0)
        ok = decode_webp(data, n, out, err);
    else
        ok = qn_fail(err, QN_INPUT, "image: neither PNG, JPEG nor WebP (%zu bytes)", n);
    if (!ok) qn_pixels_done(out);
    return ok;
}
