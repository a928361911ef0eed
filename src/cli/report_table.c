// Printing a report: figures of the tensors that matter most, then of the model, then the proof.
#include "cli/report_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/progress.h"
#include "base/str.h"
#include "cli/output.h"

#define MOST_ROWS 6

static const json_t *at(const json_t *o, const char *key) { return json_object_get(o, key); }

static double number(const json_t *o, const char *key) { return json_number_value(at(o, key)); }

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(at(o, key));
    return s ? s : "";
}

// ---- figures of the tensors ----

static void add_number(qn_table *t, const json_t *entry, const char *key) {
    const json_t *v = at(entry, key);
    if (json_is_number(v))
        qn_table_addf(t, "%.4g", json_number_value(v));
    else if (json_is_boolean(v))
        qn_table_add(t, json_is_true(v) ? "yes" : "no");
    else
        qn_table_add(t, text_of(entry, key));
}

void qn_table_add_range(qn_table *t, const json_t *entry, const char *low, const char *high) {
    const json_t *a = at(entry, low), *b = at(entry, high);
    if (json_is_number(a) && json_is_number(b))
        qn_table_addf(t, "%.4g … %.4g", json_number_value(a), json_number_value(b));
    else
        qn_table_add(t, "");
}

void qn_table_add_norm(qn_table *t, const json_t *entry) {
    double norm = number(entry, "operator_norm");
    double off = norm * number(entry, "operator_norm_tolerance");
    if (!json_is_number(at(entry, "operator_norm")))
        qn_table_add(t, "");
    else if (norm == 0)
        qn_table_add(t, "0");
    else
        qn_table_addf(t, "%.4g ± %.1g", norm, off);
}

void qn_table_add_shape(qn_table *t, const json_t *entry) {
    qn_buf text = {0};
    size_t i;
    json_t *n;
    json_array_foreach(at(entry, "shape"), i, n)
        qn_buf_addf(&text, "%s%lld", i ? "×" : "", (long long)json_integer_value(n));
    qn_table_add(t, text.n ? text.data : "");
    qn_buf_done(&text);
}

static const char *const heads[] = {
    "tensor", "shape", "stored", "damage", "groups of", "exact groups", "estimated groups",
    "largest bound", "range", "mean", "std", "operator norm", "codes", "scales", "scale mean",
    "max error", "mean error", "allclose at 1e-3"};

static void add_row(qn_table *t, const json_t *e) {
    const char *in = text_of(e, "dtype_in"), *out = text_of(e, "dtype_out");
    qn_table_add(t, text_of(e, "name"));
    qn_table_add_shape(t, e);
    if (json_is_true(at(e, "unchanged")) || !*in)
        qn_table_addf(t, "%s%s", out, *in ? ", copied" : "");
    else
        qn_table_addf(t, "%s → %s", in, out);
    static const char *const repaired[] = {"repaired", "group_size", "exact_groups",
                                           "estimated_groups", "estimate_bound"};
    for (size_t i = 0; i < 5; i++) add_number(t, e, repaired[i]);
    qn_table_add_range(t, e, "min", "max");
    add_number(t, e, "mean");
    add_number(t, e, "std");
    qn_table_add_norm(t, e);
    qn_table_add_range(t, e, "code_min", "code_max");
    qn_table_add_range(t, e, "scale_min", "scale_max");
    static const char *const errors[] = {"scale_mean", "max_abs_error", "mean_abs_error",
                                         "allclose_1e3"};
    for (size_t i = 0; i < 4; i++) add_number(t, e, errors[i]);
}

enum { RANKS = 4 };

// What the reader wants to see first: estimates, then matrices that were computed anew.
static int rank_of(const json_t *e) {
    if (number(e, "estimated_groups") > 0) return 0;
    if (at(e, "repaired") || at(e, "scale_min")) return 1;
    return json_is_true(at(e, "unchanged")) ? 3 : 2;
}

static bool has_figures(const json_t *list) {
    size_t i;
    json_t *e;
    json_array_foreach(list, i, e)
        if (json_is_number(at(e, "std"))) return true;
    return false;
}

static void print_tensors(const json_t *list) {
    qn_table t = {.align = "<<<<>>>>>>>>>>>>>>"};
    size_t n = 0, figures = 0, i;
    json_t *e;
    if (!has_figures(list)) return;
    for (i = 0; i < sizeof heads / sizeof *heads; i++) qn_table_add(&t, heads[i]);
    for (int rank = 0; rank < RANKS; rank++)
        json_array_foreach(list, i, e) {
            if (!json_is_number(at(e, "std")) || rank_of(e) != rank) continue;
            figures++;
            if (n < MOST_ROWS) add_row(&t, e), n++;
        }
    qn_table_print_fitted(&t, 0);
    if (figures > n) qn_out_addf("… and %zu more (quern-report.json has them all)\n", figures - n);
    qn_out_addf("\n");
}

// ---- the model ----

// Lines of the summary that take several of its keys are put in words under a name of their own; the
// others follow as they are.
static void say(json_t *lines, json_t *s, const char *label, char *text, const char *const *used) {
    json_object_set_new(lines, label, json_string(text));
    for (; *used; used++) json_object_del(s, *used);
    qn_free(text);
}

static void say_tensors(json_t *lines, json_t *s) {
    static const char *const used[] = {"tensors", "kinds", NULL};
    qn_buf text = {0};
    const char *kind;
    json_t *n;
    qn_buf_addf(&text, "%lld", (long long)json_integer_value(at(s, "tensors")));
    size_t k = 0;
    json_object_foreach(json_object_get(s, "kinds"), kind, n)
        qn_buf_addf(&text, "%s%lld %s", k++ ? ", " : " (", (long long)json_integer_value(n), kind);
    if (k) qn_buf_addc(&text, ')');
    say(lines, s, "tensors", qn_buf_take(&text, NULL), used);
}

static void say_size(json_t *lines, json_t *s) {
    static const char *const used[] = {"bytes", "files", NULL};
    char bytes[32];
    int files = (int)json_integer_value(at(s, "files"));
    if (!at(s, "bytes")) return;
    qn_format_bytes(number(s, "bytes"), bytes);
    say(lines, s, "size", qn_strf("%s in %d file%s", bytes, files, files == 1 ? "" : "s"), used);
}

static void say_range(json_t *lines, json_t *s, const char *label, const char *what) {
    char low[64], high[64], mean[64];
    const char *const used[] = {low, high, mean, NULL};
    snprintf(low, sizeof low, "%s_min", what);
    snprintf(high, sizeof high, "%s_max", what);
    snprintf(mean, sizeof mean, "%s_mean", what);
    if (!json_is_number(at(s, low))) return;
    char *range = qn_strf("%.4g … %.4g", number(s, low), number(s, high));
    char *tail = at(s, mean) ? qn_strf(", mean %.4g", number(s, mean)) : qn_strdup("");
    say(lines, s, label, qn_strf("%s%s", range, tail), used);
    qn_free(range);
    qn_free(tail);
}

static void say_error(json_t *lines, json_t *s) {
    static const char *const used[] = {"max_abs_error", "mean_abs_error", "allclose_1e3", NULL};
    if (!at(s, "max_abs_error")) return;
    say(lines, s, "error of rounding",
        qn_strf("max %.4g, mean %.4g; allclose at 1e-3: %s", number(s, "max_abs_error"),
                number(s, "mean_abs_error"), json_is_true(at(s, "allclose_1e3")) ? "yes" : "no"),
        used);
}

static void print_summary(const json_t *summary) {
    json_t *s = json_copy((json_t *)(uintptr_t)summary), *lines = json_object();
    say_tensors(lines, s);
    json_t *figures = json_object();
    say_size(figures, s);
    say_range(figures, s, "codes", "code");
    say_range(figures, s, "scales", "scale");
    say_range(figures, s, "operator norms", "operator_norm");
    say_error(figures, s);
    json_object_update(lines, s); // counts, and what is the command's own
    json_object_update(lines, figures);
    qn_out_tree(lines, 7);
    json_decref(figures);
    json_decref(lines);
    json_decref(s);
}

static void print_notes(const json_t *notes) {
    size_t i;
    json_t *note;
    json_array_foreach(notes, i, note) {
        qn_out_addf("note   ");
        qn_out_wrapped(json_string_value(note), 7, 7);
    }
}

static void print_proof(const json_t *check) {
    if (!check) return;
    json_int_t bad = json_integer_value(at(check, "mismatches"));
    qn_out_addf("proof  %s\n", bad ? "FAILED" : "passed");
    qn_out_tree(check, 7);
}

void qn_print_report(const qn_args *a, const json_t *report) {
    if (qn_args_has(a, "json")) {
        qn_out_json(report);
        return;
    }
    print_tensors(at(report, "tensors"));
    bool part = strcmp(text_of(report, "verdict"), "incomplete") == 0;
    qn_out_addf("%s  ", text_of(report, "command"));
    qn_out_name(text_of(report, "result"));
    qn_out_addf("%s\n", part ? "  INCOMPLETE: some matrices may still be damaged (notes below)" : "");
    print_summary(at(report, "summary"));
    print_proof(at(report, "independent_check"));
    print_notes(at(report, "notes"));
}

// "5GB", "500MB", "1.5GiB" or plain bytes.
static bool parse_size(const char *text, const char *option, uint64_t *bytes, qn_err *err) {
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"", 1}, {"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
                 {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}, {"TiB", 1099511627776}};
    char *end;
    double value = strtod(text, &end);
    while (*end == ' ') end++;
    for (size_t i = 0; end != text && i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0 && value * units[i].factor >= 1 &&
            value * units[i].factor < 1e18) {
            *bytes = (uint64_t)(value * units[i].factor);
            return true;
        }
    return qn_fail(err, QN_USAGE, "option --%s: \"%s\" is not a size, expected e.g. 5GB or 500MiB",
                   option, text);
}

bool qn_args_shard_bytes(const qn_args *a, uint64_t *bytes, qn_err *err) {
    return parse_size(qn_args_text(a, "shard-size", "5GB"), "shard-size", bytes, err);
}

int qn_report_done(const qn_args *a, bool ok, json_t *report) {
    qn_progress_clear_line();
    if (ok) qn_print_report(a, report);
    json_decref(report);
    return ok ? 0 : -1;
}

const qn_option qn_rewrite_table[] = {
    {.name = "shard-size", .kind = QN_OPT_TEXT, .value = "SIZE",
     .help = "largest file of weights (default 5GB)"},
    {.name = "overwrite", .help = "replace OUT if it is empty or a checkpoint's folder"},
    {.name = "threads", .kind = QN_OPT_INT, .value = "N", .help = "cores to use (default: all)",
     .lo = 1, .hi = 1024},
    {0},
};
