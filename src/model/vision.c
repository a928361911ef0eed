// Pictures as the engine sees them: one call from a picture to embedding rows, one from a prompt
// with placeholders to tokens and positions. The work is done in image_*.c and vision_tower.c.
#include "model/vision.h"

#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/parts.h"

static bool has_tower(const qn_model *m, qn_err *err) {
    return m->vision || qn_fail(err, QN_UNSUPPORTED, "%s: no vision tower, expected text only",
                                m->path);
}

// The caller's pixels are copied, so that both kinds are released alike.
static bool pixels_of(const qn_image *image, qn_pixels *p, qn_err *err) {
    size_t n;
    if (!image->width && !image->height)
        return qn_image_decode(image->data, image->bytes, p, err);
    if (image->width < 1 || image->height < 1 ||
        !qn_mul((size_t)image->width, (size_t)image->height, &n) || !qn_mul(n, 3, &n) ||
        n != image->bytes)
        return qn_fail(err, QN_INPUT, "image: %d x %d pixels in %zu bytes, expected 3 a pixel",
                       image->width, image->height, image->bytes);
    *p = (qn_pixels){qn_alloc(n), image->width, image->height};
    memcpy(p->rgb, image->data, n);
    return true;
}

// The tower's work grows with the square of the grid, so what cannot be used is not begun.
static bool grid_fits(const qn_model *m, const int grid[3], size_t most, qn_err *err) {
    int merge = qn_vision_image_config(m->vision)->merge_size;
    size_t rows = (size_t)(grid[1] / merge) * (size_t)(grid[2] / merge);
    return !most || rows <= most ||
           qn_fail(err, QN_LIMIT, "image: a grid of %d x %d patches makes %zu tokens, expected at "
                   "most %zu (the context)", grid[1], grid[2], rows, most);
}

bool qn_model_encode_image(const qn_model *m, qn_compute *c, const qn_image *image, int grid[3],
                           float **rows, size_t *n_rows, float **pixels, qn_err *err) {
    qn_pixels p = {0};
    float *patches = NULL;
    if (!has_tower(m, err)) return false;
    bool ok = pixels_of(image, &p, err) &&
              qn_image_patches(&p, qn_vision_image_config(m->vision), grid, &patches, err);
    qn_pixels_done(&p);
    ok = ok && grid_fits(m, grid, *n_rows, err) &&
         qn_vision_encode(m->vision, c, patches, grid, rows, n_rows, err);
    if (ok && pixels) {
        *pixels = patches;
    } else {
        qn_free(patches);
    }
    return ok;
}

bool qn_model_expand_images(const qn_model *m, const int32_t *tokens, size_t n,
                            const int (*grids)[3], size_t n_images, int32_t **out, size_t *n_out,
                            int32_t (**rope3)[3], int32_t *delta, qn_err *err) {
    if (!has_tower(m, err)) return false;
    const qn_image_tokens ids = {m->config.image_token_id, m->config.video_token_id,
                                 qn_vision_image_config(m->vision)->merge_size,
                                 (int32_t)m->config.vocab_size};
    return qn_expand_images(&ids, tokens, n, grids, n_images, out, n_out, rope3, delta, err);
}
