// compare: opens both sides, has them measured by their kind, and gathers the verdict. Every reason
// against "ok" is a sentence of its own; no reason, no difference worth naming.
#include "quant/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/compare_parts.h"

json_t *qn_compare_text(const char *s) {
    if (qn_utf8_valid(s, strlen(s)) == strlen(s)) return json_string(s);
    size_t cap = 4 * strlen(s) + 1;
    char *visible = qn_alloc(cap);
    qn_str_visible(s, visible, cap);
    json_t *j = json_string(visible);
    free(visible);
    return j;
}

void qn_compare_digits(double x, char out[32]) {
    snprintf(out, 32, fabs(x) > 0.9 && fabs(x) < 1 ? "%.6g" : "%.4g", x);
}

static void take(json_t *list, char *text) {
    json_array_append_new(list, qn_compare_text(text));
    free(text);
}

void qn_compare_reason(qn_comparison *c, char *en, char *zh) {
    take(c->reasons, en);
    take(c->reasons_zh, zh);
}

void qn_compare_note(qn_comparison *c, char *en, char *zh) {
    take(c->notes, en);
    take(c->notes_zh, zh);
}

double qn_compare_cosine(const qn_diff *d) { return d->max_abs > 0 ? qn_diff_cosine(d) : 1; }

void qn_compare_add_figures(json_t *o, const qn_diff *d) {
    const struct {
        const char *key;
        double value;
    } figures[] = {{"cosine", qn_compare_cosine(d)}, {"max_abs_error", d->max_abs},
                   {"max_rel_error", d->max_rel}, {"mse", qn_diff_mse(d)},
                   {"relative_rms", qn_diff_rel_rms(d)}, {"norm_a", sqrt(d->aa)},
                   {"norm_b", sqrt(d->bb)}};
    bool none = d->n && d->n == d->n_skipped; // nothing was finite on both sides
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        json_object_set_new(o, figures[i].key, qn_json_number(none ? NAN : figures[i].value));
    json_object_set_new(o, "identical", json_boolean(!d->any_differs));
}

void qn_compare_add_nonfinite(qn_comparison *c, int side, const char *tensor, const qn_side *s,
                              size_t row0, size_t cols) {
    if (!s->n) return;
    json_t *o = json_object();
    json_object_set_new(o, "side", json_string(side ? "b" : "a"));
    json_object_set_new(o, "tensor", qn_compare_text(tensor));
    json_object_set_new(o, "count", json_integer((json_int_t)s->n));
    json_object_set_new(o, "row", json_integer((json_int_t)(row0 + s->first / cols)));
    json_object_set_new(o, "column", json_integer((json_int_t)(s->first % cols)));
    json_object_set_new(o, "value", json_string(qn_side_value(s)));
    json_array_append_new(c->nonfinite, o);
}

bool qn_compare_progress(qn_comparison *c, uint64_t done, uint64_t total, qn_err *err) {
    if (!c->o->progress || c->o->progress(c->o->user, "compare", done, total)) return true;
    return qn_fail(err, QN_CANCELLED, "compare: stopped");
}

bool qn_compare_add_histogram(qn_comparison *c, const char *name, const qn_array *a,
                              const qn_array *b, qn_err *err) {
    qn_histogram h;
    if (!qn_array_histogram(c->pool, a, b, &h, err)) return false;
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(name));
    json_object_set_new(o, "low", qn_json_number(h.low));
    json_object_set_new(o, "high", qn_json_number(h.high));
    for (int s = 0; s < 2; s++) {
        json_t *list = json_array();
        for (int i = 0; i < QN_BINS; i++)
            json_array_append_new(list, json_integer((json_int_t)h.count[s][i]));
        json_object_set_new(o, s ? "b" : "a", list);
    }
    json_array_append_new(c->histograms, o);
    return true;
}

// ---- the document ----

static json_t *thresholds(const qn_compare_options *o, bool dumps) {
    json_t *t = json_object();
    json_object_set_new(t, "cosine", qn_json_number(o->cosine));
    json_object_set_new(t, "max_abs", qn_json_number(o->max_abs));
    if (dumps) json_object_set_new(t, "top1", qn_json_number(o->top1));
    return t;
}

static json_t *finish(qn_comparison *c) {
    json_t *j = json_object();
    bool ok = json_array_size(c->reasons) == 0;
    json_object_set_new(j, "verdict", json_string(ok ? "ok" : "different"));
    json_object_set_new(j, "kind", json_string(c->file[0].is_dump ? "dumps" : "checkpoints"));
    json_object_set_new(j, "a", qn_compare_text(c->file[0].path));
    json_object_set_new(j, "b", qn_compare_text(c->file[1].path));
    json_object_set_new(j, "identical", json_boolean(ok && !c->differs));
    json_object_set_new(j, "partial", json_boolean(c->partial));
    json_object_set(j, "reasons", c->reasons);
    json_object_set(j, "notes", c->notes);
    json_object_set_new(j, "thresholds", thresholds(c->o, c->file[0].is_dump));
    json_object_set(j, "nonfinite", c->nonfinite);
    json_object_update(j, c->report);
    if (c->o->page) {
        json_object_set(j, "reasons_zh", c->reasons_zh);
        json_object_set(j, "notes_zh", c->notes_zh);
        json_object_set(j, "histograms", c->histograms);
    }
    return j;
}

static bool same_kind(const qn_comparison *c, qn_err *err) {
    const qn_compare_file *f = c->file;
    if (f[0].is_dump == f[1].is_dump) return true;
    const qn_compare_file *other = &f[f[0].is_dump];
    if (!qn_file_is_dir(other->path)) // a dump whose names are not ours?
        return qn_fail(err, QN_USAGE, "%s has no tensor that is named as a dump's (tokens, logits, "
                       "hidden.N …), and %s is a dump: expected two dumps or two checkpoints",
                       other->path, f[!f[0].is_dump].path);
    return qn_fail(err, QN_USAGE, "%s is a dump and %s is a checkpoint, expected two dumps or two "
                   "checkpoints", f[!f[0].is_dump].path, other->path);
}

static void comparison_done(qn_comparison *c) {
    json_t *owned[] = {c->report, c->reasons, c->reasons_zh, c->notes, c->notes_zh, c->nonfinite,
                       c->histograms};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) json_decref(owned[i]);
    qn_pool_free(c->pool);
    for (int s = 0; s < 2; s++) qn_compare_file_close(&c->file[s]);
}

bool qn_compare(const char *a, const char *b, const qn_compare_options *o, json_t **report,
                qn_err *err) {
    qn_comparison c = {.o = o, .report = json_object(), .reasons = json_array(),
                       .reasons_zh = json_array(), .notes = json_array(),
                       .notes_zh = json_array(), .nonfinite = json_array(),
                       .histograms = json_array()};
    *report = NULL;
    bool ok = qn_compare_file_open(&c.file[0], a, err) &&
              qn_compare_file_open(&c.file[1], b, err) && same_kind(&c, err);
    if (ok) c.pool = qn_pool_new(o->n_threads, err);
    ok = c.pool != NULL;
    ok = ok && (c.file[0].is_dump ? qn_compare_dumps : qn_compare_weights)(&c, err);
    if (ok) *report = finish(&c);
    comparison_done(&c);
    return ok;
}
