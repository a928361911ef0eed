// The largest activation of every layer, through the public API's probes.
#include "quant/forward_range.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

static const char text[] =
    "The river was high after a week of rain, and the ferryman would not cross. 1, 2, 3, 42. "
    "北京是中国的首都。 def add(a, b):\n    return a + b\n";

typedef struct layer {
    char name[32];
    double max_abs;
    size_t channel, position;
} layer;

typedef struct watch {
    layer *layers;
    size_t n, cap;
    qn_problems *problems;
} watch;

static layer *layer_of(watch *w, const char *name) {
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->layers[i].name, name) == 0) return &w->layers[i];
    if (w->n == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 64;
        w->layers = qn_realloc(w->layers, w->cap * sizeof *w->layers);
    }
    layer *l = &w->layers[w->n++];
    *l = (layer){0};
    snprintf(l->name, sizeof l->name, "%s", name);
    return l;
}

static void on_probe(void *user, const char *name, size_t position, const float *data, size_t n) {
    if (strcmp(name, "logits") == 0) return;
    layer *l = layer_of(user, name);
    for (size_t i = 0; i < n; i++) {
        double a = isfinite(data[i]) ? fabs((double)data[i]) : INFINITY;
        if (a > l->max_abs) *l = (layer){.max_abs = a, .channel = i, .position = position};
        if (l->name[0] == 0) snprintf(l->name, sizeof l->name, "%s", name);
    }
}

static void on_event(void *user, qn_request *r, const qn_event *e) {
    (void)r;
    watch *w = user;
    if (e->finish == QN_FINISH_ERROR)
        qn_problem_add(w->problems, QN_ERROR, "non-finite", NULL, 0, "forward: %s", e->err->text);
}

static bool run(const qn_model *m, watch *w, size_t *n_tokens, qn_err *err) {
    const qn_model_info *info = qn_model_get_info(m);
    int32_t fallback[64], *ids = NULL;
    size_t n = 64;
    for (int i = 0; i < 64; i++) fallback[i] = (int32_t)((i * 7919 + 13) % info->vocab_size);
    if (qn_model_tokenizer(m) &&
        !qn_encode(qn_model_tokenizer(m), text, sizeof text - 1, 0, &ids, &n, err))
        return false;
    qn_engine_options eo = {.no_prefix_cache = true};
    qn_engine *e = qn_engine_new(m, &eo, err);
    qn_request_options o = {.tokens = ids ? ids : fallback, .n_tokens = n, .no_output = true,
                            .probe = QN_PROBE_HIDDEN, .on_probe = on_probe, .on_event = on_event,
                            .user = w};
    o.sampling.max_tokens = 1;
    bool busy = true, ok = e && qn_engine_submit(e, &o, err);
    while (ok && busy) ok = qn_engine_step(e, &busy, err);
    qn_engine_free(e);
    qn_free(ids);
    *n_tokens = n;
    return ok;
}

static void judge(const watch *w, size_t n_tokens, json_t *summary) {
    json_t *list = json_array(), *o = json_object();
    bool told = false;
    for (size_t i = 0; i < w->n; i++) {
        const layer *l = &w->layers[i];
        json_t *e = json_object();
        json_object_set_new(e, "name", json_string(l->name));
        json_object_set_new(e, "max_abs", qn_json_number(l->max_abs));
        json_object_set_new(e, "channel", json_integer((json_int_t)l->channel));
        json_object_set_new(e, "position", json_integer((json_int_t)l->position));
        json_array_append_new(list, e);
        if (told || l->max_abs <= 65504) continue;
        told = true;
        qn_problem_add(w->problems, QN_WARNING, "fp16-range", NULL, i,
                       "forward: activations pass 65504 first in %s, channel %zu: %g; engines that "
                       "compute in f16 will overflow", l->name, l->channel, l->max_abs);
    }
    json_object_set_new(o, "tokens", json_integer((json_int_t)n_tokens));
    json_object_set_new(o, "layers", list);
    json_object_set_new(summary, "forward", o);
}

void qn_check_forward(const char *path, int n_threads, qn_problems *problems, json_t *summary) {
    qn_err err = {0};
    watch w = {.problems = problems};
    size_t n = 0;
    qn_model_options mo = {.precision = QN_EXACT, .n_threads = n_threads, .no_vision = true};
    qn_model *m = qn_model_load(path, &mo, &err);
    bool ok = m && run(m, &w, &n, &err);
    if (ok)
        judge(&w, n, summary);
    else
        qn_problem_add(problems, QN_WARNING, "fp16-range", NULL, 0, "forward: cannot be run: %s",
                       err.text);
    free(w.layers);
    qn_model_free(m);
}
