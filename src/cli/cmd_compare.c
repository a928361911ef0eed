// `quern compare`: how far two dumps or two checkpoints are apart.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/output.h"
#include "quant/compare.h"
#include "quant/html_report.h"

enum { MOST_LAYERS = 100, MOST_POSITIONS = 12, MOST_WORST = 10, MOST_NAMES = 5 };

static const json_t *at(const json_t *o, const char *key) { return json_object_get(o, key); }

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(at(o, key));
    return s ? s : "";
}

// A cosine close to one needs its digits: 0.9999 and 0.99998 are different things.
static void add_cell(qn_table *t, const char *key, const json_t *v) {
    double x = json_number_value(v);
    bool close = strcmp(key, "cosine") == 0 && fabs(x) > 0.9 && fabs(x) < 1;
    if (json_is_number(v))
        qn_table_addf(t, close ? "%.8f" : "%.4g", x);
    else
        qn_table_add(t, json_is_string(v) ? json_string_value(v) : "");
}

static void print_table(const json_t *list, const char *const *keys, const char *const *heads,
                        const char *align, size_t most) {
    qn_table t = {.align = align};
    size_t i, n = strlen(align);
    json_t *e;
    if (!json_array_size(list)) return;
    for (size_t k = 0; k < n; k++) qn_table_add(&t, heads[k]);
    json_array_foreach(list, i, e) {
        if (i == most) break;
        for (size_t k = 0; k < n; k++) add_cell(&t, keys[k], at(e, keys[k]));
    }
    qn_out_addf("\n");
    qn_table_print_fitted(&t, 0);
    if (json_array_size(list) > most)
        qn_out_addf("… and %zu more (--json lists them all)\n", json_array_size(list) - most);
}

static void print_overall(const json_t *report) {
    static const struct {
        const char *key, *head, *limit, *sign;
    } rows[] = {{"cosine", "cosine", "cosine", "≥"},
                {"max_abs_error", "max abs error", "max_abs", "≤"},
                {"max_rel_error", "max relative error", NULL, NULL},
                {"relative_rms", "relative rms error", NULL, NULL},
                {"mse", "mean squared error", NULL, NULL},
                {"kl", "KL divergence", NULL, NULL},
                {"top1", "top-1 agreement", "top1", "≥"},
                {"top5", "top-5 agreement", NULL, NULL},
                {"top10", "top-10 agreement", NULL, NULL}};
    qn_table t = {.align = "<><"};
    const json_t *overall = at(report, "overall"), *limits = at(report, "thresholds");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const json_t *v = at(overall, rows[i].key);
        const json_t *limit = rows[i].limit ? at(limits, rows[i].limit) : NULL;
        if (!v || json_is_null(v)) continue;
        qn_table_add(&t, rows[i].head);
        add_cell(&t, rows[i].key, v);
        if (limit)
            qn_table_addf(&t, "(expected %s %g)", rows[i].sign, json_number_value(limit));
        else
            qn_table_add(&t, "");
    }
    qn_out_addf("\n");
    qn_table_print(&t, 0);
}

// What is not finite is farthest of all.
static double error_of(const json_t *position) {
    const json_t *e = at(position, "relative_rms"), *kl = at(position, "kl");
    bool broken = json_is_string(e) || json_is_string(kl);
    return broken ? INFINITY : json_number_value(e);
}

static int by_error(const void *a, const void *b) {
    double x = error_of(*(const json_t *const *)a), y = error_of(*(const json_t *const *)b);
    return (x < y) - (x > y);
}

// Of many positions those farthest apart.
static json_t *farthest(const json_t *all) {
    size_t n = json_array_size(all);
    json_t *list = json_array(), **sorted = qn_calloc(n + 1, sizeof(json_t *));
    for (size_t i = 0; i < n; i++) sorted[i] = json_array_get(all, i);
    if (n > MOST_POSITIONS) qsort(sorted, n, sizeof *sorted, by_error);
    for (size_t i = 0; i < n; i++) json_array_append(list, sorted[i]);
    qn_free(sorted);
    return list;
}

static void print_positions(const json_t *report) {
    static const char *const keys[] = {"position", "cosine", "max_abs_error", "relative_rms", "kl",
                                       "top1", "top5", "top10", "top1_a", "top1_b"};
    bool some = json_array_size(at(report, "positions")) > MOST_POSITIONS;
    const char *const heads[] = {some ? "worst positions" : "position", "cosine", "max error",
                                 "relative rms", "KL", "top-1", "top-5", "top-10", "best of A",
                                 "best of B"};
    const json_t *first = at(report, "first_position");
    const json_t *beyond = at(report, "first_position_beyond");
    json_t *list = farthest(at(report, "positions"));
    print_table(list, keys, heads, ">>>>>>>>>>", MOST_POSITIONS);
    json_decref(list);
    if (json_is_integer(first))
        qn_out_addf("\nfirst position with any difference     %lld\n",
                    (long long)json_integer_value(first));
    if (json_is_integer(beyond))
        qn_out_addf("first position beyond the thresholds   %lld\n",
                    (long long)json_integer_value(beyond));
}

// A draft layer's logits have more figures than other tensors.
static void print_drafts(const json_t *tensors) {
    static const char *const keys[] = {"name", "kl", "kl_max", "top1", "top5", "top10",
                                       "first_position_beyond"};
    static const char *const heads[] = {"draft", "KL", "KL, max", "top-1", "top-5", "top-10",
                                        "first position beyond"};
    json_t *drafts = json_array(), *e;
    size_t i;
    json_array_foreach(tensors, i, e)
        if (at(e, "positions")) json_array_append(drafts, e);
    print_table(drafts, keys, heads, "<>>>>>>", MOST_LAYERS);
    json_decref(drafts);
}

static void print_layers(const json_t *report) {
    static const char *const keys[] = {"name", "cosine", "max_abs_error", "relative_rms", "norm_a",
                                       "norm_b"};
    static const char *const heads[] = {"tensor", "cosine", "max error", "relative rms", "norm A",
                                        "norm B"};
    print_table(at(report, "layers"), keys, heads, "<>>>>>", MOST_LAYERS);
    print_table(at(report, "tensors"), keys, heads, "<>>>>>", MOST_LAYERS);
    print_drafts(at(report, "tensors"));
    if (!text_of(report, "first_layer")[0]) return;
    qn_out_addf("\nfirst layer that differs               ");
    qn_out_name(text_of(report, "first_layer"));
    qn_out_addf("\n");
}

static void print_worst(const json_t *report) {
    static const char *const keys[] = {"name", "stored_a", "stored_b", "cosine", "max_abs_error",
                                       "relative_rms", "norm_a", "norm_b"};
    static const char *const heads[] = {"worst weights", "in A", "in B", "cosine", "max error",
                                        "relative rms", "norm A", "norm B"};
    json_t *list = json_array(), *name, *e;
    size_t i, k;
    json_array_foreach(at(report, "worst"), i, name) {
        json_array_foreach(at(report, "tensors"), k, e)
            if (strcmp(text_of(e, "name"), json_string_value(name)) == 0)
                json_array_append(list, e);
    }
    print_table(list, keys, heads, "<<<>>>>>", MOST_WORST);
    json_decref(list);
}

static void print_only(const json_t *report, const char *key, const char *letter) {
    const json_t *list = at(report, key);
    size_t n = json_array_size(list), i;
    json_t *name;
    if (!n) return;
    qn_out_addf("\nonly in %s (%zu):", letter, n);
    json_array_foreach(list, i, name) {
        if (i == MOST_NAMES) break;
        qn_out_addf(" ");
        qn_out_name(json_string_value(name));
    }
    qn_out_addf(n > MOST_NAMES ? " …\n" : "\n");
}

static void print(const json_t *report) {
    bool ok = strcmp(text_of(report, "verdict"), "ok") == 0;
    size_t i;
    json_t *line;
    bool same = json_is_true(at(report, "identical")), part = json_is_true(at(report, "partial"));
    qn_out_addf("%s\n", !ok ? "different"
                        : same && part ? "ok: what was compared is identical, bit for bit"
                        : same ? "ok: identical, bit for bit" : "ok: within the thresholds");
    json_array_foreach(at(report, "reasons"), i, line) {
        qn_out_addf("  ");
        qn_out_wrapped(json_string_value(line), 2, 4);
    }
    print_overall(report);
    if (strcmp(text_of(report, "kind"), "dumps") == 0) {
        print_positions(report);
        print_layers(report);
    } else {
        print_worst(report);
    }
    print_only(report, "only_in_a", "A");
    print_only(report, "only_in_b", "B");
    json_array_foreach(at(report, "notes"), i, line) qn_note_each("%s", json_string_value(line));
}

static bool write_page(const qn_args *a, json_t *report, qn_err *err) {
    static const char *const page_only[] = {"reasons_zh", "notes_zh", "histograms"};
    const char *path = qn_args_text(a, "html", NULL);
    if (!path) return true;
    bool ok = qn_html_report_write(path, report, err);
    if (ok) qn_note_each("report written to %s", path);
    for (size_t i = 0; i < sizeof page_only / sizeof *page_only; i++)
        json_object_del(report, page_only[i]);
    return ok;
}

static int run(const qn_args *a, qn_err *err) {
    qn_progress bar = {0};
    qn_compare_options o = {.cosine = qn_args_real(a, "cosine", QN_COMPARE_COSINE),
                            .max_abs = qn_args_real(a, "max-abs", QN_COMPARE_MAX_ABS),
                            .top1 = qn_args_real(a, "top1", QN_COMPARE_TOP1),
                            .page = qn_args_has(a, "html"), .n_threads = qn_args_threads(a),
                            .progress = qn_progress_show, .user = &bar};
    json_t *report = NULL;
    if (qn_args_precision(a, QN_EXACT) != QN_EXACT)
        qn_note("compare computes exactly; --precision fast changes nothing");
    bool ok = qn_compare(qn_args_at(a, 0), qn_args_at(a, 1), &o, &report, err);
    qn_progress_clear_line();
    if (!ok) return -1;
    int status = strcmp(text_of(report, "verdict"), "ok") == 0 ? 0 : 1;
    if (!write_page(a, report, err))
        status = -1;
    else if (qn_args_has(a, "json"))
        qn_out_json(report);
    else
        print(report);
    json_decref(report);
    return status;
}

static const qn_option options[] = {
    {.name = "html", .kind = QN_OPT_FILE, .value = "FILE",
     .help = "write a page with plots and tables; it needs no network"},
    {.name = "cosine", .kind = QN_OPT_REAL, .value = "X", .lo = -1, .hi = 1,
     .help = "least cosine that is ok (default 0.99)"},
    {.name = "max-abs", .kind = QN_OPT_REAL, .value = "X", .lo = 0, .hi = 1e30,
     .help = "largest absolute error that is ok (default 0.001)"},
    {.name = "top1", .kind = QN_OPT_REAL, .value = "X", .lo = 0, .hi = 1,
     .help = "least share of positions with the same likeliest token (default 1)"},
    {.name = "precision", .kind = QN_OPT_CHOICE, .value = "exact|fast",
     .help = "exact, always: fast changes nothing here"},
    {.name = "threads", .kind = QN_OPT_INT, .value = "N", .help = "cores to use (default: all)",
     .lo = 1, .hi = 1024},
    {0},
};

const qn_command qn_cmd_compare = {
    .name = "compare",
    .group = "Trust",
    .summary = "two dumps or two checkpoints: how far apart, where they part, is that ok",
    .usage = "A B [--html FILE] [OPTIONS]",
    .about =
        "Exit status 1 when they differ by more than the thresholds. B is the reference. A dump is\n"
        "a .safetensors or .npz file with tensors as `quern dump` names them (tokens, logits,\n"
        "hidden.N, …), from any framework and in any dtype, or logits as .npy; one side may have the\n"
        "last position only. Checkpoints are compared weight by weight, whatever they are quantized\n"
        "to and whether experts are stored one by one or as one tensor.\n"
        "docs/precision.md explains every figure.",
    .examples = "quern compare models/tiny-qwen3-gptq-int8 models/tiny-qwen3\n"
                "quern compare npu.safetensors cpu.safetensors\n"
                "quern compare logits.npy cpu.safetensors --cosine 0.999 --max-abs 0.1\n"
                "quern compare fp16.safetensors bf16.safetensors --html report.html\n"
                "quern compare Qwen3-1.7B-FP16 Qwen/Qwen3-1.7B --max-abs 1 --json\n",
    .tables = {options},
    .min_args = 2,
    .max_args = 2,
    .run = run,
};
