// `quern bench`: tokens per second by batch size, against what the machine could do at most.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "cli/bench_rows.h"
#include "cli/command.h"
#include "cli/output.h"

#define MAX_LIST 64

typedef struct sizes {
    size_t items[MAX_LIST], n;
} sizes;

typedef struct bench {
    const qn_args *a;
    qn_session s;
    sizes prompts, batches;
    size_t n, context;
    int repeats;
    double read_gb_s, peak_gops; // NAN: not known
    json_t *rows;
} bench;

static bool read_sizes(const qn_args *a, const char *name, const char *otherwise, sizes *out,
                       qn_err *err) {
    const char *text = qn_args_text(a, name, otherwise);
    *out = (sizes){0};
    for (const char *p = text;; p++) {
        char *end;
        unsigned long long x = *p >= '0' && *p <= '9' ? strtoull(p, &end, 10) : 0;
        if (x < 1 || x > 1000000 || (*end && *end != ',') || out->n == MAX_LIST)
            return qn_fail(err, QN_USAGE, "--%s is \"%s\", expected up to %d numbers from 1 to "
                           "1000000 with commas between them", name, text, MAX_LIST);
        out->items[out->n++] = (size_t)x;
        if (!*end) return true;
        p = end;
    }
}

static size_t largest(const sizes *s) {
    size_t most = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->items[i] > most) most = s->items[i];
    return most;
}

// ---- the machine's limits ----

// The peak that prefill is held against: that of the products which the weights are made for.
static const char *product(const bench *b) {
    qn_weights weights = qn_args_weights(b->a);
    if (qn_args_precision(b->a, QN_FAST) == QN_EXACT || weights == QN_F32) return "f32";
    if (weights != QN_STORED) return weights == QN_BF16 ? "bf16" : "int8";
    char *text = NULL;
    json_t *j = qn_inspect(b->s.path, false, &text, NULL) ? json_loads(text, 0, NULL) : NULL;
    const json_t *quantization = json_object_get(j, "quantization");
    const char *method = json_string_value(json_object_get(quantization, "method"));
    bool codes = json_is_object(quantization) && !(method && strstr(method, "fp8"));
    json_decref(j);
    qn_free(text);
    return codes ? "int8" : "bf16";
}

static bool measure_machine(bench *b, qn_err *err) {
    char *text;
    if (!qn_cpu_describe(true, qn_args_threads(b->a), &text, err)) return false;
    json_t *j = qn_json_parse(text, strlen(text), "the CPU's description", err);
    free(text);
    if (!j) return false;
    const json_t *read = json_object_get(j, "read_gb_s");
    const json_t *peak = json_object_get(json_object_get(j, "peak_gops"), product(b));
    b->read_gb_s = json_is_number(read) ? json_number_value(read) : NAN;
    b->peak_gops = json_is_number(peak) ? json_number_value(peak) : NAN;
    json_decref(j);
    return true;
}

// ---- rows ----

// Bytes that a step must read: the weights once, and every sequence's own past.
static double step_bytes(const bench *b, const qn_bench_work *w) {
    const qn_model_info *info = b->s.info;
    double past = (double)w->prompt + (double)w->n / 2;
    if (!w->decode) return (double)info->weight_bytes;
    return (double)info->weight_bytes +
           (double)w->batch * (past * (double)info->kv_bytes_per_token +
                               (double)info->state_bytes_per_sequence);
}

static json_t *number_or_null(double x) { return isnan(x) ? json_null() : qn_json_number(x); }

// Multiplications and additions per second. A prompt needs the head for its last token only.
static double row_gops(const bench *b, const qn_bench_work *w, const qn_bench_times *t) {
    const qn_model_info *info = b->s.info;
    double params = (double)info->params_per_token;
    double head = (double)info->vocab_size * (double)info->hidden_size;
    if (params <= 0) return NAN;
    if (!w->decode) params -= head * (1 - 1 / (double)w->prompt);
    return 2 * params * t->tok_s * 1e-9;
}

static json_t *row_json(const bench *b, const qn_bench_work *w, const qn_bench_times *t) {
    double gb_s = step_bytes(b, w) / t->step_s * 1e-9, gops = row_gops(b, w, t);
    double limit = w->decode ? gb_s / b->read_gb_s : gops / b->peak_gops;
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"tok_s", t->tok_s}, {"tok_s_min", t->tok_s_min}, {"tok_s_max", t->tok_s_max},
                   {"ms_per_step", t->step_s * 1e3}, {"gb_s", gb_s}, {"gops", gops},
                   {"of_limit", limit}};
    json_t *row = json_pack("{s:s, s:I, s:I, s:I}", "kind", w->decode ? "decode" : "prefill",
                            "batch", (json_int_t)w->batch, "prompt", (json_int_t)w->prompt,
                            "context", (json_int_t)(w->decode ? b->context : 0));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(row, numbers[i].key, number_or_null(numbers[i].value));
    return row;
}

static bool add_row(bench *b, const qn_bench_work *w, qn_err *err) {
    qn_bench_times t;
    if (!qn_bench_measure(&b->s, w, b->repeats, &t, err)) return false;
    json_array_append_new(b->rows, row_json(b, w, &t));
    return true;
}

static bool add_rows(bench *b, qn_err *err) {
    qn_progress bar = {0};
    size_t done = 0, total = b->batches.n * (b->prompts.n + 1);
    qn_bench_work warm = {.batch = 1, .prompt = 8};
    qn_bench_times ignored;
    if (!qn_bench_measure(&b->s, &warm, 1, &ignored, err)) return false;
    for (size_t p = 0; p < b->prompts.n; p++)
        for (size_t i = 0; i < b->batches.n; i++) {
            qn_bench_work w = {.batch = b->batches.items[i], .prompt = b->prompts.items[p]};
            if (!add_row(b, &w, err)) return false;
            qn_progress_show(&bar, "measuring", ++done, total);
        }
    for (size_t i = 0; i < b->batches.n; i++) {
        qn_bench_work w = {.decode = true, .batch = b->batches.items[i],
                           .prompt = b->context ? b->context : 1, .n = b->n};
        if (!add_row(b, &w, err)) return false;
        qn_progress_show(&bar, "measuring", ++done, total);
    }
    qn_progress_clear_line();
    return true;
}

// ---- what comes out ----

static json_t *document(const bench *b, size_t rss) {
    int threads = qn_args_threads(b->a);
    bool exact = qn_args_precision(b->a, QN_FAST) == QN_EXACT;
    return json_pack("{s:o, s:i, s:s, s:s, s:o, s:I, s:I, s:o, s:O}",
                     "model", qn_json_string(qn_args_at(b->a, 0)), "threads",
                     threads ? threads : qn_cpu_cores(),
                     "precision", exact ? "exact" : "fast", "cpu", qn_cpu_model(),
                     "load_s", qn_json_number(b->s.load_s), "rss_bytes", (json_int_t)rss,
                     "weight_bytes", (json_int_t)b->s.info->weight_bytes,
                     "read_gb_s", number_or_null(b->read_gb_s), "rows", b->rows);
}

// Only where there were any: plain runs keep their plain document.
static void add_drafts(const bench *b, json_t *j) {
    qn_engine_stats s;
    qn_engine_get_stats(b->s.engine, &s);
    if (!s.drafted_tokens) return;
    json_object_set_new(j, "drafted_tokens", json_integer((json_int_t)s.drafted_tokens));
    json_object_set_new(j, "accepted_tokens", json_integer((json_int_t)s.accepted_tokens));
    json_object_set_new(j, "draft_saved_s", qn_json_number(s.draft_saved_seconds));
}

static double real_at(const json_t *row, const char *key) {
    const json_t *x = json_object_get(row, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static void add_number(qn_table *t, const json_t *row, const char *key) {
    double x = real_at(row, key);
    if (isnan(x)) qn_table_add(t, "–");
    else if (json_is_integer(json_object_get(row, key)) || x >= 1000) qn_table_addf(t, "%.0f", x);
    else qn_table_addf(t, x < 10 ? "%.2f" : "%.1f", x);
}

static void print_table(const bench *b, size_t rss) {
    char weights[32], resident[32];
    qn_format_bytes((double)b->s.info->weight_bytes, weights);
    qn_format_bytes((double)rss, resident);
    qn_out_name(qn_args_at(b->a, 0));
    qn_out_addf(" on %s\n%s weights, %s resident, loaded in %.2f s",
                qn_cpu_model(), weights, resident, b->s.load_s);
    if (!isnan(b->read_gb_s)) qn_out_addf("; memory reads %.1f GB/s", b->read_gb_s);
    qn_out_addf("\n\n");
    qn_table t = {.align = "<>>>>>>>>"};
    static const char *const head[] = {"", "batch", "tokens", "tok/s", "min", "max", "ms/step",
                                       "GB/s", "of limit"};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) qn_table_add(&t, head[i]);
    size_t i;
    json_t *row;
    json_array_foreach(b->rows, i, row) {
        qn_table_add(&t, json_string_value(json_object_get(row, "kind")));
        static const char *const keys[] = {"batch", "prompt", "tok_s", "tok_s_min", "tok_s_max",
                                           "ms_per_step", "gb_s"};
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            add_number(&t, row, keys[k]);
        double limit = real_at(row, "of_limit");
        if (isnan(limit)) qn_table_add(&t, "–");
        else qn_table_addf(&t, "%.0f %%", 100 * limit);
    }
    qn_table_print(&t, 0);
    char drafts[128];
    qn_drafts_format(&b->s, drafts);
    if (*drafts) qn_out_addf("\n%s\n", drafts);
}

static bool read_options(bench *b, qn_err *err) {
    if (qn_args_has(b->a, "serve") || qn_args_has(b->a, "clients"))
        return qn_fail(err, QN_UNSUPPORTED, "--serve and --clients (measuring a running service) "
                       "are not built yet");
    b->n = (size_t)qn_args_int(b->a, "generate", 64);
    b->context = (size_t)qn_args_int(b->a, "context", 0);
    b->repeats = (int)qn_args_int(b->a, "repeat", 3);
    return read_sizes(b->a, "prompt", "128,512", &b->prompts, err) &&
           read_sizes(b->a, "batch", "1,2,4,8", &b->batches, err);
}

static int run(const qn_args *a, qn_err *err) {
    bench b = {.a = a};
    if (!read_options(&b, err)) return -1;
    const qn_session_options how = {
        .precision = QN_FAST, .no_prefix_cache = true, .text_only = true,
        .dummy = strcmp(qn_args_text(a, "load-format", "auto"), "dummy") == 0,
        .seqs = largest(&b.batches)};
    if (!qn_session_open(&b.s, a, &how, err)) return -1;
    size_t rss = qn_rss_bytes();
    b.rows = json_array();
    bool ok = measure_machine(&b, err) && add_rows(&b, err);
    if (ok && qn_args_has(a, "json")) {
        json_t *j = document(&b, rss);
        add_drafts(&b, j);
        qn_out_json(j);
        json_decref(j);
    } else if (ok) {
        print_table(&b, rss);
    }
    json_decref(b.rows);
    qn_session_close(&b.s);
    return ok ? 0 : -1;
}

static const qn_option options[] = {
    {.name = "prompt", .letter = 'p', .kind = QN_OPT_TEXT, .value = "N,N,…",
     .help = "prompt lengths for prefill (default 128,512)"},
    {.name = "generate", .letter = 'n', .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 100000,
     .help = "tokens to decode per sequence (default 64)"},
    {.name = "batch", .letter = 'b', .kind = QN_OPT_TEXT, .value = "N,N,…",
     .help = "sequences at once (default 1,2,4,8)"},
    {.name = "context", .kind = QN_OPT_INT, .value = "N", .lo = 0, .hi = 10000000,
     .help = "tokens already there when decoding starts (default 0)"},
    {.name = "repeat", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 1000,
     .help = "times each row is measured; the median counts (default 3)"},
    {.name = "load-format", .kind = QN_OPT_CHOICE, .value = "auto|dummy",
     .help = "dummy: only config.json is needed, weights are made up"},
    {.name = "serve", .kind = QN_OPT_TEXT, .value = "URL"},
    {.name = "clients", .kind = QN_OPT_INT, .value = "N", .lo = 1, .hi = 100000},
    {0},
};

const qn_command qn_cmd_bench = {
    .name = "bench",
    .group = "Run",
    .summary = "prefill and decode speed by batch size, load time, memory",
    .usage = "MODEL [-p 128,512] [-n 64] [-b 1,2,4,8] [OPTIONS]",
    .about = "Prompts are made up. The limit is what this machine reads from memory (decode) and\n"
             "the peak of the instructions used (prefill), both measured in the same run.",
    .examples = "quern bench models/tiny-qwen3\n"
                "quern bench Qwen/Qwen3-1.7B --weights q8 -b 1,8 --json\n"
                "quern bench tests/data/model_configs/qwen3.5-0.8b --load-format dummy -p 512 -b 1\n",
    .tables = {options, qn_engine_table},
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
