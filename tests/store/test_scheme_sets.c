// Small quantized sets made here, one field at a time: every width, groups in any order, zeros that
// prove the label wrong, and sets that are not whole.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/f16.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "store/weight.h"
#include "temp_model.h"

// Field i of a stream whose words are `stride` words apart, bit by bit.
static void put_field(uint32_t *words, size_t stride, size_t i, int bits, unsigned value) {
    for (size_t b = 0; b < (size_t)bits; b++) {
        size_t at = i * (size_t)bits + b;
        words[at / 32 * stride] |= (uint32_t)(value >> b & 1) << at % 32;
    }
}

static unsigned draw(uint64_t stream, size_t i, unsigned below) {
    return (unsigned)(qn_rng_u64(5, stream, i) % below);
}

// A matrix as plainly as it can be said.
#define MAX_OUT 64
#define MAX_IN 512
typedef struct matrix {
    size_t out, in, n_groups;
    int bits;
    unsigned codes[MAX_OUT][MAX_IN], zeros[MAX_OUT][MAX_IN];
    float scales[MAX_OUT][MAX_IN];
    int32_t g_idx[MAX_IN];
} matrix;

static matrix m;

static void make_matrix(size_t out, size_t in, size_t group, int bits, bool sym) {
    m = (matrix){.out = out, .in = in, .n_groups = (in + group - 1) / group, .bits = bits};
    for (size_t i = 0; i < in; i++) m.g_idx[i] = (int32_t)(i / group);
    for (size_t o = 0; o < out; o++) {
        for (size_t i = 0; i < in; i++) m.codes[o][i] = draw(o, i, 1u << bits);
        for (size_t g = 0; g < m.n_groups; g++) {
            m.zeros[o][g] = sym ? 1u << (bits - 1) : draw(1000 + o, g, 1u << bits);
            m.scales[o][g] = qn_bf16_to_f32((uint16_t)(0x3C00 + draw(2000 + o, g, 256)));
            if (draw(3000 + o, g, 2)) m.scales[o][g] *= -1;
        }
    }
}

static float value(size_t o, size_t i) {
    size_t g = (size_t)m.g_idx[i];
    return m.scales[o][g] * (float)((int)m.codes[o][i] - (int)m.zeros[o][g]);
}

static uint32_t words[3][MAX_OUT * MAX_IN];
static uint16_t scales16[MAX_OUT * MAX_IN];

static void write_folder(const char *dir, const char *label, const st_tensor *list, size_t n) {
    char *config = label ? qn_strf("{\"quantization_config\":%s}", label) : qn_strdup("{}");
    temp_text(dir, "config.json", config);
    st_write(dir, "model.safetensors", list, n);
    free(config);
}

// GPTQ: the stored zero is less by `offset`, under the mask.
static size_t gptq_tensors(st_tensor list[4], int offset, bool with_g_idx) {
    size_t b = (size_t)m.bits, mask = (1u << m.bits) - 1;
    memset(words, 0, sizeof words);
    for (size_t o = 0; o < m.out; o++) {
        for (size_t i = 0; i < m.in; i++) put_field(words[0] + o, m.out, i, m.bits, m.codes[o][i]);
        for (size_t g = 0; g < m.n_groups; g++) {
            put_field(words[1] + g * m.out * b / 32, 1, o, m.bits,
                      (m.zeros[o][g] - (unsigned)offset) & (unsigned)mask);
            scales16[g * m.out + o] = qn_f32_to_bf16(m.scales[o][g]);
        }
    }
    list[0] = (st_tensor){"p.q.qweight", QN_DT_I32, 2, {m.in * b / 32, m.out}, words[0]};
    list[1] = (st_tensor){"p.q.qzeros", QN_DT_I32, 2, {m.n_groups, m.out * b / 32}, words[1]};
    list[2] = (st_tensor){"p.q.scales", QN_DT_BF16, 2, {m.n_groups, m.out}, scales16};
    list[3] = (st_tensor){"p.q.g_idx", QN_DT_I32, 1, {m.in}, m.g_idx};
    return with_g_idx ? 4 : 3;
}

static qn_ckpt *open_ok(const char *dir, const qn_weight **w) {
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    if (!c || !qn_ckpt_weights(c, NULL, NULL, &err)) fail_msg("%s", err.text);
    *w = qn_ckpt_weight(c, "p.q.weight");
    assert_non_null(*w);
    return c;
}

static void check_values(const qn_weight *w) {
    qn_err err = {0};
    qn_mat mat;
    float *row = malloc(w->cols * sizeof *row), *packed = malloc(w->cols * sizeof *row);
    assert_true(w->rows == m.out && w->cols == m.in);
    assert_true(qn_weight_load(w, 0, w->rows, QN_STORED, NULL, &mat, &err));
    for (size_t o = 0; o < m.out; o++) {
        assert_true(qn_weight_decode(w, o, 1, row, &err));
        qn_mat_row(&mat, o, packed);
        for (size_t i = 0; i < m.in; i++) {
            float v = value(o, i);
            if (memcmp(&v, &row[i], 4) != 0)
                fail_msg("%d bits [%zu, %zu]: %g, expected %g", m.bits, o, i, (double)row[i],
                         (double)v);
            assert_memory_equal(&packed[i], &row[i], 4);
        }
    }
    qn_mat_done(&mat);
    free(row);
    free(packed);
}

static void expect_refused(const char *dir, qn_code code, const char *message) {
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
    assert_true(qn_ckpt_n_damages(c) + qn_ckpt_n_label_errors(c) > 0);
    qn_ckpt_free(c);
}

static void gptq_widths_and_versions(void **state) {
    (void)state;
    static const int widths[] = {2, 3, 4, 8};
    char *dir = temp_dir_new();
    for (size_t k = 0; k < 4; k++)
        for (int version = 1; version <= 2; version++)
            for (int sym = 0; sym < 2; sym++) {
                st_tensor list[4];
                const qn_weight *w;
                make_matrix(32, 96, 40, widths[k], sym); // groups of 40, 40, 16
                char *label = qn_strf("{\"quant_method\":\"gptq\",\"bits\":%d,\"group_size\":40,"
                                      "\"sym\":%s,\"checkpoint_format\":\"gptq%s\"}", widths[k],
                                      sym ? "true" : "false", version == 2 ? "_v2" : "");
                size_t n = gptq_tensors(list, 2 - version, (k + (size_t)version) % 2);
                write_folder(dir, label, list, n);
                qn_ckpt *c = open_ok(dir, &w);
                check_values(w);
                assert_int_equal(w->group, 40);
                assert_int_equal(w->zero_offset, 2 - version);
                assert_int_equal(w->sym, sym);
                assert_int_equal(qn_ckpt_n_label_errors(c), 0);
                qn_ckpt_free(c);
                free(label);
            }
    temp_dir_free(dir);
}

#define GPTQ(format, sym)                                                                          \
    "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"sym\":" sym                          \
    ",\"desc_act\":false,\"checkpoint_format\":\"" format "\"}"

static void expect_label_error(const qn_ckpt *c, const char *message) {
    for (size_t i = 0; i < qn_ckpt_n_label_errors(c); i++)
        if (strstr(qn_ckpt_label_error(c, i), message)) return;
    fail_msg("%zu label errors, none says: %s", qn_ckpt_n_label_errors(c), message);
}

static void symmetric_content_refutes_the_label(void **state) {
    (void)state;
    static const char *const labels[] = {GPTQ("gptq_v2", "true"), GPTQ("gptq", "true")};
    char *dir = temp_dir_new();
    for (int offset = 0; offset < 2; offset++) {
        st_tensor list[4];
        const qn_weight *w;
        make_matrix(32, 64, 32, 4, true);
        write_folder(dir, labels[offset], list, gptq_tensors(list, offset, true));
        qn_ckpt *c = open_ok(dir, &w);
        check_values(w);
        assert_int_equal(qn_ckpt_n_label_errors(c), 0);
        qn_ckpt_free(c);
        write_folder(dir, labels[1 - offset], list, gptq_tensors(list, offset, true));
        c = open_ok(dir, &w);
        check_values(w);
        assert_int_equal(qn_ckpt_n_label_errors(c), 1);
        expect_label_error(c, offset ? "but the content is gptq (one less)"
                                     : "but the content is gptq_v2 (the zeros themselves)");
        qn_quant_info info;
        assert_true(qn_ckpt_quant_info(c, &info) && !info.label_matches);
        qn_ckpt_free(c);
    }
    temp_dir_free(dir);
}

// Weights centred on zero, quantized with a zero point per group.
static void centre_matrix(void) {
    unsigned top = (1u << m.bits) - 1;
    for (size_t o = 0; o < m.out; o++)
        for (size_t i = 0; i < m.in; i++) {
            double spread = top / 6.0, x = spread * qn_rng_normal(9, o, i);
            double q = rint(x + (double)m.zeros[o][m.g_idx[i]]);
            m.codes[o][i] = q < 0 ? 0 : q > top ? top : (unsigned)q;
        }
}

static void asymmetric_content_refutes_the_label_by_its_codes(void **state) {
    (void)state;
    static const char *const labels[] = {GPTQ("gptq_v2", "false"), GPTQ("gptq", "false")};
    char *dir = temp_dir_new();
    for (int offset = 0; offset < 2; offset++)
        for (int lie = 0; lie < 2; lie++) {
            st_tensor list[4];
            const qn_weight *w;
            make_matrix(64, 512, 32, 4, false);
            for (size_t o = 0; o < m.out; o++) // as zeros of real weights lie
                for (size_t g = 0; g < m.n_groups; g++) m.zeros[o][g] = 6 + draw(77 + o, g, 4);
            centre_matrix();
            write_folder(dir, labels[lie ? !offset : offset], list,
                         gptq_tensors(list, offset, true));
            qn_ckpt *c = open_ok(dir, &w);
            check_values(w);
            assert_int_equal(qn_ckpt_n_label_errors(c), lie);
            if (lie) expect_label_error(c, "checkpoint_format is");
            qn_ckpt_free(c);
        }
    temp_dir_free(dir);
}

static void wrong_labels_are_told(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    st_tensor list[4];
    const qn_weight *w;
    make_matrix(32, 64, 16, 4, false);
    size_t n = gptq_tensors(list, 1, true);
    static const struct {
        const char *label, *message;
    } cases[] = {
        {"{\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":16}", "bits is 8, but codes have 4"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}",
         "group_size is 32, but scales are for 16 inputs each: p.q.weight"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-1}", "group_size is -1, but"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"sym\":true}", "it is said to be symmetric"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"dynamic\":{\"-:p.*\":{}}}",
         "-:p.* says it is not quantized, but it is: p.q.weight"},
        {"{\"quant_method\":\"fp8\"}", "the method is fp8, but the tensors are gptq"},
        {NULL, "no quantization config, but 1 matrices are stored as gptq"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_folder(dir, cases[i].label, list, n);
        qn_ckpt *c = open_ok(dir, &w);
        check_values(w); // whatever the label says
        expect_label_error(c, cases[i].message);
        qn_ckpt_free(c);
    }
    write_folder(dir, "{\"quant_method\":\"gptq\",\"bits\":4}", list + 2, 0);
    qn_err err = {0};
    st_tensor plain = {"p.q.weight", QN_DT_BF16, 2, {2, 2}, scales16};
    write_folder(dir, "{\"quant_method\":\"gptq\",\"bits\":4}", &plain, 1);
    qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
    assert_true(c && qn_ckpt_weights(c, NULL, NULL, &err));
    expect_label_error(c, "the method is gptq, but no tensor is quantized");
    qn_ckpt_free(c);
    temp_dir_free(dir);
}

static void side_files_are_labels_too(void **state) {
    (void)state;
    static const char *const files[] = {"quantize_config.json", "quant_config.json",
                                        "quantization_config.json"};
    for (size_t i = 0; i < 3; i++) {
        char *dir = temp_dir_new();
        st_tensor list[4];
        const qn_weight *w;
        make_matrix(32, 64, 32, 4, false);
        write_folder(dir, NULL, list, gptq_tensors(list, 0, false));
        temp_text(dir, files[i], GPTQ("gptq_v2", "false"));
        qn_ckpt *c = open_ok(dir, &w);
        check_values(w);
        assert_string_equal(qn_ckpt_quant_config_file(c), files[i]);
        assert_int_equal(qn_ckpt_n_label_errors(c), 0);
        qn_ckpt_free(c);
        temp_dir_free(dir);
    }
}

static void groups_in_any_order(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    st_tensor list[4];
    const qn_weight *w;
    int32_t *perm;
    qn_err err = {0};
    // Act-order with even groups keeps its codes; the last group may be short.
    make_matrix(32, 80, 32, 4, false);
    for (size_t i = 0; i < 80; i++) m.g_idx[i * 37 % 80] = (int32_t)(i / 32);
    write_folder(dir, GPTQ("gptq", "false"), list, gptq_tensors(list, 1, true));
    qn_ckpt *c = open_ok(dir, &w);
    assert_true(w->act_order && w->group == 32);
    check_values(w);
    qn_mat mat;
    assert_true(qn_weight_load(w, 0, w->rows, QN_STORED, NULL, &mat, &err));
    assert_int_equal(mat.group, 32);
    assert_non_null(mat.perm);
    qn_mat_done(&mat);
    expect_label_error(c, "desc_act is false, but g_idx is not in order");
    qn_ckpt_free(c);
    // Uneven ones become exact floats.
    m.g_idx[0] = m.g_idx[0] == 0 ? 1 : 0;
    write_folder(dir, GPTQ("gptq", "false"), list, gptq_tensors(list, 1, true));
    c = open_ok(dir, &w);
    assert_false(qn_weight_perm(w, &perm, &err));
    assert_string_equal(err.text, "p.q.weight: its groups have different sizes");
    check_values(w);
    qn_ckpt_free(c);
    // Zeros throughout are a placeholder.
    make_matrix(32, 96, 32, 4, false);
    gptq_tensors(list, 1, true);
    static const int32_t none[96];
    list[3].data = none;
    write_folder(dir, GPTQ("gptq", "false"), list, 4);
    c = open_ok(dir, &w);
    assert_false(w->act_order);
    check_values(w);
    qn_ckpt_free(c);
    temp_dir_free(dir);
}

static void gptq_sets_that_make_no_sense(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    st_tensor list[4], some[3];
    make_matrix(32, 96, 32, 4, false);
    gptq_tensors(list, 1, true);
    some[0] = list[0];
    some[1] = list[2];
    write_folder(dir, GPTQ("gptq", "false"), some, 2);
    expect_refused(dir, QN_NOT_FOUND, "tensor p.q.qzeros is missing, and p.q.qweight is there");
    write_folder(dir, GPTQ("gptq", "false"), list + 1, 2);
    expect_refused(dir, QN_NOT_FOUND, "tensor p.q.qweight is missing, and p.q.qzeros is there");
    m.g_idx[5] = 3;
    write_folder(dir, GPTQ("gptq", "false"), list, 4);
    expect_refused(dir, QN_INPUT, "tensor p.q.g_idx: input 5 is in group 3, expected 0 to 2");
    m.g_idx[5] = -1;
    write_folder(dir, GPTQ("gptq", "false"), list, 4);
    expect_refused(dir, QN_INPUT, "input 5 is in group -1");
    m.g_idx[5] = 0;
    list[3].shape[0] = 95;
    write_folder(dir, GPTQ("gptq", "false"), list, 4);
    expect_refused(dir, QN_INPUT, "tensor p.q.g_idx: I32 [95], expected I32 [96]");
    list[1].shape[1] = 5;
    write_folder(dir, GPTQ("gptq", "false"), list, 3);
    expect_refused(dir, QN_INPUT, "tensor p.q.qzeros: I32 [3, 5], expected [groups, 32 * bits / 32]");
    list[1].dtype = QN_DT_F32;
    list[1].shape[1] = 4;
    write_folder(dir, GPTQ("gptq", "false"), list, 3);
    expect_refused(dir, QN_INPUT, "tensor p.q.qweight: I32 [12, 32], expected the shape and type");
    // 96 inputs in 5 groups: no group size does that, and the label's does not either.
    make_matrix(32, 96, 32, 4, false);
    m.n_groups = 5;
    gptq_tensors(list, 1, false);
    write_folder(dir, GPTQ("gptq", "false"), list, 3);
    expect_refused(dir, QN_INPUT,
                   "p.q.weight: 96 inputs in 5 groups: the group size does not divide");
    temp_dir_free(dir);
}

static void other_methods_are_refused_by_name(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    st_tensor plain = {"p.q.weight", QN_DT_BF16, 2, {2, 2}, scales16};
    write_folder(dir, "{\"quant_method\":\"bitsandbytes\"}", &plain, 1);
    expect_refused(dir, QN_UNSUPPORTED, "config.json: quantization method bitsandbytes is not one "
                   "quern can read (known: gptq, awq, fp8, compressed-tensors, auto-round)");
    st_tensor fast[] = {{"p.q.qweight", QN_DT_I16, 2, {2, 8}, words[0]},
                        {"p.q.qzeros", QN_DT_F16, 2, {8, 8}, words[0]},
                        {"p.q.scales", QN_DT_F16, 2, {8, 8}, words[0]}};
    write_folder(dir, "{\"quant_method\":\"awq\",\"bits\":4}", fast, 3);
    expect_refused(dir, QN_UNSUPPORTED, "AWQ's gemv_fast layout");
    temp_dir_free(dir);
}

// ---- AWQ ----

static size_t gemv_tensors(st_tensor list[3], size_t zero_words) {
    memset(words, 0, sizeof words);
    memset(scales16, 0, sizeof scales16);
    for (size_t o = 0; o < m.out; o++) {
        for (size_t i = 0; i < m.in; i++)
            put_field(words[0] + o * m.in / 8, 1, i, 4, m.codes[o][i]);
        for (size_t g = 0; g < m.n_groups; g++) {
            put_field(words[1] + o * zero_words, 1, g, 4, m.zeros[o][g]);
            scales16[o * 8 * zero_words + g] = qn_f32_to_bf16(m.scales[o][g]);
        }
    }
    list[0] = (st_tensor){"p.q.qweight", QN_DT_I32, 2, {m.out, m.in / 8}, words[0]};
    list[1] = (st_tensor){"p.q.qzeros", QN_DT_I32, 2, {m.out, zero_words}, words[1]};
    list[2] = (st_tensor){"p.q.scales", QN_DT_BF16, 2, {m.out, 8 * zero_words}, scales16};
    return 3;
}

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
    expect_refused(dir, QN_INPUT, "tensor p.q.qzeros: I32 [16, 3], expected as many words of zeros");
    temp_dir_free(dir);
}

// ---- compressed-tensors ----

static int64_t ct_shape[2];

static size_t ct_tensors(st_tensor list[5], bool with_zeros, bool with_g_idx) {
    size_t b = (size_t)m.bits, row = (m.in * b + 31) / 32, n = 0;
    memset(words, 0, sizeof words);
    for (size_t o = 0; o < m.out; o++) {
        for (size_t i = 0; i < m.in; i++) put_field(words[0] + o * row, 1, i, m.bits, m.codes[o][i]);
        for (size_t g = 0; g < m.n_groups; g++) {
            put_field(words[1] + g, m.n_groups, o, m.bits, m.zeros[o][g]);
            scales16[o * m.n_groups + g] = qn_f32_to_bf16(m.scales[o][g]);
        }
    }
    ct_shape[0] = (int64_t)m.out;
    ct_shape[1] = (int64_t)m.in;
    list[n++] = (st_tensor){"p.q.weight_packed", QN_DT_I32, 2, {m.out, row}, words[0]};
    list[n++] = (st_tensor){"p.q.weight_scale", QN_DT_BF16, 2, {m.out, m.n_groups}, scales16};
    list[n++] = (st_tensor){"p.q.weight_shape", QN_DT_I64, 1, {2}, ct_shape};
    size_t zero_words = (m.out * b + 31) / 32;
    if (with_zeros)
        list[n++] = (st_tensor){"p.q.weight_zero_point", QN_DT_I32, 2, {zero_words, m.n_groups},
                                words[1]};
    if (with_g_idx) list[n++] = (st_tensor){"p.q.weight_g_idx", QN_DT_I32, 1, {m.in}, m.g_idx};
    return n;
}

static void ct_widths(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    for (int bits = 1; bits <= 8; bits++)
        for (int sym = 0; sym < 2; sym++)
            for (int act = 0; act < 2; act++) {
                st_tensor list[5];
                const qn_weight *w;
                make_matrix(23, 72, 24, bits, sym); // fields straddle words, rows end within one
                for (size_t i = 0; act && i < 72; i++) m.g_idx[i * 29 % 72] = (int32_t)(i / 24);
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

#define CT "{\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\"}"

static void ct_int8_with_zeros(void **state) {
    (void)state;
    static int8_t bytes[16 * 48], zeros[16];
    static uint16_t scales[16];
    char *dir = temp_dir_new();
    const qn_weight *w;
    make_matrix(16, 48, 48, 8, false);
    for (size_t o = 0; o < 16; o++) {
        for (size_t i = 0; i < 48; i++) bytes[o * 48 + i] = (int8_t)((int)m.codes[o][i] - 128);
        zeros[o] = (int8_t)((int)m.zeros[o][0] - 128);
        scales[o] = qn_f32_to_bf16(m.scales[o][0]);
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
    expect_refused(dir, QN_NOT_FOUND, "tensor p.q.weight_scale is missing, and p.q.weight is there");
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
    expect_refused(dir, QN_INPUT, "tensor p.q.weight_scale_inv: F32 [5, 1], expected blocks that "
                   "tile [48, 40]");
    write_folder(dir, "{\"quant_method\":\"fp8\"}", odd, 1);
    expect_refused(dir, QN_NOT_FOUND, "tensor p.q.weight_scale_inv is missing");
    temp_dir_free(dir);
}

static int quiet(void **state) {
    (void)state;
    qn_log_set_quiet(true);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gptq_widths_and_versions),
        cmocka_unit_test(symmetric_content_refutes_the_label),
        cmocka_unit_test(asymmetric_content_refutes_the_label_by_its_codes),
        cmocka_unit_test(wrong_labels_are_told),
        cmocka_unit_test(side_files_are_labels_too),
        cmocka_unit_test(groups_in_any_order),
        cmocka_unit_test(gptq_sets_that_make_no_sense),
        cmocka_unit_test(other_methods_are_refused_by_name),
        cmocka_unit_test(a_set_that_two_schemes_fit_follows_the_label),
        cmocka_unit_test(awq_groups_have_to_divide),
        cmocka_unit_test(ct_widths),
        cmocka_unit_test(ct_int8_with_zeros),
        cmocka_unit_test(ct_shapes_are_checked),
        cmocka_unit_test(fp8_factors_of_every_shape),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
