// check --forward: an activation that f16 cannot hold is found where it arises, with layer, channel
// and expert, also when the residual stream never tells. The fixtures are made here: some rows of
// gate and up grow by powers of two and the columns of down that read them shrink by the same.
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
#include "quant/check.h"
#include "store/checkpoint.h"
#include "support/scratch.h"

#define DENSE "tests/data/families/qwen2"
#define MOE "tests/data/families/qwen3_moe"
#define HYBRID "tests/data/families/qwen3_5"
#define HYBRID_MOE "tests/data/families/qwen3_5_moe"

// ---- a copy with some values times a power of two ----

typedef struct scaling { // n values from `from` on, `stride` apart; n 0: all
    const char *tensor;
    size_t from, stride, n;
    int power;
} scaling;

static void scale(const char *weights, const qn_tensor *t, const scaling *s) {
    size_t n = s->n ? s->n : t->n, stride = s->n ? s->stride : 1;
    uint8_t *bytes = malloc(t->bytes);
    assert_int_equal(t->dtype, QN_DT_BF16);
    memcpy(bytes, t->data, t->bytes);
    for (size_t i = 0; i < n; i++) {
        uint16_t x;
        uint8_t *at = bytes + 2 * (s->from + i * stride);
        assert_true(s->from + i * stride < t->n);
        memcpy(&x, at, 2);
        int exponent = (x >> 7 & 255) + s->power;
        if (!(x & 0x7FFF)) continue;
        assert_true(exponent > 0 && exponent < 255);
        x = (uint16_t)((x & 0x807F) | exponent << 7);
        memcpy(at, &x, 2);
    }
    FILE *f = fopen(weights, "r+b");
    assert_int_equal(fseek(f, (long)t->offset, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, t->bytes, f), t->bytes);
    fclose(f);
    free(bytes);
}

static char *scaled_copy(const char *source, const scaling *s, size_t n) {
    static const char *const files[] = {"config.json", "model.safetensors"};
    char *dir = scratch_path("scaled"), *path = NULL;
    qn_err err = {0};
    assert_int_equal(mkdir(dir, 0777), 0);
    for (size_t i = 0; i < 2; i++) {
        qn_buf b = {0};
        char *from = qn_path_join(source, files[i]);
        free(path);
        path = qn_path_join(dir, files[i]);
        if (!qn_file_read(from, 1 << 26, &b, &err) || !qn_file_write(path, b.data, b.n, &err))
            fail_msg("%s", err.text);
        qn_buf_done(&b);
        free(from);
    }
    for (size_t i = 0; i < n; i++) { // opened afresh: a tensor may be scaled twice
        qn_ckpt *c = qn_ckpt_open(dir, 0, &err);
        const qn_tensor *t = c ? qn_ckpt_find(c, s[i].tensor) : NULL;
        if (!t) fail_msg("%s: %s", s[i].tensor, err.text);
        scale(path, t, &s[i]);
        qn_ckpt_free(c);
    }
    free(path);
    return dir;
}

// ---- what check says of it ----

static json_t *checked(const char *model) {
    json_t *report = NULL;
    qn_err err = {0};
    if (!qn_check(model, &(qn_check_options){.forward = true, .n_threads = 2}, &report, &err))
        fail_msg("%s: %s", model, err.text);
    return report;
}

static const json_t *forward_of(const json_t *report) {
    return json_object_get(json_object_get(report, "summary"), "forward");
}

static double number(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static const char *name_of(const json_t *o) {
    return json_string_value(json_object_get(o, "name"));
}

// The warning about activations, or NULL.
static const char *warning(const json_t *report) {
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(report, "problems"), i, p)
        if (!strcmp(json_string_value(json_object_get(p, "code")), "fp16-range")) {
            assert_string_equal(json_string_value(json_object_get(p, "severity")), "warning");
            const char *message = json_string_value(json_object_get(p, "message"));
            if (strstr(message, "forward: ")) return message;
        }
    return NULL;
}

// The residual stream stays far inside what f16 holds.
static void residual_is_small(const json_t *forward) {
    size_t i, j;
    json_t *l, *a;
    json_array_foreach(json_object_get(forward, "layers"), i, l)
        json_array_foreach(json_object_get(l, "activations"), j, a) {
            const char *name = name_of(a);
            if (!strcmp(name, "output") || !strcmp(name, "post_attention_layernorm.input"))
                assert_true(number(a, "max_abs") < 1000);
        }
}

// The first activation beyond 65504 is this one; expert -1: none.
static void first_is(const char *source, const scaling *s, size_t n, const char *name,
                     size_t channel, int expert) {
    char *dir = scaled_copy(source, s, n), at[128];
    json_t *r = checked(dir);
    const json_t *f = forward_of(r), *first = json_object_get(f, "first_over");
    const json_t *e = json_object_get(first, "expert");
    const char *message = warning(r);
    if (!message || strcmp(name_of(first), name)) {
        char *text = qn_json_text(f, true);
        fail_msg("%s: expected %s first: %s", source, name, text);
    }
    assert_int_equal((size_t)number(first, "channel"), channel);
    assert_true(number(first, "max_abs") > 65504 && number(first, "over") >= 1);
    if (expert < 0)
        assert_null(e);
    else
        assert_int_equal(json_integer_value(e), expert);
    snprintf(at, sizeof at, "first in %s, channel %zu,", name, channel);
    if (!strstr(message, at)) fail_msg("\"%s\" does not say: %s", message, at);
    residual_is_small(f);
    json_decref(r);
    scratch_remove(dir);
}

static void nothing_to_say_of_small_models(void **state) {
    static const char *const models[] = {DENSE, MOE, HYBRID, HYBRID_MOE, "models/tiny-qwen3"};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        json_t *r = checked(models[i]);
        if (warning(r)) fail_msg("%s: %s", models[i], warning(r));
        assert_true(json_is_null(json_object_get(forward_of(r), "first_over")));
        assert_true(number(json_object_get(forward_of(r), "largest"), "max_abs") > 1);
        json_decref(r);
    }
}

static void what_goes_into_down_proj(void **state) {
    (void)state;
    // Channel 37 of [128] in layer 1; hidden 64.
    const scaling dense[] = {{"model.layers.1.mlp.gate_proj.weight", 37 * 64, 1, 64, 10},
                             {"model.layers.1.mlp.up_proj.weight", 37 * 64, 1, 64, 10},
                             {"model.layers.1.mlp.down_proj.weight", 37, 128, 64, -20}};
    first_is(DENSE, dense, 3, "layer 1 mlp.down_proj.input", 37, -1);
    // Channel 21 of [64] in layer 2, which is a recurrent one; hidden 32.
    static const char *const layer = "model.language_model.layers.2.mlp.";
    char names[3][80];
    const char *const parts[] = {"gate_proj.weight", "up_proj.weight", "down_proj.weight"};
    for (size_t i = 0; i < 3; i++) snprintf(names[i], sizeof names[i], "%s%s", layer, parts[i]);
    const scaling hybrid[] = {{names[0], 21 * 32, 1, 32, 10},
                              {names[1], 21 * 32, 1, 32, 10},
                              {names[2], 21, 64, 32, -20}};
    first_is(HYBRID, hybrid, 3, "layer 2 mlp.down_proj.input", 21, -1);
}

static void inside_an_expert(void **state) {
    (void)state;
    // Channel 9 of [16] in expert 3 of layer 2; hidden 64.
    const scaling own[] = {{"model.layers.2.mlp.experts.3.gate_proj.weight", 9 * 64, 1, 64, 10},
                           {"model.layers.2.mlp.experts.3.up_proj.weight", 9 * 64, 1, 64, 10},
                           {"model.layers.2.mlp.experts.3.down_proj.weight", 9, 16, 64, -20}};
    first_is(MOE, own, 3, "layer 2 mlp.experts.3.down_proj.input", 9, 3);
    // The same in expert 5 of layer 0 where all lie in one tensor: [8][gate 16, up 16][32],
    // [8][32][16].
    static const char gate_up[] = "model.language_model.layers.0.mlp.experts.gate_up_proj";
    static const char down[] = "model.language_model.layers.0.mlp.experts.down_proj";
    const scaling fused[] = {{gate_up, (5 * 32 + 9) * 32, 1, 32, 10},
                             {gate_up, (5 * 32 + 16 + 9) * 32, 1, 32, 10},
                             {down, 5 * 32 * 16 + 9, 16, 32, -20}};
    first_is(HYBRID_MOE, fused, 3, "layer 0 mlp.experts.5.down_proj.input", 9, 5);
}

static void inside_a_recurrent_layer(void **state) {
    (void)state;
    // The convolution's sums: one channel of the values (q and k are 2 * 32 channels before them).
    // The norm behind takes the size out again.
    const scaling s[] = {{"model.language_model.layers.1.linear_attn.conv1d.weight", 99 * 4, 1, 4,
                          14}};
    first_is(HYBRID, s, 1, "layer 1 linear_attn.conv1d", 99, -1);
}

// ---- figures ----

static void same_entry(const json_t *a, const json_t *b) {
    bool scaled = strstr(name_of(a), "up_proj") || strstr(name_of(a), "down_proj.input");
    static const char *const keys[] = {"channel", "position"};
    assert_string_equal(name_of(a), name_of(b));
    if (number(b, "max_abs") != number(a, "max_abs") * (scaled ? 1024 : 1))
        fail_msg("%s: %.9g, then %.9g", name_of(a), number(a, "max_abs"), number(b, "max_abs"));
    for (size_t i = 0; i < 2; i++)
        assert_true(json_equal(json_object_get(a, keys[i]), json_object_get(b, keys[i])));
}

// All of up times 1024 and down by 1024 moves these two activations exactly, and nothing else.
static void figures_follow_the_weights(void **state) {
    static const scaling all[] = {{"model.layers.0.mlp.up_proj.weight", 0, 0, 0, 10},
                                  {"model.layers.0.mlp.down_proj.weight", 0, 0, 0, -10}};
    (void)state;
    char *dir = scaled_copy(DENSE, all, 2);
    json_t *before = checked(DENSE), *after = checked(dir);
    const json_t *a = json_object_get(forward_of(before), "layers");
    const json_t *b = json_object_get(forward_of(after), "layers");
    assert_int_equal(json_array_size(a), 6); // embedding, 3 layers, norm, logits
    assert_int_equal(json_array_size(b), 6);
    for (size_t i = 0; i < 6; i++) {
        const json_t *x = json_object_get(json_array_get(a, i), "activations");
        const json_t *y = json_object_get(json_array_get(b, i), "activations");
        assert_int_equal(json_array_size(x), json_array_size(y));
        if (i == 1) {
            assert_int_equal(json_array_size(x), 15);
            for (size_t j = 0; j < 15; j++) same_entry(json_array_get(x, j), json_array_get(y, j));
        } else {
            assert_true(json_equal(x, y));
        }
    }
    json_decref(before);
    json_decref(after);
    scratch_remove(dir);
}

// ---- the probe below ----

typedef struct sight {
    size_t hidden, other; // rows shown
    float last[64], logits[384];
    bool alike;
} sight;

static void on_probe(void *user, const char *name, size_t position, const float *x, size_t n) {
    sight *s = user;
    bool hidden = strncmp(name, "hidden.", 7) == 0;
    if (hidden)
        s->hidden++;
    else
        s->other++;
    if (strcmp(name, "layers.2.output") == 0 && position == 4) memcpy(s->last, x, sizeof s->last);
    if (strcmp(name, "hidden.3") == 0 && position == 4)
        s->alike = memcmp(s->last, x, sizeof s->last) == 0;
    if (strcmp(name, "logits") == 0 && n == 384) memcpy(s->logits, x, sizeof s->logits);
}

static void look(qn_engine *e, unsigned probe, sight *s) {
    static const int32_t prompt[] = {5, 17, 80, 3, 41};
    qn_err err = {0};
    qn_request_options o = {.tokens = prompt, .n_tokens = 5, .no_output = true, .probe = probe,
                            .on_probe = on_probe, .user = s};
    *s = (sight){0};
    bool busy = true;
    if (!qn_engine_submit(e, &o, &err)) fail_msg("%s", err.text);
    while (busy) assert_true(qn_engine_step(e, &busy, &err));
}

static void probes_show_what_was_asked_for(void **state) {
    qn_err err = {0};
    qn_model_options how = {.precision = QN_EXACT, .n_threads = 2};
    sight s, alone;
    (void)state;
    qn_model *m = qn_model_load(DENSE, &how, &err);
    qn_engine *e = m ? qn_engine_new(m, &(qn_engine_options){0}, &err) : NULL;
    if (!e) fail_msg("%s", err.text);
    look(e, QN_PROBE_LOGITS, &alone);
    assert_true(alone.hidden == 0 && alone.other == 5);
    look(e, QN_PROBE_HIDDEN, &s);
    assert_true(s.hidden == 5 * 5 && s.other == 0);
    look(e, QN_PROBE_ACTIVATIONS | QN_PROBE_HIDDEN | QN_PROBE_LOGITS, &s);
    assert_int_equal(s.hidden, 5 * 5);
    assert_int_equal(s.other, 5 * (3 * 15 + 3)); // every position once
    assert_true(s.alike);
    assert_memory_equal(s.logits, alone.logits, sizeof s.logits);
    qn_engine_free(e);
    qn_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_to_say_of_small_models),
        cmocka_unit_test(what_goes_into_down_proj),
        cmocka_unit_test(inside_an_expert),
        cmocka_unit_test(inside_a_recurrent_layer),
        cmocka_unit_test(figures_follow_the_weights),
        cmocka_unit_test(probes_show_what_was_asked_for),
    };
    qn_log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
