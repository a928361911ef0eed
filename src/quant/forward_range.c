// The largest value of every activation, through the public API's probes: norms, projections, the
// products that go into down_proj, the experts' and the recurrent layers' insides, the residual
// stream, logits. Models overflow f16 inside a layer long before the residual stream tells.
#include "quant/forward_range.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "quant/forward_text.h"

#define F16_MAX 65504.0

typedef struct peak { // the largest value of one activation
    int layer;     // -1: outside the layers
    char name[64]; // in the layer, experts taken together: "mlp.experts.down_proj.input"
    int expert;    // whose value it is; -1: not an expert's
    double value;  // its magnitude
    size_t channel, position;
    size_t over; // values that f16 cannot hold, all experts and positions
} peak;

typedef struct watch {
    peak *peaks; // in the order of the computation
    size_t n, cap, last;
    qn_problems *problems;
} watch;

// ---- looking -----------------------------------------------------------------------------------

// "layers.3.mlp.experts.17.up_proj" taken apart.
static peak taken_apart(const char *name) {
    static const char layers[] = "layers.", experts[] = "mlp.experts.";
    peak p = {.layer = -1, .expert = -1};
    char *end;
    if (strncmp(name, layers, sizeof layers - 1) == 0) {
        p.layer = (int)strtol(name + sizeof layers - 1, &end, 10);
        name = end + (*end == '.');
    }
    size_t at = sizeof experts - 1;
    if (strncmp(name, experts, at) == 0 && name[at] >= '0' && name[at] <= '9') {
        p.expert = (int)strtol(name + at, &end, 10);
        snprintf(p.name, sizeof p.name, "%s%s", experts, end + (*end == '.'));
    } else {
        snprintf(p.name, sizeof p.name, "%s", name);
    }
    return p;
}

static peak *peak_of(watch *w, const peak *key) {
    for (size_t i = 0; i < w->n; i++) { // rows of one activation come one behind the other
        size_t at = (w->last + i) % w->n;
        peak *p = &w->peaks[at];
        if (p->layer != key->layer || strcmp(p->name, key->name) != 0) continue;
        w->last = at;
        return p;
    }
    if (w->n == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 64;
        w->peaks = qn_realloc(w->peaks, w->cap * sizeof *w->peaks);
    }
    w->last = w->n++;
    w->peaks[w->last] = *key;
    return &w->peaks[w->last];
}

static void on_probe(void *user, const char *name, size_t position, const float *data, size_t n) {
    peak key = taken_apart(name), *p = peak_of(user, &key);
    for (size_t i = 0; i < n; i++) {
        double a = isfinite(data[i]) ? fabs((double)data[i]) : INFINITY;
        p->over += a > F16_MAX;
        if (a <= p->value) continue;
        p->value = a;
        p->channel = i;
        p->position = position;
        p->expert = key.expert;
    }
}

// ---- telling -----------------------------------------------------------------------------------

static json_t *entry_of(const peak *p, const char *key, const char *name) {
    json_t *e = json_object();
    json_object_set_new(e, key, json_string(name));
    if (p->expert >= 0) json_object_set_new(e, "expert", json_integer(p->expert));
    json_object_set_new(e, "max_abs", qn_json_number(p->value));
    json_object_set_new(e, "channel", json_integer((json_int_t)p->channel));
    json_object_set_new(e, "position", json_integer((json_int_t)p->position));
    json_object_set_new(e, "over", json_integer((json_int_t)p->over));
    return e;
}

// "layer 3 mlp.experts.17.up_proj"
static void spell(const peak *p, char out[128]) {
    int n = p->layer >= 0 ? snprintf(out, 128, "layer %d ", p->layer) : 0;
    if (p->expert >= 0)
        snprintf(out + n, 128 - (size_t)n, "mlp.experts.%d.%s", p->expert,
                 p->name + strlen("mlp.experts."));
    else
        snprintf(out + n, 128 - (size_t)n, "%s", p->name);
}

static json_t *spelt(const peak *p) {
    char name[128];
    if (!p) return json_null();
    spell(p, name);
    return entry_of(p, "name", name);
}

// Peaks from … to - 1 are one layer's, or one activation outside: its largest, then each.
static json_t *layer_entry(const watch *w, size_t from, size_t to) {
    const peak *most = &w->peaks[from];
    json_t *each = json_array();
    size_t over = 0;
    char name[96];
    for (size_t i = from; i < to; i++) {
        const peak *p = &w->peaks[i];
        if (p->value > most->value) most = p;
        over += p->over;
        json_array_append_new(each, entry_of(p, "name", p->name));
    }
    if (most->layer >= 0)
        snprintf(name, sizeof name, "layers.%d", most->layer);
    else
        snprintf(name, sizeof name, "%s", most->name);
    json_t *e = entry_of(most, "activation", most->name);
    json_object_set_new(e, "name", json_string(name));
    json_object_set_new(e, "over", json_integer((json_int_t)over));
    json_object_set_new(e, "activations", each);
    return e;
}

static void warn(const watch *w, const peak *first) {
    char name[128];
    size_t over = 0, places = 0;
    for (size_t i = 0; i < w->n; i++) {
        over += w->peaks[i].over;
        places += w->peaks[i].over > 0;
    }
    spell(first, name);
    qn_problem_add(w->problems, QN_WARNING, "fp16-range", NULL, (size_t)(first - w->peaks),
                   "forward: activations pass 65504 first in %s, channel %zu, position %zu: %g "
                   "(%zu value%s in %zu activation%s); engines that compute in f16 will overflow",
                   name, first->channel, first->position, first->value, over,
                   over == 1 ? "" : "s", places, places == 1 ? "" : "s");
}

static void judge(const watch *w, size_t n_tokens, json_t *summary) {
    json_t *layers = json_array(), *o = json_object();
    const peak *most = NULL, *first = NULL;
    for (size_t i = 0; i < w->n; i++) {
        if (!most || w->peaks[i].value > most->value) most = &w->peaks[i];
        if (!first && w->peaks[i].over) first = &w->peaks[i];
    }
    for (size_t from = 0, to; from < w->n; from = to) {
        for (to = from + 1; to < w->n && w->peaks[from].layer >= 0; to++)
            if (w->peaks[to].layer != w->peaks[from].layer) break;
        json_array_append_new(layers, layer_entry(w, from, to));
    }
    json_object_set_new(o, "tokens", json_integer((json_int_t)n_tokens));
    json_object_set_new(o, "largest", spelt(most));
    json_object_set_new(o, "first_over", spelt(first));
    json_object_set_new(o, "layers", layers);
    json_object_set_new(summary, "forward", o);
    if (first) warn(w, first);
}

void qn_check_forward(const char *path, int n_threads, qn_problems *problems, json_t *summary) {
    qn_err err = {0};
    watch w = {.problems = problems};
    qn_forward f = {.probe = QN_PROBE_ACTIVATIONS | QN_PROBE_LOGITS, .on_probe = on_probe,
                    .user = &w};
    qn_model_options mo = {.precision = QN_EXACT, .n_threads = n_threads, .no_vision = true};
    qn_model *m = qn_model_load(path, &mo, &err);
    bool ok = m && qn_forward_text(m, &f, &err);
    if (f.failed.code)
        qn_problem_add(problems, QN_ERROR, "non-finite", NULL, 0, "forward: %s", f.failed.text);
    if (ok)
        judge(&w, f.n_tokens, summary);
    else
        qn_problem_add(problems, QN_WARNING, "fp16-range", NULL, 0, "forward: cannot be run: %s",
                       err.text);
    free(w.peaks);
    qn_model_free(m);
}
