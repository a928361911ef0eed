// Packing here goes bit by bit and shares nothing with the code under test.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "set_maker.h"
#include "store/label_compare.h"

#include <stdlib.h>
#include <string.h>

#include "base/f16.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

// Field i of a stream whose words are `stride` words apart, bit by bit.
static void put_field(uint32_t *to, size_t stride, size_t i, int bits, unsigned value) {
    for (size_t b = 0; b < (size_t)bits; b++) {
        size_t at = i * (size_t)bits + b;
        to[at / 32 * stride] |= (uint32_t)(value >> b & 1) << at % 32;
    }
}

unsigned draw(uint64_t stream, size_t i, unsigned below) {
    return (unsigned)(qn_rng_u64(5, stream, i) % below);
}

matrix mx;

void make_matrix(size_t out, size_t in, size_t group, int bits, bool sym) {
    mx = (matrix){.out = out, .in = in, .n_groups = (in + group - 1) / group, .bits = bits};
    for (size_t i = 0; i < in; i++) mx.g_idx[i] = (int32_t)(i / group);
    for (size_t o = 0; o < out; o++) {
        for (size_t i = 0; i < in; i++) mx.codes[o][i] = draw(o, i, 1u << bits);
        for (size_t g = 0; g < mx.n_groups; g++) {
            mx.zeros[o][g] = sym ? 1u << (bits - 1) : draw(1000 + o, g, 1u << bits);
            mx.scales[o][g] = qn_bf16_to_f32((uint16_t)(0x3C00 + draw(2000 + o, g, 256)));
            if (draw(3000 + o, g, 2)) mx.scales[o][g] *= -1;
        }
    }
}

static float value(size_t o, size_t i) {
    size_t g = (size_t)mx.g_idx[i];
    return mx.scales[o][g] * (float)((int)mx.codes[o][i] - (int)mx.zeros[o][g]);
}

uint32_t words[3][MAX_OUT * MAX_IN];
uint16_t scales16[MAX_OUT * MAX_IN];

void write_folder(const char *dir, const char *label, const st_tensor *list, size_t n) {
    char *config = label ? qn_strf("{\"quantization_config\":%s}", label) : qn_strdup("{}");
    temp_text(dir, "config.json", config);
    st_write(dir, "model.safetensors", list, n);
    free(config);
}

// GPTQ: the stored zero is less by `offset`, under the mask.
size_t gptq_tensors(st_tensor list[4], int offset, bool with_g_idx) {
    size_t b = (size_t)mx.bits, mask = (1u << mx.bits) - 1;
    memset(words, 0, sizeof words);
    for (size_t o = 0; o < mx.out; o++) {
        for (size_t i = 0; i < mx.in; i++)
            put_field(words[0] + o, mx.out, i, mx.bits, mx.codes[o][i]);
        for (size_t g = 0; g < mx.n_groups; g++) {
            put_field(words[1] + g * mx.out * b / 32, 1, o, mx.bits,
                      (mx.zeros[o][g] - (unsigned)offset) & (unsigned)mask);
            scales16[g * mx.out + o] = qn_f32_to_bf16(mx.scales[o][g]);
        }
    }
    list[0] = (st_tensor){"p.q.qweight", QN_DT_I32, 2, {mx.in * b / 32, mx.out}, words[0]};
    list[1] = (st_tensor){"p.q.qzeros", QN_DT_I32, 2, {mx.n_groups, mx.out * b / 32}, words[1]};
    list[2] = (st_tensor){"p.q.scales", QN_DT_BF16, 2, {mx.n_groups, mx.out}, scales16};
    list[3] = (st_tensor){"p.q.g_idx", QN_DT_I32, 1, {mx.in}, mx.g_idx};
    return with_g_idx ? 4 : 3;
}

qn_ckpt *open_ok(const char *dir, const qn_weight **w) {
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    if (!c || !qn_ckpt_weights(c, NULL, NULL, &err)) fail_msg("%s", err.text);
    *w = qn_ckpt_weight(c, "p.q.weight");
    assert_non_null(*w);
    return c;
}

void check_values(const qn_weight *w) {
    qn_err err = {0};
    qn_mat mat;
    float *row = malloc(w->cols * sizeof *row), *packed = malloc(w->cols * sizeof *row);
    assert_true(w->rows == mx.out && w->cols == mx.in);
    assert_true(qn_weight_load(w, 0, w->rows, QN_STORED, NULL, &mat, &err));
    for (size_t o = 0; o < mx.out; o++) {
        assert_true(qn_weight_decode(w, o, 1, row, &err));
        qn_mat_row(&mat, o, packed);
        for (size_t i = 0; i < mx.in; i++) {
            float v = value(o, i);
            if (memcmp(&v, &row[i], 4) != 0)
                fail_msg("%d bits [%zu, %zu]: %g, expected %g", mx.bits, o, i, (double)row[i],
                         (double)v);
            assert_memory_equal(&packed[i], &row[i], 4);
        }
    }
    qn_mat_done(&mat);
    free(row);
    free(packed);
}

void expect_refused(const char *dir, qn_code code, const char *message) {
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    assert_non_null(c);
    if (qn_ckpt_weights(c, NULL, NULL, &err)) fail_msg("taken, expected: %s", message);
    if (!strstr(err.text, message)) fail_msg("found %s, expected %s", err.text, message);
    assert_int_equal(err.code, code);
    qn_ckpt_free(c);
    // Tolerantly it is a damage or a wrong label, and the rest can be used.
    err = (qn_err){0};
    c = qn_ckpt_open(dir, QN_CKPT_TOLERANT, &err);
    assert_true(c && qn_ckpt_weights(c, NULL, NULL, &err));
    assert_true(qn_ckpt_n_damages(c) > 0 || qn_ckpt_label_fault(c));
    qn_ckpt_free(c);
}

size_t gemv_tensors(st_tensor list[3], size_t zero_words) {
    memset(words, 0, sizeof words);
    memset(scales16, 0, sizeof scales16);
    for (size_t o = 0; o < mx.out; o++) {
        for (size_t i = 0; i < mx.in; i++)
            put_field(words[0] + o * mx.in / 8, 1, i, 4, mx.codes[o][i]);
        for (size_t g = 0; g < mx.n_groups; g++) {
            put_field(words[1] + o * zero_words, 1, g, 4, mx.zeros[o][g]);
            scales16[o * 8 * zero_words + g] = qn_f32_to_bf16(mx.scales[o][g]);
        }
    }
    list[0] = (st_tensor){"p.q.qweight", QN_DT_I32, 2, {mx.out, mx.in / 8}, words[0]};
    list[1] = (st_tensor){"p.q.qzeros", QN_DT_I32, 2, {mx.out, zero_words}, words[1]};
    list[2] = (st_tensor){"p.q.scales", QN_DT_BF16, 2, {mx.out, 8 * zero_words}, scales16};
    return 3;
}

int64_t ct_shape[2];

size_t ct_tensors(st_tensor list[5], bool with_zeros, bool with_g_idx) {
    size_t b = (size_t)mx.bits, row = (mx.in * b + 31) / 32, n = 0;
    memset(words, 0, sizeof words);
    for (size_t o = 0; o < mx.out; o++) {
        for (size_t i = 0; i < mx.in; i++)
            put_field(words[0] + o * row, 1, i, mx.bits, mx.codes[o][i]);
        for (size_t g = 0; g < mx.n_groups; g++) {
            put_field(words[1] + g, mx.n_groups, o, mx.bits, mx.zeros[o][g]);
            scales16[o * mx.n_groups + g] = qn_f32_to_bf16(mx.scales[o][g]);
        }
    }
    ct_shape[0] = (int64_t)mx.out;
    ct_shape[1] = (int64_t)mx.in;
    list[n++] = (st_tensor){"p.q.weight_packed", QN_DT_I32, 2, {mx.out, row}, words[0]};
    list[n++] = (st_tensor){"p.q.weight_scale", QN_DT_BF16, 2, {mx.out, mx.n_groups}, scales16};
    list[n++] = (st_tensor){"p.q.weight_shape", QN_DT_I64, 1, {2}, ct_shape};
    size_t zero_words = (mx.out * b + 31) / 32;
    if (with_zeros)
        list[n++] = (st_tensor){"p.q.weight_zero_point", QN_DT_I32, 2, {zero_words, mx.n_groups},
                                words[1]};
    if (with_g_idx) list[n++] = (st_tensor){"p.q.weight_g_idx", QN_DT_I32, 1, {mx.in}, mx.g_idx};
    return n;
}

void expect_label_error(const qn_ckpt *c, const char *message) {
    for (size_t i = 0; i < qn_ckpt_n_label_errors(c); i++)
        if (strstr(qn_ckpt_label_error(c, i), message)) return;
    fail_msg("%zu label errors, none says: %s", qn_ckpt_n_label_errors(c), message);
}
