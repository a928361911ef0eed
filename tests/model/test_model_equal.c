// Equalities, bit for bit: a prompt whole and in chunks, a sequence alone and in company, one
// thread and several, the state kept after each token and the state of a shorter prompt; on every
// family, exact and fast.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/runner.h"

#define N 96 // tokens of the references

static void same(const float *a, const float *b, size_t n, const char *what, const char *folder) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: %s: value %zu is %.9g, expected %.9g", folder, what, i, (double)a[i],
                     (double)b[i]);
}

static void open_pair(const char *folder, qn_precision precision, int threads, runner *r,
                      reference *ref) {
    const qn_model_options o = {.precision = precision, .n_threads = threads, .no_vision = true};
    char path[256];
    snprintf(path, sizeof path, "%s/reference.safetensors", folder);
    reference_open(ref, path, "tokens");
    runner_open(r, folder, &o, 160);
    assert_int_equal(ref->n, N);
}

static void check_chunks(runner *r, const reference *ref, const float *whole, const char *folder) {
    size_t v = (size_t)r->info->vocab_size;
    const size_t chunks[] = {1, 7, 64};
    for (size_t i = 0; i < 3; i++) {
        char what[32];
        float *x = runner_logits(r, 1, ref->tokens, N, chunks[i]);
        snprintf(what, sizeof what, "chunks of %zu", chunks[i]);
        same(x, whole, N * v, what, folder);
        free(x);
    }
}

// Four sequences step together: one decodes, one begins, one is in the middle, one ends.
static void check_company(runner *r, const reference *ref, const float *whole, const char *folder) {
    size_t v = (size_t)r->info->vocab_size;
    const size_t done[] = {40, 0, 17, 90}, now[] = {1, 33, 20, 6};
    qn_segment s[4];
    for (size_t i = 0; i < 4; i++) {
        runner_reset(r, i);
        s[i] = runner_segment(r, i, ref->tokens, 0, done[i]);
        if (done[i]) runner_step(r, &s[i], 1);
        s[i] = runner_segment(r, i, ref->tokens, done[i], now[i]);
    }
    s[1].all_logits = false;
    s[2].all_logits = false;
    s[2].no_logits = true;
    runner_step(r, s, 4);
    assert_int_equal(qn_work_n_rows(r->work, 0), 1);
    assert_int_equal(qn_work_n_rows(r->work, 1), 1);
    assert_int_equal(qn_work_n_rows(r->work, 2), 0);
    assert_int_equal(qn_work_n_rows(r->work, 3), 6);
    same(qn_work_logits(r->work, 0, 0), whole + 40 * v, v, "decoding in company", folder);
    same(qn_work_logits(r->work, 1, 0), whole + 32 * v, v, "a prompt in company", folder);
    same(qn_work_logits(r->work, 3, 0), whole + 90 * v, 6 * v, "an end in company", folder);
    s[2] = runner_segment(r, 2, ref->tokens, 37, 1);
    runner_step(r, &s[2], 1);
    same(qn_work_logits(r->work, 0, 0), whole + 37 * v, v, "what follows a silent chunk", folder);
}

// Takes back tokens by the states kept after each of them, as speculation does.
static void check_states(runner *r, const reference *ref, const float *whole, const char *folder) {
    size_t v = (size_t)r->info->vocab_size, n = r->spec.state_bytes;
    if (!n) return;
    uint8_t *after[6] = {0};
    for (size_t i = 0; i < 6; i++)
        if (i != 3) after[i] = aligned_alloc(64, (n + 63) & ~(size_t)63); // 3: not wanted
    runner_reset(r, 0);
    qn_segment s = runner_segment(r, 0, ref->tokens, 0, 30);
    runner_step(r, &s, 1);
    s = runner_segment(r, 0, ref->tokens, 30, 6);
    s.state_after = after;
    runner_step(r, &s, 1);
    assert_memory_equal(after[5], r->states[0], n);
    for (size_t i = 0; i < 6; i++) {
        if (!after[i]) continue;
        memcpy(r->states[0], after[i], n);
        s = runner_segment(r, 0, ref->tokens, 31 + i, 1);
        runner_step(r, &s, 1);
        same(qn_work_logits(r->work, 0, 0), whole + (31 + i) * v, v, "after taking back", folder);
        free(after[i]);
    }
}

static void check_precision(const char *folder, qn_precision precision) {
    runner one, three;
    reference ref, again;
    open_pair(folder, precision, 1, &one, &ref);
    open_pair(folder, precision, 3, &three, &again);
    size_t v = (size_t)one.info->vocab_size;
    float *whole = runner_logits(&one, 0, ref.tokens, N, N);
    float *threaded = runner_logits(&three, 0, ref.tokens, N, N);
    same(threaded, whole, N * v, "three threads", folder);
    check_chunks(&three, &ref, whole, folder);
    check_company(&three, &ref, whole, folder);
    check_states(&three, &ref, whole, folder);
    free(whole);
    free(threaded);
    runner_close(&one);
    runner_close(&three);
    reference_close(&ref);
    reference_close(&again);
}

static void equalities(void **state) {
    check_precision(*state, QN_EXACT);
    check_precision(*state, QN_FAST);
}

#define FAMILY(name) {#name, equalities, NULL, NULL, (char[]){"tests/data/families/" #name}}

int main(void) {
    const struct CMUnitTest tests[] = {
        FAMILY(qwen2),        FAMILY(qwen2-yarn), FAMILY(qwen2-window), FAMILY(qwen3),
        FAMILY(qwen3_moe),    FAMILY(qwen3_5),    FAMILY(qwen3_5-same), FAMILY(qwen3_next),
        FAMILY(qwen3_5_moe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
