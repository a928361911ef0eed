// Draws against the distribution they should have, and the rules about what may be drawn at all.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "engine/fake_model.h"
#include "engine/sampler.h"

enum { DRAWS = 40000 };

static float logits[FAKE_ROWS];
static qn_choices choices;

static int setup(void **state) {
    (void)state;
    qn_choices_init(&choices, FAKE_ROWS, (const qn_tokenizer *)logits);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    qn_choices_done(&choices);
    return 0;
}

static void draw_logits(uint64_t seed, double spread) {
    for (size_t i = 0; i < FAKE_ROWS; i++) logits[i] = (float)(spread * qn_rng_normal(seed, 0, i));
}

static bool allowed(int i) { return i < FAKE_SPELLED && i != FAKE_HOLE; }

// The distribution in plain words: every rule written out over a sorted list.
static void expected(const qn_sampling *s, double *p) {
    int order[FAKE_ROWS], n = 0;
    for (int i = 0; i < FAKE_ROWS; i++) {
        p[i] = 0;
        if (allowed(i)) order[n++] = i;
    }
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++)
            if (logits[order[j]] > logits[order[i]]) {
                int t = order[i];
                order[i] = order[j];
                order[j] = t;
            }
    double max = (double)logits[order[0]], sum = 0, cut = 0, kept = 0;
    if (s->top_k > 0 && s->top_k < n) n = s->top_k;
    for (int i = 0; i < n; i++) {
        double w = exp(((double)logits[order[i]] - max) / (double)s->temperature);
        if (w < (double)s->min_p) n = i;
        else sum += p[order[i]] = w;
    }
    for (int i = 0; i < n; i++) {
        if (cut >= (double)s->top_p * sum && i) p[order[i]] = 0;
        cut += p[order[i]];
        kept += p[order[i]];
    }
    for (int i = 0; i < FAKE_ROWS; i++) p[i] /= kept;
}

// Chi-square with rare tokens pooled; the bound is five standard deviations.
static void check_draws(const qn_sampling *s, uint64_t seed) {
    double p[FAKE_ROWS], chi = 0, rare = 0, rare_seen = 0;
    size_t seen[FAKE_ROWS] = {0}, cells = 0;
    qn_sampler sampler = {.choices = &choices};
    for (size_t i = 0; i < DRAWS; i++) {
        qn_draw d = {s, NULL, seed, i};
        int32_t id = qn_sample(&sampler, logits, &d);
        assert_in_range(id, 0, FAKE_SPELLED - 1);
        seen[id]++;
        if (i < 100) assert_int_equal(qn_sample(&sampler, logits, &d), id);
    }
    expected(s, p);
    for (int i = 0; i < FAKE_ROWS; i++) {
        if (p[i] == 0) assert_int_equal(seen[i], 0);
        double e = p[i] * DRAWS, o = (double)seen[i];
        if (e < 10) {
            rare += e;
            rare_seen += o;
        } else {
            chi += (o - e) * (o - e) / e;
            cells++;
        }
    }
    if (rare > 5) chi += (rare_seen - rare) * (rare_seen - rare) / rare, cells++;
    double df = cells > 1 ? (double)cells - 1 : 1;
    if (chi > df + 5 * sqrt(2 * df)) fail_msg("chi-square %g with %g degrees of freedom", chi, df);
    qn_sampler_done(&sampler);
}

static void draws_follow_the_distribution(void **state) {
    (void)state;
    const qn_sampling how[] = {
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.6f, .top_p = 1},
        {.temperature = 1, .top_p = 0.8f},
        {.temperature = 1.5f, .top_p = 0.99f},
        {.temperature = 1, .top_p = 1, .top_k = 5},
        {.temperature = 0.6f, .top_p = 0.95f, .top_k = 20},
        {.temperature = 1, .top_p = 1, .min_p = 0.1f},
        {.temperature = 1, .top_p = 0.9f, .min_p = 0.05f, .top_k = 30},
    };
    for (size_t i = 0; i < sizeof how / sizeof *how; i++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            draw_logits(seed, seed ? 1.5 : 6);
            check_draws(&how[i], 100 * i + seed);
        }
}

static void greedy_takes_the_lowest_of_equals(void **state) {
    (void)state;
    qn_sampler s = {.choices = &choices};
    qn_sampling how = {.top_p = 1, .repetition_penalty = 1};
    qn_draw d = {&how, NULL, 1, 0};
    draw_logits(1, 1);
    logits[13] = logits[41] = 9;
    logits[FAKE_HOLE] = logits[FAKE_SPELLED] = logits[FAKE_ROWS - 1] = 100; // never drawn
    assert_int_equal(qn_sample(&s, logits, &d), 13);
    assert_int_equal(qn_greatest_logit(&choices, logits), 13);
    how.temperature = 1;
    how.top_k = 1;
    assert_int_equal(qn_sample(&s, logits, &d), 13);
    qn_sampler_done(&s);
}

static void nonfinite_logits_are_seen(void **state) {
    (void)state;
    qn_sampler s = {.choices = &choices};
    qn_sampling how = {.top_p = 1, .repetition_penalty = 1};
    qn_draw d = {&how, NULL, 1, 0};
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < FAKE_SPELLED; i++)
        for (int k = 0; k < 3; k++) {
            draw_logits(1, 1);
            logits[i] = bad[k];
            if (allowed(i)) assert_int_equal(qn_sample(&s, logits, &d), -1);
            else assert_int_not_equal(qn_sample(&s, logits, &d), -1);
        }
}

static void penalties_count_what_they_should(void **state) {
    (void)state;
    qn_sampler s = {.choices = &choices};
    qn_counts c = {0};
    qn_sampling how = {.top_p = 1, .repetition_penalty = 2};
    qn_draw d = {&how, &c, 1, 0};
    for (int i = 0; i < FAKE_ROWS; i++) logits[i] = -5;
    logits[10] = 4, logits[11] = 3, logits[12] = 1.5f, logits[13] = -1;
    qn_counts_add(&c, 10, true);                           // in the prompt: only repetition counts
    assert_int_equal(qn_sample(&s, logits, &d), 11);       // 4 / 2 < 3
    how = (qn_sampling){.top_p = 1, .repetition_penalty = 1, .presence_penalty = 2};
    assert_int_equal(qn_sample(&s, logits, &d), 10);
    for (int i = 0; i < 3; i++) qn_counts_add(&c, 10, false);
    assert_int_equal(qn_sample(&s, logits, &d), 11);       // 4 - 2 < 3
    how = (qn_sampling){.top_p = 1, .repetition_penalty = 1, .frequency_penalty = 0.9f};
    qn_counts_add(&c, 11, false);
    assert_int_equal(qn_sample(&s, logits, &d), 11);       // 4 - 2.7 < 3 - 0.9
    how.frequency_penalty = 10;
    assert_int_equal(qn_sample(&s, logits, &d), 12);
    how = (qn_sampling){.top_p = 1, .repetition_penalty = 10};
    qn_counts_add(&c, 12, false), qn_counts_add(&c, 13, false);
    logits[12] = -0.9f; // negative logits are multiplied
    logits[14] = -5, logits[15] = -0.5f;
    assert_int_equal(qn_sample(&s, logits, &d), 10);
    for (int32_t i = 0; i < 500; i++) qn_counts_add(&c, 1000 + i, true); // grows, other rows
    assert_int_equal(qn_sample(&s, logits, &d), 10);
    qn_counts_done(&c);
    qn_sampler_done(&s);
}

// Selection by weight on a vocabulary of real size, against sorting.
static int descending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

static void top_p_keeps_the_smallest_set(void **state) {
    (void)state;
    enum { N = 50000 };
    float *x = malloc(N * sizeof *x), *sorted = malloc(N * sizeof *x);
    qn_choices all;
    qn_choices_init(&all, N, NULL);
    qn_sampler s = {.choices = &all};
    for (int flat = 0; flat < 2; flat++) {
        double sum = 0, held = 0;
        size_t cut = 0;
        for (size_t i = 0; i < N; i++)
            x[i] = (float)((flat ? 0.1 : 3) * qn_rng_normal(7, 0, i));
        memcpy(sorted, x, N * sizeof *x);
        qsort(sorted, N, sizeof *x, descending);
        for (size_t i = 0; i < N; i++) sum += exp((double)sorted[i]);
        while (held < 0.5 * sum) held += exp((double)sorted[cut++]);
        qn_sampling how = {.temperature = 1, .top_p = 0.5f, .repetition_penalty = 1};
        for (uint64_t i = 0; i < 300; i++) {
            qn_draw d = {&how, NULL, 3, i};
            int32_t id = qn_sample(&s, x, &d);
            assert_true(x[id] >= sorted[cut]); // one of rounding's grace
        }
    }
    qn_sampler_done(&s);
    qn_choices_done(&all);
    free(x), free(sorted);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(nonfinite_logits_are_seen),
        cmocka_unit_test(penalties_count_what_they_should),
        cmocka_unit_test(top_p_keeps_the_smallest_set),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
