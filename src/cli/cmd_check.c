// `quern check`: what is wrong with a checkpoint.
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "cli/output.h"
#include "cli/report_table.h"
#include "quant/check.h"

enum { MOST_WRAPPED = 3, MOST_LINES = 16 }; // of one kind, for eyes and for pipes

static const json_t *at(const json_t *o, const char *key) { return json_object_get(o, key); }

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(at(o, key));
    return s ? s : "";
}

static long long integer(const json_t *o, const char *key) {
    return (long long)json_integer_value(at(o, key));
}

// ---- problems ----

static bool same_kind(const json_t *p, const json_t *q) {
    return strcmp(text_of(p, "code"), text_of(q, "code")) == 0 &&
           strcmp(text_of(p, "severity"), text_of(q, "severity")) == 0;
}

// "TENSOR: message", or the message alone.
static char *line_of(const json_t *p) {
    const char *tensor = text_of(p, "tensor");
    return qn_strf("%s%s%s", tensor, *tensor ? ": " : "", text_of(p, "message"));
}

// Different numbers in order, as many as there is room for.
typedef struct sizes {
    long long list[8];
    size_t n;
} sizes;

static void sizes_add(sizes *s, long long size) {
    size_t at = 0;
    while (at < s->n && s->list[at] < size) at++;
    if ((at < s->n && s->list[at] == size) || s->n == 8) return;
    memmove(s->list + at + 1, s->list + at, (s->n - at) * sizeof *s->list);
    s->list[at] = size;
    s->n++;
}

// "32", "32, 64 and 128", "32 to 1024".
static void sizes_print(const sizes *s, qn_buf *line) {
    if (s->n > 4) {
        qn_buf_addf(line, "%lld to %lld", s->list[0], s->list[s->n - 1]);
        return;
    }
    for (size_t i = 0; i < s->n; i++)
        qn_buf_addf(line, "%s%lld", i == 0 ? "" : i + 1 < s->n ? ", " : " and ", s->list[i]);
}

// What the weights marked with this code have in common.
static void add_origin(qn_buf *line, const json_t *tensors, const char *code) {
    sizes groups = {0};
    double least = 2;
    size_t i;
    json_t *e;
    json_array_foreach(tensors, i, e) {
        const json_t *o = at(e, "origin");
        if (!o || strcmp(text_of(o, "code"), code) != 0) continue;
        double confidence = json_number_value(at(o, "confidence"));
        if (confidence < least) least = confidence;
        if (integer(o, "group_size") > 0) sizes_add(&groups, integer(o, "group_size"));
    }
    if (least > 1) return;
    if (groups.n) qn_buf_adds(line, ", groups of ");
    sizes_print(&groups, line);
    qn_buf_addf(line, ", confidence at least %.4g; `quern repair` undoes it", least);
}

static void print_more(size_t n) {
    qn_out_addf("… and %zu more (--json lists them all)\n", n);
}

// How many there are of a kind, and what they share.
static void add_head(qn_buf *head, const json_t *report, const json_t *list, size_t n) {
    const json_t *first = json_array_get(list, 0);
    const char *code = text_of(first, "code");
    qn_buf_adds(head, code);
    if (*text_of(first, "tensor"))
        qn_buf_addf(head, " in %zu of %zu weights", n, json_array_size(at(report, "tensors")));
    else
        qn_buf_addf(head, ", %zu times", n);
    add_origin(head, at(report, "tensors"), code);
}

// For a pipe each line is a problem, with its severity and code; many of a kind are summed up first.
static void print_plain(const json_t *report, const json_t *list, size_t n) {
    qn_buf head = {0};
    if (n > MOST_LINES) {
        add_head(&head, report, list, n);
        qn_out_addf("%-7s  %s\n", text_of(json_array_get(list, 0), "severity"), head.data);
    }
    for (size_t i = 0; i < n && i <= MOST_LINES; i++) {
        const json_t *p = json_array_get(list, i);
        char *line = line_of(p);
        qn_out_addf("%-7s  %s  ", text_of(p, "severity"), text_of(p, "code"));
        if (i < MOST_LINES)
            qn_out_addf("%s\n", line);
        else
            print_more(n - i);
        qn_free(line);
    }
    qn_buf_done(&head);
}

// For eyes: what all of a kind share, then the first of them.
static void print_broken(const json_t *report, const json_t *list, size_t n) {
    const json_t *first = json_array_get(list, 0);
    qn_buf head = {0};
    char *line = line_of(first);
    qn_out_addf("%-7s  ", text_of(first, "severity"));
    if (n == 1)
        qn_buf_addf(&head, "%s: %s", text_of(first, "code"), line);
    else
        add_head(&head, report, list, n);
    qn_out_wrapped(head.data, 9, 9);
    for (size_t i = 0; n > 1 && i < n && i < MOST_WRAPPED; i++) {
        qn_free(line);
        line = line_of(json_array_get(list, i));
        qn_out_addf("%9s", "");
        qn_out_wrapped(line, 9, 13);
    }
    if (n > MOST_WRAPPED) {
        qn_out_addf("%9s", "");
        print_more(n - MOST_WRAPPED);
    }
    qn_free(line);
    qn_buf_done(&head);
}

static void print_problems(const json_t *report) {
    const json_t *all = at(report, "problems");
    size_t n = json_array_size(all);
    bool *done = qn_calloc(n + 1, sizeof *done);
    for (size_t i = 0; i < n; i++) {
        if (done[i]) continue; // printed with the first of its kind
        json_t *kind = json_array();
        for (size_t k = i; k < n; k++) {
            json_t *q = json_array_get(all, k);
            if (done[k] || !same_kind(json_array_get(all, i), q)) continue;
            done[k] = true;
            json_array_append(kind, q);
        }
        if (qn_out_width())
            print_broken(report, kind, json_array_size(kind));
        else
            print_plain(report, kind, json_array_size(kind));
        json_decref(kind);
    }
    qn_free(done);
}

// ---- tensors ----

static void add_number(qn_table *t, const json_t *e, const char *key) {
    const json_t *v = at(e, key);
    if (json_is_number(v))
        qn_table_addf(t, strcmp(key, "cosine") == 0 ? "%.6f" : "%.4g", json_number_value(v));
    else
        qn_table_add(t, json_is_string(v) ? json_string_value(v) : "");
}

static void add_tensor(qn_table *t, const json_t *e) {
    static const char *const values[] = {"mean", "std", "kurtosis", "nonfinite", "zero_rows",
                                         "zero_cols"};
    static const char *const groups[] = {"dead_groups", "zero_scale_groups"};
    static const char *const against[] = {"cosine", "max_abs_error", "relative_rms"};
    const json_t *q = at(e, "quantized");
    qn_table_add(t, text_of(e, "name"));
    qn_table_add_shape(t, e);
    qn_table_add(t, text_of(e, "dtype"));
    qn_table_add_range(t, e, "min", "max");
    for (size_t k = 0; k < 6; k++) add_number(t, e, values[k]);
    qn_table_add_norm(t, e);
    qn_table_add_range(t, q, "scale_min", "scale_max");
    qn_table_add_range(t, q, "zero_min", "zero_max");
    for (size_t k = 0; k < 2; k++) add_number(t, q, groups[k]);
    for (size_t k = 0; k < 3; k++) add_number(t, e, against[k]);
}

static void print_tensors(const json_t *list) {
    static const char *const heads[] = {
        "tensor", "shape", "stored", "range", "mean", "std", "kurtosis", "not finite", "zero rows",
        "zero columns", "operator norm", "scales", "zero points", "dead groups", "zero scales",
        "cosine", "max error", "relative rms"};
    qn_table t = {.align = "<<<>>>>>>>>>>>>>>>"};
    size_t i;
    json_t *e;
    for (i = 0; i < sizeof heads / sizeof *heads; i++) qn_table_add(&t, heads[i]);
    json_array_foreach(list, i, e) add_tensor(&t, e);
    qn_table_print_fitted(&t, 0);
    qn_out_addf("\n");
}

static void print_worst(const json_t *worst) {
    qn_table t = {.align = "<>>>"};
    size_t i;
    json_t *e;
    if (json_array_size(worst) == 0) return;
    qn_out_addf("\nfarthest from the reference\n");
    static const char *const heads[] = {"tensor", "cosine", "max error", "relative rms"};
    for (i = 0; i < 4; i++) qn_table_add(&t, heads[i]);
    json_array_foreach(worst, i, e) {
        qn_table_add(&t, text_of(e, "name"));
        add_number(&t, e, "cosine");
        add_number(&t, e, "max_abs_error");
        add_number(&t, e, "relative_rms");
    }
    qn_table_print(&t, 0);
}

// ---- activations ----

static void print_largest(const json_t *e) {
    if (!json_is_object(e)) return;
    qn_out_addf("largest: ");
    char *line = qn_strf("%.4g in %s, channel %lld, position %lld (f16 ends at 65504)",
                         json_number_value(at(e, "max_abs")), text_of(e, "name"),
                         integer(e, "channel"), integer(e, "position"));
    qn_out_wrapped(line, 9, 9);
    qn_free(line);
}

// Every layer's largest activation; which one of an expert's is told apart.
static void print_forward(const json_t *forward) {
    static const char *const heads[] = {"layer", "largest activation", "|value|", "channel",
                                        "position", "past 65504"};
    static const char *const keys[] = {"max_abs", "channel", "position", "over"};
    qn_table t = {.align = "<<>>>>"};
    size_t i;
    json_t *e;
    if (!forward) return;
    qn_out_addf("\nactivations on a text of %d tokens\n", (int)integer(forward, "tokens"));
    print_largest(at(forward, "largest"));
    for (i = 0; i < 6; i++) qn_table_add(&t, heads[i]);
    json_array_foreach(at(forward, "layers"), i, e) {
        qn_table_add(&t, text_of(e, "name"));
        if (at(e, "expert"))
            qn_table_addf(&t, "%s (expert %lld)", text_of(e, "activation"), integer(e, "expert"));
        else
            qn_table_add(&t, text_of(e, "activation"));
        for (size_t k = 0; k < 4; k++) add_number(&t, e, keys[k]);
    }
    qn_table_print_fitted(&t, 0);
}

// ---- all ----

static void print_verdict(const json_t *report) {
    bool ok = strcmp(text_of(report, "verdict"), "ok") == 0;
    const json_t *problems = at(report, "problems");
    size_t n = json_array_size(problems), errors = 0, i;
    json_t *p;
    json_array_foreach(problems, i, p) errors += strcmp(text_of(p, "severity"), "error") == 0;
    size_t warnings = n - errors;
    if (ok && n == 0)
        qn_out_addf("ok: nothing wrong was found\n");
    else if (ok)
        qn_out_addf("ok, with %zu warning%s\n", n, n == 1 ? "" : "s");
    else
        qn_out_addf("problems: %zu error%s", errors, errors == 1 ? "" : "s");
    if (!ok && warnings)
        qn_out_addf(", %zu warning%s", warnings, warnings == 1 ? "" : "s");
    if (!ok) qn_out_addf("\n");
}

static void print(const qn_args *a, const json_t *report) {
    const json_t *summary = at(report, "summary");
    if (qn_args_has(a, "tensors")) print_tensors(at(report, "tensors"));
    print_verdict(report);
    print_problems(report);
    print_worst(at(summary, "worst"));
    print_forward(at(summary, "forward"));
    json_t *rest = json_copy((json_t *)(uintptr_t)summary);
    json_object_del(rest, "worst");
    json_object_del(rest, "forward");
    qn_out_addf("\n");
    qn_out_tree(rest, 0);
    json_decref(rest);
}

static int run(const qn_args *a, qn_err *err) {
    qn_progress bar = {0};
    qn_check_options o = {.against = qn_args_text(a, "against", NULL),
                          .forward = qn_args_has(a, "forward"),
                          .group_size = (size_t)qn_args_int(a, "group-size", 0),
                          .n_threads = qn_args_threads(a), .progress = qn_progress_show,
                          .user = &bar};
    json_t *report = NULL;
    if (qn_args_precision(a, QN_EXACT) != QN_EXACT)
        qn_note("check computes exactly; --precision fast changes nothing");
    bool ok = qn_check(qn_args_at(a, 0), &o, &report, err);
    qn_progress_clear_line();
    if (!ok) return -1;
    if (qn_args_has(a, "json"))
        qn_out_json(report);
    else
        print(a, report);
    int status = strcmp(text_of(report, "verdict"), "ok") == 0 ? 0 : 1;
    json_decref(report);
    return status;
}

static const qn_option options[] = {
    {.name = "against", .kind = QN_OPT_FILE, .value = "MODEL",
     .help = "compare every weight with this one: the original, or another quantization of it"},
    {.name = "forward",
     .help = "run a short text: every layer's largest activation, and what f16 cannot hold"},
    {.name = "tensors", .help = "print the figures of every tensor"},
    {.name = "group-size", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 1 << 20,
     .help = "inputs per scale, for signed-view and zero-offset, when it cannot be inferred"},
    {.name = "precision", .kind = QN_OPT_CHOICE, .value = "exact|fast",
     .help = "exact, always: fast changes nothing here"},
    {.name = "threads", .kind = QN_OPT_INT, .value = "N", .help = "cores to use (default: all)",
     .lo = 1, .hi = 1024},
    {0},
};

const qn_command qn_cmd_check = {
    .name = "check",
    .group = "Trust",
    .summary = "read every tensor and say what is wrong with a checkpoint",
    .usage = "MODEL [--against REFERENCE] [OPTIONS]",
    .about =
        "Exit status 1 when there is a problem of severity error. Finds damaged files, missing and\n"
        "unexpected tensors, values that are not finite, labels that do not fit the tensors, and\n"
        "weights that were dequantized the wrong way (signed-view, zero-offset) — the latter from\n"
        "the weights alone, with no reference at hand. Works on files in any state of damage.",
    .examples = "quern check models/tiny-qwen3-gptq-int8\n"
                "quern check Qwen3-1.7B-FP16 --json\n"
                "quern check Qwen3-1.7B-FP16 --against Qwen/Qwen3-1.7B\n"
                "quern check MODEL --forward --tensors\n",
    .tables = {options},
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
