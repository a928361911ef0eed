// Never sorts the vocabulary: greedy is one pass, plain sampling two, top-k keeps a heap of k, and
// top-p selects by weight among the few tokens near the maximum that hold the mass.
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"

#define LANES 16
#define GREEDY_BELOW 1e-5f // a temperature under this is greedy, as in vLLM

void qn_choices_init(qn_choices *v, size_t n_rows, const qn_tokenizer *t) {
    *v = (qn_choices){.n_rows = n_rows};
    size_t n = n_rows, cap = 1;
    v->ranges = QN_NEW_ARRAY(qn_id_range, cap);
    if (t && (size_t)qn_tokenizer_size(t) < n) n = (size_t)qn_tokenizer_size(t);
    for (size_t i = 0; i < n;) {
        size_t from = i;
        while (i < n && (!t || qn_token_spelling(t, (int32_t)i))) i++;
        if (i > from) {
            if (v->n_ranges == cap)
                v->ranges = qn_realloc(v->ranges, (cap *= 2) * sizeof *v->ranges);
            v->ranges[v->n_ranges++] = (qn_id_range){(int32_t)from, (int32_t)i};
        }
        while (i < n && !qn_token_spelling(t, (int32_t)i)) i++;
    }
}

void qn_choices_done(qn_choices *v) {
    free(v->ranges);
    *v = (qn_choices){0};
}

// ---- counts ----

static qn_count *count_slot(const qn_counts *c, int32_t id) {
    size_t i = (uint32_t)id * 2654435761u & (c->cap - 1);
    while (c->slots[i].id != -1 && c->slots[i].id != id) i = (i + 1) & (c->cap - 1);
    return &c->slots[i];
}

static void counts_grow(qn_counts *c) {
    qn_counts old = *c;
    c->cap = old.cap ? 2 * old.cap : 64;
    c->slots = QN_NEW_ARRAY(qn_count, c->cap);
    for (size_t i = 0; i < c->cap; i++) c->slots[i].id = -1;
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].id != -1) *count_slot(c, old.slots[i].id) = old.slots[i];
    free(old.slots);
}

void qn_counts_add(qn_counts *c, int32_t id, bool prompt) {
    if (2 * c->n >= c->cap) counts_grow(c);
    qn_count *s = count_slot(c, id);
    if (s->id == -1) {
        s->id = id;
        c->n++;
    }
    if (prompt) s->prompt = true;
    else s->output++;
}

void qn_counts_done(qn_counts *c) {
    free(c->slots);
    *c = (qn_counts){0};
}

static void penalize(float *row, size_t n, const qn_counts *c, const qn_sampling *p) {
    for (size_t i = 0; i < c->cap; i++) {
        const qn_count *s = &c->slots[i];
        if (s->id < 0 || (size_t)s->id >= n) continue;
        float x = row[s->id];
        x = x > 0 ? x / p->repetition_penalty : x * p->repetition_penalty;
        if (s->output) x -= p->frequency_penalty * (float)s->output + p->presence_penalty;
        row[s->id] = x;
    }
}

// ---- greedy ----

// The greatest of x[0..n), and whether all are finite: 0 * x is 0 exactly for finite x.
static float greatest(const float *x, size_t n, bool *finite) {
    float top[LANES], zero[LANES];
    size_t i = 0;
    for (int j = 0; j < LANES; j++) top[j] = -INFINITY, zero[j] = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            top[j] = x[i + (size_t)j] > top[j] ? x[i + (size_t)j] : top[j];
            zero[j] += x[i + (size_t)j] * 0.0f;
        }
    for (; i < n; i++) {
        top[0] = x[i] > top[0] ? x[i] : top[0];
        zero[0] += x[i] * 0.0f;
    }
    for (int j = 0; j < LANES; j++) {
        if (zero[j] != 0) *finite = false;
        if (top[j] > top[0]) top[0] = top[j];
    }
    return top[0];
}

static bool vocab_greatest(const qn_choices *v, const float *row, float *max) {
    bool finite = v->n_ranges > 0;
    *max = -INFINITY;
    for (size_t r = 0; r < v->n_ranges; r++) {
        qn_id_range g = v->ranges[r];
        float top = greatest(row + g.from, (size_t)(g.to - g.from), &finite);
        if (top > *max) *max = top;
    }
    return finite;
}

static int32_t first_equal(const qn_choices *v, const float *row, float max) {
    for (size_t r = 0; r < v->n_ranges; r++)
        for (int32_t id = v->ranges[r].from; id < v->ranges[r].to; id++)
            if (row[id] == max) return id;
    return -1;
}

int32_t qn_greatest_logit(const qn_choices *v, const float *logits) {
    float max;
    return vocab_greatest(v, logits, &max) ? first_equal(v, logits, max) : -1;
}

// ---- draws ----

// Candidate a comes before b: greater value, or the lower id.
static bool before(qn_candidate a, qn_candidate b) {
    return a.x > b.x || (a.x == b.x && a.id < b.id);
}

static int by_rank(const void *a, const void *b) {
    const qn_candidate *x = a, *y = b;
    return before(*x, *y) ? -1 : 1;
}

static void swap(qn_candidate *a, qn_candidate *b) {
    qn_candidate t = *a;
    *a = *b;
    *b = t;
}

// The heap's root is the candidate that goes first when a better one comes.
static void sift_down(qn_candidate *h, size_t n, size_t i) {
    for (;;) {
        size_t worst = i, kid = 2 * i + 1;
        if (kid < n && before(h[worst], h[kid])) worst = kid;
        if (kid + 1 < n && before(h[worst], h[kid + 1])) worst = kid + 1;
        if (worst == i) return;
        swap(&h[i], &h[worst]);
        i = worst;
    }
}

// The k best rows, best first. Returns how many there are.
static size_t select_top_k(const qn_choices *v, const float *row, size_t k, qn_candidate *h) {
    size_t n = 0;
    for (size_t r = 0; r < v->n_ranges; r++)
        for (int32_t id = v->ranges[r].from; id < v->ranges[r].to; id++) {
            if (n == k && row[id] <= h[0].x) continue; // ids rise, so ties lose
            qn_candidate c = {row[id], id};
            if (n < k) {
                h[n++] = c;
                if (n == k)
                    for (size_t i = n / 2; i-- > 0;) sift_down(h, n, i);
            } else {
                h[0] = c;
                sift_down(h, n, 0);
            }
        }
    qsort(h, n, sizeof *h, by_rank);
    return n;
}

static double sum_weights(const qn_candidate *c, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)c[i].x;
    return sum;
}

static int32_t draw_candidate(const qn_candidate *c, size_t n, double u) {
    double left = u * sum_weights(c, n);
    for (size_t i = 0; i < n; i++) {
        left -= (double)c[i].x;
        if (left < 0 && c[i].x > 0) return c[i].id;
    }
    while (n > 1 && !(c[n - 1].x > 0)) n--; // rounding took us past the end
    return c[n - 1].id;
}

// Sorted candidates: how many are needed for a share p of their weight.
static size_t cut_sorted(const qn_candidate *c, size_t n, float p) {
    double goal = (double)p * sum_weights(c, n), sum = 0;
    for (size_t i = 0; i < n; i++)
        if ((sum += (double)c[i].x) >= goal) return i + 1;
    return n;
}

static qn_candidate median_of_3(const qn_candidate *c, size_t lo, size_t hi) {
    qn_candidate a = c[lo], b = c[lo + (hi - lo) / 2], d = c[hi - 1];
    if (before(b, a)) swap(&a, &b);
    if (before(d, b)) b = before(d, a) ? a : d;
    return b;
}

// Moves the smallest set of best candidates whose weight reaches `goal` to the front, unordered
// inside, and returns its size: quickselect by weight.
static size_t cut_unsorted(qn_candidate *c, size_t n, double goal) {
    size_t lo = 0, hi = n;
    double sum = 0;
    while (hi - lo > 1) {
        qn_candidate pivot = median_of_3(c, lo, hi);
        size_t mid = lo; // [lo, mid): the pivot's betters and itself
        double weight = 0;
        for (size_t i = lo; i < hi; i++)
            if (!before(pivot, c[i])) {
                weight += (double)c[i].x;
                swap(&c[mid++], &c[i]);
            }
        if (mid == hi) { // the pivot is the worst one: it alone decides
            for (size_t i = lo; i < hi; i++)
                if (c[i].id == pivot.id) swap(&c[i], &c[hi - 1]);
            double rest = weight - (double)pivot.x;
            if (sum + rest < goal) return hi;
            hi--;
        } else if (sum + weight >= goal) {
            hi = mid;
        } else {
            sum += weight;
            lo = mid;
        }
    }
    return hi;
}

// All rows whose weight is at least `floor`, with the sum of their weights.
static size_t collect(const qn_choices *v, const float *w, float floor, qn_candidate *c,
                      double *sum) {
    size_t n = 0;
    *sum = 0;
    for (size_t r = 0; r < v->n_ranges; r++)
        for (int32_t id = v->ranges[r].from; id < v->ranges[r].to; id++)
            if (w[id] >= floor) {
                c[n++] = (qn_candidate){w[id], id};
                *sum += (double)w[id];
            }
    return n;
}

// Turns logits into weights exp((x - max) / T), those under min_p into 0; returns their sum.
static double weigh(const qn_choices *v, const float *logits, float max, const qn_sampling *p,
                    float *w) {
    double sum = 0;
    float scale = 1 / p->temperature;
    for (size_t r = 0; r < v->n_ranges; r++)
        for (int32_t id = v->ranges[r].from; id < v->ranges[r].to; id++) {
            float x = expf((logits[id] - max) * scale);
            if (x < p->min_p) x = 0;
            w[id] = x;
            sum += (double)x;
        }
    return sum;
}

static int32_t draw_row(const qn_choices *v, const float *w, double left) {
    int32_t last = -1;
    for (size_t r = 0; r < v->n_ranges; r++)
        for (int32_t id = v->ranges[r].from; id < v->ranges[r].to; id++) {
            if (!(w[id] > 0)) continue;
            last = id;
            left -= (double)w[id];
            if (left < 0) return id;
        }
    return last;
}

static int32_t draw_top_p(qn_sampler *s, const float *w, double sum, float p, double u) {
    double held, goal = (double)p * sum;
    // Nearly always the tokens within a factor 10^4 of the best hold the mass asked for.
    size_t n = collect(s->choices, w, 1e-4f, s->candidates, &held);
    if (held < goal) n = collect(s->choices, w, 1e-45f, s->candidates, &held);
    n = cut_unsorted(s->candidates, n, goal < held ? goal : held);
    return draw_candidate(s->candidates, n, u);
}

static int32_t draw_top_k(qn_sampler *s, const float *row, const qn_sampling *p, double u) {
    qn_candidate *c = s->candidates;
    size_t n = select_top_k(s->choices, row, (size_t)p->top_k, c);
    float max = c[0].x, scale = 1 / p->temperature;
    for (size_t i = 0; i < n; i++) {
        c[i].x = expf((c[i].x - max) * scale);
        if (c[i].x < p->min_p) n = i;
    }
    if (p->top_p < 1) n = cut_sorted(c, n, p->top_p);
    return draw_candidate(c, n, u);
}

static void make_scratch(qn_sampler *s) {
    if (s->row) return;
    s->row = QN_NEW_ARRAY(float, s->choices->n_rows);
    s->candidates = QN_NEW_ARRAY(qn_candidate, s->choices->n_rows);
}

void qn_sampler_done(qn_sampler *s) {
    free(s->row);
    free(s->candidates);
    *s = (qn_sampler){0};
}

int32_t qn_sample(qn_sampler *s, const float *logits, const qn_draw *d) {
    const qn_sampling *p = d->how;
    const qn_choices *v = s->choices;
    float max;
    if (!vocab_greatest(v, logits, &max)) return -1;
    if (p->temperature < GREEDY_BELOW && !d->counts) return first_equal(v, logits, max);
    make_scratch(s);
    if (d->counts) {
        memcpy(s->row, logits, v->n_rows * sizeof(float));
        penalize(s->row, v->n_rows, d->counts, p);
        logits = s->row;
        if (!vocab_greatest(v, logits, &max)) return -1;
        if (p->temperature < GREEDY_BELOW) return first_equal(v, logits, max);
    }
    double u = qn_rng_uniform(d->seed, 0, d->counter);
    if (p->top_k > 0 && (size_t)p->top_k < v->n_rows) return draw_top_k(s, logits, p, u);
    double sum = weigh(v, logits, max, p, s->row);
    if (p->top_p < 1) return draw_top_p(s, s->row, sum, p->top_p, u);
    return draw_row(v, s->row, u * sum);
}

// ---- settings ----

bool qn_sampling_has_penalties(const qn_sampling *p) {
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
}

static bool in_range(float x, float lo, float hi, const char *name, qn_err *err) {
    if (x >= lo && x <= hi) return true;
    return qn_fail(err, QN_USAGE, "%s is %g, expected a number from %g to %g", name, (double)x,
                   (double)lo, (double)hi);
}

bool qn_sampling_check(qn_sampling *p, qn_err *err) {
    // A zeroed struct means greedy with everything off.
    if (p->repetition_penalty == 0) p->repetition_penalty = 1;
    if (p->top_p == 0) p->top_p = 1;
    return in_range(p->temperature, 0, 1e4f, "temperature", err) &&
           in_range(p->top_p, 0, 1, "top_p", err) && in_range(p->min_p, 0, 1, "min_p", err) &&
           in_range(p->repetition_penalty, 1e-3f, 1e3f, "repetition_penalty", err) &&
           in_range(p->presence_penalty, -1e3f, 1e3f, "presence_penalty", err) &&
           in_range(p->frequency_penalty, -1e3f, 1e3f, "frequency_penalty", err);
}
