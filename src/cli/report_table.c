// Printing a report: the verdict first, then figures per matrix.
#include "cli/report_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/progress.h"
#include "base/str.h"
#include "cli/output.h"

#define MOST_ROWS 12

static const json_t *at(const json_t *o, const char *key) { return json_object_get(o, key); }

static void add_number(qn_table *t, const json_t *entry, const char *key) {
    const json_t *v = at(entry, key);
    if (json_is_number(v))
        qn_table_addf(t, "%.4g", json_number_value(v));
    else
        qn_table_add(t, json_is_string(v) ? json_string_value(v) : "");
}

static void add_range(qn_table *t, const json_t *entry, const char *low, const char *high) {
    const json_t *a = at(entry, low), *b = at(entry, high);
    if (json_is_number(a) && json_is_number(b))
        qn_table_addf(t, "%.4g … %.4g", json_number_value(a), json_number_value(b));
    else
        qn_table_add(t, "");
}

static void add_row(qn_table *t, const json_t *e) {
    const json_t *in = at(e, "dtype_in");
    qn_table_add(t, json_string_value(at(e, "name")));
    qn_table_addf(t, "%s → %s", json_is_string(in) ? json_string_value(in) : "?",
                  json_string_value(at(e, "dtype_out")));
    add_range(t, e, "min", "max");
    add_number(t, e, "mean");
    add_number(t, e, "std");
    add_number(t, e, "operator_norm");
    add_range(t, e, "code_min", "code_max");
    add_range(t, e, "scale_min", "scale_max");
    add_number(t, e, "max_abs_error");
}

static bool has_figures(const json_t *e) { return json_is_number(at(e, "std")); }

// Matrices that were computed anew come first: they are what the reader wants to see.
static void print_tensors(const json_t *list) {
    static const char *const heads[] = {"tensor", "stored", "range", "mean", "std", "norm",
                                        "codes", "scales", "max error"};
    qn_table t = {.align = "<<<>>>><>"};
    size_t n = 0, figures = 0, i;
    json_t *e;
    for (i = 0; i < sizeof heads / sizeof *heads; i++) qn_table_add(&t, heads[i]);
    for (int computed = 1; computed >= 0; computed--)
        json_array_foreach(list, i, e) {
            if (!has_figures(e) || json_is_number(at(e, "scale_min")) != (computed == 1)) continue;
            figures++;
            if (n < MOST_ROWS) add_row(&t, e), n++;
        }
    if (n) qn_table_print(&t, 0);
    if (figures > n) qn_out_addf("… and %zu more (quern-report.json has them all)\n", figures - n);
}

static void print_notes(const json_t *notes) {
    size_t i;
    json_t *note;
    json_array_foreach(notes, i, note) qn_out_addf("note   %s\n", json_string_value(note));
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
    qn_out_addf("\n%s  %s\n", json_string_value(at(report, "command")),
                json_string_value(at(report, "result")));
    qn_out_tree(at(report, "summary"), 7);
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
    {.name = "overwrite", .help = "replace OUT if it exists"},
    {.name = "threads", .kind = QN_OPT_INT, .value = "N", .help = "cores to use (default: all)",
     .lo = 1, .hi = 1024},
    {0},
};
