// `quern eval`: perplexity of a text, and distance from a reference.
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/prompt.h"
#include "quant/eval.h"

// What is not finite stands as a string: "inf" must not be printed as the 0 of a perfect match.
static double at(const json_t *report, const char *section, const char *key) {
    const json_t *o = section ? json_object_get(report, section) : report;
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) ? strtod(json_string_value(v), NULL) : json_number_value(v);
}

// A text shorter than a window is one window, as long as it is.
static void print_counts(const json_t *r) {
    double left = at(r, NULL, "left_out"), n = at(r, NULL, "windows");
    double all = at(r, NULL, "text_tokens") - left, size = at(r, NULL, "context");
    qn_out_addf("tokens       %.0f in %.0f window%s of %.0f", at(r, NULL, "tokens"), n,
                qn_plural_s((uint64_t)n), all < size ? all : size);
    if (left > 0) qn_out_addf(", %.0f behind %s left out", left, n > 1 ? "them" : "it");
}

static void print(const json_t *r) {
    qn_out_addf("perplexity   %.4f ± %.4f\n", at(r, NULL, "perplexity"),
                at(r, NULL, "perplexity_error"));
    if (json_object_get(r, "kl")) {
        qn_out_addf("reference    %.4f\n", at(r, "reference", "perplexity"));
        static const char *const keys[][3] = {{"mean", "mean", "std_error"},
                                              {"median", "median", "median_error"},
                                              {"99 %", "p99", "p99_error"},
                                              {"max", "max", "max_error"}};
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            qn_out_addf("%s%s %.4g ± %.2g%s", i ? "" : "KL           ", keys[i][0],
                        at(r, "kl", keys[i][1]), at(r, "kl", keys[i][2]), i < 3 ? "   " : "\n");
        qn_out_addf("same top-1   %.2f %% ± %.2f %%\n", 100 * at(r, "top1", "agreement"),
                    100 * at(r, "top1", "std_error"));
    }
    print_counts(r);
    qn_out_addf("\ntime         %.1f s, %.0f tok/s\n", at(r, NULL, "seconds"), at(r, NULL, "tok_s"));
}

static bool read_text(const qn_args *a, qn_buf *text, qn_err *err) {
    const char *path = qn_args_text(a, "text", NULL);
    if (path) return qn_file_read(path, QN_MAX_TEXT, text, err);
    if (qn_args_has(a, "reference")) return true; // a dump brings its tokens; a model is refused
    return qn_fail(err, QN_USAGE, "no text is given, expected --text FILE");
}

static const char *text_name(const qn_args *a) {
    const char *path = qn_args_text(a, "text", NULL);
    return path && strcmp(path, "-") == 0 ? "stdin" : path;
}

static int run(const qn_args *a, qn_err *err) {
    qn_progress bar = {0};
    qn_buf text = {0};
    if (!read_text(a, &text, err)) return -1;
    qn_eval_options o = {.text = qn_args_has(a, "text") ? text.data ? text.data : "" : NULL,
                         .n_text = text.n, .text_name = text_name(a),
                         .context = (size_t)qn_args_int(a, "context", 0),
                         .stride = (size_t)qn_args_int(a, "stride", 0),
                         .tail = qn_args_has(a, "tail"),
                         .reference = qn_args_text(a, "reference", NULL),
                         .precision = qn_args_precision(a, QN_EXACT),
                         .weights = qn_args_weights(a), .n_threads = qn_args_threads(a),
                         .max_num_batched_tokens =
                             (size_t)qn_args_int(a, "max-num-batched-tokens", 0),
                         .max_num_seqs = (size_t)qn_args_int(a, "max-num-seqs", 0),
                         .kv_cache_bytes = (size_t)qn_args_int(a, "kv-cache-memory-bytes", 0),
                         .progress = qn_progress_show, .user = &bar};
    json_t *report = NULL;
    bool ok = qn_eval(qn_args_at(a, 0), &o, &report, err);
    qn_progress_clear_line();
    qn_buf_done(&text);
    if (!ok) return -1;
    json_object_set_new(report, "model", qn_json_string(qn_args_at(a, 0)));
    if (qn_args_has(a, "json"))
        qn_out_json(report);
    else
        print(report);
    json_decref(report);
    return 0;
}

static const qn_option options[] = {
    {.name = "text", .kind = QN_OPT_FILE, .value = "FILE", .help = "the text; - is stdin"},
    {.name = "context", .kind = QN_OPT_INT, .value = "N", .lo = 2, .hi = 1 << 30,
     .help = "tokens per window (default 512, or a dump's own length)"},
    {.name = "stride", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 1 << 30,
     .help = "from one window's start to the next (default: the context, no overlap)"},
    {.name = "tail", .help = "score what is behind the last whole window too"},
    {.name = "reference", .kind = QN_OPT_FILE, .value = "MODEL|DUMP",
     .help = "what to compare every prediction with: the original, or a dump of the text"},
    {0},
};

const qn_command qn_cmd_eval = {
    .name = "eval",
    .group = "Trust",
    .summary = "perplexity of a text, and how far the predictions are from a reference's",
    .usage = "MODEL --text FILE [--reference MODEL|DUMP] [OPTIONS]",
    .about = "The text is cut into windows of --context tokens; the first token of each is not\n"
             "scored, and what is behind the last whole window is left out. With a reference, KL\n"
             "divergence from it and how often both have the same likeliest token. A dump's rows are\n"
             "its windows: [positions, vocabulary], or [windows, positions, vocabulary]. Precision\n"
             "is exact unless --precision says otherwise; a reference is always exact.",
    .examples = "quern eval models/tiny-qwen3 --text models/tiny-qwen3/reference/valid.txt\n"
                "quern eval models/tiny-qwen3-gptq-int8 --text README.md "
                "--reference models/tiny-qwen3\n"
                "quern eval Qwen/Qwen3-0.6B --text README.md --context 2048 --stride 1024 --json\n",
    .tables = {options, qn_engine_table},
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
