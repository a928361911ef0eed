// What the hybrid family promises beyond its references: stretched positions, quantized files whose
// rest stays as it was, pictures of odd sizes and pictures that are bombs, and what is said when
// optional parts are missing. tests/data/hybrid/README.md tells where the expected values are from.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "model/image.h"
#include "model/runner.h"
#include "model/scratch_checkpoint.h"
#include "store/weight.h"

#define NESTED "tests/data/families/qwen3_5"
#define FLAT "tests/data/families/qwen3_5-same"
#define HYBRID "tests/data/hybrid/"

static const qn_model_options exact = {.precision = QN_EXACT, .n_threads = 2};

static double logits_error(const char *model, const char *expected) {
    char path[128];
    runner r;
    reference ref;
    snprintf(path, sizeof path, "%s/reference.safetensors", expected);
    reference_open(&ref, path, "tokens");
    runner_open(&r, model, &exact, ref.n);
    float *want = reference_floats(&ref, "logits", NULL);
    float *x = runner_logits(&r, 0, ref.tokens, ref.n, ref.n);
    double e = worst_row(x, want, ref.n, (size_t)r.info->vocab_size, NULL);
    free(x);
    free(want);
    runner_close(&r);
    reference_close(&ref);
    return e;
}

// ---- YaRN in rope_parameters ----

static void yarn(void **state) {
    static const char *const cases[][2] = {{HYBRID "yarn-flat", FLAT},
                                           {HYBRID "yarn-nested", NESTED}};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char folder[64], path[128];
        snprintf(path, sizeof path, "%s/config.json", cases[i][0]);
        json_t *config = json_load_file(path, 0, NULL);
        scratch_write(folder, cases[i][1], config, NULL, 0);
        scratch_copy(folder, NESTED, "preprocessor_config.json");
        double e = logits_error(folder, cases[i][0]), plain = logits_error(cases[i][1], cases[i][0]);
        printf("  %s: %.2g, without YaRN %.2g\n", cases[i][0], e, plain);
        if (!(e <= 1e-4)) fail_msg("%s: off by %g", cases[i][0], e);
        assert_true(plain > 1e-2); // the fixture tells the two apart
        json_decref(config);
        scratch_remove(folder);
    }
}

// ---- quantized files ----

static void quantized(void **state) {
    static const char *const folders[] = {HYBRID "gptq-dynamic", HYBRID "fp8-block",
                                          HYBRID "awq-gemm"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        double e = logits_error(folders[i], folders[i]);
        printf("  %s: %.2g\n", folders[i], e);
        if (!(e <= 1e-4)) fail_msg("%s: off by %g", folders[i], e);
    }
}

// Small projections, decay, convolution, norms, draft layer and tower are the original's bytes.
static void the_rest_stays_as_stored(void **state) {
    static const char *const kept[] = {"in_proj_a", "in_proj_b", "A_log", "dt_bias", "conv1d",
                                       "norm", "mtp.", "visual.", "embed_tokens", "lm_head"};
    static const char *const pairs[][2] = {{HYBRID "gptq-dynamic", NESTED},
                                           {HYBRID "fp8-block", NESTED},
                                           {HYBRID "awq-gemm", FLAT}};
    (void)state;
    for (size_t p = 0; p < 3; p++) {
        qn_err err = {0};
        size_t seen = 0, n;
        const qn_weight *list;
        qn_ckpt *q = qn_ckpt_open(pairs[p][0], 0, &err), *o = qn_ckpt_open(pairs[p][1], 0, &err);
        if (!q || !o || !qn_ckpt_weights(q, &list, &n, &err)) fail_msg("%s", err.text);
        for (size_t i = 0; i < qn_ckpt_n_tensors(o); i++) {
            const qn_tensor *b = qn_ckpt_tensor(o, i), *a = qn_ckpt_find(q, b->name);
            bool same = false;
            for (size_t k = 0; k < sizeof kept / sizeof *kept; k++)
                same = same || strstr(b->name, kept[k]) != NULL;
            if (!same) continue;
            const qn_weight *w = qn_ckpt_weight(q, b->name);
            if (!a || !w || w->scheme) fail_msg("%s: %s is taken for codes", pairs[p][0], b->name);
            assert_int_equal(a->dtype, b->dtype);
            assert_memory_equal(a->data, b->data, b->bytes);
            seen++;
        }
        assert_true(seen > 30);
        qn_ckpt_free(q);
        qn_ckpt_free(o);
    }
}

// The tower of a quantized file is the original's, to the bit; its draft layer is there.
static void quantized_parts_run(void **state) {
    static const char *const folders[] = {NESTED, HYBRID "gptq-dynamic", HYBRID "fp8-block"};
    float *rows[3];
    size_t n = 0, hidden = 0;
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        runner r;
        qn_buf b = {0};
        qn_err err = {0};
        int grid[3];
        runner_open(&r, folders[i], &exact, 16);
        assert_true(r.info->has_mtp && r.info->has_vision);
        assert_true(qn_file_read(NESTED "/vision.png", 1 << 20, &b, &err));
        const qn_image image = {.data = b.data, .bytes = b.n};
        n = 0;
        if (!qn_model_encode_image(r.model, r.compute, &image, grid, &rows[i], &n, NULL, &err))
            fail_msg("%s", err.text);
        hidden = (size_t)r.info->hidden_size;
        qn_buf_done(&b);
        runner_close(&r);
    }
    for (size_t i = 1; i < 3; i++) assert_memory_equal(rows[i], rows[0], n * hidden * 4);
    for (size_t i = 0; i < 3; i++) qn_free(rows[i]);
}

// ---- pictures of odd sizes ----

static bool encode(const runner *r, int width, int height, size_t most, size_t *n, qn_err *err) {
    size_t bytes = (size_t)width * (size_t)height * 3;
    uint8_t *grey = malloc(bytes);
    memset(grey, 128, bytes);
    const qn_image image = {grey, bytes, width, height};
    int grid[3];
    float *rows = NULL;
    *n = most;
    *err = (qn_err){0};
    bool ok = qn_model_encode_image(r->model, r->compute, &image, grid, &rows, n, NULL, err);
    if (ok) assert_int_equal(*n, grid[1] * grid[2] / 4);
    qn_free(rows);
    free(grey);
    return ok;
}

static void odd_sizes(void **state) {
    runner r;
    size_t n;
    qn_err err;
    (void)state;
    runner_open(&r, "tests/data/tiny-qwen3.5", &exact, 16);
    assert_true(encode(&r, 1, 1, 0, &n, &err)); // grown to the least the processor allows
    assert_int_equal(n, 4);
    assert_false(encode(&r, 10000, 1, 0, &n, &err));
    assert_int_equal(err.code, QN_INPUT);
    assert_string_equal(err.text, "image: 10000 x 1 has an aspect ratio of 10000, expected at most "
                        "200");
    assert_false(encode(&r, 1, 10000, 0, &n, &err));
    assert_true(encode(&r, 2000, 10, 0, &n, &err)); // just allowed
    assert_false(encode(&r, 640, 480, 20, &n, &err));
    assert_int_equal(err.code, QN_LIMIT);
    assert_string_equal(err.text, "image: a grid of 12 x 18 patches makes 54 tokens, expected at "
                        "most 20 (the context)");
    runner_close(&r);
}

// ---- bombs: small files that claim to be large ----

static uint32_t crc_of(const uint8_t *p, size_t n) { // ISO 3309, as PNG has it
    uint32_t c = 0xFFFFFFFF;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320 ^ c >> 1 : c >> 1;
    }
    return ~c;
}

static void put_big(uint8_t *to, uint32_t x) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(x >> (24 - 8 * i));
}

static void refuse(const uint8_t *data, size_t n, const char *expected) {
    qn_pixels p = {0};
    qn_err err = {0};
    assert_false(qn_image_decode(data, n, &p, &err));
    assert_int_equal(err.code, QN_LIMIT);
    assert_string_equal(err.text, expected);
    assert_null(strchr(err.text, '\n'));
}

static void bombs(void **state) {
    uint8_t png[45] = "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";
    (void)state;
    put_big(png + 16, 16000);
    put_big(png + 20, 16000);
    png[24] = 8, png[25] = 2;
    put_big(png + 29, crc_of(png + 12, 17));
    memcpy(png + 37, "IDAT", 4);
    put_big(png + 41, crc_of(png + 37, 4));
    refuse(png, sizeof png, "PNG image: 16000 x 16000 pixels, expected at most 16384 a side and "
           "64000000 in all");
    static const uint8_t jpeg[] = {0xFF, 0xD8, 0xFF, 0xC0, 0, 17, 8, 0xFF, 0xDC, 0xFF, 0xDC, 3,
                                   1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0,
                                   0xFF, 0xDA, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0};
    refuse(jpeg, sizeof jpeg, "JPEG image: 65500 x 65500 pixels, expected at most 16384 a side and "
           "64000000 in all");
    static const uint8_t webp[] = {'R', 'I', 'F', 'F', 22, 0, 0, 0, 'W', 'E', 'B', 'P', 'V', 'P',
                                   '8', 'L', 10, 0, 0, 0, 0x2F, 0xFF, 0xFF, 0xFF, 0x0F, 0, 0, 0,
                                   0, 0};
    refuse(webp, sizeof webp, "WebP image: 16384 x 16384 pixels, expected at most 16384 a side and "
           "64000000 in all");
}

// ---- missing parts are said once ----

static void loads(const char *folder) {
    qn_err err = {0};
    qn_model *m = qn_model_load(folder, &exact, &err);
    if (!m) fail_msg("%s", err.text);
    qn_model_free(m);
}

static void missing_parts_are_said_once(void **state) {
    const edit e[] = {{"mtp.", .drop = true}, {"model.visual.", .drop = true}};
    char folder[64], said[4096] = "";
    (void)state;
    scratch_write(folder, NESTED, NULL, e, 2);
    FILE *catcher = tmpfile();
    int stderr_was = dup(STDERR_FILENO);
    qn_log_set_quiet(false);
    dup2(fileno(catcher), STDERR_FILENO);
    loads(folder);
    loads(folder);
    fflush(stderr);
    dup2(stderr_was, STDERR_FILENO);
    close(stderr_was);
    qn_log_set_quiet(true);
    rewind(catcher);
    assert_true(fread(said, 1, sizeof said - 1, catcher) > 0);
    fclose(catcher);
    const char *words[] = {"draft layer (mtp.*)", "the vision tower's tensors are missing"};
    for (size_t i = 0; i < 2; i++) {
        const char *at = strstr(said, words[i]);
        if (!at) fail_msg("\"%s\" lacks \"%s\"", said, words[i]);
        assert_null(strstr(at + 1, words[i]));
    }
    size_t lines = 0;
    for (const char *p = said; (p = strchr(p, '\n')); p++) lines++;
    assert_int_equal(lines, 2);
    scratch_remove(folder);
}

int main(void) {
    qn_log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yarn),
        cmocka_unit_test(quantized),
        cmocka_unit_test(the_rest_stays_as_stored),
        cmocka_unit_test(quantized_parts_run),
        cmocka_unit_test(odd_sizes),
        cmocka_unit_test(bombs),
        cmocka_unit_test(missing_parts_are_said_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
