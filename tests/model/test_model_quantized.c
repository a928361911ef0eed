// Quantized checkpoints of every scheme, and those of other people's tools: logits against those of
// the exactly dequantized weights.
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "model/runner.h"
#include "model/scratch_checkpoint.h"

static double logits_error(const char *folder, const char *file, const qn_model_options *o) {
    runner r;
    reference ref;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    reference_open(&ref, path, "tokens");
    runner_open(&r, folder, o, ref.n + 16);
    size_t v = (size_t)r.info->vocab_size;
    float *expected = reference_floats(&ref, "logits", NULL);
    float *x = runner_logits(&r, 0, ref.tokens, ref.n, ref.n);
    double e = worst_row(x, expected, ref.n, v, NULL);
    free(x);
    free(expected);
    runner_close(&r);
    reference_close(&ref);
    return e;
}

static void check_all(const char *parent, size_t at_least) {
    const qn_model_options o = {.precision = QN_EXACT, .n_threads = 2};
    DIR *d = opendir(parent);
    size_t n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char folder[384], path[512];
        snprintf(folder, sizeof folder, "%s/%s", parent, e->d_name);
        snprintf(path, sizeof path, "%s/reference.safetensors", folder);
        if (!strncmp(e->d_name, "broken", 6) || !qn_file_exists(path)) continue;
        double error = logits_error(folder, "reference.safetensors", &o);
        printf("  %-34s %.2g\n", e->d_name, error);
        if (!(error <= 1e-3)) fail_msg("%s: logits are off by %g", folder, error);
        n++;
    }
    closedir(d);
    assert_true(n >= at_least);
}

static void schemes(void **state) {
    (void)state;
    check_all("tests/data/quantized", 21);
}

static void other_tools(void **state) {
    (void)state;
    check_all("tests/data/thirdparty", 10);
}

// --weights: a float checkpoint quantized while it is loaded stays near itself. Trained models, as
// random ones magnify every error.
static void quantized_while_loading(void **state) {
    static const char *const folders[] = {"models/tiny-qwen3", "tests/data/tiny-qwen3.5"};
    static const struct {
        qn_weights weights;
        double limit;
    } formats[] = {{QN_F32, 1e-4}, {QN_BF16, 1e-4}, {QN_Q8, 0.06}, {QN_Q4, 0.6}};
    (void)state;
    for (size_t f = 0; f < 2; f++)
        for (size_t i = 0; i < 4; i++) {
            const qn_model_options o = {.precision = QN_EXACT, .n_threads = 1,
                                        .weights = formats[i].weights, .no_vision = true};
            double e = logits_error(folders[f], "reference/reference.safetensors", &o);
            printf("  %s, format %zu: %.2g\n", folders[f], i, e);
            if (!(e <= formats[i].limit)) fail_msg("%s, format %zu: off by %g", folders[f], i, e);
        }
}

// Fast precision on the trained models: what the CPU does best is near the original too.
static void fast_precision(void **state) {
    static const char *const folders[] = {"models/tiny-qwen3", "tests/data/tiny-qwen3.5"};
    const qn_model_options o = {.precision = QN_FAST, .n_threads = 1, .no_vision = true};
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        double e = logits_error(folders[f], "reference/reference.safetensors", &o);
        printf("  %s, fast: %.2g\n", folders[f], e);
        assert_true(e <= 0.03);
    }
}

// Projections whose rows are put in another order at load keep their codes: the logits are those of
// the exact floats.
static void reordered(void **state) {
    static const struct {
        const char *source, *tensors;
    } cases[] = {{"tests/data/families/qwen3_5", "self_attn.q_proj"},
                 {"tests/data/families/qwen3_next", "self_attn.q_proj"},
                 {"tests/data/families/qwen3_next", "linear_attn.in_proj_qkvz"}};
    const qn_model_options o = {.precision = QN_EXACT, .n_threads = 2, .no_vision = true};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        float *x[2];
        size_t v = 0, bytes[2];
        for (int floats = 0; floats < 2; floats++) {
            const edit e = {.name = cases[i].tensors,
                            .quantize = floats ? EDIT_GPTQ_FLOATS : EDIT_GPTQ};
            char folder[64], path[128];
            snprintf(path, sizeof path, "%s/config.json", cases[i].source);
            json_t *config = json_load_file(path, 0, NULL);
            json_object_set_new(config, "quantization_config",
                                json_pack("{ss si si sb sb}", "quant_method", "gptq", "bits", 2,
                                          "group_size", 16, "sym", 1, "desc_act", 1));
            if (floats) json_object_del(config, "quantization_config");
            scratch_write(folder, cases[i].source, config, &e, 1);
            json_decref(config);
            runner r;
            reference ref;
            snprintf(path, sizeof path, "%s/reference.safetensors", cases[i].source);
            reference_open(&ref, path, "tokens");
            runner_open(&r, folder, &o, 64);
            v = (size_t)r.info->vocab_size;
            bytes[floats] = r.info->weight_bytes;
            x[floats] = runner_logits(&r, 0, ref.tokens, 40, 40);
            runner_close(&r);
            reference_close(&ref);
            scratch_remove(folder);
        }
        double error = worst_row(x[0], x[1], 40, v, NULL);
        if (!(error <= 1e-5)) fail_msg("%s: off by %g", cases[i].tensors, error);
        assert_true(bytes[0] < bytes[1]); // codes, not floats
        free(x[0]);
        free(x[1]);
    }
}

int main(void) {
    qn_log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemes),
        cmocka_unit_test(other_tools),
        cmocka_unit_test(quantized_while_loading),
        cmocka_unit_test(fast_precision),
        cmocka_unit_test(reordered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
