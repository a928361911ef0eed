// Pictures against the original implementation: the tower's rows, the expanded prompt and its 3-D
// positions, and what the text model makes of them.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/str.h"
#include "model/runner.h"

typedef struct picture {
    float *rows, *pixels;
    size_t n_rows, n_pixels;
    int grid[3];
} picture;

static picture encode(const runner *r, const char *folder) {
    char path[256];
    qn_buf b = {0};
    qn_err err = {0};
    picture p = {0};
    snprintf(path, sizeof path, "%s/vision.png", folder);
    assert_true(qn_file_read(path, 1 << 24, &b, &err));
    const qn_image image = {.data = b.data, .bytes = b.n};
    if (!qn_model_encode_image(r->model, r->compute, &image, p.grid, &p.rows, &p.n_rows, &p.pixels,
                               &err))
        fail_msg("%s", err.text);
    p.n_pixels = (size_t)(p.grid[0] * p.grid[1] * p.grid[2]);
    qn_buf_done(&b);
    return p;
}

static void check_tower(const picture *p, const reference *ref, size_t hidden) {
    size_t n, row = 0;
    int32_t *grid = reference_ints(ref, "vision.grid_thw", NULL);
    for (int i = 0; i < 3; i++) assert_int_equal(grid[i], p->grid[i]);
    float *pixels = reference_floats(ref, "vision.pixel_values", &n);
    float *embeds = reference_floats(ref, "vision.embeds", NULL);
    for (size_t i = 0; i < n; i++) // one grey level, of 255 over a range of 2
        if (!(pixels[i] - p->pixels[i] < 0.0079f && p->pixels[i] - pixels[i] < 0.0079f))
            fail_msg("pixel value %zu is %g, expected %g", i, (double)p->pixels[i],
                     (double)pixels[i]);
    double e = worst_row(p->rows, embeds, p->n_rows, hidden, &row);
    printf("  tower: %.2g\n", e);
    if (!(e <= 1e-3)) fail_msg("row %zu of the tower is off by %g", row, e);
    free(grid);
    free(pixels);
    free(embeds);
}

// The prompt with one placeholder in place of the run.
static size_t shrink(const int32_t *tokens, size_t n, int32_t image, int32_t *out) {
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (tokens[i] != image || !i || tokens[i - 1] != image) out[m++] = tokens[i];
    return m;
}

static void check_prompt(runner *r, const reference *ref, const picture *p) {
    int32_t short_prompt[512], *tokens, (*rope3)[3], delta;
    size_t n, m = shrink(ref->tokens, ref->n, r->info->image_token, short_prompt), v, at = 0;
    qn_err err = {0};
    if (!qn_model_expand_images(r->model, short_prompt, m, (const int(*)[3])p->grid, 1, &tokens,
                                &n, &rope3, &delta, &err))
        fail_msg("%s", err.text);
    assert_int_equal(n, ref->n);
    assert_memory_equal(tokens, ref->tokens, n * sizeof *tokens);
    int32_t *positions = reference_ints(ref, "vision.position_ids", NULL);
    for (size_t i = 0; i < n; i++)
        for (size_t axis = 0; axis < 3; axis++)
            assert_int_equal(rope3[i][axis], positions[axis * n + i]);
    while (tokens[at] != r->info->image_token) at++;
    const qn_embed_span span = {at, p->n_rows, p->rows};
    qn_segment s = runner_segment(r, 0, tokens, 0, n);
    s.rope3 = (const int32_t(*)[3])rope3;
    s.spans = &span;
    s.n_spans = 1;
    runner_step(r, &s, 1);
    v = (size_t)r->info->vocab_size;
    float *expected = reference_floats(ref, "vision.logits", NULL);
    double e = worst_row(qn_work_logits(r->work, 0, 0), expected, n, v, NULL);
    printf("  logits: %.2g\n", e);
    if (!(e <= 1e-3)) fail_msg("logits behind the picture are off by %g", e);

    size_t n_greedy;
    int32_t *greedy = reference_ints(ref, "vision.greedy", &n_greedy);
    for (size_t i = 0; i < n_greedy; i++) {
        const float *x = qn_work_logits(r->work, 0, qn_work_n_rows(r->work, 0) - 1);
        size_t best = 0;
        for (size_t k = 1; k < v; k++)
            if (x[k] > x[best]) best = k;
        assert_int_equal(best, greedy[i]); // no margin of the reference is under 0.01
        int32_t place = (int32_t)(n + i) + delta;
        const int32_t place3[1][3] = {{place, place, place}};
        s = runner_segment(r, 0, &greedy[i], 0, 1);
        s.position = n + i;
        s.rope3 = place3;
        runner_step(r, &s, 1);
    }
    free(greedy);
    free(expected);
    free(positions);
    qn_free(tokens);
    qn_free(rope3);
}

static void pictures(void **state) {
    const qn_model_options o = {.precision = QN_EXACT, .n_threads = 2};
    const char *folder = *state;
    char path[256];
    runner r;
    reference ref;
    snprintf(path, sizeof path, "%s/reference.safetensors", folder);
    reference_open(&ref, path, "vision.tokens");
    runner_open(&r, folder, &o, ref.n + 32);
    assert_true(r.info->has_vision);
    picture p = encode(&r, folder);
    check_tower(&p, &ref, (size_t)r.info->hidden_size);
    check_prompt(&r, &ref, &p);
    qn_free(p.rows);
    qn_free(p.pixels);
    runner_close(&r);
    reference_close(&ref);
}

static void without_a_tower(void **state) {
    const qn_model_options o = {.precision = QN_EXACT, .n_threads = 1};
    runner r;
    qn_err err = {0};
    const qn_image image = {.data = "x", .bytes = 1};
    int grid[3];
    float *rows;
    size_t n = 0;
    (void)state;
    runner_open(&r, "tests/data/families/qwen3", &o, 16);
    assert_false(qn_model_encode_image(r.model, r.compute, &image, grid, &rows, &n, NULL, &err));
    assert_int_equal(err.code, QN_UNSUPPORTED);
    runner_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"qwen3_5", pictures, NULL, NULL, (char[]){"tests/data/families/qwen3_5"}},
        {"qwen3_5_moe", pictures, NULL, NULL, (char[]){"tests/data/families/qwen3_5_moe"}},
        cmocka_unit_test(without_a_tower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
