// Pictures: from a file's bytes to the patch vectors that enter the vision tower.
#ifndef QN_MODEL_IMAGE_H
#define QN_MODEL_IMAGE_H

#include <jansson.h>

#include "quern.h"

// Decoded pixels, RGB, row major, no padding. {0} is none.
typedef struct qn_pixels {
    uint8_t *rgb; // [height][width][3]
    int width, height;
} qn_pixels;
void qn_pixels_done(qn_pixels *p);

// PNG, JPEG or WebP by content. Sizes are capped before anything is allocated (16384 a side, 64
// million pixels, 256 MiB of file); EXIF orientation is applied; alpha is dropped as Pillow's
// convert("RGB") does; damaged or truncated files are QN_INPUT.
bool qn_image_decode(const void *data, size_t n, qn_pixels *out, qn_err *err);
// Orientation 1 … 8 out of an EXIF block (TIFF header first), 1 when there is none.
int qn_exif_orientation(const uint8_t *data, size_t n);
void qn_pixels_orient(qn_pixels *p, int orientation);

// Pillow's 8-bit bicubic (a = -0.5, antialiased): two passes, each rounded and clipped to 8 bits, in
// the order that Pillow 13 takes. Sides of at least 1.
bool qn_image_resize(const qn_pixels *in, int width, int height, qn_pixels *out, qn_err *err);

// What preprocessor_config.json says (Qwen2VLImageProcessor).
typedef struct qn_image_config {
    int patch_size, temporal_patch_size, merge_size;
    double min_pixels, max_pixels;
    bool do_resize, do_rescale, do_normalize;
    double rescale_factor, mean[3], std[3];
} qn_image_config;
bool qn_image_config_read(const json_t *preprocessor, const char *what, qn_image_config *c,
                          qn_err *err);

// Target size: both sides multiples of factor = patch * merge, area within the limits, aspect kept.
// Sides whose ratio passes 200 are refused, as in the original.
bool qn_smart_resize(int height, int width, const qn_image_config *c, int *new_height,
                     int *new_width, qn_err *err);

// Patch vectors [grid_h * grid_w][3 * temporal * patch * patch] in merge-block order: block row,
// block column, row in block, column in block; inside a vector channel, time, row, column.
// *patches is allocated (qn_free).
bool qn_image_patches(const qn_pixels *p, const qn_image_config *c, int grid[3], float **patches,
                      qn_err *err);

#endif
