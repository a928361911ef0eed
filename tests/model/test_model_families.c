// Every family against the original implementation: logits, every hidden state, the draft layer's
// logits, and what is said greedily.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/runner.h"

#define TOLERANCE 1e-4

typedef struct seen { // what the probes showed, compared as it comes
    const reference *ref;
    float *expected;
    char name[32];
    size_t width, calls;
    double worst;
    char worst_name[32];
    size_t worst_at;
} seen;

static void on_probe(void *user, const char *name, size_t position, const float *data, size_t n) {
    seen *s = user;
    if (strcmp(s->name, name) != 0) {
        size_t total = 0;
        free(s->expected);
        s->expected = reference_floats(s->ref, name, &total);
        if (!s->expected) fail_msg("the reference has no %s", name);
        snprintf(s->name, sizeof s->name, "%s", name);
        assert_int_equal(total, s->ref->n * n);
    }
    double e = worst_row(data, s->expected + position * n, 1, n, NULL);
    if (!(e <= s->worst)) {
        s->worst = e;
        s->worst_at = position;
        snprintf(s->worst_name, sizeof s->worst_name, "%s", name);
    }
    s->calls++;
}

static void check_states(runner *r, const reference *ref, const char *what) {
    seen s = {.ref = ref};
    qn_segment g = runner_segment(r, 0, ref->tokens, 0, ref->n);
    bool hidden = qn_ckpt_find(ref->ckpt, "hidden.0") != NULL;
    g.probe = QN_PROBE_LOGITS | (hidden ? QN_PROBE_HIDDEN : 0);
    g.on_probe = on_probe;
    g.user = &s;
    runner_reset(r, 0);
    runner_step(r, &g, 1);
    assert_int_equal(s.calls, ref->n * (1 + (hidden ? (size_t)r->info->n_layers + 2 : 0)));
    printf("  %-22s %.2g at %s[%zu]\n", what, s.worst, s.worst_name, s.worst_at);
    if (!(s.worst <= TOLERANCE))
        fail_msg("%s: %s at position %zu is off by %g", what, s.worst_name, s.worst_at, s.worst);
    free(s.expected);
}

// Row p sees the target's final hidden at p and token p + 1.
static void check_draft(runner *r, const reference *ref, const char *what) {
    size_t total, v = (size_t)r->info->vocab_size, h = (size_t)r->info->hidden_size, row = 0;
    float *expected = reference_floats(ref, "mtp.logits", &total), *hidden;
    if (!expected) return;
    assert_true(r->info->has_mtp);
    qn_segment g = runner_segment(r, 0, ref->tokens, 0, ref->n);
    runner_reset(r, 0);
    runner_step(r, &g, 1);
    hidden = malloc(ref->n * h * sizeof *hidden);
    memcpy(hidden, qn_work_hidden(r->work, 0, 0), ref->n * h * sizeof *hidden);
    for (int parts = 1; parts <= 3; parts += 2) { // whole, and in three chunks
        size_t n = ref->n - 1, chunk = (n + (size_t)parts - 1) / (size_t)parts;
        for (size_t at = 0; at < n; at += chunk) {
            size_t m = n - at < chunk ? n - at : chunk;
            qn_draft_segment d = {.tokens = ref->tokens + at + 1, .hidden = hidden + at * h, .n = m,
                                  .position = at, .blocks = g.blocks, .all_logits = true};
            qn_err err = {0};
            if (!qn_model_draft(r->model, r->work, &d, 1, r->arena, &err)) fail_msg("%s", err.text);
            double e = worst_row(qn_work_logits(r->work, 0, 0), expected + at * v, m, v, &row);
            if (!(e <= TOLERANCE)) fail_msg("%s: mtp.logits[%zu] off by %g", what, at + row, e);
        }
    }
    free(expected);
    free(hidden);
}

static size_t argmax(const float *x, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static void check_greedy(runner *r, const reference *ref, const char *what) {
    size_t n, v = (size_t)r->info->vocab_size;
    int32_t *greedy = reference_ints(ref, "greedy", &n);
    float *margin = reference_floats(ref, "margin", NULL);
    if (!greedy) return;
    int32_t *tokens = malloc((ref->n + n) * sizeof *tokens);
    memcpy(tokens, ref->tokens, ref->n * sizeof *tokens);
    memcpy(tokens + ref->n, greedy, n * sizeof *tokens);
    runner_reset(r, 0);
    qn_segment g = runner_segment(r, 0, tokens, 0, ref->n);
    for (size_t i = 0; i < n; i++) {
        g.all_logits = false;
        runner_step(r, &g, 1);
        assert_int_equal(qn_work_n_rows(r->work, 0), 1);
        size_t id = argmax(qn_work_logits(r->work, 0, 0), v);
        if (margin[i] > 0.01f && id != (size_t)greedy[i])
            fail_msg("%s: greedy token %zu is %zu, expected %d", what, i, id, greedy[i]);
        g = runner_segment(r, 0, tokens, ref->n + i, 1);
    }
    free(tokens);
    free(greedy);
    free(margin);
}

static void check_folder(const char *folder, const char *file, bool greedy) {
    const qn_model_options o = {.precision = QN_EXACT, .n_threads = 2, .no_vision = true};
    runner r;
    reference ref;
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    reference_open(&ref, path, "tokens");
    runner_open(&r, folder, &o, 160);
    check_states(&r, &ref, strrchr(folder, '/') + 1);
    check_draft(&r, &ref, folder);
    if (greedy) check_greedy(&r, &ref, folder);
    runner_close(&r);
    reference_close(&ref);
}

static void family(void **state) { check_folder(*state, "reference.safetensors", true); }
static void trained(void **state) {
    check_folder(*state, "reference/reference.safetensors", false);
}

#define FAMILY(name) {#name, family, NULL, NULL, (char[]){"tests/data/families/" #name}}

int main(void) {
    const struct CMUnitTest tests[] = {
        FAMILY(qwen2),        FAMILY(qwen2-untied-sharded), FAMILY(qwen2-yarn),
        FAMILY(qwen2-window), FAMILY(qwen3),                FAMILY(qwen3-untied),
        FAMILY(qwen3_moe),    FAMILY(qwen3_moe-fused),      FAMILY(qwen3_5),
        FAMILY(qwen3_5-same), FAMILY(qwen3_next),           FAMILY(qwen3_5_moe),
        {"tiny-qwen3", trained, NULL, NULL, (char[]){"models/tiny-qwen3"}},
        {"tiny-qwen3.5", trained, NULL, NULL, (char[]){"tests/data/tiny-qwen3.5"}},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
