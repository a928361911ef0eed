// Putting right what wrong_codes.c recognised: one row at a time, group by group, with a bound on what
// may be off where the file leaves several answers open; and breaking a result again, as a proof.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/f16.h"
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
} group;

// The right code for a wrong one. A negative scale is read as a positive one with all codes negated;
// what was done wrong was done to the code as it was stored.
static int right_code(const qn_wrong_finding *f, const reading *r, int k) {
    int stored = r->sign * k, right;
    if (f->kind == QN_ZERO_OFFSET)
        right = stored + f->shift;
    else
        right = (stored < 0 ? stored + 128 : stored - 128) - r->zero;
    return r->sign * right;
}

// A byte is −128 … 127, so the integers are, or −127 … 128 under a negative scale. bf16 may take the
// one end for its neighbour beyond.
static qn_lattice_rule bytes_under(const qn_wrong_finding *f, int sign) {
    qn_lattice_rule rule = f->rule;
    if (f->kind == QN_SIGNED_VIEW && sign > 0) rule.k_max = 127;
    if (f->kind == QN_SIGNED_VIEW && sign < 0) rule.k_min = -127;
    return rule;
}

// The integer of a value under a scale that stands. Only bf16 is so coarse that another may be nearer.
static int code_under(const qn_lattice_rule *rule, float scale, float v) {
    int k = (int)lrintf(v / scale);
    if (rule->stored == QN_DT_BF16) qn_lattice_code(rule, scale, v, &k);
    return k;
}

static float right_value(const group *g, const reading *r, size_t i) {
    int k = code_under(&g->f->rule, r->scale, g->v[i]);
    qn_lattice_rule rule = bytes_under(g->f, r->sign);
    if (k < rule.k_min || k > rule.k_max) qn_lattice_code(&rule, r->scale, g->v[i], &k);
    return (float)right_code(g->f, r, k) * r->scale;
}

// ---- what the codes say ----

typedef struct extent {
    int least, most, top; // of the wrong codes; the largest right code by magnitude
    bool zeros, minus_zeros;
} extent;

static extent look(const group *g, float scale) {
    extent e = {1 << 20, -(1 << 20), 0, false, false};
    reading r = {scale, 1, 0};
    for (size_t i = 0; i < g->n; i++) {
        int k = code_under(&g->f->rule, scale, g->v[i]), c = abs(right_code(g->f, &r, k));
        if (k < e.least) e.least = k;
        if (k > e.most) e.most = k;
        if (c > e.top) e.top = c;
        if (k == 0) *(signbit(g->v[i]) ? &e.minus_zeros : &e.zeros) = true;
    }
    return e;
}

// look's top alone. Of a signed view it is made by the values nearest to 0 on both sides.
static int top_code(const group *g, float scale) {
    reading r = {scale, 1, 0};
    float above = INFINITY, below = -INFINITY;
    int top = 0;
    if (g->f->kind != QN_SIGNED_VIEW) return look(g, scale).top;
    for (size_t i = 0; i < g->n; i++) {
        if (g->v[i] >= 0 && g->v[i] < above) above = g->v[i];
        if (g->v[i] < 0 && g->v[i] > below) below = g->v[i];
    }
    if (above < INFINITY) top = abs(right_code(g->f, &r, code_under(&g->f->rule, scale, above)));
    if (below == -INFINITY) return top;
    int other = abs(right_code(g->f, &r, code_under(&g->f->rule, scale, below)));
    return other > top ? other : top;
}

// 1 or −1; 0 when both may be. ±128 tells, as does the sign of a zero: 0 times a negative scale is −0.
// Where no group of the matrix has a negative scale, none is suspected.
static int sign_of_scale(const group *g, float scale) {
    if (g->f->kind == QN_ZERO_OFFSET) return 1;
    extent e = look(g, scale);
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
    for (size_t i = 0; i < g->n; i++)
        sum += (double)(right_value(g, &r, i) - g->reference[i]) / (double)scale;
    double mean = sum / (double)g->n;
    if (!(fabs(mean) <= 128)) mean = 0;
    *clear = fabs(mean - rint(mean)) < 0.3;
    return (int)rint(mean);
}

static reading read_as(const group *g, float scale, bool *clear) {
    reading r = {scale, sign_of_scale(g, scale), 0};
    *clear = r.sign != 0;
    if (g->f->asymmetric && g->reference) {
        bool clear_zero;
        r.sign = 1;
        r.zero = zero_from(g, scale, &clear_zero);
        *clear = clear_zero;
    }
    if (!r.sign) r.sign = 1;
    return r;
}

// ---- choosing among the scales that stand ----

static double distance(const group *g, const reading *r) {
    double off = 0;
    for (size_t i = 0; i < g->n; i++)
        off += fabs((double)right_value(g, r, i) - (double)g->reference[i]);
    return off;
}

// How unlikely a standing scale is: far from the reference; or, 8 bits, the largest weight not at code
// ±127 or ±128, where quantizers put it; or, fewer bits, integers larger than they need be.
static double unlikely(const group *g, float scale, float largest) {
    if (g->reference) {
        bool clear;
        reading r = read_as(g, scale, &clear);
        return distance(g, &r);
    }
    if (g->f->bits == 8) return g->f->asymmetric ? 0 : fabs(top_code(g, scale) - 127.5);
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
    qsort(fit->scales, fit->n, sizeof *fit->scales, falling);
    for (size_t i = 0; i < fit->n; i++) {
        double u = unlikely(g, fit->scales[i], fit->scales[0]);
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
        for (size_t i = 0; i < g->n; i++) {
            double d = fabs((double)right_value(g, &r, i) - (double)chosen[i]);
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
// scale that is right.
static bool two_codes(const group *g, const reading *r) {
    qn_lattice_rule rule = bytes_under(g->f, r->sign);
    if (rule.stored != QN_DT_BF16) return false;
    for (size_t i = 0; i < g->n; i++) {
        int k;
        if (!qn_lattice_code(&rule, r->scale, g->v[i], &k)) continue;
        if (k > rule.k_min && qn_lattice_value(&rule, r->scale, k - 1) == g->v[i]) return true;
        if (k < rule.k_max && qn_lattice_value(&rule, r->scale, k + 1) == g->v[i]) return true;
    }
    return false;
}

// A group of one negative value is what padding looks like through a signed view: code 0 became
// −128 throughout. Many scales stand for a constant; the one that makes it zeros is the likely one.
static bool is_padding(const group *g, const qn_lattice_fit *fit) {
    float scale = -g->v[0] / 128;
    return g->f->kind == QN_SIGNED_VIEW && fit->constant && scale > 0 &&
           qn_lattice_value(&g->f->rule, scale, -128) == g->v[0];
}

static bool mend_group(const group *g, float *out, double *bound) {
    qn_lattice_fit fit;
    double least;
    bool clear;
    qn_lattice_rule rule = g->f->rule;
    rule.outermost = !g->reference; // a reference chooses among all
    qn_lattice_find(&rule, g->v, g->n, &fit);
    if (fit.blank) { // the scale is gone; nothing but zeros is likely
        memset(out, 0, g->n * sizeof *out);
        *bound = INFINITY;
        return true;
    }
    if (fit.n == 0) return false;
    if (is_padding(g, &fit) && !g->reference) {
        memset(out, 0, g->n * sizeof *out);
        *bound = spread(g, &fit, 0, out);
        return true;
    }
    float scale = choose(g, &fit, &least);
    reading r = read_as(g, scale, &clear);
    for (size_t i = 0; i < g->n; i++) out[i] = right_value(g, &r, i);
    *bound = fit.n == 1 && !fit.more ? 0 : spread(g, &fit, least, out);
    if (!clear) *bound = fmax(*bound, doubt(g, scale));
    if ((fit.more && *bound == 0) || two_codes(g, &r)) *bound = fmax(*bound, (double)scale);
    return true;
}

bool qn_wrong_codes_mend(const qn_wrong_finding *f, const float *broken, size_t cols,
                         const char *name, qn_mended_row *out, qn_err *err) {
    for (size_t at = 0, i = 0; at < cols; at += f->group, i++) {
        group g = {f, broken + at, out->reference ? out->reference + at : NULL,
                   cols - at < f->group ? cols - at : f->group};
        for (size_t k = 0; k < g.n; k++)
            if (!isfinite(g.v[k]))
                return qn_fail(err, QN_NONFINITE, "tensor %s: column %zu is not finite and cannot "
                               "be repaired", name, at + k);
        if (!mend_group(&g, out->values + at, &out->bounds[i]))
            return qn_fail(err, QN_INPUT, "tensor %s: no scale explains columns %zu to %zu", name,
                           at, at + g.n - 1);
    }
    return true;
}

// ---- breaking again ----

static float store(qn_dtype d, float x) {
    if (d == QN_DT_F16) return qn_f16_to_f32(qn_f32_to_f16(x));
    return d == QN_DT_BF16 ? qn_bf16_to_f32(qn_f32_to_bf16(x)) : x;
}

// What the mistake makes of a right code; zero: how far the zero point was from 128.
static int wrong_code(const qn_wrong_finding *f, int c, int sign, int zero) {
    int stored = sign * c;
    if (f->kind == QN_ZERO_OFFSET) return sign * (stored - f->shift);
    stored += zero;
    return sign * (stored < 0 ? stored + 128 : stored - 128);
}

static bool breaks_into(const qn_wrong_finding *f, qn_dtype stored, const float *broken,
                        const float *right, size_t n, const reading *r) {
    for (size_t i = 0; i < n; i++) {
        int near = (int)lrint(fmax(-512, fmin(512, (double)right[i] / (double)r->scale)));
        bool found = false;
        // Where the stored format is coarser than the scale, a neighbour may be meant.
        for (int step = 0; step < 3 && !found; step++) {
            int c = near + (step == 2 ? -1 : step);
            found = qn_lattice_value(&f->rule, r->scale, wrong_code(f, c, r->sign, r->zero)) ==
                        broken[i] &&
                    store(stored, (float)c * r->scale) == right[i];
        }
        if (!found) return false;
    }
    return true;
}

// The step between the two is 128 scales, or one, in every place: no search is needed to see the scale
// but for the rounding of both, which leaves a few neighbours.
static double step_between(const qn_wrong_finding *f, const float *broken, const float *right,
                           size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += fabs((double)broken[i] - (double)right[i]);
    return sum / (double)n / (f->kind == QN_SIGNED_VIEW ? 128 : 1);
}

static bool try_around(const qn_wrong_finding *f, qn_dtype stored, const float *broken,
                       const float *right, size_t n, double guess) {
    reading r = {0, 1, 0};
    for (int i = 0; i < 64; i++) {
        int step = i % 2 ? -(i + 1) / 2 : i / 2;
        double wide = f->rule.scale == QN_DT_F32 ? guess * (1 + step * 0x1p-16) : guess;
        r.scale = store(f->rule.scale, (float)wide);
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
    group g = {f, broken, right, n};
    for (int all = 0; all < 2; all++) {
        qn_lattice_fit fit;
        qn_lattice_rule rule = f->rule;
        rule.outermost = !all;
        qn_lattice_find(&rule, broken, n, &fit);
        for (size_t i = 0; i < fit.n; i++) {
            bool clear;
            reading r = read_as(&g, fit.scales[i], &clear);
            if (breaks_into(f, stored, broken, right, n, &r)) return true;
        }
    }
    return false;
}

bool qn_wrong_codes_rebreaks(const qn_wrong_finding *f, qn_dtype stored, const float *broken,
                             const float *right, size_t n) {
    bool blank = true;
    for (size_t i = 0; i < n; i++) blank &= broken[i] == 0 && right[i] == 0;
    if (blank) return true; // the scale is gone: both are zeros under scale 0
    return try_around(f, stored, broken, right, n, step_between(f, broken, right, n)) ||
           try_standing(f, stored, broken, right, n);
}
