// Pictures: sizes, resampling and patches against the original processor's values, and everything a
// hostile or damaged file can do.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

#include "base/file.h"
#include "base/json.h"
#include "model/image.h"
#include "model/vision.h"
#include "store/checkpoint.h"

static qn_image_config config_of(const char *folder) {
    char path[256];
    qn_err err = {0};
    qn_image_config c = {0};
    snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    json_t *j = qn_json_load(path, 1 << 20, &err);
    assert_true(j && qn_image_config_read(j, path, &c, &err));
    json_decref(j);
    return c;
}

static qn_pixels load(const char *path) {
    qn_buf b = {0};
    qn_err err = {0};
    qn_pixels p = {0};
    if (!qn_file_read(path, 1 << 24, &b, &err) || !qn_image_decode(b.data, b.n, &p, &err))
        fail_msg("%s", err.text);
    qn_buf_done(&b);
    return p;
}

// Pixel values of the stored references, with and without a resize.
static void patches_match(const char *folder, double tolerance) {
    char path[256];
    qn_err err = {0};
    qn_image_config c = config_of(folder);
    snprintf(path, sizeof path, "%s/vision.png", folder);
    qn_pixels p = load(path);
    int grid[3];
    float *patches = NULL;
    assert_true(qn_image_patches(&p, &c, grid, &patches, &err));
    snprintf(path, sizeof path, "%s/reference.safetensors", folder);
    qn_ckpt *ref = qn_ckpt_open(path, 0, &err);
    if (!ref) fail_msg("%s", err.text);
    const qn_tensor *t = qn_ckpt_find(ref, "vision.pixel_values");
    const qn_tensor *g = qn_ckpt_find(ref, "vision.grid_thw");
    float *expected = malloc(t->n * sizeof *expected), thw[3];
    qn_tensor_to_f32(t, 0, t->n, expected);
    qn_tensor_to_f32(g, 0, 3, thw);
    for (int i = 0; i < 3; i++) assert_int_equal(grid[i], (int)thw[i]);
    double worst = 0;
    for (size_t i = 0; i < t->n; i++) worst = fmax(worst, fabs(patches[i] - expected[i]));
    if (worst > tolerance) fail_msg("%s: off by %g", folder, worst);
    free(expected);
    qn_ckpt_free(ref);
    qn_free(patches);
    qn_pixels_done(&p);
}

static void patches_without_resize(void **state) {
    (void)state;
    patches_match("tests/data/families/qwen3_5", 1e-6);
}

static void patches_with_resize(void **state) {
    (void)state;
    patches_match("tests/data/families/qwen3_5_moe", 1e-6);
}

static void smart_resize(void **state) {
    (void)state;
    // height, width, expected height and width: the original's function, min 65536, max 16777216.
    static const int cases[][4] = {{480, 640, 480, 640},   {100, 100, 256, 256}, {1, 1, 256, 256},
                                   {1000, 10, 2560, 32},   {48, 80, 224, 352},   {16, 3000, 32, 3520},
                                   {6000, 6000, 4096, 4096}, {8000, 4000, 5792, 2880}};
    qn_image_config c = {.patch_size = 16, .temporal_patch_size = 2, .merge_size = 2,
                         .min_pixels = 65536, .max_pixels = 16777216};
    qn_err err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int h = 0, w = 0;
        assert_true(qn_smart_resize(cases[i][0], cases[i][1], &c, &h, &w, &err));
        if (h != cases[i][2] || w != cases[i][3])
            fail_msg("%d x %d became %d x %d, expected %d x %d", cases[i][0], cases[i][1], h, w,
                     cases[i][2], cases[i][3]);
    }
    int h, w;
    assert_false(qn_smart_resize(1, 10000, &c, &h, &w, &err));
    assert_non_null(strstr(err.text, "aspect ratio"));
}

// A picture whose every pixel is different: 3 x 2, value = 10 * row + column.
static qn_pixels numbered(void) {
    qn_pixels p = {malloc(18), 3, 2};
    for (int i = 0; i < 6; i++) memset(p.rgb + 3 * i, 10 * (i / 3) + i % 3, 3);
    return p;
}

static void orientations(void **state) {
    (void)state;
    // What ImageOps.exif_transpose makes of it, first row then the rest.
    static const struct {
        int w;
        uint8_t v[6];
    } expected[9] = {{3, {0, 1, 2, 10, 11, 12}}, {3, {0, 1, 2, 10, 11, 12}},
                     {3, {2, 1, 0, 12, 11, 10}}, {3, {12, 11, 10, 2, 1, 0}},
                     {3, {10, 11, 12, 0, 1, 2}}, {2, {0, 10, 1, 11, 2, 12}},
                     {2, {10, 0, 11, 1, 12, 2}}, {2, {12, 2, 11, 1, 10, 0}},
                     {2, {2, 12, 1, 11, 0, 10}}};
    for (int o = 0; o <= 8; o++) {
        qn_pixels p = numbered();
        qn_pixels_orient(&p, o);
        assert_int_equal(p.width, expected[o].w);
        for (int i = 0; i < 6; i++) assert_int_equal(p.rgb[3 * i], expected[o].v[i]);
        qn_pixels_done(&p);
    }
}

static void exif(void **state) {
    (void)state;
    uint8_t little[] = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0};
    uint8_t big[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0};
    assert_int_equal(qn_exif_orientation(little, sizeof little), 6);
    assert_int_equal(qn_exif_orientation(big, sizeof big), 8);
    for (size_t n = 0; n < sizeof little; n++) assert_int_equal(qn_exif_orientation(little, n), 1);
    little[4] = 255, little[7] = 255; // directory far outside
    assert_int_equal(qn_exif_orientation(little, sizeof little), 1);
}

static qn_buf jpeg_of(const qn_pixels *p) {
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr e;
    unsigned char *bytes = NULL;
    unsigned long n = 0;
    c.err = jpeg_std_error(&e);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &bytes, &n);
    c.image_width = (JDIMENSION)p->width;
    c.image_height = (JDIMENSION)p->height;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 95, TRUE);
    jpeg_start_compress(&c, TRUE);
    // An EXIF block that says "rotate by 90 degrees" (orientation 6).
    static const uint8_t app1[] = {'E', 'x', 'i', 'f', 0, 0, 'I', 'I', 42, 0, 8, 0, 0, 0,
                                   1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0};
    jpeg_write_marker(&c, JPEG_APP0 + 1, app1, sizeof app1);
    for (int y = 0; y < p->height; y++) {
        JSAMPROW row = p->rgb + (size_t)y * (size_t)p->width * 3;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    qn_buf b = {0};
    qn_buf_add(&b, bytes, n);
    free(bytes);
    return b;
}

static void refuse(const void *data, size_t n, const char *expected) {
    qn_pixels p = {0};
    qn_err err = {0};
    if (qn_image_decode(data, n, &p, &err)) {
        qn_pixels_done(&p);
        fail_msg("accepted, expected: %s", expected);
    }
    if (!strstr(err.text, expected)) fail_msg("\"%s\" does not say: %s", err.text, expected);
}

static void jpeg_files(void **state) {
    (void)state;
    qn_pixels p = {malloc(64 * 32 * 3), 64, 32}, q;
    memset(p.rgb, 200, 64 * 32 * 3);
    qn_buf b = jpeg_of(&p);
    qn_err err = {0};
    assert_true(qn_image_decode(b.data, b.n, &q, &err));
    assert_int_equal(q.width, 32); // turned upright
    assert_int_equal(q.height, 64);
    assert_in_range(q.rgb[100], 199, 201);
    qn_pixels_done(&q);
    refuse(b.data, b.n - 40, "JPEG image");
    for (size_t n = 4; n < b.n - 40; n += 7) refuse(b.data, n, "JPEG image");
    qn_buf_done(&b);
    qn_pixels_done(&p);
}

static void png_files(void **state) {
    (void)state;
    qn_buf b = {0};
    qn_err err = {0};
    assert_true(qn_file_read("tests/data/families/qwen3_5/vision.png", 1 << 20, &b, &err));
    for (size_t n = 9; n < b.n - 12; n += 37) refuse(b.data, n, "PNG image");
    uint8_t *bytes = (uint8_t *)b.data;
    bytes[16] = 0x7F; // a width of two billion; the checksum does not fit either
    refuse(b.data, b.n, "PNG image");
    qn_buf_done(&b);
    refuse("GIF89a......", 12, "neither PNG, JPEG nor WebP");
    refuse("", 0, "neither PNG, JPEG nor WebP");
}

static void webp_files(void **state) {
    (void)state;
    qn_pixels p = {malloc(30 * 20 * 3), 30, 20}, q;
    for (int i = 0; i < 30 * 20 * 3; i++) p.rgb[i] = (uint8_t)(i * 7);
    uint8_t *bytes = NULL;
    size_t n = WebPEncodeLosslessRGB(p.rgb, p.width, p.height, p.width * 3, &bytes);
    qn_err err = {0};
    assert_true(qn_image_decode(bytes, n, &q, &err));
    assert_memory_equal(p.rgb, q.rgb, 30 * 20 * 3);
    qn_pixels_done(&q);
    refuse(bytes, n / 2, "WebP image");
    refuse(bytes, 14, "WebP image");
    WebPFree(bytes);
    qn_pixels_done(&p);
}

static void resize_keeps_flat_pictures(void **state) {
    (void)state;
    qn_pixels p = {malloc(50 * 40 * 3), 50, 40}, q;
    qn_err err = {0};
    memset(p.rgb, 93, 50 * 40 * 3);
    static const int sizes[][2] = {{100, 80}, {7, 5}, {50, 13}, {1, 1}, {200, 40}};
    for (size_t s = 0; s < 5; s++) {
        assert_true(qn_image_resize(&p, sizes[s][0], sizes[s][1], &q, &err));
        for (int i = 0; i < q.width * q.height * 3; i++) assert_int_equal(q.rgb[i], 93);
        qn_pixels_done(&q);
    }
    qn_pixels_done(&p);
}

static void placeholders(void **state) {
    (void)state;
    const qn_image_tokens ids = {9, 8, 2, 100};
    const int grids[2][3] = {{1, 4, 6}, {1, 2, 2}};
    const int32_t short_form[] = {1, 9, 2, 9, 3}, video[] = {1, 8}, odd[] = {1, 9, 9, 2, 9};
    int32_t *out = NULL, delta = 0, (*pos)[3] = NULL;
    size_t n = 0;
    qn_err err = {0};
    assert_true(qn_expand_images(&ids, short_form, 5, grids, 2, &out, &n, &pos, &delta, &err));
    const int32_t expected[10][4] = {{1, 0, 0, 0}, {9, 1, 1, 1}, {9, 1, 1, 2}, {9, 1, 1, 3},
                                     {9, 1, 2, 1}, {9, 1, 2, 2}, {9, 1, 2, 3}, {2, 4, 4, 4},
                                     {9, 5, 5, 5}, {3, 6, 6, 6}};
    assert_int_equal(n, 10);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(out[i], expected[i][0]);
        for (int k = 0; k < 3; k++) assert_int_equal(pos[i][k], expected[i][k + 1]);
    }
    assert_int_equal(delta, -3);
    int32_t *again = NULL, (*pos2)[3] = NULL;
    assert_true(qn_expand_images(&ids, out, n, grids, 2, &again, &n, &pos2, &delta, &err));
    assert_int_equal(n, 10);
    assert_memory_equal(pos, pos2, sizeof expected / 4 * 3);
    qn_free(out), qn_free(pos), qn_free(again), qn_free(pos2);
    assert_false(qn_expand_images(&ids, short_form, 5, grids, 1, &out, &n, &pos, &delta, &err));
    assert_string_equal(err.text, "prompt: 2 image placeholders for 1 image");
    assert_false(qn_expand_images(&ids, odd, 5, grids, 2, &out, &n, &pos, &delta, &err));
    assert_non_null(strstr(err.text, "expected 1 or the 6 rows of image 1"));
    assert_false(qn_expand_images(&ids, video, 2, grids, 0, &out, &n, &pos, &delta, &err));
    assert_int_equal(err.code, QN_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patches_without_resize), cmocka_unit_test(patches_with_resize),
        cmocka_unit_test(smart_resize),           cmocka_unit_test(orientations),
        cmocka_unit_test(exif),                   cmocka_unit_test(jpeg_files),
        cmocka_unit_test(png_files),              cmocka_unit_test(webp_files),
        cmocka_unit_test(resize_keeps_flat_pictures), cmocka_unit_test(placeholders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
