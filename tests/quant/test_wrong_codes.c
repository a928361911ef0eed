// Weights made from codes the wrong way, in many forms: recognised for what they are, mended exactly or
// within the bound that is given; and weights that only look strange, which must be left alone.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/f16.h"
#include "base/rng.h"
#include "quant/wrong_codes.h"

enum { MAX_ROWS = 64, MAX_COLS = 512, MAX = MAX_ROWS * MAX_COLS };

static float rounded(qn_dtype d, float x) {
    if (d == QN_DT_F16) return qn_f16_to_f32(qn_f32_to_f16(x));
    return d == QN_DT_BF16 ? qn_bf16_to_f32(qn_f32_to_bf16(x)) : x;
}

typedef struct matrix {
    uint8_t bytes[MAX * 4];
    qn_tensor t;
    qn_weight w;
} matrix;

static matrix *store(qn_dtype d, const float *x, size_t rows, size_t cols) {
    matrix *m = calloc(1, sizeof *m);
    for (size_t i = 0; i < rows * cols; i++) {
        uint16_t h = d == QN_DT_F16 ? qn_f32_to_f16(x[i]) : qn_f32_to_bf16(x[i]);
        if (d == QN_DT_F32)
            memcpy(m->bytes + 4 * i, &x[i], 4);
        else
            memcpy(m->bytes + 2 * i, &h, 2);
    }
    m->t = (qn_tensor){.name = (char *)(uintptr_t) "made-up", .dtype = d, .n_dims = 2,
                       .shape = {rows, cols}, .n = rows * cols, .data = m->bytes,
                       .bytes = rows * cols * qn_dtype_bytes(d)};
    m->w = (qn_weight){.name = m->t.name, .parts = {&m->t}, .rows = rows, .cols = cols};
    return m;
}

// ---- weights ----

// Drawn once: all shapes are made of the same.
static float normal(uint64_t stream, size_t i) {
    static float drawn[3][MAX];
    static bool known[3][MAX];
    if (!known[stream][i]) drawn[stream][i] = (float)qn_rng_normal(11, stream, i);
    known[stream][i] = true;
    return drawn[stream][i];
}

enum shape { GAUSSIAN, HEAVY, PRUNED, TWO_OF_FOUR, CLUSTERS, WIDE_CLUSTERS, CLAMPED, TERNARY_NOISE,
             POSITIVE, BINARY, N_SHAPES, FEW_LEFT, UNIFORM };

static float weight(enum shape how, size_t i) {
    float x = 0.03f * normal(1, i), sign = normal(2, i) < 0 ? -1.0f : 1.0f;
    switch (how) {
    case HEAVY: return x * x * x * 400;
    case PRUNED: return i % 3 ? 0 : x;
    case TWO_OF_FOUR: return fabsf(x) < 0.02f ? 0 : x;
    case CLUSTERS: return sign * 0.05f + 0.05f * x;
    case WIDE_CLUSTERS: return sign * 0.05f + 0.5f * x;
    case CLAMPED: return fmaxf(-0.03f, fminf(0.03f, x));
    case TERNARY_NOISE: return (i % 3 ? sign * 0.05f : 0) * (1 + 0.2f * x);
    case POSITIVE: return fabsf(x);
    case BINARY: return sign * 0.05f;
    case FEW_LEFT: return qn_rng_uniform(12, 3, i) < 0.98 ? 0 : x;
    case UNIFORM: return (float)qn_rng_uniform(12, 4, i) - 0.5f;
    default: return x;
    }
}

// ---- quantizing ----

typedef struct plan {
    size_t rows, cols, group;
    int bits;
    bool asymmetric, full_range; // full_range: the largest weight at the least code, scales of any sign
    qn_dtype scale;
    float size; // of all weights
} plan;

typedef struct codes {
    int q[MAX], zero[MAX];
    float scale[MAX];
} codes;

static void quantize_group(const plan *p, const float *x, size_t n, codes *c, size_t at) {
    float lo = 0, hi = 0;
    int top = (1 << p->bits) - 1, half = 1 << (p->bits - 1), zero = half;
    for (size_t i = 0; i < n; i++) lo = fminf(lo, x[i]), hi = fmaxf(hi, x[i]);
    float s = 2 * fmaxf(-lo, hi) / (float)top;
    if (p->full_range) s = (-lo > hi ? lo : hi) / (float)-half;
    if (p->asymmetric) s = (hi - lo) / (float)top;
    if (s == 0) s = 2.0f / (float)top;
    s = rounded(p->scale, s);
    if (p->asymmetric) zero = (int)lrintf(-lo / s);
    for (size_t i = 0; i < n; i++) {
        int q = (int)lrintf(x[i] / s) + zero;
        c->q[at + i] = q < 0 ? 0 : q > top ? top : q;
        c->zero[at + i] = zero;
        c->scale[at + i] = s;
    }
}

static codes *quantize(const plan *p, enum shape how) {
    codes *c = calloc(1, sizeof *c);
    float x[MAX_COLS];
    for (size_t r = 0; r < p->rows; r++)
        for (size_t at = 0; at < p->cols; at += p->group) {
            size_t n = p->cols - at < p->group ? p->cols - at : p->group;
            for (size_t i = 0; i < n; i++)
                x[i] = weight(how, r * p->cols + at + i) * (p->size > 0 ? p->size : 1);
            quantize_group(p, x, n, c, r * p->cols + at);
        }
    return c;
}

static float right(const codes *c, size_t i) { return (float)(c->q[i] - c->zero[i]) * c->scale[i]; }

// The byte as signed, zero point forgotten; or the zero point off by one.
static float wrong(const codes *c, size_t i, int shift) {
    if (shift) return (float)(c->q[i] - c->zero[i] - shift) * c->scale[i];
    return (float)(c->q[i] < 128 ? c->q[i] : c->q[i] - 256) * c->scale[i];
}

static matrix *damaged(const plan *p, const codes *c, int shift, qn_dtype through, qn_dtype stored) {
    float *x = malloc(MAX * sizeof *x);
    for (size_t i = 0; i < p->rows * p->cols; i++) x[i] = rounded(through, wrong(c, i, shift));
    matrix *m = store(stored, x, p->rows, p->cols);
    free(x);
    return m;
}

static qn_wrong_finding find(const matrix *m, const char *what) {
    qn_wrong_finding f;
    qn_err err = {0};
    if (!qn_wrong_codes_find(&m->w, 0, &f, &err)) fail_msg("%s: %s", what, err.text);
    return f;
}

typedef struct outcome {
    size_t exact, estimated, n_wrong; // groups; values not as the truth rounds
} outcome;

// Every value within its bound, and everything can be broken again; more is for the caller to judge.
static outcome mend(const plan *p, const matrix *m, const codes *c, const qn_wrong_finding *f,
                    const float *reference, const char *what) {
    outcome o = {0};
    qn_err err = {0};
    float row[MAX_COLS], values[MAX_COLS], stored[MAX_COLS];
    float scales[MAX_COLS];
    double bounds[MAX_COLS];
    for (size_t r = 0; r < p->rows; r++) {
        qn_mended_row out = {values, bounds, reference ? reference + r * p->cols : NULL, scales, 0, 0};
        qn_tensor_to_f32(&m->t, r * p->cols, p->cols, row);
        if (!qn_wrong_codes_mend(f, row, p->cols, what, &out, &err)) fail_msg("%s", err.text);
        for (size_t i = 0; i < p->cols; i++) {
            float truth = right(c, r * p->cols + i);
            double off = fabs((double)values[i] - (double)truth), bound = bounds[i / f->group];
            stored[i] = rounded(m->t.dtype, values[i]);
            o.n_wrong += stored[i] != rounded(m->t.dtype, truth);
            if (off > bound * 1.2 + 1e-12)
                fail_msg("%s: row %zu column %zu is off by %g, bound %g", what, r, i, off, bound);
        }
        for (size_t at = 0; at < p->cols; at += f->group) {
            size_t n = p->cols - at < f->group ? p->cols - at : f->group;
            *(bounds[at / f->group] == 0 ? &o.exact : &o.estimated) += 1;
            if (!qn_wrong_codes_rebreaks(f, m->t.dtype, row + at, stored + at, n))
                fail_msg("%s: row %zu column %zu does not break again", what, r, at);
        }
    }
    return o;
}

// ---- signed view ----

static void expect_view(const plan *p, enum shape how, qn_dtype through, qn_dtype stored) {
    char what[96];
    codes *c = quantize(p, how);
    matrix *m = damaged(p, c, 0, through, stored);
    qn_wrong_finding f = find(m, "view");
    snprintf(what, sizeof what, "%zux%zu group %zu shape %d %s through %s", p->rows, p->cols, p->group,
             how, qn_dtype_name(stored), qn_dtype_name(through));
    if (f.kind != QN_SIGNED_VIEW || !f.certain || f.group != p->group || f.asymmetric || f.scattered)
        fail_msg("%s: kind %d, certain %d, group %zu, asymmetric %d, scattered %d", what, f.kind,
                 f.certain, f.group, f.asymmetric, f.scattered);
    assert_true(f.confidence > 0.99 && strstr(f.evidence, "±128"));
    outcome o = mend(p, m, c, &f, NULL, what);
    bool exact = stored != QN_DT_BF16 && through != QN_DT_BF16 && p->scale != QN_DT_F32;
    if (exact && (o.n_wrong || o.estimated > 2)) // two values even by chance, or so
        fail_msg("%s: %zu wrong, %zu estimated", what, o.n_wrong, o.estimated);
    free(m);
    free(c);
}

static void views_of_every_size(void **state) {
    (void)state;
    static const qn_dtype dtypes[] = {QN_DT_F16, QN_DT_BF16, QN_DT_F32};
    static const size_t sizes[][3] = {{64, 512, 128}, {64, 512, 512}, {48, 320, 128}, {40, 480, 96},
                                      {64, 256, 32},  {8, 256, 64},   {4, 512, 32},   {24, 64, 64},
                                      {128, 48, 32},  {48, 304, 128}}; // short last groups
    for (size_t d = 0; d < 3; d++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            plan p = {sizes[i][0], sizes[i][1], sizes[i][2], 8, .scale = QN_DT_F16};
            expect_view(&p, GAUSSIAN, QN_DT_F32, dtypes[d]);
        }
}

static void views_of_odd_weights(void **state) {
    (void)state;
    static const qn_dtype dtypes[] = {QN_DT_F16, QN_DT_BF16, QN_DT_F32};
    for (size_t d = 0; d < 3; d++) {
        plan p = {64, 512, 128, 8, .scale = QN_DT_F16};
        expect_view(&p, HEAVY, QN_DT_F32, dtypes[d]);
        expect_view(&p, PRUNED, QN_DT_F32, dtypes[d]);
        expect_view(&p, TWO_OF_FOUR, QN_DT_F32, dtypes[d]);
        p.size = 1e-3f; // subnormal scales
        expect_view(&p, GAUSSIAN, QN_DT_F32, dtypes[d]);
        p.size = 1e4f;
        expect_view(&p, GAUSSIAN, QN_DT_F32, dtypes[d]);
    }
}

static void views_made_otherwise(void **state) {
    (void)state;
    plan p = {64, 512, 128, 8, .scale = QN_DT_F16};
    expect_view(&p, GAUSSIAN, QN_DT_F16, QN_DT_F32);
    expect_view(&p, GAUSSIAN, QN_DT_F16, QN_DT_BF16);
    expect_view(&p, GAUSSIAN, QN_DT_BF16, QN_DT_F32);
    expect_view(&p, GAUSSIAN, QN_DT_BF16, QN_DT_F16);
    p.scale = QN_DT_BF16;
    p.size = 0.02f; // no f16 numbers any more
    expect_view(&p, GAUSSIAN, QN_DT_F32, QN_DT_F16);
    expect_view(&p, GAUSSIAN, QN_DT_F32, QN_DT_BF16);
    p.scale = QN_DT_F32;
    expect_view(&p, GAUSSIAN, QN_DT_F32, QN_DT_F32);
    p.size = 1;
    expect_view(&p, GAUSSIAN, QN_DT_F32, QN_DT_F16);
    expect_view(&p, GAUSSIAN, QN_DT_F32, QN_DT_BF16);
    p = (plan){64, 512, 64, 8, .scale = QN_DT_F16, .full_range = true}; // half of the scales negative
    expect_view(&p, GAUSSIAN, QN_DT_F32, QN_DT_F16);
    expect_view(&p, GAUSSIAN, QN_DT_F32, QN_DT_F32);
}

// Zero points that differ are not in the file; the original has them.
static void differing_zeros_need_the_original(void **state) {
    (void)state;
    plan p = {64, 512, 128, 8, .scale = QN_DT_F16, .asymmetric = true};
    codes *c = quantize(&p, GAUSSIAN);
    matrix *m = damaged(&p, c, 0, QN_DT_F32, QN_DT_F16);
    qn_wrong_finding f = find(m, "asymmetric");
    assert_int_equal(f.kind, QN_SIGNED_VIEW);
    assert_true(f.asymmetric);
    assert_non_null(strstr(f.evidence, "reference"));
    float *original = malloc(MAX * sizeof *original);
    for (size_t i = 0; i < MAX; i++) original[i] = weight(GAUSSIAN, i);
    outcome o = mend(&p, m, c, &f, original, "asymmetric");
    assert_int_equal(o.n_wrong, 0);
    assert_int_equal(o.estimated, 0);
    free(original);
    free(m);
    free(c);
}

// Act-order with g_idx ignored: blocks of columns hold codes of many groups.
static void scattered_columns_are_seen(void **state) {
    (void)state;
    plan p = {64, 512, 64, 8, .scale = QN_DT_F16};
    codes *c = quantize(&p, GAUSSIAN);
    codes *mixed = malloc(sizeof *mixed);
    memcpy(mixed, c, sizeof *c);
    for (size_t i = 0; i < MAX; i++) mixed->q[i / 512 * 512 + i % 512 * 77 % 512] = c->q[i];
    matrix *m = damaged(&p, mixed, 0, QN_DT_F32, QN_DT_F16);
    qn_wrong_finding f = find(m, "act-order");
    assert_int_equal(f.kind, QN_SIGNED_VIEW);
    assert_true(f.scattered);
    free(m);
    free(mixed);
    free(c);
}

static void what_does_not_break_again_is_seen(void **state) {
    (void)state;
    plan p = {8, 256, 128, 8, .scale = QN_DT_F16};
    codes *c = quantize(&p, GAUSSIAN);
    matrix *m = damaged(&p, c, 0, QN_DT_F32, QN_DT_F16);
    qn_wrong_finding f = find(m, "view");
    float broken[256], mended[256];
    for (size_t i = 0; i < 256; i++) broken[i] = rounded(QN_DT_F16, wrong(c, i, 0));
    for (size_t i = 0; i < 256; i++) mended[i] = rounded(QN_DT_F16, right(c, i));
    assert_true(qn_wrong_codes_rebreaks(&f, QN_DT_F16, broken, mended, 128));
    mended[77] += c->scale[77]; // one code off
    assert_false(qn_wrong_codes_rebreaks(&f, QN_DT_F16, broken, mended, 128));
    free(m);
    free(c);
}

// ---- zero off by one ----

static void expect_offset(const plan *p, int shift, qn_dtype stored) {
    char what[96];
    codes *c = quantize(p, GAUSSIAN);
    matrix *m = damaged(p, c, shift, QN_DT_F32, stored);
    qn_wrong_finding f = find(m, "offset");
    snprintf(what, sizeof what, "%d bits, group %zu, asymmetric %d, shift %d, %s", p->bits, p->group,
             p->asymmetric, shift, qn_dtype_name(stored));
    if (f.kind != QN_ZERO_OFFSET || f.bits != p->bits || f.shift != shift || f.group != p->group)
        fail_msg("%s: kind %d, bits %d, shift %d, group %zu", what, f.kind, f.bits, f.shift, f.group);
    if (!p->asymmetric) assert_true(f.certain);
    outcome o = mend(p, m, c, &f, NULL, what);
    if (stored != QN_DT_BF16 && o.n_wrong) fail_msg("%s: %zu wrong", what, o.n_wrong);
    free(m);
    free(c);
}

static void offsets_of_every_width(void **state) {
    (void)state;
    static const qn_dtype dtypes[] = {QN_DT_F16, QN_DT_BF16, QN_DT_F32};
    static const int widths[] = {2, 3, 4, 8};
    for (size_t d = 0; d < 3; d++)
        for (size_t b = 0; b < 4; b++)
            for (int shift = -1; shift <= 1; shift += 2) {
                plan p = {64, 512, 128, widths[b], .scale = QN_DT_F16};
                expect_offset(&p, shift, dtypes[d]);
                p.group = 32;
                expect_offset(&p, shift, dtypes[d]);
                p.asymmetric = true;
                if (widths[b] < 8) expect_offset(&p, shift, dtypes[d]);
            }
}

// ---- beside damaged matrices ----

static matrix *view_of(enum shape how, qn_dtype stored, float size) {
    plan p = {40, 256, 128, 8, .scale = QN_DT_F16, .size = size};
    codes *c = quantize(&p, how);
    matrix *m = damaged(&p, c, 0, QN_DT_F32, stored);
    free(c);
    return m;
}

static matrix *dense_of(enum shape how, qn_dtype stored) {
    float *x = malloc(MAX * sizeof *x);
    for (size_t i = 0; i < 40 * 256; i++) x[i] = weight(how, i);
    matrix *m = store(stored, x, 40, 256);
    free(x);
    return m;
}

static matrix *constant_of(qn_dtype stored, float value) {
    float *x = malloc(MAX * sizeof *x);
    for (size_t i = 0; i < 40 * 256; i++) x[i] = value;
    matrix *m = store(stored, x, 40, 256);
    free(x);
    return m;
}

// What gives no answer alone is settled by what is certain beside it, or named; what is right stays.
static void damaged_ones_settle_others(void **state) {
    (void)state;
    static const qn_dtype dtypes[] = {QN_DT_F16, QN_DT_BF16};
    enum { DAMAGED, UNCLEAR, HEALTHY };
    for (size_t d = 0; d < 2; d++) {
        const qn_dtype t = dtypes[d];
        plan right_plan = {40, 256, 128, 8, .scale = QN_DT_F16};
        codes *rc = quantize(&right_plan, GAUSSIAN);
        float *x = malloc(MAX * sizeof *x);
        for (size_t i = 0; i < 40 * 256; i++) x[i] = right(rc, i);
        const struct {
            const char *what;
            matrix *m;
            int expected;
        } cases[] = {
            {"certain", view_of(GAUSSIAN, t, 1), DAMAGED},
            {"few left", view_of(FEW_LEFT, t, 1), DAMAGED},
            {"uniform", view_of(UNIFORM, t, 1), DAMAGED},
            {"large ones only", view_of(CLUSTERS, t, 1), UNCLEAR},
            {"zeros", constant_of(t, -1.00390625f), DAMAGED}, // GPTQ's scale for a group of zeros
            {"binary", view_of(BINARY, t, 1), UNCLEAR},
            {"a constant", constant_of(t, -0.0031f), UNCLEAR},
            {"untouched", dense_of(GAUSSIAN, t), HEALTHY},
            {"pruned, untouched", dense_of(FEW_LEFT, t), HEALTHY},
            {"untouched zeros", constant_of(t, 0), HEALTHY},
            {"rightly decoded", store(t, x, 40, 256), HEALTHY},
        };
        enum { N = sizeof cases / sizeof *cases };
        const qn_weight *list[N + 1] = {NULL};
        qn_wrong_finding found[N + 1];
        qn_err err = {0};
        // "uniform" has codes and no shape: it follows the others only where none is rightly decoded.
        for (size_t n = N - 1; n <= N; n++) {
            memset(found, 0, sizeof found);
            for (size_t i = 0; i < n; i++) {
                list[i + 1] = &cases[i].m->w;
                assert_true(qn_wrong_codes_find(list[i + 1], 0, &found[i + 1], &err));
            }
            qn_pool *pool = qn_pool_new(1, &err);
            qn_wrong_codes_settle(pool, list, n + 1, found);
            qn_pool_free(pool);
            for (size_t i = 0; i < n; i++) {
                const qn_wrong_finding *f = &found[i + 1];
                int is = f->kind == QN_SIGNED_VIEW ? DAMAGED : f->unclear ? UNCLEAR : HEALTHY;
                int expected = n == N && i == 2 ? UNCLEAR : cases[i].expected;
                if (is != expected || (is == DAMAGED && (!f->certain || f->group != 128)))
                    fail_msg("%s, %s: %d, expected %d: %s", cases[i].what, qn_dtype_name(t), is,
                             expected, f->evidence);
                if (is == UNCLEAR) assert_true(f->evidence[0] && f->suspected == QN_SIGNED_VIEW);
            }
        }
        for (size_t i = 0; i < N; i++) free(cases[i].m);
        free(rc);
        free(x);
    }
}

// ---- healthy ----

static void expect_silence(const float *x, qn_dtype d, const char *what) {
    matrix *m = store(d, x, 40, 256);
    qn_wrong_finding f = find(m, what);
    if (f.kind) fail_msg("%s, %s: %s", what, qn_dtype_name(d), f.evidence);
    free(m);
}

static void healthy_weights_stay_alone(void **state) {
    (void)state;
    static const qn_dtype dtypes[] = {QN_DT_F16, QN_DT_BF16, QN_DT_F32};
    static const int widths[] = {8, 4, 3, 2};
    float *x = malloc(MAX * sizeof *x);
    char what[96];
    for (size_t d = 0; d < 3; d++)
        for (int how = 0; how < N_SHAPES; how++) {
            for (size_t i = 0; i < 40 * 256; i++) x[i] = weight(how, i);
            snprintf(what, sizeof what, "shape %d", how);
            expect_silence(x, dtypes[d], what);
            for (int k = (int)d; k < 24; k += 3) {
                plan p = {40, 256, k / 4 % 2 ? 32 : 128, widths[k % 4], k / 8 == 1, k / 8 == 2,
                          QN_DT_F16, 1};
                codes *c = quantize(&p, how);
                for (size_t i = 0; i < 40 * 256; i++) x[i] = right(c, i);
                snprintf(what, sizeof what, "shape %d, %d bits, group %zu, asymmetric %d, full %d", how,
                         p.bits, p.group, p.asymmetric, p.full_range);
                expect_silence(x, dtypes[d], what);
                free(c);
            }
        }
    free(x);
}

static void bits_are_counted(void **state) {
    (void)state;
    static const int widths[] = {2, 3, 4, 8};
    float *x = malloc(MAX * sizeof *x);
    size_t group;
    for (size_t b = 0; b < 4; b++) {
        plan p = {40, 256, 64, widths[b], .scale = QN_DT_F16};
        codes *c = quantize(&p, GAUSSIAN);
        for (size_t i = 0; i < 40 * 256; i++) x[i] = right(c, i);
        matrix *m = store(QN_DT_F16, x, 40, 256);
        assert_int_equal(qn_wrong_codes_bits(&m->w, &group), widths[b]);
        assert_int_equal(group, 64);
        free(m);
        free(c);
    }
    for (size_t i = 0; i < 40 * 256; i++) x[i] = weight(GAUSSIAN, i);
    matrix *m = store(QN_DT_F16, x, 40, 256);
    assert_int_equal(qn_wrong_codes_bits(&m->w, &group), 0);
    free(m);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(views_of_every_size),
        cmocka_unit_test(views_of_odd_weights),
        cmocka_unit_test(views_made_otherwise),
        cmocka_unit_test(differing_zeros_need_the_original),
        cmocka_unit_test(scattered_columns_are_seen),
        cmocka_unit_test(what_does_not_break_again_is_seen),
        cmocka_unit_test(offsets_of_every_width),
        cmocka_unit_test(damaged_ones_settle_others),
        cmocka_unit_test(healthy_weights_stay_alone),
        cmocka_unit_test(bits_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
