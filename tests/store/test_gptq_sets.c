// GPTQ sets: every width and version, groups in any order, zeros that prove the label wrong, labels
// that differ, and sets that are not whole.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "set_maker.h"
#include "store/label_compare.h"

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
    unsigned top = (1u << mx.bits) - 1;
    for (size_t o = 0; o < mx.out; o++)
        for (size_t i = 0; i < mx.in; i++) {
            double spread = top / 6.0, x = spread * qn_rng_normal(9, o, i);
            double q = rint(x + (double)mx.zeros[o][mx.g_idx[i]]);
            mx.codes[o][i] = q < 0 ? 0 : q > top ? top : (unsigned)q;
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
            for (size_t o = 0; o < mx.out; o++) // as zeros of real weights lie
                for (size_t g = 0; g < mx.n_groups; g++) mx.zeros[o][g] = 6 + draw(77 + o, g, 4);
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

static void labels_that_contradict_are_told(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    st_tensor list[5];
    const qn_weight *w;
    make_matrix(32, 64, 16, 4, false);
    size_t n = gptq_tensors(list, 1, true);
    static const struct {
        const char *more, *message; // NULL: it fits
    } cases[] = {
        {"\"bits\":4,\"group_size\":16", NULL},
        {"\"bits\":4,\"group_size\":16,\"lm_head\":false,\"pack_dtype\":\"int32\"", NULL},
        {"\"bits\":4,\"group_size\":0", "group_size is 0, but scales are for 16 inputs each"},
        {"\"bits\":4", "group_size is not said, and scales are for 16 inputs each"},
        {"\"group_size\":16", "bits is not said, and codes have 4"},
        {"\"bits\":4,\"group_size\":16,\"pack_dtype\":\"int64\"",
         "pack_dtype is int64, but codes lie in I32"},
        {"\"bits\":4,\"group_size\":16,\"lm_head\":true",
         "lm_head is true, but the head is not quantized"},
        {"\"bits\":4,\"group_size\":16,\"checkpoint_format\":\"gemm\"",
         "checkpoint_format is gemm, but the tensors are gptq"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *label = qn_strf("{\"quant_method\":\"gptq\",%s}", cases[i].more);
        write_folder(dir, label, list, n);
        qn_ckpt *c = open_ok(dir, &w);
        check_values(w);
        assert_int_equal(qn_ckpt_n_label_errors(c), cases[i].message != NULL);
        if (cases[i].message) expect_label_error(c, cases[i].message);
        qn_ckpt_free(c);
        free(label);
    }
    temp_dir_free(dir);
}

// A dense layer among quantized ones has to be said; heads, routers, towers and sizes that no method
// takes need not.
static void dense_layers_have_to_be_said(void **state) {
    (void)state;
    static const struct {
        const char *name, *more;
        size_t cols;
        bool told;
    } cases[] = {
        {"model.layers.0.mlp.up_proj.weight", "", 64, true},
        {"model.layers.0.mlp.up_proj.weight", ",\"dynamic\":{\"-:.*mlp.*\":{}}", 64, false},
        {"model.layers.0.mlp.up_proj.weight", ",\"modules_in_block_to_quantize\":[[\"p.q\"]]", 64,
         false},
        {"model.layers.0.mlp.up_proj.weight", "", 48, false},
        {"model.layers.0.mlp.gate.weight", "", 64, false},
        {"lm_head.weight", "", 64, false},
        {"mtp.layers.0.mlp.up_proj.weight", "", 64, false},
        {"model.visual.layers.0.mlp.up_proj.weight", "", 64, false},
    };
    char *dir = temp_dir_new();
    static uint16_t zeros[32 * 64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_tensor list[5];
        const qn_weight *w;
        make_matrix(32, 64, 16, 4, false);
        size_t n = gptq_tensors(list, 1, true);
        list[n++] = (st_tensor){cases[i].name, QN_DT_BF16, 2, {32, cases[i].cols}, zeros};
        char *label = qn_strf("{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":16%s}",
                              cases[i].more);
        write_folder(dir, label, list, n);
        qn_ckpt *c = open_ok(dir, &w);
        assert_int_equal(qn_ckpt_n_label_errors(c), cases[i].told);
        if (cases[i].told) expect_label_error(c, "it is not quantized, and nothing says so: model.l");
        qn_ckpt_free(c);
        free(label);
    }
    temp_dir_free(dir);
}

// The shapes tell AWQ from GPTQ, whatever the label calls them and their format.
static void the_other_methods_label(void **state) {
    (void)state;
    static const char *const labels[] = {
        "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"checkpoint_format\":\"gptq_v2\"}",
        "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"version\":\"gemm\"}"};
    char *dir = temp_dir_new();
    for (size_t i = 0; i < 2; i++) {
        st_tensor list[4];
        const qn_weight *w;
        make_matrix(32, 96, 32, 4, false); // too small for the codes to tell v1 from v2
        write_folder(dir, labels[i], list, gptq_tensors(list, i == 0 ? 0 : 1, true));
        qn_ckpt *c = open_ok(dir, &w);
        assert_string_equal(w->layout, i == 0 ? "gptq_v2" : "gptq");
        check_values(w);
        assert_int_equal(qn_ckpt_n_label_errors(c), 1);
        expect_label_error(c, "the method is awq, but the tensors are gptq");
        qn_ckpt_free(c);
    }
    temp_dir_free(dir);
}

// The codes are read, the dense tensor is told of and left alone.
static void a_matrix_stored_twice(void **state) {
    (void)state;
    static uint16_t dense[32 * 96];
    char *dir = temp_dir_new();
    st_tensor list[5];
    const qn_weight *w;
    make_matrix(32, 96, 32, 4, false);
    size_t n = gptq_tensors(list, 1, true);
    list[n++] = (st_tensor){"p.q.weight", QN_DT_F16, 2, {32, 96}, dense};
    write_folder(dir, "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}", list, n);
    qn_ckpt *c = open_ok(dir, &w);
    size_t n_weights;
    check_values(w);
    assert_true(qn_ckpt_weights(c, NULL, &n_weights, NULL) && n_weights == 1);
    assert_int_equal(qn_ckpt_n_doubles(c), 1);
    assert_string_equal(qn_ckpt_double(c, 0)->name, "p.q.weight");
    qn_ckpt_free(c);
    temp_dir_free(dir);
}

// However many parts lie beside the one that is wrong.
static void one_fault_is_one_damage(void **state) {
    (void)state;
    char *dir = temp_dir_new();
    for (int fault = 0; fault < 3; fault++) {
        st_tensor list[4];
        qn_err err = {0};
        make_matrix(32, 96, 32, 4, false);
        size_t n = gptq_tensors(list, 1, true);
        if (fault == 0) list[1] = list[--n]; // no zeros
        if (fault == 1) list[0] = list[--n]; // no codes
        if (fault == 2) list[0].dtype = QN_DT_I64, list[0].shape[0] /= 2;
        write_folder(dir, GPTQ("gptq", "false"), list, n);
        qn_ckpt *c = qn_ckpt_open(dir, QN_CKPT_TOLERANT, &err);
        assert_true(c && qn_ckpt_weights(c, NULL, NULL, &err));
        assert_int_equal(qn_ckpt_n_damages(c), 1);
        assert_int_equal(qn_ckpt_n_label_errors(c), 0);
        qn_ckpt_free(c);
    }
    temp_dir_free(dir);
}

// "sym": false over zeros that are all the middle is legal: a note, and no fault.
static void a_label_that_says_too_little(void **state) {
    (void)state;
    static const char *const labels[] = {GPTQ("gptq", "false"), GPTQ("gptq", "true")};
    char *dir = temp_dir_new();
    for (int sym = 0; sym < 2; sym++)
        for (int said = 0; said < 2; said++) {
            st_tensor list[4];
            const qn_weight *w;
            make_matrix(32, 64, 32, 4, sym);
            write_folder(dir, labels[said], list, gptq_tensors(list, 1, true));
            qn_ckpt *c = open_ok(dir, &w);
            const char *note = qn_ckpt_label_note(c);
            assert_int_equal(qn_ckpt_n_label_errors(c), !sym && said);
            assert_int_equal(note != NULL, sym && !said);
            if (note) assert_non_null(strstr(note, "config.json says that codes are not symmetric"));
            qn_ckpt_free(c);
        }
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
    for (size_t i = 0; i < 80; i++) mx.g_idx[i * 37 % 80] = (int32_t)(i / 32);
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
    mx.g_idx[0] = mx.g_idx[0] == 0 ? 1 : 0;
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
    mx.g_idx[5] = 3;
    write_folder(dir, GPTQ("gptq", "false"), list, 4);
    expect_refused(dir, QN_INPUT, "tensor p.q.g_idx: input 5 is in group 3, expected 0 to 2");
    mx.g_idx[5] = -1;
    write_folder(dir, GPTQ("gptq", "false"), list, 4);
    expect_refused(dir, QN_INPUT, "input 5 is in group -1");
    mx.g_idx[5] = 0;
    list[3].shape[0] = 95;
    write_folder(dir, GPTQ("gptq", "false"), list, 4);
    expect_refused(dir, QN_INPUT, "tensor p.q.g_idx: I32 [95], expected I32 [96]");
    list[1].shape[1] = 5;
    write_folder(dir, GPTQ("gptq", "false"), list, 3);
    expect_refused(dir, QN_INPUT,
                   "tensor p.q.qzeros: I32 [3, 5], expected [groups, 32 * bits / 32]");
    list[1].dtype = QN_DT_F32;
    list[1].shape[1] = 4;
    write_folder(dir, GPTQ("gptq", "false"), list, 3);
    expect_refused(dir, QN_INPUT, "tensor p.q.qweight: I32 [12, 32], expected the shape and type");
    // 96 inputs in 5 groups: no group size does that, and the label's does not either.
    make_matrix(32, 96, 32, 4, false);
    mx.n_groups = 5;
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
        cmocka_unit_test(labels_that_contradict_are_told),
        cmocka_unit_test(dense_layers_have_to_be_said),
        cmocka_unit_test(the_other_methods_label),
        cmocka_unit_test(a_matrix_stored_twice),
        cmocka_unit_test(one_fault_is_one_damage),
        cmocka_unit_test(a_label_that_says_too_little),
        cmocka_unit_test(side_files_are_labels_too),
        cmocka_unit_test(groups_in_any_order),
        cmocka_unit_test(gptq_sets_that_make_no_sense),
        cmocka_unit_test(other_methods_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, quiet, NULL);
}
