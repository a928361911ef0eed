// Recognising dense weights that were made from codes the wrong way. Everything rests on the lattice
// (lattice.h): which integers the values are, under the one scale that explains a group. The lattice
// proves that there were codes; the shape of their histogram tells right from wrong. What a matrix
// cannot tell alone is wrong_codes_like.c's, mending wrong_codes_mend.c's.
#include "quant/wrong_codes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/f16.h"
#include "base/mem.h"
#include "quant/code_counts.h"

typedef qn_code_counts codes;
#define of_size qn_code_count_sizes // codes of a magnitude from … to

enum { MIDDLE = QN_CODE_MIDDLE, MIN_GROUP = 16, VIEW_MAX = 129, OFFSET_MAX = 17, MAX_RULES = 4 };

const char *qn_wrong_name(qn_wrong kind) {
    static const char *const names[QN_N_WRONG] = {"", "signed-view", "zero-offset"};
    return names[kind];
}

// ---- which roundings may lie behind a file ----

// From the narrowest to the widest: of two that explain groups of the same size the first is meant.
static size_t rules_for(qn_dtype stored, int k_max, qn_lattice_rule out[MAX_RULES]) {
    const qn_lattice_rule list[MAX_RULES] = {{stored, false, QN_DT_BF16, -k_max, k_max, false},
                                             {stored, false, QN_DT_F16, -k_max, k_max, false},
                                             {stored, true, QN_DT_F16, -k_max, k_max, false},
                                             {stored, false, QN_DT_F32, -k_max, k_max, false}};
    size_t n = 0;
    for (size_t i = 0; i < MAX_RULES; i++)
        if (!list[i].through_f16 || stored == QN_DT_BF16) out[n++] = list[i];
    return n;
}

// ---- group size ----

// All but one group in fifty: a damaged one does not hide what the others say.
static bool explained(const qn_lattice_rule *r, const qn_code_sample *s, size_t group) {
    size_t per_row = (s->cols + group - 1) / group, allowed = s->n * per_row / 50;
    for (size_t i = 0; i < s->n; i++)
        for (size_t at = 0; at < s->cols; at += group) {
            size_t n = s->cols - at < group ? s->cols - at : group;
            if (!qn_lattice_explains(r, s->rows + i * s->cols + at, n) && allowed-- == 0)
                return false;
        }
    return true;
}

static int by_size(const void *a, const void *b) {
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

// How far one scale goes in the rows whose first group is among the shortest; 0 when there is no
// lattice. An eighth of the rows may be odd.
static size_t first_run(const qn_lattice_rule *r, const qn_code_sample *s) {
    size_t runs[QN_SAMPLE_ROWS], n_short = 0, rank = s->n / 8;
    size_t least = s->cols < MIN_GROUP ? s->cols : MIN_GROUP;
    for (size_t i = 0; i < s->n; i++) {
        runs[i] = qn_lattice_prefix(r, s->rows + i * s->cols, s->cols);
        n_short += runs[i] < least;
        if (n_short > rank) return 0;
    }
    qsort(runs, s->n, sizeof *runs, by_size);
    return runs[rank];
}

// The first value past a boundary contradicts the old scale in nearly every row, so the runs end at
// the boundary or a little behind it. Groups are whole rows or, in practice, multiples of 8.
static size_t find_group(const qn_lattice_rule *r, const qn_code_sample *s, size_t hint) {
    if (hint) return explained(r, s, hint) ? hint : 0;
    size_t run = first_run(r, s);
    if (run == s->cols && explained(r, s, run)) return run;
    for (size_t g = run / 8 * 8; g >= MIN_GROUP; g -= 8)
        if (explained(r, s, g)) return g;
    for (size_t g = run; g >= MIN_GROUP && g + 8 > run; g--)
        if (g % 8 && explained(r, s, g)) return g;
    return 0;
}

// ---- signed view ----

static double share(uint64_t part, uint64_t whole) {
    return whole ? (double)part / (double)whole : 0;
}

// Weights have one peak, at 0: read as a view the codes are densest there, and right code 0 is no
// rarer than ±1. Healthy weights with two peaks of their own have neither, nor a value near 0 in
// every group, as the largest weight of a group becomes in a signed view.
static bool peaked(const codes *c) {
    double zero = (double)of_size(c, 128, 128), ones = (double)of_size(c, 127, 127) / 2;
    double inner = (double)of_size(c, 119, 126), outer = (double)of_size(c, 88, 104);
    uint64_t hole = of_size(c, 0, 31), groups = c->varied;
    // Full-range quantizers put the largest weight of every group at −128: that one is no zero.
    if (c->at_limit * 33 >= c->varied * 32 && zero < 1.5 * (double)c->varied)
        zero -= (double)c->at_limit;
    if (zero + 2 * sqrt(zero + 1) < 0.4 * ones) return false;
    if ((inner + 2 * sqrt(inner + 1)) / 8 < 0.8 * outer / 17 && !qn_code_counts_pruned_view(c))
        return false;
    if (2 * hole < groups) return false;
    return (double)of_size(c, 0, 0) <= (double)groups + 0.03 * (double)c->n;
}

static double confidence_of(double nats, double bits) {
    double least = fmin(nats, bits * 0.69);
    return fmin(1 - exp(-least), 0.9999);
}

// Zero points that differ show in the groups' means, and a range that is used from end to end.
static bool is_asymmetric(const codes *c) {
    double n = (double)c->varied, mean = c->mean_of_means / n;
    double spread = c->square_of_means / n - mean * mean;
    return c->varied >= 8 && c->both_ends * 10 > c->varied * 6 &&
           spread > 2.25 * c->expected_square / n;
}

static bool looks_signed(const codes *c, size_t group, qn_wrong_finding *f) {
    double ratio, nats = qn_code_counts_as_view(c, &ratio);
    if (c->n < 64 || c->explained < c->groups - c->groups / 50 || ratio < 1.1 || nats < 10)
        return false;
    if (c->bits < 30 || of_size(c, 129, MIDDLE) > c->n / 500 || !peaked(c)) return false;
    double low = share(of_size(c, 0, 31), c->n), high = share(of_size(c, 96, 128), c->n);
    f->kind = QN_SIGNED_VIEW;
    f->bits = 8;
    f->hole = low;
    f->certain = c->bits >= 64 && nats >= 20;
    f->confidence = confidence_of(nats, c->bits);
    f->mirrored = qn_code_count(c, 128) * 20 > c->varied; // bf16 takes a few 127 for 128
    f->asymmetric = is_asymmetric(c);
    f->scattered = !f->asymmetric && c->precise >= 64 && group >= 32 &&
                   c->extreme * 10 < c->precise * 7;
    snprintf(f->evidence, sizeof f->evidence,
             "every value is a multiple of its group's scale (groups of %zu), %.1f %% of the codes "
             "lie at ±96…±128 and %.1f %% within ±32 of 0, max|w| = 128·scale in %.0f %% of the "
             "groups%s", group, 100 * high, 100 * low,
             100 * share(c->at_limit, c->varied),
             f->asymmetric ? "; zero points differ, only a reference can supply them"
             : f->scattered ? "; act-order: which scale a column belongs to is not in the "
                              "file" : "");
    return true;
}

// ---- zero off by one ----

static int bits_of(int widest) {
    return widest <= 3 ? 2 : widest <= 7 ? 3 : widest <= 15 ? 4 : widest <= 255 ? 8 : 0;
}

// A line through the groups' mean codes over 1 / scale: weights that have a mean give the slope, a
// wrong zero the height, which is ±1 whatever the scale.
static bool line_says(const codes *c, int shift) {
    double n = c->w, sxx = c->xx - c->x * c->x / n, sxy = c->xy - c->x * c->y / n;
    double syy = c->yy - c->y * c->y / n;
    if (c->varied < 16 || c->n < 2048 || !(sxx > 0)) return false;
    double slope = sxy / sxx, height = (c->y - slope * c->x) / n;
    double error = sqrt(fmax(syy - slope * sxy, 0) / n * (1 / n + c->x / n * c->x / n / sxx));
    return fabs(height + shift) < 0.25 && fabs(height) > 6 * error;
}

static int n_used(const codes *c) {
    int n = 0;
    for (int k = -MIDDLE; k <= MIDDLE; k++) n += qn_code_count(c, k) > 0;
    return n;
}

// Low bits: the mean lies at ∓1 scale; the range of a symmetric quantizer has moved, some groups that
// use all codes do not contain 0 any more, or the groups' means go with their scales.
static bool looks_shifted(const codes *c, size_t group, qn_wrong_finding *f) {
    double mean = c->n ? c->sum / (double)c->n : 0;
    int bits = bits_of(c->widest), half = bits ? 1 << (bits - 1) : 0, shift = mean < 0 ? 1 : -1;
    if (!bits || bits > 4 || c->n < 256 || c->explained < c->groups - c->groups / 50) return false;
    if (fabs(mean) < 0.3 || c->bits < 30 || n_used(c) * 3 < 4 * half) return false;
    bool one = fabs(fabs(mean) - 1) < 0.35;
    // Negative scales move a range to −7 … 8 as well, without moving the mean; none gives −9.
    bool moved = c->max - c->min == 2 * half - 1 &&
                 (shift > 0 ? c->min == -half - 1 : one && c->max == half) &&
                 qn_code_count(c, c->min) > 1 && qn_code_count(c, c->max) > 1;
    // A range that is a symmetric quantizer's own, end to end, has not moved: weights with a mean.
    if (c->min == -half && c->max == half - 1 && qn_code_count(c, c->min) > 1 &&
        qn_code_count(c, c->max) > 1)
        return false;
    bool beside = c->beside_zero[shift < 0] > 0 && c->beside_zero[shift > 0] == 0;
    bool line = one && c->straddling * 5 > c->varied && line_says(c, shift);
    f->certain = c->bits >= 64 && (moved || (one && beside) || line);
    if (!f->certain && (fabs(fabs(mean) - 1) > 0.25 || c->n < 1024 || c->straddling * 5 <= c->varied))
        return false;
    f->kind = QN_ZERO_OFFSET;
    f->bits = bits;
    f->shift = shift;
    f->confidence = !f->certain ? 0.7 : moved || beside ? 0.999 : 0.99;
    snprintf(f->evidence, sizeof f->evidence,
             "%d-bit codes (groups of %zu) from %d to %d with a mean of %.2f: every group is "
             "shifted by one scale", bits, group, c->min, c->max, mean);
    return true;
}

// 8 bits: a mean of one code is lost in the noise of ±47, but the range is not: −129 is no 8-bit code
// under either sign of the scale, and a range that ends at 126 on one side and at 128 on the other is
// no quantizer's. Zero points that differ leave no such trace.
static int range_moved(const codes *c, double mean) {
    enum { SOME = 2, MANY = 12 };
    uint64_t lo = qn_code_count(c, c->min), hi = qn_code_count(c, c->max);
    if (c->min == -129 && c->max == 126) return lo >= SOME && hi >= SOME ? 1 : 0;
    if (lo < MANY || hi < MANY || fabs(mean) < 0.25) return 0;
    if (c->min == -128 && c->max == 126) return mean < 0 ? 1 : 0;
    return c->max == 128 && (c->min == -127 || c->min == -126) && mean > 0 ? -1 : 0;
}

static bool looks_shifted_8(const codes *c, size_t group, qn_wrong_finding *f) {
    double mean = c->n ? c->sum / (double)c->n : 0, ratio;
    int shift = range_moved(c, mean);
    if (!shift || c->explained < c->groups || c->bits < 64 || qn_code_counts_as_view(c, &ratio) > 0)
        return false;
    f->kind = QN_ZERO_OFFSET;
    f->bits = 8;
    f->shift = shift;
    f->certain = true;
    f->confidence = c->min == -129 ? 0.999 : 0.99;
    snprintf(f->evidence, sizeof f->evidence,
             "8-bit codes (groups of %zu) from %d to %d with a mean of %.2f: the range is shifted by "
             "one scale", group, c->min, c->max, mean);
    return true;
}

static bool looks_wrong_8(const codes *c, size_t group, qn_wrong_finding *f) {
    return looks_shifted_8(c, group, f) || looks_signed(c, group, f);
}

// ---- all of it ----

// What can be mended is only what the kind of damage makes possible.
static void narrow_rule(qn_wrong_finding *f) {
    if (f->kind == QN_SIGNED_VIEW) f->rule.k_min = -128, f->rule.k_max = 128;
    if (f->kind == QN_ZERO_OFFSET && f->bits == 8) {
        f->rule.k_min = -128 - f->shift;
        f->rule.k_max = 127 - f->shift;
    }
}

// bf16 times a power of two is bf16 again, whatever the scale was rounded to before: only other
// integers can tell a bf16 scale.
static bool may_tell(const qn_lattice_rule *r, const codes *c) {
    uint64_t other = 0;
    if (r->stored != QN_DT_BF16 || r->scale != QN_DT_BF16) return true;
    for (int a = 3; a <= MIDDLE; a++)
        if (a & (a - 1)) other += of_size(c, a, a);
    return other >= 64;
}

// The rule that explains the longest groups, and of those with the same the one that explains most of
// them. 0 groups when none does.
static size_t best_rule(const qn_code_sample *s, int k_max, size_t hint, qn_lattice_rule *rule,
                        codes *c) {
    qn_lattice_rule rules[MAX_RULES];
    size_t n = rules_for(s->stored, k_max, rules), groups[MAX_RULES], longest = 0;
    for (size_t i = 0; i < n; i++) {
        groups[i] = find_group(&rules[i], s, hint);
        if (groups[i] > longest) longest = groups[i];
    }
    codes *tried = QN_NEW(codes);
    bool first = true, whole = false;
    for (size_t i = 0; longest && i < n && !whole; i++) {
        if (groups[i] < longest) continue;
        qn_code_counts_make(&rules[i], s, longest, tried);
        if (!may_tell(&rules[i], tried)) continue;
        whole = tried->explained == tried->groups;
        if (first || tried->explained > c->explained) *c = *tried, *rule = rules[i];
        first = false;
    }
    free(tried);
    return first ? 0 : longest;
}

typedef bool (*looks_fn)(const codes *c, size_t group, qn_wrong_finding *f);

// True when the codes are known, be they right or wrong: nothing else need be tried.
static bool try_codes(const qn_code_sample *s, int k_max, size_t hint, looks_fn looks,
                      qn_wrong_finding *f) {
    codes *c = QN_NEW(codes);
    qn_wrong_finding found = {0};
    found.group = best_rule(s, k_max, hint, &found.rule, c);
    bool known = found.group && c->explained == c->groups && c->bits >= 64;
    if (found.group && looks(c, found.group, &found)) {
        found.channel = found.group == s->cols;
        found.groups_tried = c->groups;
        found.groups_explained = c->explained;
        found.mean_code = c->n ? c->sum / (double)c->n : 0;
        narrow_rule(&found);
        *f = found;
        known = true;
    }
    free(c);
    return known;
}

bool qn_wrong_codes_may_be(const qn_weight *w) {
    const qn_tensor *t = w->parts[0];
    if (w->scheme || !t->data || t->n_dims < 2 || t->n == 0) return false;
    return t->dtype == QN_DT_F16 || t->dtype == QN_DT_BF16 || t->dtype == QN_DT_F32;
}

int qn_wrong_codes_bits(const qn_weight *w, size_t *group) {
    qn_code_sample s;
    int bits = 0;
    if (!qn_wrong_codes_may_be(w)) return 0;
    qn_code_sample_take(w->parts[0], &s);
    codes *c = QN_NEW(codes);
    qn_lattice_rule rule;
    for (int pass = 0; s.n > 0 && !bits && pass < 2; pass++)
        if ((*group = best_rule(&s, pass ? VIEW_MAX : OFFSET_MAX, 0, &rule, c)) && c->bits >= 30)
            bits = bits_of(c->widest);
    free(c);
    free(s.rows);
    return bits;
}

bool qn_wrong_codes_find(const qn_weight *w, size_t hint, qn_wrong_finding *out, qn_err *err) {
    const qn_tensor *t = w->parts[0];
    *out = (qn_wrong_finding){0};
    if (!qn_wrong_codes_may_be(w)) return true;
    if (hint > t->shape[t->n_dims - 1])
        return qn_fail(err, QN_USAGE, "group size is %zu, but tensor %s has %zu inputs", hint,
                       t->name, t->shape[t->n_dims - 1]);
    qn_code_sample s;
    qn_code_sample_take(t, &s);
    if (s.n > 0 && !try_codes(&s, OFFSET_MAX, hint, looks_shifted, out))
        try_codes(&s, VIEW_MAX, hint, looks_wrong_8, out);
    free(s.rows);
    return true;
}
