// Recognising and mending dense weights that were made from codes the wrong way. Everything rests on
// the lattice (lattice.h): which integers the values are, under the one scale that explains a group.
#include "quant/wrong_codes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

enum { SAMPLE_ROWS = 48, MIN_GROUP = 16, VIEW_MAX = 128, OFFSET_MAX = 17 };

// ---- which roundings may lie behind a file ----

static size_t rules_for(qn_dtype stored, int k_max, qn_lattice_rule out[4]) {
    const qn_lattice_rule f16[] = {{QN_DT_F16, false, QN_DT_F16, 0, 0}};
    const qn_lattice_rule bf16[] = {{QN_DT_BF16, false, QN_DT_F16, 0, 0},
                                    {QN_DT_BF16, true, QN_DT_F16, 0, 0},
                                    {QN_DT_BF16, false, QN_DT_BF16, 0, 0}};
    const qn_lattice_rule f32[] = {{QN_DT_F32, true, QN_DT_F16, 0, 0},
                                   {QN_DT_F32, false, QN_DT_F16, 0, 0},
                                   {QN_DT_F32, false, QN_DT_BF16, 0, 0},
                                   {QN_DT_F32, false, QN_DT_F32, 0, 0}};
    const qn_lattice_rule *list = stored == QN_DT_F16 ? f16 : stored == QN_DT_BF16 ? bf16 : f32;
    size_t n = stored == QN_DT_F16 ? 1 : stored == QN_DT_BF16 ? 3 : 4;
    for (size_t i = 0; i < n; i++) {
        out[i] = list[i];
        out[i].k_min = -k_max;
        out[i].k_max = k_max;
    }
    return n;
}

// ---- a sample of rows ----

typedef struct sample {
    float *rows; // [n][cols]
    size_t n, cols;
} sample;

static bool usable(const float *row, size_t cols) {
    bool varied = false;
    for (size_t i = 0; i < cols; i++) {
        if (!isfinite(row[i])) return false;
        varied |= row[i] != row[0];
    }
    return varied;
}

// Rows spread over the matrix; constant and damaged ones say nothing.
static void take_sample(const qn_tensor *t, sample *s) {
    s->cols = t->shape[t->n_dims - 1];
    size_t rows = t->n / s->cols, want = rows < SAMPLE_ROWS ? rows : SAMPLE_ROWS;
    s->rows = qn_alloc(want * s->cols * sizeof(float));
    s->n = 0;
    for (size_t i = 0; i < want; i++) {
        float *to = s->rows + s->n * s->cols;
        qn_tensor_to_f32(t, i * rows / want * s->cols, s->cols, to);
        s->n += usable(to, s->cols);
    }
}

// ---- group size ----

static bool all_explained(const qn_lattice_rule *r, const sample *s, size_t group, size_t rows) {
    qn_lattice_fit fit;
    for (size_t i = 0; i < s->n && i < rows; i++)
        for (size_t at = 0; at < s->cols; at += group) {
            size_t n = s->cols - at < group ? s->cols - at : group;
            qn_lattice_find(r, s->rows + i * s->cols + at, n, &fit);
            if (fit.n == 0 && !fit.blank) return false;
        }
    return true;
}

// The shortest first run over the rows is the group: the first value past a boundary contradicts the
// old scale in nearly every row. 0 when there is no lattice.
static size_t find_group(const qn_lattice_rule *r, const sample *s, size_t hint) {
    size_t shortest = s->cols;
    if (hint) return all_explained(r, s, hint, SAMPLE_ROWS) ? hint : 0;
    for (size_t i = 0; i < s->n && shortest >= MIN_GROUP; i++) {
        size_t run = qn_lattice_prefix(r, s->rows + i * s->cols, shortest);
        if (run < shortest) shortest = run;
    }
    if (shortest < MIN_GROUP) return 0;
    if (all_explained(r, s, shortest, 4)) return shortest;
    for (size_t g = 1024; g >= MIN_GROUP; g /= 2)
        if (g < shortest && all_explained(r, s, g, 4)) return g;
    return 0;
}

// ---- what the integers look like ----

typedef struct codes {
    uint64_t n, low, high; // values; |k| < 32; |k| ≥ 96
    double sum;
    int min, max, widest;  // over all groups; largest max − min of a group
    size_t groups, explained, at_limit, without_zero;
} codes;

static void count_group(const qn_lattice_rule *r, float scale, const float *v, size_t n,
                        codes *c) {
    int lo = 1 << 20, hi = -(1 << 20), k;
    for (size_t i = 0; i < n; i++) {
        if (!qn_lattice_code(r, scale, v[i], &k)) continue;
        c->n++;
        c->sum += k;
        c->low += abs(k) < 32;
        c->high += abs(k) >= 96;
        if (k < lo) lo = k;
        if (k > hi) hi = k;
    }
    if (lo < c->min) c->min = lo;
    if (hi > c->max) c->max = hi;
    if (hi - lo > c->widest) c->widest = hi - lo;
    c->at_limit += lo == -VIEW_MAX;
    c->without_zero += (hi < 0 || lo > 0) && lo != hi;
}

static void count_codes(const qn_lattice_rule *r, const sample *s, size_t group, codes *c) {
    qn_lattice_fit fit;
    *c = (codes){.min = 1 << 20, .max = -(1 << 20)};
    for (size_t i = 0; i < s->n; i++)
        for (size_t at = 0; at < s->cols; at += group) {
            const float *v = s->rows + i * s->cols + at;
            size_t n = s->cols - at < group ? s->cols - at : group;
            qn_lattice_find(r, v, n, &fit);
            if (fit.blank) continue;
            c->groups++;
            if (fit.n == 0) continue;
            c->explained++;
            if (!fit.constant) count_group(r, fit.scales[0], v, n, c);
        }
}

static double share(uint64_t part, uint64_t whole) {
    return whole ? (double)part / (double)whole : 0;
}

// Codes of real weights lie near 0, so their signed view lies near ±128: the reverse of a healthy
// 8-bit file. Flat distributions, where both shares are alike, are nobody's weights.
static bool looks_signed(const codes *c, size_t group, qn_wrong_finding *f) {
    double low = share(c->low, c->n), high = share(c->high, c->n);
    if (c->n < 64 || c->explained < c->groups || high < 4 * low || high < 0.25) return false;
    f->kind = QN_SIGNED_VIEW;
    f->bits = 8;
    f->hole = low;
    f->certain = c->n >= 256;
    f->confidence = c->n >= 4096 ? 0.9999 : c->n >= 256 ? 0.99 : 0.8;
    snprintf(f->evidence, sizeof f->evidence,
             "every value is a multiple of its group's scale (groups of %zu), %.1f %% of the codes "
             "lie at ±96…±128 and %.1f %% within ±32 of 0, max|w| = 128·scale in %.0f %% of the "
             "groups", group, 100 * high, 100 * low, 100 * share(c->at_limit, c->explained));
    return true;
}

static int bits_of(int widest) { return widest <= 3 ? 2 : widest <= 7 ? 3 : widest <= 15 ? 4 : 0; }

// Every code shifted by one: the mean lies at ∓1 scale, and some groups leave the range of codes
// or do not contain 0 any more.
static bool looks_shifted(const codes *c, size_t group, qn_wrong_finding *f) {
    double mean = c->n ? c->sum / (double)c->n : 0;
    int bits = bits_of(c->widest), half = bits ? 1 << (bits - 1) : 0;
    if (!bits || c->n < 1024 || c->explained < c->groups || fabs(fabs(mean) - 1) > 0.25)
        return false;
    f->kind = QN_ZERO_OFFSET;
    f->bits = bits;
    f->shift = mean < 0 ? 1 : -1;
    bool symmetric = c->max - c->min == 2 * half - 1;
    f->certain = (symmetric && c->min + f->shift == -half) || c->without_zero > 0;
    f->confidence = f->certain ? 0.999 : 0.7;
    snprintf(f->evidence, sizeof f->evidence,
             "%d-bit codes (groups of %zu) from %d to %d with a mean of %.2f: every group is "
             "shifted by one scale", bits, group, c->min, c->max, mean);
    return true;
}

static bool try_rules(const sample *s, qn_dtype stored, int k_max, size_t hint,
                      bool (*looks)(const codes *, size_t, qn_wrong_finding *),
                      qn_wrong_finding *f) {
    qn_lattice_rule rules[4];
    size_t n = rules_for(stored, k_max, rules);
    for (size_t i = 0; i < n; i++) {
        size_t group = find_group(&rules[i], s, hint);
        if (!group) continue;
        codes c;
        count_codes(&rules[i], s, group, &c);
        if (!looks(&c, group, f)) continue;
        f->rule = rules[i];
        f->group = group;
        f->groups_tried = c.groups;
        f->groups_explained = c.explained;
        f->mean_code = c.n ? c.sum / (double)c.n : 0;
        return true;
    }
    return false;
}

bool qn_wrong_codes_find(const qn_weight *w, size_t hint, qn_wrong_finding *out, qn_err *err) {
    const qn_tensor *t = w->parts[0];
    *out = (qn_wrong_finding){0};
    if (w->scheme || !t->data || t->n_dims < 2 || t->n == 0) return true;
    if (t->dtype != QN_DT_F16 && t->dtype != QN_DT_BF16 && t->dtype != QN_DT_F32) return true;
    if (hint > t->shape[t->n_dims - 1])
        return qn_fail(err, QN_USAGE, "group size is %zu, but tensor %s has %zu inputs", hint,
                       t->name, t->shape[t->n_dims - 1]);
    sample s;
    take_sample(t, &s);
    if (s.n > 0 && !try_rules(&s, t->dtype, OFFSET_MAX, hint, looks_shifted, out))
        try_rules(&s, t->dtype, VIEW_MAX, hint, looks_signed, out);
    free(s.rows);
    return true;
}

// ---- mending ----

// The right code for a wrong one. In a signed view k = 128 stands for a negative scale's −128.
static int right_code(const qn_wrong_finding *f, int k) {
    if (f->kind == QN_ZERO_OFFSET) return k + f->shift;
    return k < 0 ? k + 128 : k - 128;
}

static void apply(const qn_wrong_finding *f, float scale, const float *v, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        int k = 0;
        qn_lattice_code(&f->rule, scale, v[i], &k);
        out[i] = (float)right_code(f, k) * scale;
    }
}

// How unlikely a standing scale is; the least wins. A quantizer puts the largest weight at code
// ±127 or ±128.
static double unlikely(const qn_wrong_finding *f, float scale, const float *v, size_t n,
                       const float *reference) {
    double top = 0, off = 0;
    for (size_t i = 0; i < n; i++) {
        int k = 0;
        qn_lattice_code(&f->rule, scale, v[i], &k);
        double c = right_code(f, k);
        if (reference) off += fabs(c * (double)scale - (double)reference[i]);
        if (fabs(c) > top) top = fabs(c);
    }
    if (reference) return off;
    if (f->kind == QN_ZERO_OFFSET) return 0; // neighbours of one scale: the middle is taken
    return fabs(top - 127.5);
}

static size_t choose(const qn_wrong_finding *f, const qn_lattice_fit *fit, const float *v, size_t n,
                     const float *reference) {
    size_t best = 0;
    if (f->kind == QN_ZERO_OFFSET && !reference) {
        // Scales that give the largest one's integers are neighbours; the middle errs least.
        size_t same = 1;
        while (same < fit->n && fit->scales[same] > 0.97f * fit->scales[0]) same++;
        return same / 2;
    }
    double least = INFINITY;
    for (size_t i = 0; i < fit->n; i++) {
        double u = unlikely(f, fit->scales[i], v, n, reference);
        if (u < least) least = u, best = i;
    }
    return best;
}

static int falling(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

// How far any other standing scale would take a value of the group.
static double spread(const qn_wrong_finding *f, const qn_lattice_fit *fit, const float *v, size_t n,
                     const float *chosen) {
    double worst = 0;
    for (size_t s = 0; s < fit->n; s++)
        for (size_t i = 0; i < n; i++) {
            int k = 0;
            qn_lattice_code(&f->rule, fit->scales[s], v[i], &k);
            double d = fabs((double)right_code(f, k) * (double)fit->scales[s] - (double)chosen[i]);
            if (d > worst) worst = d;
        }
    return worst;
}

// A group of one negative value is what padding looks like through a signed view: code 0 became
// −128 throughout. Many scales stand for a constant; the one that makes it zeros is the likely one.
static bool is_padding(const qn_wrong_finding *f, const qn_lattice_fit *fit, const float *v) {
    float scale = -v[0] / 128;
    return f->kind == QN_SIGNED_VIEW && fit->constant && scale > 0 &&
           qn_lattice_value(&f->rule, scale, -128) == v[0];
}

static bool mend_group(const qn_wrong_finding *f, const float *v, size_t n, const float *reference,
                       float *out, double *bound) {
    qn_lattice_fit fit;
    qn_lattice_find(&f->rule, v, n, &fit);
    if (fit.blank) { // the scale is gone; nothing but zeros is likely
        memset(out, 0, n * sizeof *out);
        *bound = INFINITY;
        return true;
    }
    if (fit.n == 0) return false;
    if (is_padding(f, &fit, v) && !reference) {
        memset(out, 0, n * sizeof *out);
        *bound = spread(f, &fit, v, n, out);
        return true;
    }
    qsort(fit.scales, fit.n, sizeof *fit.scales, falling);
    apply(f, fit.scales[choose(f, &fit, v, n, reference)], v, n, out);
    *bound = fit.n == 1 && !fit.more ? 0 : spread(f, &fit, v, n, out);
    return true;
}

bool qn_wrong_codes_mend(const qn_wrong_finding *f, const float *broken, size_t cols,
                         const char *name, qn_mended_row *out, qn_err *err) {
    for (size_t at = 0, g = 0; at < cols; at += f->group, g++) {
        size_t n = cols - at < f->group ? cols - at : f->group;
        const float *reference = out->reference ? out->reference + at : NULL;
        for (size_t i = 0; i < n; i++)
            if (!isfinite(broken[at + i]))
                return qn_fail(err, QN_NONFINITE, "tensor %s: column %zu is not finite and cannot "
                               "be repaired", name, at + i);
        if (!mend_group(f, broken + at, n, reference, out->values + at, &out->bounds[g]))
            return qn_fail(err, QN_INPUT, "tensor %s: no scale explains columns %zu to %zu", name,
                           at, at + n - 1);
    }
    return true;
}
