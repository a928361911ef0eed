// Rotary positions (RoFormer), with a linear or YaRN's change of frequencies (Peng et al. 2023) and
// the dealing out of frequencies to three positions that pictures need. Angles are formed in double:
// at 262144 positions a float angle would be wrong in the second digit.
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/rope.h"

#define PI 3.14159265358979323846

typedef struct source { // where a key may stand: the new nested object, or the top as of old
    const json_t *rope, *text;
    const char *what;
    qn_err *err;
} source;

static bool read_real(const source *s, const char *key, double lo, double hi, double *out) {
    const json_t *o = json_object_get(s->rope, key) ? s->rope : s->text;
    if (!qn_json_real(o, key, out, s->what, s->err)) return false;
    if (*out >= lo && *out <= hi) return true;
    return qn_fail(s->err, QN_INPUT, "%s: %s is %g, expected %g to %g", s->what, key, *out, lo, hi);
}

static bool read_yarn(qn_config *c, const source *s) {
    qn_rope_config *r = &c->rope;
    double mscale = 0, all = 0, attention = 0;
    r->yarn = r->truncate = true;
    r->beta_fast = 32;
    r->beta_slow = 1;
    r->original_length = (double)c->max_position_embeddings;
    const json_t *factor = json_object_get(s->rope, "factor");
    if (!json_is_number(factor))
        return qn_fail(s->err, QN_INPUT, "%s: rope type yarn without factor, expected a number",
                       s->what);
    if (!read_real(s, "factor", 1, 1e6, &r->factor) ||
        !read_real(s, "original_max_position_embeddings", 1, 1e9, &r->original_length) ||
        !read_real(s, "beta_fast", 1e-6, 1e9, &r->beta_fast) ||
        !read_real(s, "beta_slow", 1e-6, 1e9, &r->beta_slow) ||
        !read_real(s, "mscale", 0, 1e6, &mscale) || !read_real(s, "mscale_all_dim", 0, 1e6, &all) ||
        !read_real(s, "attention_factor", 0, 1e6, &attention) ||
        !qn_json_bool(s->rope, "truncate", &r->truncate, s->what, s->err))
        return false;
    double growth = 0.1 * log(r->factor);
    r->attention_factor = attention > 0           ? attention
                          : mscale > 0 && all > 0 ? (mscale * growth + 1) / (all * growth + 1)
                                                  : growth + 1;
    return true;
}

static bool read_linear(qn_config *c, const source *s) {
    if (!json_is_number(json_object_get(s->rope, "factor")))
        return qn_fail(s->err, QN_INPUT, "%s: rope type linear without factor, expected a number",
                       s->what);
    return read_real(s, "factor", 1, 1e6, &c->rope.factor);
}

// dynamic changes the frequencies of sequences beyond max_position_embeddings, and that is where the
// context ends: it is the default for whatever can be computed.
static bool read_type(qn_config *c, const source *s, const char *type) {
    static const char *const plain[] = {"default", "mrope", "dynamic"};
    if (!type) return true;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(type, plain[i]) == 0) return true;
    if (strcmp(type, "yarn") == 0) return read_yarn(c, s);
    if (strcmp(type, "linear") == 0) return read_linear(c, s);
    return qn_fail(s->err, QN_UNSUPPORTED, "%s: rope type is \"%s\", expected default, linear, "
                   "dynamic or yarn", s->what, type);
}

static bool read_sections(qn_config *c, const source *s) {
    const json_t *list = json_object_get(s->rope, "mrope_section");
    int sum = 0;
    if (!list || json_is_null(list)) return true;
    for (size_t i = 0; i < 3; i++) {
        json_int_t x = json_integer_value(json_array_get(list, i));
        c->rope.mrope_section[i] = x > 0 && x < 1 << 12 ? (int)x : 0;
        sum += c->rope.mrope_section[i];
    }
    if (json_array_size(list) != 3 || (size_t)sum != c->rope.dims / 2)
        return qn_fail(s->err, QN_INPUT, "%s: mrope_section adds up to %d, expected 3 numbers that "
                       "add up to %zu (half the rotary dimensions)", s->what, sum,
                       c->rope.dims / 2);
    c->rope.mrope = true;
    return true;
}

bool qn_rope_read(qn_config *c, const json_t *text, const char *what, qn_err *err) {
    const json_t *rope = json_object_get(text, "rope_parameters");
    if (!json_is_object(rope)) rope = json_object_get(text, "rope_scaling");
    source s = {json_is_object(rope) ? rope : NULL, text, what, err};
    double partial = c->family->partial_rotary_factor;
    const char *type = NULL;
    c->rope = (qn_rope_config){.theta = 10000, .factor = 1, .attention_factor = 1};
    if (!qn_json_str(rope, "rope_type", &type, what, err) ||
        (!type && !qn_json_str(rope, "type", &type, what, err)) ||
        !read_real(&s, "rope_theta", 1.000001, 1e18, &c->rope.theta) ||
        !read_real(&s, "partial_rotary_factor", 0, 1, &partial))
        return false;
    c->rope.dims = (size_t)((double)c->head_dim * partial);
    if (!c->rope.dims || c->rope.dims % 2)
        return qn_fail(err, QN_INPUT, "%s: %zu rotary dimensions (head_dim %zu times "
                       "partial_rotary_factor %g), expected an even number", what, c->rope.dims,
                       c->head_dim, partial);
    return read_type(c, &s, type) && read_sections(c, &s);
}

// The dimension whose wave turns `rotations` times over the original length.
static double yarn_dim(const qn_rope_config *r, double rotations) {
    return (double)r->dims * log(r->original_length / (2 * PI * rotations)) / (2 * log(r->theta));
}

double *qn_rope_frequencies(const qn_rope_config *r) {
    size_t n = r->dims / 2;
    double *inv = qn_alloc(n * sizeof *inv), lo = 0, hi = 1;
    if (r->yarn) {
        lo = yarn_dim(r, r->beta_fast);
        hi = yarn_dim(r, r->beta_slow);
        if (r->truncate) lo = floor(lo), hi = ceil(hi);
        lo = fmax(lo, 0);
        hi = fmin(hi, (double)r->dims - 1);
        if (lo == hi) hi += 0.001;
    }
    for (size_t i = 0; i < n; i++) {
        inv[i] = pow(r->theta, -2.0 * (double)i / (double)r->dims);
        if (!r->yarn) {
            inv[i] /= r->factor; // linear; 1 otherwise
            continue;
        }
        double ramp = fmin(fmax(((double)i - lo) / (hi - lo), 0), 1);
        inv[i] = inv[i] * (1 - ramp) + inv[i] / r->factor * ramp;
    }
    return inv;
}

typedef struct table_job {
    const qn_rope_config *r;
    const double *inv;
    const int32_t (*positions)[3];
    float *table;
} table_job;

// Which of (t, h, w) frequency j follows: interleaved t h w t h w … as far as the sections reach.
static int axis_of(const qn_rope_config *r, size_t j) {
    int axis = (int)(j % 3);
    return r->mrope && axis && j < 3 * (size_t)r->mrope_section[axis] ? axis : 0;
}

static void table_row(void *ctx, size_t row, int thread) {
    const table_job *t = ctx;
    size_t n = t->r->dims / 2;
    float *out = t->table + row * t->r->dims;
    (void)thread;
    for (size_t j = 0; j < n; j++) {
        double angle = (double)t->positions[row][axis_of(t->r, j)] * t->inv[j];
        out[j] = (float)(cos(angle) * t->r->attention_factor);
        out[n + j] = (float)(sin(angle) * t->r->attention_factor);
    }
}

void qn_rope_table(qn_pool *pool, const qn_rope_config *r, const double *frequencies,
                   const int32_t (*positions)[3], size_t m, float *table) {
    table_job t = {r, frequencies, positions, table};
    qn_pool_run(pool, m, table_row, &t);
}
