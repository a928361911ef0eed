#include "model/runner.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

void runner_open(runner *r, const char *path, const qn_model_options *o, size_t max_tokens) {
    qn_err err = {0};
    *r = (runner){0};
    r->model = qn_model_load(path, o, &err);
    if (!r->model) fail_msg("%s: %s", path, err.text);
    r->info = qn_model_get_info(r->model);
    r->pool = qn_pool_new(o->n_threads, &err);
    r->compute = qn_compute_new(r->pool, o->precision);
    r->work = qn_work_new(r->model, r->compute, &err);
    assert_non_null(r->work);
    qn_model_cache_spec(r->model, &r->spec);
    r->blocks_per_sequence = max_tokens / r->spec.block_tokens + 1;
    size_t n = r->blocks_per_sequence * RUNNER_MAX_SEQUENCES;
    r->arena_bytes = n * r->spec.block_bytes;
    r->arena = qn_big_alloc(r->arena_bytes ? r->arena_bytes : 64, "test", &err);
    r->blocks = malloc(n * sizeof *r->blocks);
    for (size_t i = 0; i < n; i++) r->blocks[i] = (uint32_t)(n - 1 - i);
    for (size_t i = 0; i < RUNNER_MAX_SEQUENCES && r->spec.state_bytes; i++)
        r->states[i] = qn_big_alloc(r->spec.state_bytes, "test", &err);
}

void runner_close(runner *r) {
    for (size_t i = 0; i < RUNNER_MAX_SEQUENCES; i++)
        if (r->states[i]) qn_big_free(r->states[i], r->spec.state_bytes);
    qn_big_free(r->arena, r->arena_bytes ? r->arena_bytes : 64);
    free(r->blocks);
    qn_work_free(r->work);
    qn_compute_free(r->compute);
    qn_pool_free(r->pool);
    qn_model_free(r->model);
}

void runner_reset(runner *r, size_t sequence) {
    if (r->states[sequence]) memset(r->states[sequence], 0, r->spec.state_bytes);
}

qn_segment runner_segment(const runner *r, size_t sequence, const int32_t *tokens, size_t position,
                          size_t n) {
    return (qn_segment){.tokens = tokens + position, .n = n, .position = position,
                        .blocks = r->blocks + sequence * r->blocks_per_sequence,
                        .state = r->states[sequence], .all_logits = true};
}

void runner_step(runner *r, const qn_segment *segments, size_t n) {
    qn_err err = {0};
    const qn_step step = {segments, n, r->arena};
    if (!qn_model_forward(r->model, r->work, &step, &err)) fail_msg("%s", err.text);
}

float *runner_logits(runner *r, size_t sequence, const int32_t *tokens, size_t n, size_t chunk) {
    size_t v = (size_t)r->info->vocab_size;
    float *out = malloc(n * v * sizeof *out);
    runner_reset(r, sequence);
    for (size_t at = 0, m; at < n; at += m) {
        m = n - at < chunk ? n - at : chunk;
        qn_segment s = runner_segment(r, sequence, tokens, at, m);
        runner_step(r, &s, 1);
        assert_int_equal(qn_work_n_rows(r->work, 0), m);
        memcpy(out + at * v, qn_work_logits(r->work, 0, 0), m * v * sizeof *out);
    }
    return out;
}

// ---- references ----

float *reference_floats(const reference *r, const char *name, size_t *n) {
    const qn_tensor *t = qn_ckpt_find(r->ckpt, name);
    if (!t) return NULL;
    float *x = malloc((t->n ? t->n : 1) * sizeof *x);
    qn_tensor_to_f32(t, 0, t->n, x);
    if (n) *n = t->n;
    return x;
}

int32_t *reference_ints(const reference *r, const char *name, size_t *n) {
    const qn_tensor *t = qn_ckpt_find(r->ckpt, name);
    if (!t) return NULL;
    assert_int_equal(t->dtype, QN_DT_I32);
    int32_t *x = malloc((t->n ? t->n : 1) * sizeof *x);
    memcpy(x, t->data, t->n * sizeof *x);
    if (n) *n = t->n;
    return x;
}

void reference_open(reference *r, const char *path, const char *tokens) {
    qn_err err = {0};
    r->ckpt = qn_ckpt_open(path, 0, &err);
    if (!r->ckpt) fail_msg("%s: %s", path, err.text);
    r->tokens = r->memory = reference_ints(r, tokens, &r->n);
    assert_non_null(r->tokens);
}

void reference_close(reference *r) {
    free(r->memory);
    qn_ckpt_free(r->ckpt);
}

double worst_row(const float *a, const float *b, size_t rows, size_t n, size_t *row) {
    double worst = 0;
    for (size_t r = 0; r < rows; r++) {
        double diff = 0, norm = 0;
        for (size_t i = 0; i < n; i++) {
            double x = (double)a[r * n + i], y = (double)b[r * n + i];
            diff += (x - y) * (x - y);
            norm += y * y;
        }
        double e = sqrt(diff / (norm > 0 ? norm : 1));
        if (!(e <= worst)) {
            worst = e;
            if (row) *row = r;
        }
    }
    return worst;
}
