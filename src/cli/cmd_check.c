// `quern check`: what is wrong with a checkpoint.
#include <string.h>

#include "base/progress.h"
#include "cli/command.h"
#include "cli/output.h"
#include "quant/check.h"

#define MOST_LINES 40

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

// A problem that many tensors share is shown a few times and then counted.
static void print_problems(const json_t *list) {
    size_t shown = 0, i;
    json_t *p;
    json_array_foreach(list, i, p) {
        if (shown == MOST_LINES) {
            qn_out_addf("… and %zu more (--json lists them all)\n", json_array_size(list) - shown);
            break;
        }
        shown++;
        const char *tensor = text_of(p, "tensor");
        qn_out_addf("%-7s  %s%s%s: %s\n", text_of(p, "severity"), text_of(p, "code"),
                    tensor[0] ? "  " : "", tensor, text_of(p, "message"));
    }
}

static void add_number(qn_table *t, const json_t *e, const char *key) {
    const json_t *v = json_object_get(e, key);
    if (json_is_number(v))
        qn_table_addf(t, "%.4g", json_number_value(v));
    else
        qn_table_add(t, json_is_string(v) ? json_string_value(v) : "");
}

static void print_tensors(const json_t *list) {
    static const char *const keys[] = {"min", "max", "mean", "std", "nonfinite", "kurtosis",
                                       "operator_norm", "cosine"};
    qn_table t = {.align = "<<>>>>>>>>"};
    size_t i;
    json_t *e;
    qn_table_add(&t, "tensor");
    qn_table_add(&t, "stored");
    for (size_t k = 0; k < 8; k++) qn_table_add(&t, k == 6 ? "norm" : keys[k]);
    json_array_foreach(list, i, e) {
        qn_table_add(&t, text_of(e, "name"));
        qn_table_add(&t, text_of(e, "dtype"));
        for (size_t k = 0; k < 8; k++) add_number(&t, e, keys[k]);
    }
    qn_table_print(&t, 0);
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
        qn_table_addf(&t, "%.6f", json_number_value(json_object_get(e, "cosine")));
        add_number(&t, e, "max_abs_error");
        add_number(&t, e, "relative_rms");
    }
    qn_table_print(&t, 0);
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
    qn_out_addf("\nactivations on a text of %d tokens\n",
                (int)json_integer_value(json_object_get(forward, "tokens")));
    for (i = 0; i < 6; i++) qn_table_add(&t, heads[i]);
    json_array_foreach(json_object_get(forward, "layers"), i, e) {
        const json_t *expert = json_object_get(e, "expert");
        qn_table_add(&t, text_of(e, "name"));
        if (expert)
            qn_table_addf(&t, "%s (expert %d)", text_of(e, "activation"),
                          (int)json_integer_value(expert));
        else
            qn_table_add(&t, text_of(e, "activation"));
        for (size_t k = 0; k < 4; k++) add_number(&t, e, keys[k]);
    }
    qn_table_print(&t, 0);
}

static void print(const qn_args *a, const json_t *report) {
    const json_t *summary = json_object_get(report, "summary");
    const json_t *problems = json_object_get(report, "problems");
    bool ok = strcmp(text_of(report, "verdict"), "ok") == 0;
    size_t n = json_array_size(problems);
    if (qn_args_has(a, "tensors")) print_tensors(json_object_get(report, "tensors"));
    if (ok && n == 0)
        qn_out_addf("ok: nothing wrong was found\n");
    else
        qn_out_addf("%s: %zu problem%s\n", ok ? "ok, with warnings" : "problems", n,
                    n == 1 ? "" : "s");
    print_problems(problems);
    print_worst(json_object_get(summary, "worst"));
    print_forward(json_object_get(summary, "forward"));
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
