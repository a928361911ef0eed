// Sets of AWQ, compressed-tensors and fp8: every width and shape of scales, what does not fit, and
// random damage to any of them.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/f16.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "set_maker.h"

// ---- AWQ ----

// Two groups of 64 of 128 inputs: the shapes alone would do for GPTQ with groups of 8 as well.
static void a_set_that_two_schemes_fit_follows_the_label(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    st_tensor list[3];
    const qn_weight *w;
    make_matrix(32, 128, 64, 4, false);
    write_folder(dir, "{\"quant_method\":\"awq\",\"version\":\"gemv\",\"bits\":4,"
                 "\"group_size\":64}", list, gemv_tensors(list, 2));
    qn_ckpt *c = open_ok(dir, &w);
    assert_string_equal(w->layout, "awq-gemv");
    check_values(w);
    assert_int_equal(qn_ckpt_n_label_errors(c), 0);
    qn_ckpt_free(c);
    temp_dir_free(dir);
}

static void awq_under_another_label(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    st_tensor list[3];
    const qn_weight *w;
    make_matrix(32, 256, 64, 4, false);
    write_folder(dir, "{\"quant_method\":\"gptq\",\"version\":\"gemv\",\"bits\":4,"
                 "\"group_size\":64}", list, gemv_tensors(list, 2));
    qn_ckpt *c = open_ok(dir, &w);
    assert_string_equal(w->layout, "awq-gemv");
    check_values(w);
    expect_label_error(c, "the method is gptq, but the tensors are awq");
    qn_ckpt_free(c);
    temp_dir_free(dir);
}

static void awq_groups_have_to_divide(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    memset(words, 0, sizeof words);
    st_tensor gemm[] = {{"p.q.qweight", QN_DT_I32, 2, {100, 4}, words[0]},
                        {"p.q.qzeros", QN_DT_I32, 2, {3, 4}, words[1]},
                        {"p.q.scales", QN_DT_F16, 2, {3, 32}, words[2]}};
    write_folder(dir, "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":34}", gemm, 3);
    expect_refused(dir, QN_INPUT,
                   "p.q.weight: 100 inputs in 3 groups: the group size does not divide");
    st_tensor gemv[] = {{"p.q.qweight", QN_DT_I32, 2, {16, 25}, words[0]},
                        {"p.q.qzeros", QN_DT_I32, 2, {16, 3}, words[1]},
                        {"p.q.scales", QN_DT_F16, 2, {16, 24}, words[2]}};
    write_folder(dir, "{\"quant_method\":\"awq\",\"bits\":4,\"version\":\"gemv\"}", gemv, 3);
    expect_refused(dir, QN_INPUT,
                   "tensor p.q.qzeros: I32 [16, 3], expected as many words of zeros");
    temp_dir_free(dir);
}

// ---- compressed-tensors ----

static void ct_widths(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    for (int bits = 1; bits <= 8; bits++)
        for (int sym = 0; sym < 2; sym++)
            for (int act = 0; act < 2; act++) {
                st_tensor list[5];
                const qn_weight *w;
                make_matrix(23, 72, 24, bits, sym); // fields straddle words, rows end within one
                for (size_t i = 0; act && i < 72; i++) mx.g_idx[i * 29 % 72] = (int32_t)(i / 24);
                char *label = qn_strf("{\"quant_method\":\"compressed-tensors\",\"format\":"
                                      "\"pack-quantized\",\"config_groups\":{\"g\":{\"targets\":"
                                      "[\"Linear\"],\"weights\":{\"num_bits\":%d,\"group_size\":24,"
                                      "\"symmetric\":%s}}}}", bits, sym ? "true" : "false");
                write_folder(dir, label, list, ct_tensors(list, !sym, act));
                qn_ckpt *c = open_ok(dir, &w);
                check_values(w);
                assert_true(w->bits == bits && w->sym == sym && w->act_order == act);
                assert_int_equal(qn_ckpt_n_label_errors(c), 0);
                qn_ckpt_free(c);
                free(label);
            }
    temp_dir_free(dir);
}

// Codes said to be asymmetric mean nothing without their zeros.
static void ct_zeros_that_are_lost(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    for (int sym = 0; sym < 2; sym++) {
        st_tensor list[5];
        const qn_weight *w;
        make_matrix(24, 64, 32, 4, true);
        char *label = qn_strf("{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\","
                              "\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{"
                              "\"num_bits\":4,\"group_size\":32,\"symmetric\":%s}}}}",
                              sym ? "true" : "false");
        write_folder(dir, label, list, ct_tensors(list, false, false));
        if (sym) {
            qn_ckpt *c = open_ok(dir, &w);
            check_values(w);
            qn_ckpt_free(c);
        } else {
            expect_refused(dir, QN_NOT_FOUND, "tensor p.q.weight_zero_point is missing, and the "
                           "config says that p.q.weight_packed is not symmetric");
        }
        free(label);
    }
    temp_dir_free(dir);
}

static void ct_format_that_lies(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    st_tensor list[5];
    const qn_weight *w;
    make_matrix(24, 64, 32, 4, true);
    write_folder(dir, CT, list, ct_tensors(list, false, false));
    qn_ckpt *c = open_ok(dir, &w);
    check_values(w);
    expect_label_error(c, "format is int-quantized, but the tensors are pack-quantized: p.q.weight");
    qn_ckpt_free(c);
    temp_dir_free(dir);
}

static void ct_int8_with_zeros(void **state) {
    (void)state;
    static int8_t bytes[16 * 48], zeros[16];
    static uint16_t scales[16];
    char *dir = temp_dir_new();
    const qn_weight *w;
    make_matrix(16, 48, 48, 8, false);
    for (size_t o = 0; o < 16; o++) {
        for (size_t i = 0; i < 48; i++) bytes[o * 48 + i] = (int8_t)((int)mx.codes[o][i] - 128);
        zeros[o] = (int8_t)((int)mx.zeros[o][0] - 128);
        scales[o] = qn_f32_to_bf16(mx.scales[o][0]);
    }
    st_tensor list[] = {{"p.q.weight", QN_DT_I8, 2, {16, 48}, bytes},
                        {"p.q.weight_scale", QN_DT_BF16, 2, {16, 1}, scales},
                        {"p.q.weight_zero_point", QN_DT_I8, 2, {16, 1}, zeros},
                        {"p.q.input_scale", QN_DT_BF16, 1, {1}, scales}};
    write_folder(dir, CT, list, 4);
    qn_ckpt *c = open_ok(dir, &w);
    const qn_weight *all;
    size_t n;
    qn_err err = {0};
    check_values(w);
    assert_true(qn_ckpt_weights(c, &all, &n, &err));
    assert_int_equal(n, 1); // the activation's scale is no weight
    qn_ckpt_free(c);
    write_folder(dir, CT, list, 1);
    expect_refused(dir, QN_NOT_FOUND,
                   "tensor p.q.weight_scale is missing, and p.q.weight is there");
    list[0].dtype = QN_DT_BF16;
    list[0].shape[1] = 24;
    write_folder(dir, CT, list, 2);
    expect_refused(dir, QN_INPUT, "tensor p.q.weight is BF16, which does not go with "
                   "p.q.weight_scale");
    temp_dir_free(dir);
}

static void ct_shapes_are_checked(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    st_tensor list[5];
    make_matrix(16, 64, 32, 4, false);
    size_t n = ct_tensors(list, true, false);
    ct_shape[1] = (int64_t)1 << 40;
    write_folder(dir, CT, list, n);
    expect_refused(dir, QN_INPUT, "tensor p.q.weight_shape holds 16 and 1099511627776");
    ct_shape[0] = -16;
    ct_shape[1] = 64;
    write_folder(dir, CT, list, n);
    expect_refused(dir, QN_INPUT, "holds -16 and 64, expected 16 rows");
    ct_shape[0] = 16;
    list[3].shape[0] = 1;
    write_folder(dir, CT, list, n);
    expect_refused(dir, QN_INPUT, "tensor p.q.weight_zero_point: I32 [1, 2], expected [2, 2]");
    temp_dir_free(dir);
}

// ---- fp8 ----

static void fp8_factors_of_every_shape(void **state) {
    (void)state;
    static uint8_t codes[48 * 40];
    static float factors[48 * 40];
    static const struct {
        int n_dims;
        size_t shape[2], down, across; // a factor is for down by across weights
        const char *name, *layout;
    } cases[] = {
        {0, {0}, 48, 40, "p.q.weight_scale", "fp8-tensor"},
        {1, {1}, 48, 40, "p.q.weight_scale", "fp8-tensor"},
        {1, {48}, 1, 40, "p.q.weight_scale", "fp8-channel"},
        {2, {48, 1}, 1, 40, "p.q.weight_scale", "fp8-channel"},
        {2, {3, 3}, 16, 16, "p.q.weight_scale_inv", "fp8-block"},
        {2, {48, 5}, 1, 8, "p.q.weight_scale", "fp8-block"},
    };
    char *dir = temp_dir_new();
    for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)(draw(1, i, 255) & 0xFE);
    for (size_t i = 0; i < 48 * 40; i++) factors[i] = 0.5f + (float)i * 0.01f;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const qn_weight *w;
        qn_err err = {0};
        float row[40], packed[40];
        qn_mat mat;
        st_tensor list[] = {{"p.q.weight", QN_DT_F8_E4M3, 2, {48, 40}, codes},
                            {cases[k].name, QN_DT_F32, cases[k].n_dims,
                             {cases[k].shape[0], cases[k].shape[1]}, factors}};
        write_folder(dir, "{\"quant_method\":\"fp8\",\"weight_block_size\":[16,16]}", list, 2);
        qn_ckpt *c = open_ok(dir, &w);
        assert_string_equal(w->layout, cases[k].layout);
        assert_true(qn_weight_load(w, 0, 48, QN_STORED, NULL, &mat, &err));
        size_t per_row = (40 + cases[k].across - 1) / cases[k].across;
        for (size_t o = 0; o < 48; o++) {
            assert_true(qn_weight_decode(w, o, 1, row, &err));
            qn_mat_row(&mat, o, packed);
            for (size_t i = 0; i < 40; i++) {
                float f = factors[o / cases[k].down * per_row + i / cases[k].across];
                float v = f * qn_f8e4m3_to_f32(codes[o * 40 + i]);
                assert_memory_equal(&v, &row[i], 4);
                assert_memory_equal(&v, &packed[i], 4);
            }
        }
        qn_mat_done(&mat);
        qn_ckpt_free(c);
    }
    st_tensor odd[] = {{"p.q.weight", QN_DT_F8_E4M3, 2, {48, 40}, codes},
                       {"p.q.weight_scale_inv", QN_DT_F32, 2, {5, 1}, factors}};
    write_folder(dir, "{\"quant_method\":\"fp8\"}", odd, 2);
    expect_refused(dir, QN_INPUT, "tensor p.q.weight_scale_inv: F32 [5, 1], expected [1, 1]: blocks "
                   "of 128 by 128 that tile [48, 40]");
    write_folder(dir, "{\"quant_method\":\"fp8\"}", odd, 1);
    expect_refused(dir, QN_NOT_FOUND, "tensor p.q.weight_scale_inv is missing");
    temp_dir_free(dir);
}

// Two matrices in blocks of 128; the second has lost its last row of factors. What is left looks like
// one large block, or like blocks of a size that blocks do not have.
static void fp8_factors_that_got_lost(void **state) {
    (void)state;
    static uint8_t codes[320 * 128];
    static const uint16_t factors[3] = {0x3F80, 0x3F80, 0x3F80};
    static const char *const labels[] = {
        "{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}", "{\"quant_method\":\"fp8\"}"};
    static const size_t rows[] = {256, 320};
    char *dir = temp_dir_new();
    for (size_t l = 0; l < 2; l++)
        for (size_t k = 0; k < 2; k++) {
            size_t down = (rows[k] + 127) / 128;
            st_tensor list[] = {{"p.k.weight", QN_DT_F8_E4M3, 2, {320, 128}, codes},
                                {"p.k.weight_scale_inv", QN_DT_BF16, 2, {3, 1}, factors},
                                {"p.q.weight", QN_DT_F8_E4M3, 2, {rows[k], 128}, codes},
                                {"p.q.weight_scale_inv", QN_DT_BF16, 2, {down - 1, 1}, factors}};
            write_folder(dir, labels[l], list, 4);
            char *message = qn_strf("tensor p.q.weight_scale_inv: BF16 [%zu, 1], expected [%zu, 1]: "
                                    "blocks of 128 by 128", down - 1, down);
            expect_refused(dir, QN_INPUT, message);
            free(message);
            list[3].shape[0] = down;
            const qn_weight *w;
            write_folder(dir, labels[l], list, 4);
            qn_ckpt_free(open_ok(dir, &w));
        }
    temp_dir_free(dir);
}

// ---- damage ----

// Everything that can be asked of a folder, whatever is in it.
static void use_all(const char *dir, unsigned flags) {
    qn_err err = {0};
    const qn_weight *list;
    size_t n;
    qn_ckpt *c = qn_ckpt_open(dir, flags, &err);
    if (!c || !qn_ckpt_weights(c, &list, &n, &err)) {
        assert_true(err.text[0] != 0);
        qn_ckpt_free(c);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const qn_weight *w = &list[i];
        qn_mat mat;
        if (w->parts[0]->bytes > 1 << 20 || w->cols > 1 << 16 || !w->rows || !w->cols) continue;
        float *row = malloc(w->cols * sizeof *row);
        for (size_t r = 0; r < w->rows; r += w->rows / 3 + 1)
            if (!qn_weight_decode(w, r, 1, row, &err)) break;
        if (qn_weight_load(w, 0, w->rows, QN_STORED, NULL, &mat, &err)) qn_mat_row(&mat, 0, row);
        qn_mat_done(&mat);
        free(row);
    }
    qn_ckpt_free(c);
}

// Digits of the header and bytes of the data are changed at random.
static void mutate(char *file, size_t n, uint64_t round) {
    uint64_t header;
    memcpy(&header, file, 8);
    for (uint64_t k = 0; k <= round % 3; k++) {
        uint64_t r = qn_rng_u64(11, round, k);
        size_t at = 8 + (size_t)(r % (round % 5 ? header : n - 8));
        bool digit = file[at] >= '0' && file[at] <= '9' && at < 8 + header;
        if (digit) file[at] = (char)('0' + (r >> 40) % 10);
        else if (at >= 8 + header || round % 7 == 0) file[at] = (char)(r >> 32);
        else k += r >> 63; // try another place, but not forever
    }
}

#define ROUNDS 120

static void damaged_sets_are_survived(void **state) {
    (void)state;
    static const char *const labels[] = {GPTQ("gptq", "false"), CT, "{\"quant_method\":\"awq\"}"};
    char *dir = temp_dir_new(), *path = qn_strf("%s/model.safetensors", dir);
    for (size_t kind = 0; kind < 3; kind++) {
        st_tensor list[5];
        qn_buf good = {0};
        make_matrix(32, 128, 32, 4, false);
        size_t n = kind == 0 ? gptq_tensors(list, 1, true)
                 : kind == 1 ? ct_tensors(list, true, true) : gemv_tensors(list, 4);
        write_folder(dir, labels[kind], list, n);
        assert_true(qn_file_read(path, 1 << 20, &good, NULL));
        for (uint64_t round = 0; round < ROUNDS; round++) {
            char *bad = malloc(good.n);
            memcpy(bad, good.data, good.n);
            mutate(bad, good.n, round);
            temp_write(dir, "model.safetensors", bad, good.n);
            use_all(dir, 0);
            use_all(dir, QN_CKPT_TOLERANT);
            free(bad);
        }
        qn_buf_done(&good);
    }
    free(path);
    temp_dir_free(dir);
}

static int quiet(void **state) {
    (void)state;
    qn_log_set_quiet(true);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_set_that_two_schemes_fit_follows_the_label),
        cmocka_unit_test(awq_under_another_label),
        cmocka_unit_test(awq_groups_have_to_divide),
        cmocka_unit_test(ct_widths),
        cmocka_unit_test(ct_zeros_that_are_lost),
        cmocka_unit_test(ct_format_that_lies),
        cmocka_unit_test(ct_int8_with_zeros),
        cmocka_unit_test(ct_shapes_are_checked),
        cmocka_unit_test(fp8_factors_of_every_shape),
        cmocka_unit_test(fp8_factors_that_got_lost),
        cmocka_unit_test(damaged_sets_are_survived),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
