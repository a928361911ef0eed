// The limits of low widths are wide: real quantizers reach down to a cosine of 0.9 in single models,
// though not in a single matrix of one. So a matrix is also held against its own kind: the same
// projection of other layers, in as many bits. Calibration differs from layer to layer, which is why
// this is a warning.
#include "quant/check_siblings.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "quant/measure.h"

typedef struct figure {
    const char *name, *kind; // kind: "up_proj.weight"
    long long bits;
    double rms;
    size_t order;
} figure;

static const char *kind_of(const char *name) {
    const char *at = name + strlen(name);
    for (int dots = 0; at > name; at--)
        if (at[-1] == '.' && ++dots == 2) break;
    return at;
}

static size_t collect(const json_t *tensors, figure *list) {
    size_t n = 0, i;
    json_t *e;
    json_array_foreach(tensors, i, e) {
        const json_t *q = json_object_get(e, "quantized"), *r = json_object_get(e, "relative_rms");
        const char *name = json_string_value(json_object_get(e, "name"));
        if (!q || !json_is_number(r) || !name) continue;
        list[n++] = (figure){name, kind_of(name), json_integer_value(json_object_get(q, "bits")),
                             json_number_value(r), i};
    }
    return n;
}

static int by_kind(const void *x, const void *y) {
    const figure *a = x, *b = y;
    int order = strcmp(a->kind, b->kind);
    if (order) return order;
    if (a->bits != b->bits) return a->bits < b->bits ? -1 : 1;
    return (a->rms > b->rms) - (a->rms < b->rms);
}

static bool is_reported(const qn_problems *p, const char *name) {
    for (size_t i = 0; i < p->n; i++)
        if (p->list[i].tensor && strcmp(p->list[i].tensor, name) == 0 &&
            p->list[i].severity == QN_ERROR)
            return true;
    return false;
}

static double median_of(double *x, size_t n) {
    qn_summary s;
    qn_summarize(x, n, &s);
    return s.median;
}

// One kind, sorted by its figures. Those far above the middle are not of the same make.
static void judge_kind(const figure *list, size_t n, qn_problems *problems) {
    if (n < 4) return;
    double *x = QN_NEW_ARRAY(double, n);
    for (size_t i = 0; i < n; i++) x[i] = list[i].rms;
    double median = median_of(x, n);
    for (size_t i = 0; i < n; i++) x[i] = fabs(list[i].rms - median);
    double limit = median + fmax(0.8 * median, 8 * median_of(x, n)); // the median distance from it
    free(x);
    for (size_t i = n; i-- > 0 && list[i].rms > limit;)
        if (!is_reported(problems, list[i].name))
            qn_problem_add(problems, QN_WARNING, "differs-from-reference", list[i].name,
                           list[i].order, "relative rms %.3g, and %.3g in the middle of the %zu other "
                           "%s: perhaps its groups are not those of its codes", list[i].rms, median,
                           n - 1, list[i].kind);
}

void qn_check_siblings(const json_t *tensors, qn_problems *problems) {
    size_t most = json_array_size(tensors), from = 0;
    figure *list = QN_NEW_ARRAY(figure, most + 1);
    size_t n = collect(tensors, list);
    if (n) qsort(list, n, sizeof *list, by_kind);
    for (size_t i = 1; i <= n; i++) {
        bool same = i < n && list[i].bits == list[from].bits &&
                    strcmp(list[i].kind, list[from].kind) == 0;
        if (same) continue;
        judge_kind(list + from, i - from, problems);
        from = i;
    }
    free(list);
}
