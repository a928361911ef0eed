// pad: shapes, places of the zeros, equal outputs, memory, and what is refused.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "quant/pad.h"
#include "quant/pad_plan.h"
#include "store/weight.h"
#include "support/scratch.h"

// ---- where units go ----

static void official_interleaving(void **state) {
    (void)state;
    // QwenLM/Qwen3, quantization docs: 128 zeros among 29568 units.
    const qn_pad_size s = {"intermediate_size", 29568, 29696, QN_PAD_INTERLEAVE};
    assert_int_equal(qn_pad_source(&s, 0), 0);
    assert_true(qn_pad_source(&s, 1) == SIZE_MAX);
    assert_int_equal(qn_pad_source(&s, 254), 127);
    assert_true(qn_pad_source(&s, 255) == SIZE_MAX);
    assert_int_equal(qn_pad_source(&s, 256), 128);
    assert_int_equal(qn_pad_source(&s, 29695), 29567);
}

static void every_unit_once_and_no_empty_group(void **state) {
    (void)state;
    static const size_t cases[][3] = {{29568, 29696, 128}, {96, 1024, 128}, {384, 512, 128},
                                      {320, 512, 64},      {100, 256, 32},  {7, 64, 32}};
    for (size_t i = 0; i < 6; i++)
        for (int layout = 0; layout < 2; layout++) {
            const qn_pad_size s = {"x", cases[i][0], cases[i][1], (qn_pad_layout)layout};
            size_t next = 0, in_group = 0;
            for (size_t place = 0; place < s.to; place++) {
                size_t k = qn_pad_source(&s, place);
                if (k != SIZE_MAX) assert_int_equal(k, next++);
                in_group += k != SIZE_MAX;
                if ((place + 1) % cases[i][2]) continue;
                if (layout == QN_PAD_INTERLEAVE && in_group == 0)
                    fail_msg("%zu to %zu: an empty group ends at %zu", s.from, s.to, place);
                in_group = 0;
            }
            assert_int_equal(next, s.from);
        }
}

// ---- checkpoints ----

// A folder with the weights of another and a config of its own (taken over).
static void scratch_copy(const char *from, const char *to, json_t *config) {
    qn_err err = {0};
    qn_buf weights = {0};
    char *source = qn_path_join(from, "model.safetensors");
    char *there = qn_path_join(to, "model.safetensors"), *text = qn_json_text(config, true);
    char *file = qn_path_join(to, "config.json");
    assert_int_equal(mkdir(to, 0700), 0);
    assert_true(qn_file_read(source, (size_t)64 << 20, &weights, &err));
    assert_true(qn_file_write(there, weights.data, weights.n, &err));
    assert_true(qn_file_write(file, text, strlen(text), &err));
    qn_buf_done(&weights);
    json_decref(config);
    qn_free(text);
    free(source);
    free(there);
    free(file);
}

typedef struct rows { // logits of every position
    float *data;
    size_t n, cap;
} rows;

static void on_logits(void *user, const char *name, size_t position, const float *data, size_t n) {
    rows *r = user;
    (void)position;
    if (strcmp(name, "logits") != 0) return;
    if (r->n + n > r->cap) r->data = realloc(r->data, (r->cap = 2 * (r->n + n)) * sizeof(float));
    memcpy(r->data + r->n, data, n * sizeof(float));
    r->n += n;
}

static void on_event(void *user, qn_request *r, const qn_event *e) {
    (void)user;
    (void)r;
    if (e->finish == QN_FINISH_ERROR) fail_msg("%s", e->err->text);
}

static rows logits_of(const char *path) {
    static const int32_t prompt[] = {5, 17, 80, 3, 41, 200, 11, 9, 150, 33, 2, 64};
    qn_err err = {0};
    rows r = {0};
    qn_model_options how = {.precision = QN_EXACT, .n_threads = 2};
    qn_model *m = qn_model_load(path, &how, &err);
    if (!m) fail_msg("%s", err.text);
    qn_engine_options eo = {.no_prefix_cache = true};
    qn_engine *e = qn_engine_new(m, &eo, &err);
    if (!e) fail_msg("%s", err.text);
    qn_request_options o = {.tokens = prompt, .n_tokens = 12, .on_event = on_event,
                            .probe = QN_PROBE_LOGITS, .on_probe = on_logits, .user = &r,
                            .no_output = true};
    o.sampling.max_tokens = 1;
    assert_non_null(qn_engine_submit(e, &o, &err));
    bool busy = true;
    while (busy) assert_true(qn_engine_step(e, &busy, &err));
    qn_engine_free(e);
    qn_model_free(m);
    return r;
}

// Largest difference of the logits, relative to the largest logit; 0 only if bits agree.
static double difference(const char *a, const char *b) {
    rows x = logits_of(a), y = logits_of(b);
    assert_int_equal(x.n, y.n);
    double largest = 0, off = 0;
    for (size_t i = 0; i < x.n; i++) {
        largest = fmax(largest, fabs((double)x.data[i]));
        off = fmax(off, fabs((double)x.data[i] - (double)y.data[i]));
    }
    if (memcmp(x.data, y.data, x.n * sizeof(float)) != 0 && off == 0) off = 1e-30;
    free(x.data);
    free(y.data);
    return off / largest;
}

static bool flag(const json_t *o, const char *key) {
    return json_is_true(json_object_get(o, key));
}

// What the report says of the logits must be so.
static double pad_and_compare(const char *folder, qn_pad_options o) {
    qn_err err = {0};
    json_t *report;
    bool said;
    char *out = scratch_path("padded");
    if (!qn_pad(folder, out, &o, &report, &err)) fail_msg("%s: %s", folder, err.text);
    json_t *check = json_object_get(report, "independent_check");
    assert_int_equal(json_integer_value(json_object_get(check, "mismatches")), 0);
    assert_int_equal(json_integer_value(json_object_get(check, "zero_scales")),
                     json_integer_value(json_object_get(check, "zero_scales_of_the_source")));
    said = flag(json_object_get(check, "forward"), "logits_bit_equal");
    json_decref(report);
    double d = difference(folder, out);
    if (said != (d == 0)) fail_msg("%s: the report says %d, logits differ by %g", folder, said, d);
    scratch_remove(out);
    return d;
}

static void tail_padding_changes_no_bit(void **state) {
    (void)state;
    static const char *const folders[] = {"tests/data/quantized/base-bf16",
                                          "tests/data/families/qwen2",
                                          "tests/data/families/qwen3_moe",
                                          "tests/data/families/qwen3_moe-fused",
                                          "tests/data/families/qwen3_next",
                                          "tests/data/families/qwen3_5"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        double d = pad_and_compare(folders[i], (qn_pad_options){.tp = 2, .group_size = 128});
        if (d != 0) fail_msg("%s: logits differ by %g", folders[i], d);
    }
}

static void interleaving_only_rounds(void **state) {
    (void)state;
    qn_pad_options o = {.tp = 8, .group_size = 64, .layout = QN_PAD_INTERLEAVE};
    assert_true(pad_and_compare("tests/data/quantized/base-bf16", o) < 1e-5);
    assert_true(pad_and_compare("tests/data/families/qwen3_moe-fused", o) < 1e-5);
}

static void quantized_files_are_padded_as_they_are(void **state) {
    (void)state;
    static const char *const folders[] = {
        "gptq-int8-g128", "gptq-int4-v2", "gptq-int4-mislabelled", "gptq-int3-g64",
        "gptq-int2-g32", "gptq-int8-channel", "gptq-int8-nogidx", "gptq-int4-lastgroup",
        "gptq-int4-partial", "awq-gemm-g128", "awq-gemm-g64", "awq-gemv-g128",
        "awq-zerogroup"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char folder[128];
        snprintf(folder, sizeof folder, "tests/data/quantized/%s", folders[i]);
        double d = pad_and_compare(folder, (qn_pad_options){.tp = 5}); // divides none of them
        if (d > 1e-6) fail_msg("%s: logits differ by %g", folder, d);
    }
}

static void a_wrong_label_is_corrected(void **state) {
    (void)state;
    qn_err err = {0};
    json_t *report;
    const qn_weight *list;
    size_t n;
    char *out = scratch_path("relabelled");
    if (!qn_pad("tests/data/quantized/gptq-int4-mislabelled", out, &(qn_pad_options){.tp = 8},
                &report, &err))
        fail_msg("%s", err.text);
    qn_ckpt *c = qn_ckpt_open(out, 0, &err);
    assert_non_null(c);
    assert_true(qn_ckpt_weights(c, &list, &n, &err));
    assert_int_equal(qn_ckpt_n_label_errors(c), 0);
    qn_ckpt_free(c);
    json_decref(report);
    scratch_remove(out);
}

static json_t *padded(const char *folder, const char *out, qn_pad_options o) {
    qn_err err = {0};
    json_t *report;
    if (!qn_pad(folder, out, &o, &report, &err)) fail_msg("%s: %s", folder, err.text);
    return report;
}

static json_int_t figure(const json_t *report, const char *part, const char *key) {
    return json_integer_value(json_object_get(json_object_get(report, part), key));
}

// Scales of 0 in what is only copied are not overlooked.
static void old_zero_scales_are_told(void **state) {
    (void)state;
    char *out = scratch_path("zeros");
    json_t *report = padded("tests/data/quantized/awq-zerogroup", out, (qn_pad_options){.tp = 4});
    assert_int_equal(figure(report, "independent_check", "zero_scales"), 4);
    assert_int_equal(figure(report, "independent_check", "zero_scales_of_the_source"), 4);
    json_decref(report);
    scratch_remove(out);
}

static void the_summary_counts_matrices(void **state) {
    (void)state;
    char *out = scratch_path("counted");
    json_t *report = padded("tests/data/quantized/gptq-int8-g128", out, (qn_pad_options){.tp = 2});
    assert_int_equal(figure(report, "summary", "quantized"), 14); // two layers of seven
    assert_int_equal(figure(report, "summary", "padded"), 6);     // gate, up and down of both
    json_decref(report);
    scratch_remove(out);
    out = scratch_path("counted");
    report = padded("tests/data/quantized/base-bf16", out, (qn_pad_options){.tp = 3});
    assert_int_equal(figure(report, "summary", "quantized"), 0);
    assert_int_equal(figure(report, "summary", "padded"), 0);
    json_decref(report);
    scratch_remove(out);
}

static void fused_experts_are_run_too(void **state) {
    (void)state;
    char *out = scratch_path("fused");
    json_t *report = padded("tests/data/families/qwen3_moe-fused", out, (qn_pad_options){.tp = 2});
    // Two dense layers, two of eight experts.
    assert_int_equal(figure(report, "independent_check", "mlps_compared"), 2 + 2 * 8);
    json_decref(report);
    scratch_remove(out);
}

// One group over 384 inputs, said to be of 512: behind the padding a second one has to begin, or
// readers that believe group_size find too few scales.
static void a_group_wider_than_the_matrix(void **state) {
    (void)state;
    qn_err err = {0};
    char *folder = scratch_path("wide"), *out = scratch_path("wide-padded");
    json_t *config = json_load_file("tests/data/quantized/gptq-int8-channel/config.json", 0, NULL);
    json_object_set_new(json_object_get(config, "quantization_config"), "group_size",
                        json_integer(512));
    scratch_copy("tests/data/quantized/gptq-int8-channel", folder, config);
    json_decref(padded(folder, out, (qn_pad_options){.tp = 2}));
    qn_ckpt *c = qn_ckpt_open(out, 0, &err);
    const qn_weight *list;
    size_t n;
    assert_true(qn_ckpt_weights(c, &list, &n, &err));
    const qn_weight *down = qn_ckpt_weight(c, "model.layers.0.mlp.down_proj.weight");
    assert_int_equal(down->cols, 1024);
    assert_int_equal(down->n_groups, 2);
    assert_int_equal(qn_ckpt_n_label_errors(c), 0);
    qn_ckpt_free(c);
    if (difference(folder, out) != 0) fail_msg("logits differ");
    scratch_remove(out);
    scratch_remove(folder);
}

// Said plainly, and proven by what there is to prove: bytes, not MLPs that nobody touched.
static void nothing_to_do_is_a_copy(void **state) {
    (void)state;
    const char *folder = "tests/data/quantized/base-bf16";
    char *out = scratch_path("same");
    json_t *report = padded(folder, out, (qn_pad_options){.tp = 3});
    const json_t *check = json_object_get(report, "independent_check");
    assert_true(flag(json_object_get(report, "summary"), "nothing_to_pad"));
    const char *note = json_string_value(json_array_get(json_object_get(report, "notes"), 1));
    assert_true(note && strncmp(note, "nothing to pad: ", 16) == 0); // the first is of 3 devices
    assert_int_equal(figure(report, "independent_check", "tensors_identical"),
                     figure(report, "summary", "copied"));
    assert_null(json_object_get(check, "mlps_compared"));
    assert_null(json_object_get(check, "rows_checked"));
    assert_null(json_object_get(check, "forward"));
    if (difference(folder, out) != 0) fail_msg("logits differ");
    json_decref(report);
    scratch_remove(out);
    // Act-order groups span all devices however well the size divides; that is not kept quiet.
    report = padded("tests/data/quantized/gptq-int4-g32-actorder", out = scratch_path("order"),
                    (qn_pad_options){.tp = 2});
    char *notes = json_dumps(json_object_get(report, "notes"), 0);
    assert_non_null(strstr(notes, "down_proj.weight is quantized in act-order (desc_act)"));
    free(notes);
    json_decref(report);
    scratch_remove(out);
}

// ---- the proof ----

static bool prove_forward(void *subject, const char *dir, json_t *report, qn_err *err) {
    json_t *result = NULL;
    bool ok = qn_pad_forward(subject, dir, &result, err);
    if (ok && !flag(result, "logits_bit_equal")) fail_msg("logits are not bit-equal");
    json_decref(result);
    (void)report;
    return ok;
}

typedef bool (*prover)(void *subject, const char *dir, json_t *report, qn_err *err);

// Pads, then overwrites two bytes of one tensor of the result, and asks the proof.
static void prove_damaged(prover prove, const char *folder, const char *tensor, size_t at,
                          uint16_t value, const char *expected) {
    qn_err err = {0};
    qn_source_model m;
    char *out = scratch_path("damaged");
    json_decref(padded(folder, out, (qn_pad_options){.tp = 4}));
    qn_ckpt *c = qn_ckpt_open(out, 0, &err);
    size_t offset = qn_ckpt_find(c, tensor)->offset + at;
    qn_ckpt_free(c);
    json_t *notes = json_array(), *report = json_pack("{s:{}}", "summary");
    assert_true(qn_source_model_open(&m, folder, false, notes, &err));
    const qn_pad_size sizes[3] = {{"intermediate_size", 384, 512, QN_PAD_TAIL}};
    qn_pad_subject subject = {.source = &m, .sizes = sizes, .n_threads = 1};
    if (!prove(&subject, out, report, &err)) fail_msg("%s", err.text);
    char *path = qn_path_join(out, "model.safetensors");
    FILE *f = fopen(path, "r+b");
    assert_true(f && fseek(f, (long)offset, SEEK_SET) == 0 && fwrite(&value, 2, 1, f) == 1);
    fclose(f);
    assert_false(prove(&subject, out, report, &err));
    if (!strstr(err.text, expected)) fail_msg("\"%s\" does not say: %s", err.text, expected);
    qn_source_model_close(&m);
    json_decref(notes);
    json_decref(report);
    free(path);
    scratch_remove(out);
}

enum { ONE = 0x3F80, SLIGHTLY_MORE = 0x3F81, NOT_A_NUMBER = 0x7FC0 }; // bf16

static void the_proof_sees_damage(void **state) {
    (void)state;
    const char *folder = "tests/data/quantized/base-bf16";
    prove_damaged(qn_pad_prove, folder, "model.layers.1.mlp.down_proj.weight",
                  2 * (512 * 7 + 500), ONE,
                  "1 value is not where it should be"); // a zero that is none
    prove_damaged(qn_pad_prove, folder, "model.layers.0.mlp.up_proj.weight", 2 * (128 * 300 + 3),
                  ONE, "1 value is not where it should be"); // an old value lost
    prove_damaged(qn_pad_prove, folder, "model.layers.1.self_attn.q_proj.weight", 2 * 77, ONE,
                  "self_attn.q_proj.weight is not the copy"); // what padding does not touch
    folder = "tests/data/quantized/gptq-int8-channel"; // scales [1, 512] of which 128 are new
    prove_damaged(qn_pad_prove, folder, "model.layers.0.mlp.up_proj.scales", 2 * 450, 0,
                  "1 padded group has scale 0");
}

static void a_forward_pass_sees_damage(void **state) {
    (void)state;
    const char *folder = "tests/data/quantized/base-bf16";
    prove_damaged(prove_forward, folder, "model.layers.0.self_attn.q_proj.weight", 2 * 77, ONE,
                  "logits differ by");
    prove_damaged(prove_forward, folder, "model.layers.1.mlp.down_proj.weight", 2 * 512 * 7,
                  NOT_A_NUMBER, "are not finite");
    prove_damaged(prove_forward, folder, "model.norm.weight", 0, SLIGHTLY_MORE, "logits");
}

// 64 layers of 16 MiB each do not fit beside a largest tensor of 64 MiB as float.
static void models_run_only_where_they_fit(void **state) {
    (void)state;
    const qn_tensor bf16 = {.dtype = QN_DT_BF16};
    qn_weight list[64];
    for (size_t i = 0; i < 64; i++)
        list[i] = (qn_weight){.parts = {&bf16}, .rows = 4096, .cols = 2048};
    assert_true(qn_pad_forward_fits(list, 8, 1000));
    assert_false(qn_pad_forward_fits(list, 64, 1000));
    assert_false(qn_pad_forward_fits(list, 8, 1000000)); // its logits are kept
}

static void refuse(const char *folder, qn_pad_options o, const char *expected) {
    qn_err err = {0};
    json_t *report;
    if (qn_pad(folder, "/tmp/never", &o, &report, &err)) fail_msg("%s was padded", folder);
    if (!strstr(err.text, expected)) fail_msg("\"%s\" does not say: %s", err.text, expected);
}

static void refusals(void **state) {
    (void)state;
    qn_pad_options o = {.tp = 2};
    refuse("tests/data/quantized/gptq-int4-g32-actorder", (qn_pad_options){.tp = 8}, "act-order");
    refuse("tests/data/quantized/ct-int8-channel", (qn_pad_options){.tp = 8}, "can be padded");
    o.layout = QN_PAD_INTERLEAVE;
    refuse("tests/data/quantized/gptq-int4-g128", o, "quantized checkpoint cannot follow");
    refuse("tests/data/quantized/base-bf16", (qn_pad_options){.tp = 0}, "--tp is 0");
    refuse("tests/data/quantized/gptq-int4-g128", (qn_pad_options){.tp = 2, .group_size = 64},
           "groups of 128 inputs");
    refuse("tests/data/quantized/gptq-int8-channel", (qn_pad_options){.tp = 1, .group_size = 77},
           "whole words");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(official_interleaving),
        cmocka_unit_test(every_unit_once_and_no_empty_group),
        cmocka_unit_test(tail_padding_changes_no_bit),
        cmocka_unit_test(interleaving_only_rounds),
        cmocka_unit_test(quantized_files_are_padded_as_they_are),
        cmocka_unit_test(a_wrong_label_is_corrected),
        cmocka_unit_test(old_zero_scales_are_told), cmocka_unit_test(the_summary_counts_matrices),
        cmocka_unit_test(fused_experts_are_run_too),
        cmocka_unit_test(a_group_wider_than_the_matrix),
        cmocka_unit_test(nothing_to_do_is_a_copy),
        cmocka_unit_test(the_proof_sees_damage),
        cmocka_unit_test(a_forward_pass_sees_damage),
        cmocka_unit_test(models_run_only_where_they_fit),
        cmocka_unit_test(refusals),
    };
    qn_log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
