// Statistics and differences. Blocks are measured in parallel and merged in order.
#include "quant/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "quant/value_runs.h"

// ---- one tensor ----

// A run with values that are not finite is packed down to those that are.
static size_t finite_only(const float *x, size_t n, float *out, qn_stats *r) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (isfinite(x[i]))
            out[kept++] = x[i];
        else if (r->n_nonfinite++ == 0)
            r->first_nonfinite = i;
    }
    return kept;
}

static void merge_run(qn_stats *s, const qn_run_stats *one, qn_stats *r) {
    r->min = one->min, r->max = one->max;
    r->mean = one->mean, r->m2 = one->m2, r->m3 = one->m3, r->m4 = one->m4;
    r->n_zero = one->n_zero;
    r->n_subnormal = one->n_subnormal;
    r->n_vanishing = one->n_vanishing;
    r->n_overflow = one->n_overflow;
    qn_stats_merge(s, r);
}

static void add_run(qn_stats *s, const float *x, size_t n) {
    const qn_value_runs *runs = qn_value_runs_best();
    qn_stats r = {.n = n, .min = INFINITY, .max = -INFINITY};
    qn_run_stats one;
    float packed[QN_RUN];
    if (runs->stats(x, n, &one)) {
        merge_run(s, &one, &r);
        return;
    }
    size_t finite = finite_only(x, n, packed, &r);
    if (finite > 0 && runs->stats(packed, finite, &one)) merge_run(s, &one, &r);
    else qn_stats_merge(s, &r);
}

// Moments run by run, merged (Pébay 2008, pairwise update).
void qn_stats_add(qn_stats *s, const float *x, size_t n) {
    for (size_t at = 0; at < n; at += QN_RUN) add_run(s, x + at, n - at < QN_RUN ? n - at : QN_RUN);
}

void qn_stats_add_stored(qn_stats *s, qn_run_dtype dtype, const uint8_t *x, size_t n) {
    const qn_value_runs *runs = qn_value_runs_best();
    for (size_t at = 0; at < n; at += QN_RUN) {
        size_t len = n - at < QN_RUN ? n - at : QN_RUN;
        qn_stats r = {.n = len};
        qn_run_stats one;
        float wide[QN_RUN];
        if (runs->stats_stored(dtype, x + 2 * at, len, &one)) {
            merge_run(s, &one, &r);
            continue;
        }
        qn_run_widen(dtype, x + 2 * at, len, wide);
        add_run(s, wide, len);
    }
}

void qn_stats_merge(qn_stats *s, const qn_stats *b) {
    if (b->n == 0) return;
    if (s->n == 0) {
        *s = *b;
        return;
    }
    if (b->n_nonfinite && !s->n_nonfinite) s->first_nonfinite = s->n + b->first_nonfinite;
    double na = (double)(s->n - s->n_nonfinite), nb = (double)(b->n - b->n_nonfinite);
    s->n += b->n;
    s->n_nonfinite += b->n_nonfinite;
    s->n_zero += b->n_zero;
    s->n_subnormal += b->n_subnormal;
    s->n_vanishing += b->n_vanishing;
    s->n_overflow += b->n_overflow;
    if (nb == 0) return;
    if (b->min < s->min) s->min = b->min;
    if (b->max > s->max) s->max = b->max;
    double n = na + nb, d = b->mean - s->mean, d2 = d * d;
    double m4 = s->m4 + b->m4 + d2 * d2 * na * nb * (na * na - na * nb + nb * nb) / (n * n * n) +
                6 * d2 * (na * na * b->m2 + nb * nb * s->m2) / (n * n) +
                4 * d * (na * b->m3 - nb * s->m3) / n;
    double m3 = s->m3 + b->m3 + d2 * d * na * nb * (na - nb) / (n * n) +
                3 * d * (na * b->m2 - nb * s->m2) / n;
    s->m2 += b->m2 + d2 * na * nb / n;
    s->m3 = m3;
    s->m4 = m4;
    s->mean += d * nb / n;
}

static double finite_count(const qn_stats *s) { return (double)(s->n - s->n_nonfinite); }

double qn_stats_std(const qn_stats *s) {
    double n = finite_count(s);
    return n > 0 ? sqrt(s->m2 / n) : 0;
}

double qn_stats_kurtosis(const qn_stats *s) {
    return s->m2 > 0 ? s->m4 * finite_count(s) / (s->m2 * s->m2) : 0;
}

bool qn_stats_fade_as_f16(const qn_stats *s) {
    double n = finite_count(s) - (double)s->n_zero;
    return n > 0 && ((double)s->n_vanishing >= 1e-3 * n || (double)s->n_subnormal >= 0.1 * n);
}

void qn_stats_to_json(const qn_stats *s, json_t *o) {
    bool any = finite_count(s) > 0;
    json_object_set_new(o, "min", any ? qn_json_number(s->min) : json_null());
    json_object_set_new(o, "max", any ? qn_json_number(s->max) : json_null());
    json_object_set_new(o, "mean", any ? qn_json_number(s->mean) : json_null());
    json_object_set_new(o, "std", any ? qn_json_number(qn_stats_std(s)) : json_null());
    json_object_set_new(o, "nonfinite", json_integer((json_int_t)s->n_nonfinite));
}

// ---- two tensors ----

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

void qn_diff_add(qn_diff *d, const float *a, const float *b, size_t n) {
    double dot = 0, aa = 0, bb = 0, ee = 0, abs_sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (!d->any_differs && !same_bits(a[i], b[i])) {
            d->any_differs = true;
            d->first = d->n + i;
        }
        if (!isfinite(a[i]) || !isfinite(b[i])) {
            d->n_skipped++;
            continue;
        }
        double x = a[i], y = b[i], e = fabs(x - y);
        dot += x * y;
        aa += x * x;
        bb += y * y;
        ee += e * e;
        abs_sum += e;
        if (e > d->max_abs) d->max_abs = e, d->at_max = d->n + i;
        if (y != 0 && e / fabs(y) > d->max_rel) d->max_rel = e / fabs(y);
    }
    d->n += n;
    d->dot += dot;
    d->aa += aa;
    d->bb += bb;
    d->ee += ee;
    d->abs_sum += abs_sum;
}

void qn_diff_merge(qn_diff *d, const qn_diff *b) {
    if (!d->any_differs && b->any_differs) {
        d->any_differs = true;
        d->first = d->n + b->first;
    }
    if (b->max_abs > d->max_abs) d->max_abs = b->max_abs, d->at_max = d->n + b->at_max;
    if (b->max_rel > d->max_rel) d->max_rel = b->max_rel;
    d->n += b->n;
    d->n_skipped += b->n_skipped;
    d->dot += b->dot;
    d->aa += b->aa;
    d->bb += b->bb;
    d->ee += b->ee;
    d->abs_sum += b->abs_sum;
}

double qn_diff_cosine(const qn_diff *d) {
    if (d->aa == 0 && d->bb == 0) return 1;
    if (d->aa == 0 || d->bb == 0) return 0;
    double c = d->dot / (sqrt(d->aa) * sqrt(d->bb));
    return c > 1 ? 1 : c < -1 ? -1 : c;
}

double qn_diff_mse(const qn_diff *d) {
    uint64_t n = d->n - d->n_skipped;
    return n ? d->ee / (double)n : 0;
}

double qn_diff_rel_rms(const qn_diff *d) {
    if (d->ee == 0) return 0;
    return d->bb > 0 ? sqrt(d->ee / d->bb) : INFINITY;
}

// ---- logits ----

void qn_log_softmax(const float *logits, size_t n, double *out) {
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        if (logits[i] > max) max = logits[i];
    for (size_t i = 0; i < n; i++) sum += exp(logits[i] - max);
    double log_sum = max + log(sum);
    for (size_t i = 0; i < n; i++) out[i] = logits[i] - log_sum;
}

double qn_kl(const double *log_p, const double *log_q, size_t n) {
    double kl = 0;
    for (size_t i = 0; i < n; i++) {
        double p = exp(log_p[i]);
        if (p > 0) kl += p * (log_p[i] - log_q[i]);
    }
    return kl > 0 ? kl : 0;
}

// The k largest in falling order, lower index first on ties; k is small. How many there are: a NaN
// is not among them.
static size_t top(const float *x, size_t n, size_t k, size_t *best) {
    size_t have = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i])) continue;
        if (have == k && !(x[i] > x[best[k - 1]])) continue;
        size_t at = have < k ? have++ : k - 1;
        while (at > 0 && x[i] > x[best[at - 1]]) best[at] = best[at - 1], at--;
        best[at] = i;
    }
    return have;
}

double qn_topk_agreement(const float *a, const float *b, size_t n, size_t k) {
    size_t best_a[64], best_b[64], common = 0;
    if (k > 64) k = 64;
    if (k > n) k = n;
    if (k == 0) return 1;
    size_t n_a = top(a, n, k, best_a), n_b = top(b, n, k, best_b);
    for (size_t i = 0; i < n_a; i++)
        for (size_t j = 0; j < n_b; j++) common += best_a[i] == best_b[j];
    return (double)common / (double)k;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Between the two values that lie around it, as numpy's percentile does.
static double quantile(const double *sorted, size_t n, double q) {
    double at = q * (double)(n - 1), low = floor(at), share = at - low;
    double a = sorted[(size_t)low], b = share > 0 ? sorted[(size_t)low + 1] : a;
    return a < b ? a + share * (b - a) : a; // two infinities have no difference
}

void qn_summarize(double *x, size_t n, qn_summary *out) {
    *out = (qn_summary){.n = n};
    if (n == 0) return;
    double sum = 0, m2 = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    out->mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) m2 += (x[i] - out->mean) * (x[i] - out->mean);
    if (n > 1) out->std_error = sqrt(m2 / (double)(n - 1) / (double)n);
    qsort(x, n, sizeof *x, by_value);
    out->median = quantile(x, n, 0.5);
    out->p99 = quantile(x, n, 0.99);
    out->max = x[n - 1];
}
