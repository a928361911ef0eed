// Placeholders in a prompt: one per image as the chat template writes them, or already repeated.
// Positions follow the original's get_rope_index: text advances all three axes by one; an image's
// tokens share t = p and count rows and columns of the merged grid from p; the next text starts at
// p + max(rows, columns).
#include "model/vision.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"

// Length of the run of placeholders at `at`.
static size_t run_length(const int32_t *tokens, size_t n, size_t at, int32_t id) {
    size_t len = 0;
    while (at + len < n && tokens[at + len] == id) len++;
    return len;
}

// First pass: how long the expanded prompt is, and whether placeholders and images agree.
static bool count(const qn_image_tokens *ids, const int32_t *tokens, size_t n,
                  const int (*grids)[3], size_t n_images, size_t *n_out, qn_err *err) {
    size_t images = 0, out = 0;
    int area = ids->merge_size * ids->merge_size;
    for (size_t i = 0; i < n;) {
        if (ids->video >= 0 && tokens[i] == ids->video)
            return qn_fail(err, QN_UNSUPPORTED, "prompt: token %zu is a video placeholder (%d); "
                           "videos are not supported", i, tokens[i]);
        if (tokens[i] != ids->image) {
            i++, out++;
            continue;
        }
        size_t run = run_length(tokens, n, i, ids->image);
        if (images < n_images) {
            const int *g = grids[images];
            size_t rows = (size_t)g[0] * (size_t)g[1] * (size_t)g[2] / (size_t)area;
            if (run != 1 && run != rows)
                return qn_fail(err, QN_INPUT, "prompt: %zu image placeholders in a row at token "
                               "%zu, expected 1 or the %zu rows of image %zu", run, i, rows,
                               images + 1);
            out += rows;
        }
        images++;
        i += run;
    }
    if (images != n_images)
        return qn_fail(err, QN_INPUT, "prompt: %zu image placeholder%s for %zu image%s", images,
                       images == 1 ? "" : "s", n_images, n_images == 1 ? "" : "s");
    *n_out = out;
    return true;
}

bool qn_expand_images(const qn_image_tokens *ids, const int32_t *tokens, size_t n,
                      const int (*grids)[3], size_t n_images, int32_t **out, size_t *n_out,
                      int32_t (**rope3)[3], int32_t *delta, qn_err *err) {
    size_t total = 0;
    if (!count(ids, tokens, n, grids, n_images, &total, err)) return false;
    int32_t *to = QN_NEW_ARRAY(int32_t, total);
    int32_t(*pos)[3] = qn_calloc(total, sizeof *pos);
    size_t at = 0, image = 0;
    int32_t p = 0;
    for (size_t i = 0; i < n;) {
        if (tokens[i] != ids->image) {
            pos[at][0] = pos[at][1] = pos[at][2] = p++;
            to[at++] = tokens[i++];
            continue;
        }
        const int *g = grids[image++];
        int rows = g[1] / ids->merge_size, cols = g[2] / ids->merge_size;
        for (int k = 0; k < g[0] * rows * cols; k++, at++) {
            to[at] = ids->image;
            pos[at][0] = p;
            pos[at][1] = p + k / cols % rows;
            pos[at][2] = p + k % cols;
        }
        p += rows > cols ? rows : cols;
        i += run_length(tokens, n, i, ids->image);
    }
    *out = to;
    *n_out = total;
    *rope3 = pos;
    *delta = p - (int32_t)total;
    return true;
}
