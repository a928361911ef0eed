// generation_config.json as sampling defaults. Values that make no sense are errors here rather
// than surprises in the sampler.
#include "model/generation.h"

#include "base/err.h"
#include "base/json.h"

typedef struct field {
    const char *key;
    double lo, hi;
    float *out;
} field;

static bool read_field(const json_t *o, const field *f, const char *what, qn_err *err) {
    double x = (double)*f->out;
    if (!qn_json_real(o, f->key, &x, what, err)) return false;
    if (!(x >= f->lo && x <= f->hi))
        return qn_fail(err, QN_INPUT, "%s: %s is %g, expected %g to %g", what, f->key, x, f->lo,
                       f->hi);
    *f->out = (float)x;
    return true;
}

bool qn_generation_read(const json_t *o, qn_sampling *s, const char *what, qn_err *err) {
    *s = (qn_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    const field fields[] = {
        {"temperature", 0, 100, &s->temperature},
        {"top_p", 0, 1, &s->top_p},
        {"min_p", 0, 1, &s->min_p},
        {"repetition_penalty", 0.01, 100, &s->repetition_penalty},
        {"presence_penalty", -100, 100, &s->presence_penalty},
        {"frequency_penalty", -100, 100, &s->frequency_penalty},
    };
    int64_t top_k = 0;
    bool sample = true;
    if (!o) return true;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!read_field(o, &fields[i], what, err)) return false;
    if (!qn_json_int(o, "top_k", -1, 1 << 24, &top_k, what, err) ||
        !qn_json_bool(o, "do_sample", &sample, what, err))
        return false;
    s->top_k = (int)top_k;
    if (!sample) s->temperature = 0;
    return true;
}
