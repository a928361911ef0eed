// The second decoder against store's schemes, element by element, on layouts that leave a choice:
// small sets of tensors made here, no model around them. Both read every weight, and neither knows
// how the other does.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "quant/second_decoder.h"
#include "store/shard_writer.h"
#include "store/weight.h"
#include "support/scratch.h"

typedef struct part {
    const char *name;
    qn_dtype dtype;
    size_t rows, cols;
    void *data;
} part;

static uint32_t noise(size_t i) {
    uint32_t x = (uint32_t)i * 2654435761u + 12345u;
    x ^= x >> 15;
    x *= 2246822519u;
    return x ^ x >> 13;
}

static void *words(size_t n) {
    uint32_t *w = malloc(4 * n);
    for (size_t i = 0; i < n; i++) w[i] = noise(i);
    return w;
}

static void *same_words(size_t n, uint32_t v) {
    uint32_t *w = malloc(4 * n);
    for (size_t i = 0; i < n; i++) w[i] = v;
    return w;
}

static void *halves(size_t n) { // finite, positive, all different: 0.01 and more
    uint16_t *h = malloc(2 * n);
    for (size_t i = 0; i < n; i++) h[i] = (uint16_t)(0x2000 + i % 0x1400);
    return h;
}

static void *finite_bytes(size_t n) { // as e4m3: never NaN
    uint8_t *b = malloc(n);
    for (size_t i = 0; i < n; i++) b[i] = (uint8_t)(noise(i) & 0xF7);
    return b;
}

static void *shape_of(int64_t rows, int64_t cols) {
    int64_t *v = malloc(16);
    v[0] = rows;
    v[1] = cols;
    return v;
}

static char *write_folder(part *parts, size_t n, const char *quant) {
    qn_err err = {0};
    char *dir = scratch_path("layout");
    assert_int_equal(mkdir(dir, 0700), 0);
    qn_shards *s = qn_shards_new(dir, "model", 0, NULL, &err);
    for (size_t i = 0; i < n; i++) {
        size_t shape[2] = {parts[i].rows, parts[i].cols};
        if (!parts[i].cols) shape[0] = parts[i].rows;
        if (!qn_shards_declare(s, parts[i].name, parts[i].dtype, shape, parts[i].cols ? 2 : 1, &err))
            fail_msg("%s", err.text);
    }
    for (size_t i = 0; i < n; i++) {
        size_t count = parts[i].rows * (parts[i].cols ? parts[i].cols : 1);
        assert_true(qn_shards_add(s, parts[i].data, count * qn_dtype_bytes(parts[i].dtype), &err));
        free(parts[i].data);
    }
    assert_true(qn_shards_finish(s, &err));
    qn_shards_free(s);
    char *path = qn_path_join(dir, "config.json"), text[1024];
    snprintf(text, sizeof text, "{\"quantization_config\": %s}", quant);
    assert_true(qn_file_write(path, text, strlen(text), &err));
    free(path);
    return dir;
}

// Reads w.weight twice; group: inputs per scale that have to come out.
static void both_agree(part *parts, size_t n, const char *quant, const char *layout, size_t group) {
    qn_err err = {0};
    char *dir = write_folder(parts, n, quant);
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    const qn_weight *list;
    size_t n_weights;
    if (!c || !qn_ckpt_weights(c, &list, &n_weights, &err)) fail_msg("%s", err.text);
    const qn_weight *w = qn_ckpt_weight(c, "w.weight");
    assert_non_null(w);
    assert_string_equal(w->layout, layout);
    assert_int_equal(w->group, group);
    qn_second *second = qn_second_new(c, qn_second_zero_offset(c), "w.weight", &err);
    if (!second) fail_msg("%s", err.text);
    float *row = malloc(w->cols * sizeof *row);
    for (size_t r = 0; r < w->rows; r++) {
        assert_true(qn_weight_decode(w, r, 1, row, &err));
        for (size_t i = 0; i < w->cols; i++)
            if (row[i] != qn_second_value(second, r, i))
                fail_msg("%s at [%zu, %zu]: %g and %g", quant, r, i, (double)row[i],
                         (double)qn_second_value(second, r, i));
    }
    free(row);
    qn_second_free(second);
    qn_ckpt_free(c);
    scratch_remove(dir);
}

static void gemv_that_looks_like_gptq(void **state) {
    (void)state; // qweight and scales are both [128, 16]
    part p[] = {{"w.qweight", QN_DT_I32, 128, 16, words(128 * 16)},
                {"w.qzeros", QN_DT_I32, 128, 2, words(128 * 2)},
                {"w.scales", QN_DT_F16, 128, 16, halves(128 * 16)}};
    both_agree(p, 3, "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 64, "
               "\"version\": \"gemv\", \"zero_point\": true}", "awq-gemv", 64);
}

static void gemv_with_one_group(void **state) {
    (void)state;
    part p[] = {{"w.qweight", QN_DT_I32, 24, 40, words(24 * 40)},
                {"w.qzeros", QN_DT_I32, 24, 1, words(24)},
                {"w.scales", QN_DT_F16, 24, 8, halves(24 * 8)}};
    both_agree(p, 3, "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": -1, "
               "\"version\": \"gemv\", \"zero_point\": true}", "awq-gemv", 320);
}

static void a_short_last_group(void **state) {
    (void)state; // 192 inputs in 128 + 64, though 96 + 96 would fit as well
    part p[] = {{"w.weight_packed", QN_DT_I32, 16, 24, words(16 * 24)},
                {"w.weight_scale", QN_DT_BF16, 16, 2, halves(32)},
                {"w.weight_shape", QN_DT_I64, 2, 0, shape_of(16, 192)}};
    both_agree(p, 3, "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", "
               "\"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": "
               "{\"num_bits\": 4, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"group\", "
               "\"group_size\": 128}}}}", "ct-pack", 128);
}

static void a_narrow_packed_matrix(void **state) {
    (void)state; // 16 inputs: 3 and 4 bits both take two words
    part p[] = {{"w.weight_packed", QN_DT_I32, 8, 2, words(16)},
                {"w.weight_scale", QN_DT_BF16, 8, 1, halves(8)},
                {"w.weight_shape", QN_DT_I64, 2, 0, shape_of(8, 16)}};
    both_agree(p, 3, "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", "
               "\"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": "
               "{\"num_bits\": 3, \"type\": \"int\", \"symmetric\": true, "
               "\"strategy\": \"channel\"}}}}", "ct-pack", 16);
}

static void blocks_of_their_own_size(void **state) {
    (void)state;
    part p[] = {{"w.weight", QN_DT_F8_E4M3, 160, 200, finite_bytes(160 * 200)},
                {"w.weight_scale", QN_DT_BF16, 3, 4, halves(12)}};
    both_agree(p, 2, "{\"quant_method\": \"compressed-tensors\", \"format\": \"float-quantized\", "
               "\"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": "
               "{\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"block\", "
               "\"block_structure\": [64, 64]}}}}", "fp8-block", 64);
}

static void an_index_of_minus_ones(void **state) {
    (void)state;
    part p[] = {{"w.qweight", QN_DT_I32, 8, 16, words(8 * 16)},
                {"w.qzeros", QN_DT_I32, 2, 2, same_words(4, 0x77777777u)},
                {"w.scales", QN_DT_F16, 2, 16, halves(32)},
                {"w.g_idx", QN_DT_I32, 64, 0, same_words(64, UINT32_MAX)}};
    both_agree(p, 4, "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32, \"sym\": true}",
               "gptq", 32);
}

// Codes scatter around zero points that vary, so the content shows how zeros are stored, whatever
// the label says. Every `one_sided`-th output has codes above the zero point 0 only.
static void zeros_and_codes(part p[3], unsigned less, size_t one_sided) {
    uint32_t *q = calloc(32 * 64, 4), *z = calloc(2 * 8, 4);
    for (size_t g = 0; g < 2; g++)
        for (size_t o = 0; o < 64; o++) {
            bool above = one_sided && o % one_sided == 0;
            uint32_t zero = above ? 0 : 4 + noise(g * 64 + o) % 8;
            z[g * 8 + o / 8] |= ((zero - less) & 15u) << 4 * (o % 8);
            for (size_t i = 0; i < 128; i++) {
                uint32_t code = (above ? 3 : zero) - 3 + noise(1000 + (g * 128 + i) * 64 + o) % 7;
                q[(g * 16 + i / 8) * 64 + o] |= code << 4 * (i % 8);
            }
        }
    p[0] = (part){"w.qweight", QN_DT_I32, 32, 64, q};
    p[1] = (part){"w.qzeros", QN_DT_I32, 2, 8, z};
    p[2] = (part){"w.scales", QN_DT_F16, 2, 64, halves(128)};
}

static void labels_that_lie_about_zeros(void **state) {
    (void)state;
    part p[3];
    zeros_and_codes(p, 0, 0);
    both_agree(p, 3, "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, "
               "\"sym\": false, \"checkpoint_format\": \"gptq\"}", "gptq_v2", 128);
    zeros_and_codes(p, 1, 0);
    both_agree(p, 3, "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, "
               "\"sym\": false, \"checkpoint_format\": \"gptq_v2\"}", "gptq", 128);
}

// Stored as 15, a zero point 0 must not make a right label look like a lie.
static void zero_points_of_zero(void **state) {
    (void)state;
    part p[3];
    zeros_and_codes(p, 1, 16);
    both_agree(p, 3, "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, "
               "\"sym\": false, \"checkpoint_format\": \"gptq\"}", "gptq", 128);
}

// However many tensors lie around them, the packed ones are found.
static void packed_tensors_among_many(void **state) {
    (void)state;
    enum { MORE = 600 };
    part *p = calloc(MORE + 3, sizeof *p);
    char names[MORE][16];
    zeros_and_codes(p, 0, 0);
    for (int i = 0; i < MORE; i++) { // in the file's order, a is before w
        snprintf(names[i], sizeof names[i], "a.%d.bias", i);
        p[3 + i] = (part){names[i], QN_DT_F32, 4, 0, same_words(4, 0)};
    }
    part first = p[0];
    p[0] = p[4];
    p[4] = first; // not at a round place
    both_agree(p, MORE + 3, "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, "
               "\"sym\": false, \"checkpoint_format\": \"gptq\"}", "gptq_v2", 128);
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemv_that_looks_like_gptq), cmocka_unit_test(gemv_with_one_group),
        cmocka_unit_test(a_short_last_group),        cmocka_unit_test(a_narrow_packed_matrix),
        cmocka_unit_test(blocks_of_their_own_size),  cmocka_unit_test(an_index_of_minus_ones),
        cmocka_unit_test(labels_that_lie_about_zeros), cmocka_unit_test(zero_points_of_zero),
        cmocka_unit_test(packed_tensors_among_many),
    };
    qn_log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
