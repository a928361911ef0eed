// eval: perplexities of the original implementation, figures against a plain computation from a
// dump, and equalities between ways of cutting the work.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/str.h"
#include "quant/dump.h"
#include "quant/eval.h"
#include "quant/measure.h"
#include "store/shard_writer.h"
#include "support/scratch.h"

#define TINY "models/tiny-qwen3"
#define TINY_INT8 "models/tiny-qwen3-gptq-int8"
#define TINY_HYBRID "tests/data/tiny-qwen3.5"
enum { T = 48 };

static qn_buf text;
static int32_t *ids; // of text
static size_t n_ids;

static int setup(void **state) {
    (void)state;
    qn_err err = {0};
    qn_tokenizer *t = qn_tokenizer_load(TINY, &err);
    bool ok = t && qn_file_read(TINY "/reference/valid.txt", 1 << 20, &text, &err) &&
              qn_encode(t, text.data, text.n, 0, &ids, &n_ids, &err);
    qn_tokenizer_free(t);
    return ok ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    qn_buf_done(&text);
    qn_free(ids);
    return 0;
}

static json_t *eval(const char *model, qn_eval_options o) {
    json_t *report = NULL;
    qn_err err = {0};
    o.n_threads = o.n_threads ? o.n_threads : 2;
    o.precision = QN_EXACT;
    if (!qn_eval(model, &o, &report, &err)) fail_msg("%s: %s", model, err.text);
    return report;
}

static double number(const json_t *r, const char *section, const char *key) {
    const json_t *o = section ? json_object_get(r, section) : r, *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("%s is no number", key);
    return json_number_value(v);
}

static void near(double x, double y, double tolerance) {
    if (!(fabs(x - y) <= tolerance)) fail_msg("%.17g is not %.17g", x, y);
}

static void perplexity_is_the_originals(const char *model) {
    char *path = qn_path_join(model, "reference/facts_summary.json");
    qn_err err = {0};
    json_t *summary = qn_json_load(path, 1 << 20, &err);
    assert_non_null(summary);
    json_t *r = eval(model, (qn_eval_options){.text = text.data, .n_text = text.n});
    near(number(r, NULL, "perplexity"), number(summary, NULL, "perplexity_512_windows"), 1e-4);
    near(number(r, NULL, "tokens"), number(summary, NULL, "tokens_scored"), 0);
    near(number(r, NULL, "text_tokens"), number(summary, NULL, "tokens"), 0);
    near(number(r, NULL, "windows"), 19, 0);
    near(number(r, NULL, "left_out"), 43, 0);
    near(number(r, NULL, "perplexity_error"),
         number(r, NULL, "perplexity") * number(r, NULL, "nll_error"), 1e-12);
    json_decref(r);
    json_decref(summary);
    qn_free(path);
}

static void perplexity_of_attention(void **state) {
    (void)state;
    perplexity_is_the_originals(TINY);
}

static void perplexity_of_the_hybrid(void **state) {
    (void)state;
    perplexity_is_the_originals(TINY_HYBRID);
}

// ---- against a dump ----

static char *make_dump(const char *model, const int32_t *tokens, size_t n) {
    qn_err err = {0};
    char *path = scratch_path("dump.safetensors");
    qn_model_options mo = {.precision = QN_EXACT, .n_threads = 2};
    qn_engine_options eo = {.no_prefix_cache = true, .max_num_seqs = 1};
    qn_model *m = qn_model_load(model, &mo, &err);
    qn_engine *e = m ? qn_engine_new(m, &eo, &err) : NULL;
    qn_dump_options o = {.tokens = tokens, .n_tokens = n};
    if (!e || !qn_dump_write(m, e, path, &o, &err)) fail_msg("%s", err.text);
    qn_engine_free(e);
    qn_model_free(m);
    return path;
}

// Mean negative log-likelihood of tokens 1 … n - 1 from the dump's own numbers.
static double plain_nll(const char *path) {
    qn_err err = {0};
    qn_ckpt *c = qn_ckpt_open(path, 0, &err);
    const qn_tensor *l = qn_ckpt_find(c, "logits"), *t = qn_ckpt_find(c, "tokens");
    size_t v = l->shape[1], n = l->shape[0];
    float *row = malloc(v * sizeof *row);
    double sum = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        int32_t target;
        memcpy(&target, t->data + 4 * (i + 1), 4);
        qn_tensor_to_f32(l, i * v, v, row);
        double max = -INFINITY, total = 0;
        for (size_t k = 0; k < v; k++) max = fmax(max, (double)row[k]);
        for (size_t k = 0; k < v; k++) total += exp((double)row[k] - max);
        sum += max + log(total) - (double)row[target];
    }
    free(row);
    qn_ckpt_free(c);
    return sum / (double)(n - 1);
}

static void a_dump_is_a_reference(void **state) {
    (void)state;
    char *dump = make_dump(TINY, ids, T);
    json_t *r = eval(TINY, (qn_eval_options){.reference = dump});
    near(number(r, NULL, "nll"), plain_nll(dump), 1e-9);
    near(number(r, NULL, "tokens"), T - 1, 0);
    near(number(r, NULL, "context"), T, 0);
    near(number(r, "kl", "max"), 0, 0); // the same model: not a bit differs
    near(number(r, "top1", "agreement"), 1, 0);
    near(number(r, "reference", "perplexity"), number(r, NULL, "perplexity"), 1e-12);
    json_decref(r);
    // A text that begins like the dump is scored as far as the dump goes.
    r = eval(TINY, (qn_eval_options){.reference = dump, .text = text.data, .n_text = text.n});
    near(number(r, NULL, "tokens"), T - 1, 0);
    near(number(r, NULL, "left_out"), (double)n_ids - T, 0);
    json_decref(r);
    r = eval(TINY_INT8, (qn_eval_options){.reference = dump});
    assert_true(number(r, "kl", "mean") > 0 && number(r, "kl", "mean") < 1e-3);
    assert_true(number(r, "kl", "max") >= number(r, "kl", "p99"));
    assert_true(number(r, "kl", "p99") >= number(r, "kl", "median"));
    json_decref(r);
    scratch_remove(dump);
}

// The original run beside the model says what its dump says.
static void a_model_is_a_reference(void **state) {
    (void)state;
    const char *sentence = "The capital of France is Paris. The capital of Italy is Rome.";
    qn_err err = {0};
    qn_tokenizer *t = qn_tokenizer_load(TINY, &err);
    int32_t *some = NULL;
    size_t n = 0;
    assert_true(t && qn_encode(t, sentence, strlen(sentence), 0, &some, &n, &err));
    char *dump = make_dump(TINY, some, n);
    json_t *a = eval(TINY_INT8, (qn_eval_options){.reference = dump});
    json_t *b = eval(TINY_INT8, (qn_eval_options){.reference = TINY, .text = sentence,
                                                  .n_text = strlen(sentence), .context = n});
    static const char *const keys[] = {"mean", "std_error", "median", "p99", "max"};
    for (int i = 0; i < 5; i++) near(number(a, "kl", keys[i]), number(b, "kl", keys[i]), 0);
    near(number(a, "top1", "agreement"), number(b, "top1", "agreement"), 0);
    near(number(a, "reference", "perplexity"), number(b, "reference", "perplexity"), 0);
    json_decref(a);
    json_decref(b);
    qn_free(some);
    qn_tokenizer_free(t);
    scratch_remove(dump);
}

// Mean, median, 99 % and maximum of the divergence have error bars: those that 4000 resamples by
// NumPy gave for the same predictions by transformers.
static void every_figure_has_an_error_bar(void **state) {
    (void)state;
    json_t *r = eval(TINY_INT8, (qn_eval_options){.text = text.data, .n_text = 1701, .context = 128,
                                                  .stride = 64, .reference = TINY});
    static const struct {
        const char *key;
        double expected, tolerance;
    } errors[] = {{"mean", 3.38649e-07, 0.01},       {"std_error", 9.33570e-08, 0.01},
                  {"median", 2.75493e-09, 0.01},     {"median_error", 1.46460e-09, 0.04},
                  {"p99", 7.08941e-06, 0.01},        {"p99_error", 2.63314e-06, 0.08},
                  {"max", 2.37721e-05, 0.01},        {"max_error", 7.47369e-06, 0.04}};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        near(number(r, "kl", errors[i].key), errors[i].expected,
             errors[i].tolerance * errors[i].expected);
    near(number(r, NULL, "perplexity"), 2.05307, 1e-4);
    json_decref(r);
    // A model against itself: nothing differs, and nothing of that is uncertain.
    r = eval(TINY, (qn_eval_options){.text = text.data, .n_text = 600, .context = 32,
                                     .reference = TINY});
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        near(number(r, "kl", errors[i].key), 0, 0);
    near(number(r, "top1", "agreement"), 1, 0);
    near(number(r, "reference", "perplexity"), number(r, NULL, "perplexity"), 0);
    json_decref(r);
}

// ---- the same work, cut otherwise ----

static char *figures_of(const char *model, qn_eval_options o) {
    json_t *r = eval(model, o);
    json_object_del(r, "seconds");
    json_object_del(r, "tok_s");
    char *s = qn_json_text(r, false);
    json_decref(r);
    return s;
}

static void steps_and_threads_change_nothing(void **state) {
    (void)state;
    static const qn_eval_options ways[] = {{.n_threads = 1},
                                           {.n_threads = 3, .max_num_batched_tokens = 7},
                                           {.max_num_batched_tokens = 256},
                                           {.max_num_batched_tokens = 100, .max_num_seqs = 2}};
    char *first = NULL;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        qn_eval_options o = ways[i];
        o.text = text.data;
        o.n_text = 2000;
        o.context = 40;
        o.reference = TINY;
        char *s = figures_of(TINY_INT8, o);
        if (first) assert_string_equal(s, first);
        if (first) qn_free(s);
        else first = s;
    }
    qn_free(first);
}

static void strides_score_every_token_once(void **state) {
    (void)state;
    qn_eval_options o = {.text = text.data, .n_text = 2000, .context = 64, .tail = true};
    static const size_t strides[] = {64, 32, 8};
    // By transformers 5.23 in fp32, with the window rule spelled out in a plain loop.
    static const double expected[] = {1.2154180930989, 0.6722720270203, 0.6759719900146};
    double n = 0;
    for (int i = 0; i < 3; i++) {
        o.stride = strides[i];
        json_t *r = eval(TINY, o);
        n = number(r, NULL, "text_tokens");
        near(number(r, NULL, "left_out"), 0, 0);
        if (i) near(number(r, NULL, "tokens"), n - 1, 0); // all but the first
        near(number(r, NULL, "nll"), expected[i], 1e-5);
        json_decref(r);
    }
    o.stride = 0;
    o.tail = false;
    json_t *r = eval(TINY, o);
    near(number(r, NULL, "left_out"), fmod(n, 64), 0);
    near(number(r, NULL, "tokens"), floor(n / 64) * 63, 0);
    json_decref(r);
    o.n_text = 60; // shorter than a window: scored all the same
    r = eval(TINY, o);
    near(number(r, NULL, "windows"), 1, 0);
    near(number(r, NULL, "tokens"), number(r, NULL, "text_tokens") - 1, 0);
    json_decref(r);
}

// ---- refusals ----

static void refused(const char *model, qn_eval_options o, qn_code code, const char *said) {
    json_t *report = NULL;
    qn_err err = {0};
    assert_false(qn_eval(model, &o, &report, &err));
    assert_null(report);
    if (!strstr(err.text, said)) fail_msg("\"%s\" does not say \"%s\"", err.text, said);
    assert_int_equal(err.code, code);
}

// The value stands at position 5 for the token that follows.
static char *dump_with(const char *name, size_t v, float value, bool tokens) {
    qn_err err = {0};
    char *path = scratch_path("made.safetensors");
    qn_shards *s = qn_shards_new_file(path, NULL, &err);
    size_t shape[2] = {T, v};
    float *x = malloc(T * v * sizeof *x);
    for (size_t i = 0; i < T * v; i++) x[i] = (float)(i % 7);
    x[5 * v + (size_t)ids[6] % v] = value;
    bool ok = (!tokens || qn_shards_declare(s, "tokens", QN_DT_I32, shape, 1, &err)) &&
              qn_shards_declare(s, name, QN_DT_F32, shape, 2, &err) &&
              (!tokens || qn_shards_add(s, ids, T * sizeof *ids, &err)) &&
              qn_shards_add(s, x, T * v * sizeof *x, &err) && qn_shards_finish(s, &err);
    if (!ok) fail_msg("%s", err.text);
    qn_shards_free(s);
    free(x);
    return path;
}

static void what_cannot_be_scored(void **state) {
    (void)state;
    const char *t = text.data;
    refused(TINY, (qn_eval_options){0}, QN_USAGE, "no text is given");
    refused(TINY, (qn_eval_options){.text = "", .n_text = 0}, QN_INPUT, "0 tokens");
    refused(TINY, (qn_eval_options){.text = "a\xff", .n_text = 2}, QN_INPUT, "the text: ");
    refused(TINY, (qn_eval_options){.text = "a\xff", .n_text = 2, .text_name = "t.txt"}, QN_INPUT,
            "t.txt: text is not UTF-8 at byte 1");
    refused(TINY, (qn_eval_options){.text = "", .text_name = "t.txt"}, QN_INPUT,
            "t.txt has 0 tokens, expected at least 2");
    refused(TINY, (qn_eval_options){.text = t, .n_text = 900, .context = 8, .stride = 9}, QN_USAGE,
            "--stride is 9");
    refused(TINY, (qn_eval_options){.text = t, .n_text = 900, .context = 1}, QN_USAGE,
            "too short");
    refused(TINY, (qn_eval_options){.text = t, .n_text = 900, .context = 1 << 30}, QN_LIMIT,
            "--context is 1073741824, expected at most the ");
    refused(TINY, (qn_eval_options){.text = t, .n_text = 9, .reference = "no/such"}, QN_NOT_FOUND,
            "reference: ");
    refused("tests/data/families/qwen3", (qn_eval_options){.text = t, .n_text = 900},
            QN_UNSUPPORTED, "has no tokenizer");
}

static void dumps_that_are_no_reference(void **state) {
    (void)state;
    const char *t = text.data;
    char *nan_dump = dump_with("logits", 4096, NAN, true);
    refused(TINY, (qn_eval_options){.reference = nan_dump}, QN_NONFINITE,
            "logits of the reference are not finite, expected numbers: window 0, position 5");
    refused(TINY, (qn_eval_options){.reference = nan_dump, .text = "Hello, world, hello.",
                                    .n_text = 20}, QN_INPUT, "tokens differ first at position 0");
    refused(TINY, (qn_eval_options){.reference = nan_dump, .context = 7}, QN_USAGE,
            "--context is 7, expected the 48 positions");
    refused(TINY, (qn_eval_options){.reference = nan_dump, .stride = 7}, QN_USAGE, "no --stride");
    scratch_remove(nan_dump);
    char *other = dump_with("hidden.0", 64, 0, true);
    refused(TINY, (qn_eval_options){.reference = other, .text = t, .n_text = 900}, QN_INPUT,
            "has no tensor logits");
    scratch_remove(other);
    char *wordless = dump_with("logits", 4096, 0, false);
    refused(TINY, (qn_eval_options){.reference = wordless}, QN_INPUT, "0 tokens, expected one");
    scratch_remove(wordless);
    char *foreign = dump_with("logits", 64, 0, true);
    refused(TINY, (qn_eval_options){.reference = foreign}, QN_INPUT,
            "has a vocabulary of 64, expected about the 4096 of " TINY);
    scratch_remove(foreign);
}

// A vocabulary of another size: the divergence is over what both have.
static void padded_vocabularies(void **state) {
    (void)state;
    char *wide = dump_with("logits", 4100, 0, true);
    json_t *r = eval(TINY, (qn_eval_options){.reference = wide});
    assert_true(number(r, "kl", "mean") > 0);
    assert_true(isfinite(number(r, "kl", "max")));
    json_decref(r);
    scratch_remove(wide);
}

// A reference that rules out what follows: no figure becomes a number that looks good.
static void an_endless_divergence(void **state) {
    (void)state;
    char *sure = dump_with("logits", 4096, -INFINITY, true);
    json_t *r = eval(TINY, (qn_eval_options){.reference = sure});
    assert_true(isfinite(number(r, "kl", "max"))); // the reference may rule out
    assert_string_equal(json_string_value(json_object_get(json_object_get(r, "reference"),
                                                          "perplexity")), "inf");
    json_decref(r);
    scratch_remove(sure);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(perplexity_of_attention),
        cmocka_unit_test(perplexity_of_the_hybrid),
        cmocka_unit_test(a_dump_is_a_reference),
        cmocka_unit_test(a_model_is_a_reference),
        cmocka_unit_test(every_figure_has_an_error_bar),
        cmocka_unit_test(steps_and_threads_change_nothing),
        cmocka_unit_test(strides_score_every_token_once),
        cmocka_unit_test(what_cannot_be_scored),
        cmocka_unit_test(dumps_that_are_no_reference),
        cmocka_unit_test(padded_vocabularies),
        cmocka_unit_test(an_endless_divergence),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
