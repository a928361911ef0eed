// Quantization configs: all spellings, rules for modules, what is refused and with which words.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "store/label.h"

static void read_ok(qn_label *l, const char *text) {
    qn_err err = {0};
    if (!qn_label_parse(l, text, strlen(text), "config.json", &err)) fail_msg("%s", err.text);
}

static void spellings_mean_the_same(void **state) {
    (void)state;
    static const struct {
        const char *text, *method, *format;
        int bits, group, sym, act;
    } cases[] = {
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"sym\":true,\"desc_act\":false,"
         "\"checkpoint_format\":\"gptq_v2\"}", "gptq", "gptq_v2", 4, 128, 1, 0},
        {"{\"method\":\"gptq\",\"bits\":4,\"group_size\":-1,\"format\":\"gptq\",\"sym\":false}",
         "gptq", "gptq", 4, -1, 0, -1},
        {"{\"wbits\":3,\"group_size\":64.0}", "gptq", NULL, 3, 64, -1, -1},
        {"{\"w_bit\":4,\"q_group_size\":128,\"zero_point\":true,\"version\":\"GEMM\"}", "awq",
         "GEMM", 4, 128, 0, -1},
        {"{\"quant_method\":\"awq\",\"bits\":4,\"zero_point\":false,\"version\":\"gemv\","
         "\"modules_to_not_convert\":null}", "awq", "gemv", 4, 0, 1, -1},
        {"{\"quant_method\":\"auto-round\",\"bits\":2,\"group_size\":32,\"sym\":true,"
         "\"packing_format\":\"auto_round:auto_gptq\"}", "auto-round", "auto_round:auto_gptq", 2,
         32, 1, -1},
        {"{\"quant_method\":\"fp8\",\"fmt\":\"e4m3\",\"weight_block_size\":[128,128]}", "fp8",
         "e4m3", 8, 0, -1, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_label l;
        read_ok(&l, cases[i].text);
        assert_string_equal(l.method, cases[i].method);
        if (cases[i].format) assert_string_equal(l.format, cases[i].format);
        else assert_null(l.format);
        qn_label_entry e = qn_label_for(&l, "model.layers.0.mlp.up_proj");
        assert_int_equal(e.bits, cases[i].bits);
        assert_int_equal(e.group, cases[i].group);
        assert_int_equal(e.sym, cases[i].sym);
        assert_int_equal(e.desc_act, cases[i].act);
        assert_null(e.skip);
        qn_label_done(&l);
    }
}

static void dynamic_rules_are_anchored_and_first_wins(void **state) {
    (void)state;
    qn_label l;
    read_ok(&l, "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"sym\":true,\"dynamic\":"
                "{\"-:.*attn.*\":{},\"+:model\\\\.layers\\\\.1\\\\.\":{\"bits\":8},"
                "\".*down_proj\":{\"group_size\":32,\"sym\":false},\"layers\":{\"bits\":2}}}");
    assert_string_equal(qn_label_for(&l, "model.layers.1.self_attn.q_proj").skip, "-:.*attn.*");
    qn_label_entry e = qn_label_for(&l, "model.layers.1.mlp.down_proj");
    assert_true(e.bits == 8 && e.group == 128 && e.sym == 1 && !e.skip);
    e = qn_label_for(&l, "model.layers.2.mlp.down_proj");
    assert_true(e.bits == 4 && e.group == 32 && e.sym == 0);
    assert_int_equal(qn_label_for(&l, "model.layers.2.mlp.up_proj").bits, 4);
    qn_label_done(&l);
}

static void lists_of_modules_are_matched_between_dots(void **state) {
    (void)state;
    qn_label l;
    read_ok(&l, "{\"quant_method\":\"awq\",\"bits\":4,\"modules_to_not_convert\":"
                "[\"visual\",\"model.layers.1\"]}");
    assert_non_null(qn_label_for(&l, "visual.blocks.0.mlp.up").skip);
    assert_non_null(qn_label_for(&l, "model.visual.blocks.0").skip);
    assert_non_null(qn_label_for(&l, "model.layers.1.mlp.up_proj").skip);
    assert_null(qn_label_for(&l, "model.layers.10.mlp.up_proj").skip);
    assert_null(qn_label_for(&l, "model.visuals.0").skip);
    qn_label_done(&l);
    read_ok(&l, "{\"quant_method\":\"auto-round\",\"bits\":4,\"extra_config\":"
                "{\"lm_head\":{\"bits\":16},\"model.layers.0.mlp\":{\"bits\":8}}}");
    assert_non_null(qn_label_for(&l, "lm_head").skip);
    assert_int_equal(qn_label_for(&l, "model.layers.0.mlp.up_proj").bits, 8);
    assert_int_equal(qn_label_for(&l, "model.layers.1.mlp.up_proj").bits, 4);
    qn_label_done(&l);
}

static void groups_of_compressed_tensors(void **state) {
    (void)state;
    qn_label l;
    read_ok(&l, "{\"quant_method\":\"compressed-tensors\",\"format\":\"mixed-precision\","
                "\"ignore\":[\"lm_head\",\"re:.*gate$\"],\"version\":\"0.19.0\",\"config_groups\":{"
                "\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,\"group_size\":"
                "128,\"strategy\":\"group\",\"symmetric\":false}},"
                "\"group_1\":{\"targets\":[\"re:.*down_proj\"],\"weights\":{\"num_bits\":8,"
                "\"group_size\":null,\"strategy\":\"channel\",\"symmetric\":true}}}}");
    assert_string_equal(l.format, "mixed-precision");
    qn_label_entry e = qn_label_for(&l, "model.layers.0.mlp.up_proj");
    assert_true(e.bits == 4 && e.group == 128 && e.sym == 0 && !e.skip);
    e = qn_label_for(&l, "model.layers.0.mlp.down_proj");
    assert_true(e.bits == 8 && e.group == -1 && e.sym == 1);
    assert_non_null(qn_label_for(&l, "lm_head").skip);
    assert_non_null(qn_label_for(&l, "model.layers.0.mlp.gate").skip);
    assert_null(qn_label_for(&l, "model.layers.0.mlp.gate_proj").skip);
    qn_label_done(&l);
}

static void what_cannot_be_read_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
        qn_code code;
    } cases[] = {
        {"{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}",
         "config.json: quantization method bitsandbytes is not one quern can read (known: gptq, "
         "awq, fp8, compressed-tensors, auto-round)", QN_UNSUPPORTED},
        {"{\"quant_method\":\"gguf\"}", "method gguf is not one", QN_UNSUPPORTED},
        {"{\"quant_method\":\"mxfp4\"}", "method mxfp4 is not one", QN_UNSUPPORTED},
        {"{}", "method (none named)", QN_UNSUPPORTED},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"checkpoint_format\":\"gptq_p\"}",
         "config.json: checkpoint_format is gptq_p, which quern cannot read (known: gptq, gptq_v2)",
         QN_UNSUPPORTED},
        {"{\"quant_method\":\"gptq\",\"checkpoint_format\":\"marlin\"}", "is marlin",
         QN_UNSUPPORTED},
        {"{\"quant_method\":\"gptq\",\"is_marlin_format\":true}", "is marlin", QN_UNSUPPORTED},
        {"{\"quant_method\":\"awq\",\"version\":\"marlin\"}",
         "config.json: AWQ version is marlin, which quern cannot read (known: gemm, gemv)",
         QN_UNSUPPORTED},
        {"{\"quant_method\":\"awq\",\"version\":\"gemv_fast\"}", "AWQ version is gemv_fast",
         QN_UNSUPPORTED},
        {"{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\"}", "fmt is e5m2", QN_UNSUPPORTED},
        {"{\"quant_method\":\"compressed-tensors\",\"format\":\"nvfp4-pack-quantized\"}",
         "format is nvfp4-pack-quantized, which quern cannot read (known: pack-quantized",
         QN_UNSUPPORTED},
        {"{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"g\":{\"format\":"
         "\"mxfp4-pack-quantized\",\"weights\":{}}}}", "format is mxfp4-pack-quantized",
         QN_UNSUPPORTED},
        {"{\"quant_method\":\"auto-round\",\"data_type\":\"mx_fp\"}", "data_type is mx_fp",
         QN_UNSUPPORTED},
        {"{\"quant_method\":7}", "config.json: quant_method is 7, expected a string", QN_INPUT},
        {"{\"quant_method\":\"gptq\",\"bits\":\"four\"}",
         "config.json: bits is \"four\", expected an integer from 1 to 64", QN_INPUT},
        {"{\"quant_method\":\"gptq\",\"bits\":0}", "bits is 0", QN_INPUT},
        {"{\"quant_method\":\"gptq\",\"group_size\":-2}", "group_size is -2", QN_INPUT},
        {"{\"quant_method\":\"gptq\",\"sym\":\"yes\"}", "sym is \"yes\", expected true or false",
         QN_INPUT},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"dynamic\":{\"-:(\":{}}}", "pattern ( at",
         QN_INPUT},
        {"{\"quant_method\":\"fp8\",\"weight_block_size\":[0,128]}", "is not a pair of sizes",
         QN_INPUT},
        {"[]", "config.json: not a JSON object", QN_INPUT},
        {"{\"quant_method\"", "not valid JSON", QN_INPUT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_label l;
        qn_err err = {0};
        if (qn_label_parse(&l, cases[i].text, strlen(cases[i].text), "config.json", &err))
            fail_msg("%s was taken", cases[i].text);
        if (!strstr(err.text, cases[i].message)) fail_msg("%s: %s", cases[i].text, err.text);
        assert_int_equal(err.code, cases[i].code);
        qn_label_done(&l);
    }
}

// A pattern made to run forever gives up: it does not match.
static void hostile_patterns_end(void **state) {
    (void)state;
    qn_label l;
    read_ok(&l, "{\"quant_method\":\"gptq\",\"bits\":4,\"dynamic\":{\"-:(a+)+$\":{},"
                "\"-:((a|aa)+)+(b|c)*x$\":{}}}");
    char name[200];
    memset(name, 'a', 199);
    name[198] = '!';
    name[199] = 0;
    assert_null(qn_label_for(&l, name).skip);
    qn_label_done(&l);
}

static void random_configs_are_survived(void **state) {
    (void)state;
    static const char seed[] =
        "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"sym\":true,\"dynamic\":{"
        "\"-:a\":{\"bits\":8}},\"config_groups\":{\"g\":{\"targets\":[\"re:x\"],\"weights\":{}}},"
        "\"ignore\":[\"b\"]}";
    for (uint64_t round = 0; round < 20000; round++) {
        char text[sizeof seed];
        memcpy(text, seed, sizeof seed);
        for (uint64_t k = 0; k <= round % 3; k++) {
            uint64_t r = qn_rng_u64(3, round, k);
            text[r % (sizeof seed - 1)] = (char)(r >> 40);
        }
        qn_label l;
        qn_err err = {0};
        if (qn_label_parse(&l, text, sizeof seed - 1, "x", &err)) (void)qn_label_for(&l, "a.b.c");
        qn_label_done(&l);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spellings_mean_the_same),
        cmocka_unit_test(dynamic_rules_are_anchored_and_first_wins),
        cmocka_unit_test(lists_of_modules_are_matched_between_dots),
        cmocka_unit_test(groups_of_compressed_tensors),
        cmocka_unit_test(what_cannot_be_read_is_refused),
        cmocka_unit_test(hostile_patterns_end),
        cmocka_unit_test(random_configs_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
