// Putting right what wrong_codes.c recognised: one row at a time, group by group, with a bound on what
// may be off where the file leaves several answers open; and breaking a result again, as a proof.
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/f16.h"
#include "base/mem.h"
#include "quant/code_counts.h"
#include "quant/lattice_loops.h"
#include "quant/wrong_codes.h"

// One way to read a group: the scale, the sign it had, and by how much the zero point was not 128.
typedef struct reading {
    float scale;
    int sign, zero;
} reading;

typedef struct group {
    const qn_wrong_finding *f;
    const float *v, *reference; // reference: or NULL
    size_t n;
    int32_t *codes; // [n] under the scale that was read last
    float *trial;   // [n] work space
} group;

// A byte is −128 … 127, so the integers are, or −127 … 128 under a negative scale. bf16 may take the
// one end for its neighbour beyond.
static qn_lattice_rule bytes_under(const qn_wrong_finding *f, int sign) {
    qn_lattice_rule rule = f->rule;
    if (f->kind == QN_SIGNED_VIEW && sign > 0) rule.k_max = 127;
    if (f->kind == QN_SIGNED_VIEW && sign < 0) rule.k_min = -127;
    return rule;
}

// A negative scale is read as a positive one with all codes negated; what was done wrong was done to
// the code as it was stored.
static int stored_right(const qn_wrong_finding *f, const reading *r, int k) {
    int stored = r->sign * k;
    if (f->kind == QN_ZERO_OFFSET) return stored + f->shift;
    return (stored < 0 ? stored + 128 : stored - 128) - r->zero;
}

static int right_code(const qn_wrong_finding *f, const reading *r, int k) {
    return r->sign * stored_right(f, r, k);
}

// What a group's codes and zeros say.
typedef struct extent {
    int least, most; // of the wrong codes
    bool zeros, minus_zeros;
} extent;

static extent look(const group *g) {
    int least = INT_MAX, most = INT_MIN, zeros = 0, minus_zeros = 0;
    for (size_t i = 0; i < g->n; i++) {
        int k = g->codes[i];
        least = k < least ? k : least;
        most = k > most ? k : most;
        uint32_t bits = qn_f32_bits(g->v[i]);
        zeros |= (k == 0) & (bits >> 31 == 0);
        minus_zeros |= (k == 0) & (bits >> 31 == 1);
    }
    return (extent){least, most, zeros, minus_zeros};
}

// Only bf16 is so coarse that a code out of a byte's range can be another one.
static void keep_to_bytes(const group *g, const reading *r) {
    qn_lattice_rule rule = bytes_under(g->f, r->sign);
    for (size_t i = 0; i < g->n; i++)
        if (g->codes[i] < rule.k_min || g->codes[i] > rule.k_max)
            qn_lattice_code(&rule, r->scale, g->v[i], &g->codes[i]);
}

// The right values under a reading whose scale was read last.
static void right_values(const group *g, const reading *r, float *out) {
    for (size_t i = 0; i < g->n; i++) out[i] = (float)right_code(g->f, r, g->codes[i]) * r->scale;
}

// ---- the sign of the scale ----

// What tells scales apart. The values nearest to 0 on both sides: of a signed view they have the
// largest right codes. And the value, if there is one, that most of a group has: pruned weights.
typedef struct marks {
    float above, below; // infinite: none
    float pruned;       // NAN: none
} marks;

static marks marks_of(const group *g) {
    marks m = {INFINITY, -INFINITY, qn_code_majority(g->v, g->n)};
    for (size_t i = 0; i < g->n; i++) {
        float v = g->v[i], above = v >= 0 ? v : INFINITY, below = v < 0 ? v : -INFINITY;
        m.above = above < m.above ? above : m.above;
        m.below = below > m.below ? below : m.below;
    }
    return m;
}

// The largest right code by magnitude.
static int top_code(const group *g, const marks *near, float scale) {
    const reading r = {scale, 1, 0};
    const float ends[2] = {near->above, near->below};
    int top = 0, c, k;
    if (g->f->kind == QN_SIGNED_VIEW) {
        for (int i = 0; i < 2; i++)
            if (isfinite(ends[i]) && qn_lattice_code(&g->f->rule, scale, ends[i], &k) &&
                (c = abs(right_code(g->f, &r, k))) > top)
                top = c;
        return top;
    }
    qn_lattice_codes(&g->f->rule, scale, g->v, g->n, g->codes);
    for (size_t i = 0; i < g->n; i++)
        if ((c = abs(right_code(g->f, &r, g->codes[i]))) > top) top = c;
    return top;
}

static int pruned_code(const group *g, const marks *m, float scale) {
    const reading r = {scale, 1, 0};
    int k;
    return !isnan(m->pruned) && qn_lattice_code(&g->f->rule, scale, m->pruned, &k)
               ? abs(right_code(g->f, &r, k)) : 0;
}

// 1 or −1; 0 when both may be. ±128 tells, as does the sign of a zero: 0 times a negative scale is −0.
// Where no group of the matrix has a negative scale, none is suspected.
static int sign_of_scale(const group *g, float scale) {
    if (g->f->kind == QN_ZERO_OFFSET) return 1;
    extent e = look(g);
    if (e.least > -128 && e.most < 128 && !e.zeros && !e.minus_zeros) return 1; // both are the same
    qn_lattice_rule plus = bytes_under(g->f, 1), minus = bytes_under(g->f, -1);
    bool may_plus = e.most < 128, may_minus = e.least > -128;
    if (g->f->rule.stored == QN_DT_BF16) {
        may_plus = may_plus || qn_lattice_stands(&plus, scale, g->v, g->n);
        may_minus = may_minus || qn_lattice_stands(&minus, scale, g->v, g->n);
    }
    if (may_plus != may_minus) return may_plus ? 1 : -1;
    if (e.minus_zeros != e.zeros) return e.minus_zeros ? -1 : 1;
    return g->f->mirrored && (e.zeros || e.minus_zeros) ? 0 : 1;
}

// Where zero points differ: how far the reference says this one is from 128. *clear gets whether the
// reference leaves no doubt.
static int zero_from(const group *g, float scale, bool *clear) {
    double sum = 0;
    reading r = {scale, 1, 0};
    right_values(g, &r, g->trial);
    for (size_t i = 0; i < g->n; i++)
        sum += (double)(g->trial[i] - g->reference[i]) / (double)scale;
    double mean = sum / (double)g->n;
    if (!(fabs(mean) <= 128)) mean = 0;
    *clear = fabs(mean - rint(mean)) < 0.3;
    return (int)rint(mean);
}

// Reads the group under a scale that stands.
static reading read_as(const group *g, float scale, bool *clear) {
    qn_lattice_codes(&g->f->rule, scale, g->v, g->n, g->codes);
    reading r = {scale, sign_of_scale(g, scale), 0};
    *clear = r.sign != 0;
    if (g->f->asymmetric && g->reference) {
        bool clear_zero;
        r.sign = 1;
        r.zero = zero_from(g, scale, &clear_zero);
        *clear = clear_zero;
    }
    if (!r.sign) r.sign = 1;
    keep_to_bytes(g, &r);
    return r;
}

// ---- choosing among the scales that stand ----

static double distance(const group *g, const reading *r) {
    double off = 0;
    right_values(g, r, g->trial);
    for (size_t i = 0; i < g->n; i++)
        off += fabs((double)g->trial[i] - (double)g->reference[i]);
    return off;
}

// How unlikely a standing scale is: far from the reference; or, 8 bits, the largest weight not at code
// ±127 or ±128, where quantizers put it, and pruned ones not at 0; or, fewer bits, integers larger
// than they need be.
static double unlikely(const group *g, const marks *m, float scale, float largest) {
    if (g->reference) {
        bool clear;
        reading r = read_as(g, scale, &clear);
        return distance(g, &r);
    }
    if (g->f->bits == 8 && g->f->asymmetric) return 0;
    if (g->f->bits == 8) return fabs(top_code(g, m, scale) - 127.5) + pruned_code(g, m, scale);
    return (double)(largest / scale) < 1.008 ? 0 : (double)(largest / scale); // or a neighbour of it
}

static int falling(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

// The likeliest scale; of several equally likely ones, neighbours, the middle errs least.
static float choose(const group *g, qn_lattice_fit *fit, double *least) {
    size_t same = 0;
    float equal[QN_MAX_STANDING];
    *least = INFINITY;
    if (fit->n == 1) return fit->scales[0];
    marks m = marks_of(g);
    qsort(fit->scales, fit->n, sizeof *fit->scales, falling);
    for (size_t i = 0; i < fit->n; i++) {
        double u = unlikely(g, &m, fit->scales[i], fit->scales[0]);
        if (u < *least) *least = u, same = 0;
        if (u == *least) equal[same++] = fit->scales[i];
    }
    return equal[same / 2];
}

// How far any other reading that is as good would take a value. A reference rules out what is clearly
// farther from it. Without one, the largest and the smallest scale go farthest (values move by 128
// times the difference of the scales), those between may add a step.
static double spread(const group *g, const qn_lattice_fit *fit, double least, const float *chosen) {
    bool all = g->reference || fit->n < 4 || g->f->kind != QN_SIGNED_VIEW;
    double worst = 0, step = all ? 0 : (double)fit->scales[0];
    for (size_t s = 0; s < fit->n; s += all ? 1 : fit->n - 1) {
        bool clear;
        reading r = read_as(g, fit->scales[s], &clear);
        if (g->reference && distance(g, &r) > 1.5 * least) continue;
        right_values(g, &r, g->trial);
        for (size_t i = 0; i < g->n; i++) {
            double d = fabs((double)g->trial[i] - (double)chosen[i]);
            if (d > worst) worst = d;
        }
    }
    return worst + step;
}

// What an unclear sign or zero point may cost: a zero that is 128 scales on the wrong side, a code.
static double doubt(const group *g, float scale) {
    return g->f->asymmetric ? (double)scale : 256 * (double)scale;
}

// In bf16, and more so through f16, two codes next to each other can fall on one number even under the
// scale that is right (the one read last).
static bool two_codes(const group *g, const reading *r) {
    qn_lattice_rule rule = bytes_under(g->f, r->sign);
    return rule.stored == QN_DT_BF16 &&
           qn_lattice_loops_best()->doubled(&rule, r->scale, g->v, g->codes, g->n);
}

// A group of one negative value is what padding looks like through a signed view: code 0 became
// −128 throughout. Many scales stand for a constant; the one that makes it zeros is the likely one, if
// it is a number of its format. 0: there is none.
static float padding_scale(const group *g, const qn_lattice_fit *fit) {
    float scale = -g->v[0] / 128;
    if (g->f->kind != QN_SIGNED_VIEW || !fit->constant || !(scale > 0)) return 0;
    if (g->f->rule.scale == QN_DT_F16) scale = qn_f16_to_f32(qn_f32_to_f16(scale));
    if (g->f->rule.scale == QN_DT_BF16) scale = qn_bf16_to_f32(qn_f32_to_bf16(scale));
    return qn_lattice_value(&g->f->rule, scale, -128) == g->v[0] ? scale : 0;
}

// What was found of a group besides its values.
typedef struct mended {
    double bound;
    float scale; // as it was stored; 0: gone
    int code_min, code_max;
} mended;

static void tell_codes(const group *g, const reading *r, mended *m) {
    int least = INT_MAX, most = INT_MIN, middle = 0;
    if (g->f->kind == QN_SIGNED_VIEW) middle = 128 + r->zero; // the byte
    for (size_t i = 0; i < g->n; i++) {
        int c = stored_right(g->f, r, g->codes[i]);
        least = c < least ? c : least;
        most = c > most ? c : most;
    }
    m->code_min = least + middle;
    m->code_max = most + middle;
    m->scale = (float)r->sign * r->scale;
}

// scale 0: it is gone, and nothing but zeros is likely.
static void mend_zeros(const group *g, const qn_lattice_fit *fit, float scale, float *out,
                       mended *m) {
    memset(out, 0, g->n * sizeof *out);
    m->code_min = m->code_max = g->f->kind == QN_SIGNED_VIEW ? 128 : 0;
    m->scale = scale;
    m->bound = scale == 0 ? INFINITY : spread(g, fit, 0, out);
}

// The rule that found the scales allows 128 and −128 at once, which no byte has under one sign.
static void keep_byte_scales(const group *g, qn_lattice_fit *fit) {
    size_t kept = 0;
    if (g->f->kind != QN_SIGNED_VIEW || fit->n < 2) return;
    for (int sign = 1; sign >= -1 && kept == 0; sign -= 2) {
        qn_lattice_rule rule = bytes_under(g->f, sign);
        bool stands[QN_MAX_STANDING];
        for (size_t i = 0; i < fit->n; i++) {
            stands[i] = qn_lattice_stands(&rule, fit->scales[i], g->v, g->n);
            if (!stands[i] && g->f->mirrored) {
                qn_lattice_rule other = bytes_under(g->f, -sign);
                stands[i] = qn_lattice_stands(&other, fit->scales[i], g->v, g->n);
            }
        }
        for (size_t i = 0; i < fit->n; i++)
            if (stands[i]) fit->scales[kept++] = fit->scales[i];
    }
    if (kept) fit->n = kept;
}

static bool mend_group(const group *g, float *out, mended *m) {
    qn_lattice_fit fit;
    double least;
    bool clear;
    qn_lattice_rule rule = g->f->rule;
    rule.outermost = !g->reference; // a reference chooses among all
    qn_lattice_find(&rule, g->v, g->n, &fit);
    float padding = fit.blank || g->reference ? 0 : padding_scale(g, &fit);
    if (fit.blank || padding > 0) {
        mend_zeros(g, &fit, padding, out, m);
        return true;
    }
    if (fit.n == 0) return false;
    keep_byte_scales(g, &fit);
    float scale = choose(g, &fit, &least);
    reading r = read_as(g, scale, &clear);
    right_values(g, &r, out);
    tell_codes(g, &r, m);
    double bound = two_codes(g, &r) ? (double)scale : 0;
    if (!clear) bound = fmax(bound, doubt(g, scale));
    if (fit.n > 1 || fit.more) bound = fmax(bound, spread(g, &fit, least, out));
    if (fit.more && bound == 0) bound = (double)scale;
    m->bound = bound;
    return true;
}

static bool no_solution(const char *name, const group *g, size_t at, qn_err *err) {
    return qn_fail(err, QN_INPUT, "tensor %s: no scale explains columns %zu to %zu", name, at,
                   at + g->n - 1);
}

bool qn_wrong_codes_mend(const qn_wrong_finding *f, const float *broken, size_t cols,
                         const char *name, qn_mended_row *out, qn_err *err) {
    size_t most = f->group < cols ? f->group : cols;
    int32_t *codes = QN_NEW_ARRAY(int32_t, most);
    float *trial = QN_NEW_ARRAY(float, most);
    bool ok = true;
    out->code_min = INT_MAX;
    out->code_max = INT_MIN;
    for (size_t k = 0; ok && k < cols; k++)
        if (!isfinite(broken[k]))
            ok = qn_fail(err, QN_NONFINITE, "tensor %s: column %zu is not finite and cannot be "
                         "repaired", name, k);
    for (size_t at = 0, i = 0; ok && at < cols; at += f->group, i++) {
        group g = {f, broken + at, out->reference ? out->reference + at : NULL,
                   cols - at < f->group ? cols - at : f->group, codes, trial};
        mended m = {0};
        ok = mend_group(&g, out->values + at, &m) || no_solution(name, &g, at, err);
        if (!ok) break;
        out->bounds[i] = m.bound;
        out->scales[i] = m.scale;
        if (m.code_min < out->code_min) out->code_min = m.code_min;
        if (m.code_max > out->code_max) out->code_max = m.code_max;
    }
    free(codes);
    free(trial);
    return ok;
}

// ---- breaking again ----

static bool breaks_into(const qn_wrong_finding *f, qn_dtype stored, const float *broken,
                        const float *right, size_t n, const reading *r) {
    const qn_lattice_mistake m = {f->kind == QN_SIGNED_VIEW, r->sign, r->zero, f->shift};
    return qn_lattice_loops_best()->breaks(&f->rule, r->scale, &m, stored, broken, right, n);
}

// The step between the two is 128 scales, or one, in every place: no search is needed to see the scale
// but for the rounding of both, which leaves a few neighbours.
static double step_between(const qn_wrong_finding *f, const float *broken, const float *right,
                           size_t n) {
    double sums[4] = {0};
    for (size_t i = 0; i < n; i++) sums[i % 4] += fabs((double)broken[i] - (double)right[i]);
    return (sums[0] + sums[1] + sums[2] + sums[3]) / (double)n / (f->kind == QN_SIGNED_VIEW ? 128 : 1);
}

static bool try_around(const qn_wrong_finding *f, qn_dtype stored, const float *broken,
                       const float *right, size_t n, double guess) {
    reading r = {0, 1, 0};
    for (int i = 0; i < 64; i++) {
        int step = i % 2 ? -(i + 1) / 2 : i / 2;
        double wide = f->rule.scale == QN_DT_F32 ? guess * (1 + step * 0x1p-16) : guess;
        r.scale = (float)wide;
        if (f->rule.scale == QN_DT_F16)
            r.scale = qn_f16_to_f32((uint16_t)(qn_f32_to_f16(r.scale) + step));
        if (f->rule.scale == QN_DT_BF16)
            r.scale = qn_bf16_to_f32((uint16_t)(qn_f32_to_bf16(r.scale) + step));
        for (r.sign = 1; r.sign >= -1 && r.scale > 0; r.sign -= 2)
            if (breaks_into(f, stored, broken, right, n, &r)) return true;
    }
    return false;
}

// Where the step is lost in the rounding, or zero points differ: the scales that the damaged values
// leave open, those that mending chose among first.
static bool try_standing(const qn_wrong_finding *f, qn_dtype stored, const float *broken,
                         const float *right, size_t n) {
    group g = {f, broken, right, n, QN_NEW_ARRAY(int32_t, n), QN_NEW_ARRAY(float, n)};
    bool found = false;
    for (int all = 0; !found && all < 2; all++) {
        qn_lattice_fit fit;
        qn_lattice_rule rule = f->rule;
        rule.outermost = !all;
        qn_lattice_find(&rule, broken, n, &fit);
        for (size_t i = 0; !found && i < fit.n; i++) {
            bool clear;
            reading r = read_as(&g, fit.scales[i], &clear);
            found = breaks_into(f, stored, broken, right, n, &r);
        }
    }
    free(g.codes);
    free(g.trial);
    return found;
}

bool qn_wrong_codes_rebreaks(const qn_wrong_finding *f, qn_dtype stored, const float *broken,
                             const float *right, size_t n) {
    int blank = 1;
    for (size_t i = 0; i < n; i++) blank &= (broken[i] == 0) & (right[i] == 0);
    if (blank) return true; // the scale is gone: both are zeros under scale 0
    return try_around(f, stored, broken, right, n, step_between(f, broken, right, n)) ||
           try_standing(f, stored, broken, right, n);
}
