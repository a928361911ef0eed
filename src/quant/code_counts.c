// A matrix's integers, counted: which there are under the one scale that explains a group, and which of
// the two readings of a signed view they fit.
#include "quant/code_counts.h"

#include <math.h>
#include <stdlib.h>

#include "base/f16.h"
#include "base/mem.h"

enum { MIDDLE = QN_CODE_MIDDLE };
typedef qn_code_counts codes;

static bool usable(const float *row, size_t cols) {
    bool varied = false;
    for (size_t i = 0; i < cols; i++) {
        if (!isfinite(row[i])) return false;
        varied |= row[i] != row[0];
    }
    return varied;
}

// A file may be wider than what made its values: f16 products saved as f32, bf16 ones as f16.
static qn_dtype coarsest(const qn_code_sample *s, qn_dtype file) {
    bool bf16 = true, f16 = true;
    if (s->n == 0) return file;
    for (size_t i = 0; i < s->n * s->cols && (bf16 || f16); i++) {
        float x = s->rows[i];
        bf16 = bf16 && qn_bf16_to_f32(qn_f32_to_bf16(x)) == x;
        f16 = f16 && qn_f16_to_f32(qn_f32_to_f16(x)) == x;
    }
    if (file == QN_DT_F16) f16 = true;
    return bf16 ? QN_DT_BF16 : f16 ? QN_DT_F16 : QN_DT_F32;
}

static bool take_row(const qn_tensor *t, size_t row, qn_code_sample *s) {
    float *to = s->rows + s->n * s->cols;
    qn_tensor_to_f32(t, row * s->cols, s->cols, to);
    bool good = usable(to, s->cols);
    s->n += good;
    return good;
}

// Where nearly all rows say nothing, the first few that do are looked for.
void qn_code_sample_take(const qn_tensor *t, qn_code_sample *s) {
    enum { FEW = 4 };
    s->cols = t->shape[t->n_dims - 1];
    size_t rows = t->n / s->cols, want = rows < QN_SAMPLE_ROWS ? rows : QN_SAMPLE_ROWS;
    s->rows = qn_alloc(want * s->cols * sizeof(float));
    s->n = 0;
    for (size_t i = 0; i < want; i++) take_row(t, i * rows / want, s);
    if (s->n < FEW && want < rows) {
        s->n = 0;
        for (size_t r = 0; r < rows && s->n < want; r++) take_row(t, r, s);
    }
    s->stored = coarsest(s, t->dtype);
}

// Boyer and Moore's vote, and the count.
float qn_code_majority(const float *v, size_t n) {
    size_t votes = 0, count = 0;
    float held = 0;
    for (size_t i = 0; i < n; i++) {
        if (votes == 0) held = v[i];
        votes = v[i] == held ? votes + 1 : votes - 1;
    }
    for (size_t i = 0; i < n; i++) count += v[i] == held;
    return 2 * count > n && count < n ? held : NAN;
}

// ---- counting ----

typedef struct group_codes {
    int lo, hi;
    double sum, squares, right_sum, right_squares, bits;
    bool zero, minus_one, near_zero;
} group_codes;

static bool read_group(const qn_lattice_rule *r, float scale, const float *v, size_t n, codes *c,
                       group_codes *g) {
    bool seen[MIDDLE + 1] = {false};
    *g = (group_codes){.lo = MIDDLE, .hi = -MIDDLE, .bits = -12}; // some 2^12 scales were open
    for (size_t i = 0; i < n; i++) {
        int k, a;
        if (!qn_lattice_code(r, scale, v[i], &k)) return false;
        c->at[MIDDLE + k]++;
        a = abs(k);
        if (!seen[a]) g->bits -= log2(qn_lattice_chance(r, scale, v[i]));
        seen[a] = true;
        if (k < g->lo) g->lo = k;
        if (k > g->hi) g->hi = k;
        double right = k < 0 ? k + 128 : k - 128;
        g->sum += k;
        g->squares += (double)k * k;
        g->right_sum += right;
        g->right_squares += right * right;
    }
    g->zero = seen[0];
    g->near_zero = seen[0] || seen[1] || seen[2];
    for (size_t i = 0; i < n && !g->minus_one; i++) g->minus_one = v[i] < 0 && -v[i] < 1.5f * scale;
    return true;
}

static void add_group(codes *c, const group_codes *g, float scale, size_t n) {
    double size = (double)n, mean = g->sum / size, right = g->right_sum / size;
    double variance = g->right_squares / size - right * right, x = 1 / (double)scale;
    c->n += n;
    c->varied++;
    if (g->lo < c->min) c->min = g->lo;
    if (g->hi > c->max) c->max = g->hi;
    if (g->hi - g->lo > c->widest) c->widest = g->hi - g->lo;
    bool precise = scale > 0x1p-17f; // a subnormal scale is off by more than a code
    c->precise += precise;
    c->extreme += precise && g->near_zero;
    c->both_ends += g->zero && g->minus_one;
    c->at_limit += g->lo == -128 || g->hi == 128;
    c->straddling += g->lo < 0 && g->hi > 0;
    if (g->bits > 0) c->bits += g->bits;
    c->sum += g->sum;
    c->mean_of_means += right;
    c->square_of_means += right * right;
    c->expected_square += variance / size;
    c->w += size;
    c->x += size * x;
    c->xx += size * x * x;
    c->y += size * mean;
    c->xy += size * x * mean;
    c->yy += g->squares; // with the scatter inside the groups
}

// Groups as wide as the bits allow that lie just beside 0; known only when all widths are.
static void count_beside_zero(codes *c, int lo, int hi) {
    if (hi - lo != c->widest) return;
    c->beside_zero[0] += hi == -1;
    c->beside_zero[1] += lo == 1;
}

static int falling(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

// The smallest integers, that is the largest scale; its neighbours give the same ones, so the middle.
static float likeliest(qn_lattice_fit *fit) {
    size_t same = 1;
    qsort(fit->scales, fit->n, sizeof *fit->scales, falling);
    while (same < fit->n && fit->scales[same] > 0.992f * fit->scales[0]) same++;
    return fit->scales[same / 2];
}

void qn_code_counts_make(const qn_lattice_rule *r, const qn_code_sample *s, size_t group,
                         qn_code_counts *c) {
    qn_lattice_fit fit;
    size_t per_row = (s->cols + group - 1) / group, n_ends = 0;
    int(*ends)[2] = qn_alloc(s->n * per_row * sizeof *ends);
    *c = (codes){.min = MIDDLE, .max = -MIDDLE};
    for (size_t i = 0; i < s->n; i++)
        for (size_t at = 0; at < s->cols; at += group) {
            const float *v = s->rows + i * s->cols + at;
            size_t n = s->cols - at < group ? s->cols - at : group;
            group_codes g;
            qn_lattice_find(r, v, n, &fit);
            if (fit.blank) continue;
            c->groups++;
            c->explained += fit.n > 0;
            if (fit.n == 0 || fit.constant) continue;
            float scale = likeliest(&fit);
            if (!read_group(r, scale, v, n, c, &g)) continue;
            add_group(c, &g, scale, n);
            ends[n_ends][0] = g.lo;
            ends[n_ends++][1] = g.hi;
        }
    for (size_t i = 0; i < n_ends; i++) count_beside_zero(c, ends[i][0], ends[i][1]);
    free(ends);
}

uint64_t qn_code_count(const qn_code_counts *c, int k) {
    return k < -MIDDLE || k > MIDDLE ? 0 : c->at[MIDDLE + k];
}

// How many codes have a magnitude from … to.
uint64_t qn_code_count_sizes(const qn_code_counts *c, int from, int to) {
    uint64_t n = 0;
    for (int a = from; a <= to; a++) n += qn_code_count(c, a) + (a ? qn_code_count(c, -a) : 0);
    return n;
}

// ---- signed view ----

// Exact zeros are many in pruned and padded weights; in a signed view they are all −128, and nothing
// is ±127. No right codes are clipped on one side only.
bool qn_code_counts_pruned_view(const qn_code_counts *c) {
    uint64_t zero = qn_code_count_sizes(c, 128, 128);
    return zero * 33 > c->n && zero > 2 * c->varied && zero > 8 * qn_code_count_sizes(c, 127, 127);
}

// How much better, in nats, the integers fit weights around 0 when read as a signed view (right code
// 128 − |k| from 0) than when taken as they are. Values clipped to the ends of the range and exact
// zeros make spikes under either reading; unless there is nothing else, only what lies between counts.
double qn_code_counts_as_view(const qn_code_counts *c, double *ratio) {
    bool inside = qn_code_count_sizes(c, 2, 126) >= 32 && !qn_code_counts_pruned_view(c);
    int from = inside ? 2 : 0, to = inside ? 126 : 128;
    double n = 0, as_is = 1, as_view = 1;
    for (int a = from; a <= to; a++) {
        double count = (double)qn_code_count_sizes(c, a, a);
        n += count;
        as_is += count * a * a;
        as_view += count * (128 - a) * (128 - a);
    }
    *ratio = sqrt(as_is / as_view);
    return n * log(*ratio);
}
