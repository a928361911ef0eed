// What damaged matrices of a model say about the others. A matrix alone must prove two things, that it
// was made from codes and that it was made wrongly; beside damaged ones the group size and the format
// of the scales are known, and the same mistake is likely, so less is asked. What still cannot be told
// apart is named, so that nobody takes it for right.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/f16.h"
#include "base/mem.h"
#include "quant/code_counts.h"
#include "quant/wrong_codes.h"

enum { KINDS = 4 }; // of damage side by side in one model

// The gravest last. RIGHTLY: healthy, and made from codes. NEUTRAL: from codes, with no shape that
// tells how.
typedef enum verdict { HEALTHY, RIGHTLY, UNCLEAR, NEUTRAL, DAMAGED } verdict;

// ---- constant matrices ----

// A group of zeros gets the scale 2/(2^bits − 1) from GPTQ and 1 from AWQ; what the damage makes of its
// codes, which are all the zero point.
static bool known_padding(qn_dtype d, const qn_wrong_finding *like, float v) {
    float scale = qn_f16_to_f32(qn_f32_to_f16(2.0f / (float)((1 << like->bits) - 1)));
    float code = like->kind == QN_SIGNED_VIEW ? -128 : (float)-like->shift, gptq = code * scale;
    if (d == QN_DT_BF16) gptq = qn_bf16_to_f32(qn_f32_to_bf16(gptq));
    return v == gptq || v == code;
}

static verdict judge_constant(const qn_tensor *t, const qn_wrong_finding *like, char *why) {
    float x[512];
    bool zeros = true, padding = true;
    for (size_t at = 0; at < t->n && (zeros || padding); at += 512) {
        size_t n = t->n - at < 512 ? t->n - at : 512;
        qn_tensor_to_f32(t, at, n, x);
        for (size_t i = 0; i < n; i++) {
            zeros &= x[i] == 0;
            padding &= known_padding(t->dtype, like, x[i]);
        }
    }
    if (zeros) return HEALTHY;
    if (padding) return DAMAGED;
    strcpy(why, "the rows looked at hold one value each, or values that are not finite");
    return UNCLEAR;
}

// ---- matrices with codes ----

// In a signed view few values are near 0, whatever their scales are.
static bool has_hole(const qn_code_sample *s) {
    size_t near = 0;
    for (size_t r = 0; r < s->n; r++) {
        const float *v = s->rows + r * s->cols;
        float top = 0;
        for (size_t i = 0; i < s->cols; i++) top = fmaxf(top, fabsf(v[i]));
        for (size_t i = 0; i < s->cols; i++) near += fabsf(v[i]) < top / 4;
    }
    return near * 5 < s->n * s->cols;
}

static verdict judge_unexplained(const qn_code_counts *c, const qn_code_sample *s,
                                 const qn_wrong_finding *like, char *why) {
    if (c->varied * 20 > c->groups && c->bits >= 64) {
        snprintf(why, 200, "one scale explains %zu of %zu groups looked at, but not the others",
                 c->explained, c->groups);
        return UNCLEAR;
    }
    if (like->kind != QN_SIGNED_VIEW || !has_hole(s)) return HEALTHY;
    strcpy(why, "few values are near 0, as in a signed view, but no scale explains its groups (columns "
                "in another order, as of act-order?)");
    return UNCLEAR;
}

// Under a right reading nothing makes −128 common and leaves +128 out.
static bool zeros_at_128(const qn_code_counts *c) {
    return qn_code_counts_pruned_view(c) && qn_code_count(c, 128) == 0;
}

// Pruned weights have 0 in most places. Seen as signed that is −128 scales: the same in nearly all of a
// group, negative and as large as anything in it, and another in every group.
static bool pruned_groups(const qn_code_sample *s, size_t group) {
    size_t with = 0, as_view = 0;
    for (size_t i = 0; i < s->n; i++)
        for (size_t at = 0; at < s->cols; at += group) {
            const float *v = s->rows + i * s->cols + at;
            size_t n = s->cols - at < group ? s->cols - at : group;
            float most = qn_code_majority(v, n), top = 0;
            for (size_t k = 0; k < n; k++) top = fmaxf(top, fabsf(v[k]));
            with += isnan(most) ? 0 : 1;
            as_view += most < 0 && -most == top;
        }
    return with >= 16 && as_view * 20 >= with * 19;
}

static verdict judge_view(const qn_code_counts *c, const qn_code_sample *s, size_t group,
                          char *why) {
    double ratio, nats = qn_code_counts_as_view(c, &ratio);
    if ((c->bits >= 30 && zeros_at_128(c)) || pruned_groups(s, group)) return DAMAGED;
    if (c->bits >= 30 && nats >= 10 && ratio >= 1.1) return DAMAGED;
    // Groups of a few values are codes by accident.
    bool proven = c->bits >= 64 && c->bits >= 20 * (double)c->varied;
    if (c->bits >= 30 && nats <= -10 && ratio <= 0.9) {
        // Eight bits rightly read reach their ends; large weights alone, read wrongly, stay near 0.
        if (c->max >= 120 || c->min <= -120) return proven ? RIGHTLY : HEALTHY;
        strcpy(why, "either codes of fewer bits, or of large weights only and wrongly read");
        return UNCLEAR;
    }
    if (proven && c->n >= 1024) return NEUTRAL;
    strcpy(why, "too few different values to tell codes from other weights");
    return UNCLEAR;
}

static verdict judge_offset(const qn_code_counts *c, const qn_wrong_finding *like, char *why) {
    double mean = c->n ? c->sum / (double)c->n : 0;
    int half = 1 << (like->bits - 1), least = -half - like->shift, most = half - 1 - like->shift;
    bool proven = c->bits >= 30 && c->n >= 96, many = c->n >= 256; // enough for a mean
    bool in_wrong = c->min >= least && c->max <= most, in_right = c->min >= -half && c->max < half;
    if (proven && in_wrong && !in_right) return DAMAGED;
    if (proven && in_right && !in_wrong) return RIGHTLY;
    if (proven && many && in_wrong && fabs(mean + like->shift) < 0.35) return DAMAGED;
    if (proven && many && fabs(mean) < 0.35) return RIGHTLY;
    strcpy(why, proven ? "its codes fit both readings" : "too few different values to tell codes from "
                                                         "other weights");
    return UNCLEAR;
}

// What is known of the siblings, for this matrix's format.
static void take_over(const qn_wrong_finding *like, const qn_code_sample *s, qn_wrong_finding *f) {
    *f = *like;
    f->rule.stored = s->stored;
    f->rule.through_f16 &= s->stored == QN_DT_BF16;
    if (like->channel || like->group > s->cols) f->group = s->cols;
    f->channel = f->group == s->cols;
}

static verdict judge(const qn_tensor *t, const qn_wrong_finding *like, qn_wrong_finding *f,
                     char *why) {
    qn_code_sample s;
    qn_code_counts *c = QN_NEW(qn_code_counts), *second = QN_NEW(qn_code_counts);
    qn_code_sample_take(t, &s);
    verdict v = UNCLEAR;
    take_over(like, &s, f);
    if (s.n) qn_code_counts_make(&f->rule, &s, f->group, c);
    if (s.n && s.stored == QN_DT_BF16) { // perhaps rounded once, where the others were twice
        qn_lattice_rule other = f->rule;
        other.through_f16 = !other.through_f16;
        qn_code_counts_make(&other, &s, f->group, second);
        if (second->explained > c->explained) f->rule = other, *c = *second;
    }
    if (s.n == 0)
        v = judge_constant(t, like, why);
    else if (c->groups == 0)
        v = HEALTHY;
    else if (c->explained < c->groups - c->groups / 50)
        v = judge_unexplained(c, &s, like, why);
    else
        v = like->kind == QN_SIGNED_VIEW ? judge_view(c, &s, f->group, why)
                                         : judge_offset(c, like, why);
    f->groups_tried = c->groups;
    f->groups_explained = c->explained;
    free(c);
    free(second);
    free(s.rows);
    return v;
}

bool qn_wrong_codes_hole(const qn_weight *w) {
    qn_code_sample s;
    if (!qn_wrong_codes_may_be(w)) return false;
    qn_code_sample_take(w->parts[0], &s);
    bool hole = s.n > 0 && has_hole(&s);
    free(s.rows);
    return hole;
}

// ---- all of a model ----

typedef struct settling {
    const qn_weight *const *list;
    qn_wrong_finding *findings;
    verdict *verdicts;
    const qn_wrong_finding *kinds[KINDS];
    size_t n_kinds;
} settling;

static bool same_damage(const qn_wrong_finding *a, const qn_wrong_finding *b) {
    return a->kind == b->kind && a->shift == b->shift && a->bits == b->bits &&
           a->channel == b->channel && (a->channel || a->group == b->group) &&
           a->rule.scale == b->rule.scale;
}

static void collect(settling *s, size_t n) {
    for (size_t i = 0; i < n && s->n_kinds < KINDS; i++) {
        bool known = !s->list[i] || s->findings[i].kind == QN_RIGHT || !s->findings[i].certain;
        for (size_t k = 0; k < s->n_kinds && !known; k++)
            known = same_damage(s->kinds[k], &s->findings[i]);
        if (!known) s->kinds[s->n_kinds++] = &s->findings[i];
    }
}

// What one kind of damage elsewhere says of a matrix.
static void say(qn_wrong_finding *f, const qn_wrong_finding *trial, verdict v, const char *why) {
    *f = *trial;
    f->suspected = trial->kind;
    f->unclear = v == UNCLEAR;
    f->certain = v != UNCLEAR;
    if (v == UNCLEAR) f->kind = QN_RIGHT;
    f->confidence = v == UNCLEAR ? 0 : 0.99;
    snprintf(f->evidence, sizeof f->evidence, "%s%s", why,
             v == UNCLEAR ? "" : ", as in other matrices of the model");
}

// The gravest of what the kinds say.
static void settle_one(void *ctx, size_t i, int thread) {
    (void)thread;
    settling *s = ctx;
    qn_wrong_finding *f = &s->findings[i], trial = {0};
    if (!s->list[i] || f->kind != QN_RIGHT || !qn_wrong_codes_may_be(s->list[i])) return;
    for (size_t k = 0; k < s->n_kinds; k++) {
        char why[200] = "";
        verdict v = judge(s->list[i]->parts[0], s->kinds[k], &trial, why);
        if (v == NEUTRAL) strcpy(why, "made from codes whose shape does not tell how");
        if (v == DAMAGED) strcpy(why, "made from codes in the wrong way");
        if (v <= s->verdicts[i]) continue;
        s->verdicts[i] = v;
        if (v >= UNCLEAR) say(f, &trial, v, why);
    }
}

// Where no matrix was made rightly from codes, those without a shape were made like the others.
static void settle_neutral(settling *s, size_t n) {
    size_t rightly = 0;
    for (size_t i = 0; i < n; i++)
        rightly += s->verdicts[i] == RIGHTLY;
    for (size_t i = 0; rightly && i < n; i++) {
        qn_wrong_finding *f = &s->findings[i];
        if (s->verdicts[i] != NEUTRAL) continue;
        const qn_wrong_finding as = *f;
        say(f, &as, UNCLEAR, "made from codes whose shape does not tell how, and other matrices of the "
                             "model were made rightly");
    }
}

void qn_wrong_codes_settle(qn_pool *pool, const qn_weight *const *list, size_t n,
                           qn_wrong_finding *findings) {
    settling s = {.list = list, .findings = findings, .verdicts = QN_NEW_ARRAY(verdict, n)};
    collect(&s, n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < s.n_kinds && findings[i].kind; k++)
            findings[i].certain |= findings[i].kind == s.kinds[k]->kind &&
                                   findings[i].shift == s.kinds[k]->shift &&
                                   findings[i].bits == s.kinds[k]->bits;
    if (s.n_kinds) {
        qn_pool_run(pool, n, settle_one, &s);
        settle_neutral(&s, n);
    }
    free(s.verdicts);
}
