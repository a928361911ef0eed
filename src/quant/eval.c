// eval: cuts a text into windows, has every token in them predicted (eval_rows.c), and sums up. By
// default windows do not overlap, their first token is not scored, and what is behind the last
// whole window is left out; with a stride below the context every token but the first is scored
// once, with at least context - stride tokens before it.
#include "quant/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "base/str.h"
#include "quant/compare_file.h"
#include "quant/eval_rows.h"
#include "quant/measure.h"

#define ROWS_BYTES ((size_t)128 << 20) // logits of one step
enum { LEAST_STEP = 16, MOST_STEP = 512 };

typedef struct eval {
    const qn_eval_options *o;
    qn_model *model, *reference;
    qn_compare_file dump;
    const qn_tensor *dumped; // its logits
    int32_t *tokens;
    size_t n_tokens, context, stride, left_out;
    qn_eval_window *windows;
    size_t n_windows;
    qn_eval_rows rows;
} eval;

static void eval_done(eval *e) {
    double *results[] = {e->rows.nll, e->rows.reference_nll, e->rows.kl, e->rows.agree};
    for (size_t i = 0; i < 4; i++) free(results[i]);
    qn_pool_free(e->rows.pool);
    free(e->windows);
    qn_free(e->tokens);
    qn_compare_file_close(&e->dump);
    qn_model_free(e->reference);
    qn_model_free(e->model);
}

// ---- what is read ----

// What the tokens are of, for messages.
static const char *text_name(const eval *e) {
    if (!e->o->text) return e->dump.path;
    return e->o->text_name ? e->o->text_name : "the text";
}

static const char *model_name(const eval *e) { return qn_model_get_info(e->model)->path; }

static qn_model *load(const char *name, const qn_model_options *o, qn_err *err) {
    char *path = NULL;
    qn_model *m = qn_resolve(name, &path, err) ? qn_model_load(path, o, err) : NULL;
    qn_free(path);
    return m;
}

static bool is_dump(const char *spec) {
    return qn_str_ends(spec, ".safetensors") || qn_str_ends(spec, ".npy") ||
           qn_str_ends(spec, ".npz");
}

// logits of one window [T, V] or of several [W, T, V].
static bool open_dump(eval *e, qn_err *err) {
    if (!qn_compare_file_open(&e->dump, e->o->reference, err)) return false;
    e->dumped = qn_compare_file_find(&e->dump, "logits");
    if (!e->dumped)
        return qn_fail(err, QN_INPUT, "%s has no tensor logits", e->dump.path);
    int n = e->dumped->n_dims;
    if (n < 2 || n > 3 || !e->dumped->n)
        return qn_fail(err, QN_INPUT, "%s: tensor logits has %d dimensions, expected [positions, "
                       "vocabulary] or [windows, positions, vocabulary]", e->dump.path, n);
    size_t length = e->dumped->shape[n - 2];
    if (e->o->stride || e->o->tail)
        return qn_fail(err, QN_USAGE, "a dump says itself what its windows are, expected no "
                       "--stride and no --tail");
    if (e->context && e->context != length)
        return qn_fail(err, QN_USAGE, "--context is %zu, expected the %zu positions of %s",
                       e->context, length, e->dump.path);
    e->context = length;
    return true;
}

static bool open_all(eval *e, const char *model, qn_err *err) {
    const qn_eval_options *o = e->o;
    qn_model_options mo = {.precision = o->precision, .weights = o->weights,
                           .n_threads = o->n_threads, .no_vision = true, .no_mtp = true,
                           .progress = o->progress, .user = o->user};
    e->context = o->context;
    if (o->reference && is_dump(o->reference) && !open_dump(e, err))
        return qn_err_prefix(err, "--reference");
    e->model = load(model, &mo, err);
    if (!e->model) return false;
    if (!o->reference || e->dumped) return true;
    mo.precision = QN_EXACT;
    mo.weights = QN_STORED;
    e->reference = load(o->reference, &mo, err);
    return e->reference || qn_err_prefix(err, "--reference");
}

// Padding of one side's vocabulary is left out of the divergence; another vocabulary is no padding.
static bool fits_reference(const eval *e, qn_err *err) {
    if (!e->reference && !e->dumped) return true;
    size_t n = (size_t)qn_model_get_info(e->model)->vocab_size;
    size_t m = e->dumped ? qn_tensor_cols(e->dumped)
                         : (size_t)qn_model_get_info(e->reference)->vocab_size;
    size_t least = n < m ? n : m;
    if (least < (n > m ? n : m) / 2)
        return qn_fail(err, QN_INPUT, "--reference %s has a vocabulary of %zu, expected about the "
                       "%zu of %s", e->o->reference, m, n, model_name(e));
    if (n != m)
        qn_note("the model has a vocabulary of %zu, the reference of %zu: the divergence is over "
                "the first %zu", n, m, least);
    return true;
}

// ---- tokens ----

static bool same_tokens(const int64_t *expected, const eval *e, size_t n, qn_err *err) {
    for (size_t i = 0; i < n && i < e->n_tokens; i++)
        if (expected[i] != e->tokens[i])
            return qn_fail(err, QN_INPUT, "%s: tokens differ first at position %zu: %d for %s, %lld "
                           "for --reference %s", text_name(e), i, e->tokens[i], model_name(e),
                           (long long)expected[i], e->o->reference);
    return true;
}

// The reference must have read the same tokens, or its predictions mean something else.
static bool check_reference_tokenizer(const eval *e, qn_err *err) {
    const qn_tokenizer *t = e->reference ? qn_model_tokenizer(e->reference) : NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    if (!t || !e->o->text) return true;
    if (!qn_encode(t, e->o->text, e->o->n_text, 0, &ids, &n, err)) return false;
    int64_t *wide = QN_NEW_ARRAY(int64_t, n + 1);
    for (size_t i = 0; i < n; i++) wide[i] = ids[i];
    bool ok = same_tokens(wide, e, n, err);
    if (ok && n != e->n_tokens)
        ok = qn_fail(err, QN_INPUT, "%s has %zu token%s for %s, %zu for --reference %s",
                     text_name(e), e->n_tokens, qn_plural_s(e->n_tokens), model_name(e), n,
                     e->o->reference);
    free(wide);
    qn_free(ids);
    return ok;
}

static bool use_dump_tokens(eval *e, qn_err *err) {
    int64_t *ids = NULL;
    size_t n = 0, rows = qn_tensor_rows(e->dumped);
    if (!qn_compare_file_tokens(&e->dump, &ids, &n, err)) return false;
    bool ok = n == rows || (n == 0 && e->o->text) ||
              qn_fail(err, QN_INPUT, "%s: %zu token%s, expected one for each of the %zu row%s of "
                      "logits", e->dump.path, n, qn_plural_s(n), rows, qn_plural_s(rows));
    if (ok && n == 0)
        qn_note("%s has no tokens: that it is of this text is not checked", e->dump.path);
    if (ok && e->o->text) {
        ok = same_tokens(ids, e, n, err);
        if (ok && e->n_tokens < rows)
            ok = qn_fail(err, QN_INPUT, "%s has %zu token%s, expected the %zu of %s", text_name(e),
                         e->n_tokens, qn_plural_s(e->n_tokens), rows, e->dump.path);
    } else if (ok) {
        e->tokens = qn_alloc(n * sizeof *e->tokens);
        e->n_tokens = n;
        for (size_t i = 0; i < n; i++) // out of range: no token, refused below
            e->tokens[i] = ids[i] < 0 || ids[i] > INT32_MAX ? -1 : (int32_t)ids[i];
    }
    free(ids);
    return ok;
}

static bool read_tokens(eval *e, qn_err *err) {
    const qn_model_info *info = qn_model_get_info(e->model);
    const qn_tokenizer *t = qn_model_tokenizer(e->model);
    if (e->o->text && !t)
        return qn_fail(err, QN_UNSUPPORTED, "%s has no tokenizer, expected a dump with tokens as "
                       "reference and no text", info->path);
    if (!e->o->text && !e->dumped) return qn_fail(err, QN_USAGE, "no text is given");
    if (e->o->text && !qn_encode(t, e->o->text, e->o->n_text, 0, &e->tokens, &e->n_tokens, err))
        return qn_err_prefix(err, "%s", text_name(e));
    if (!check_reference_tokenizer(e, err) || (e->dumped && !use_dump_tokens(e, err))) return false;
    for (size_t i = 0; i < e->n_tokens; i++)
        if (e->tokens[i] < 0 || e->tokens[i] >= info->vocab_size)
            return qn_fail(err, QN_INPUT, "%s: token %d at position %zu is out of range, %s has %d",
                           text_name(e), e->tokens[i], i, info->path, info->vocab_size);
    return e->n_tokens >= 2 ||
           qn_fail(err, QN_INPUT, "%s has %zu token%s, expected at least 2", text_name(e),
                   e->n_tokens, qn_plural_s(e->n_tokens));
}

// ---- windows ----

static bool fits(const eval *e, const qn_model *m, qn_err *err) {
    const qn_model_info *info = m ? qn_model_get_info(m) : NULL;
    if (!info || e->context <= (size_t)info->context_length) return true;
    return qn_fail(err, QN_LIMIT, "--context is %zu, expected at most the %d of %s", e->context,
                   info->context_length, info->path);
}

static void add_window(eval *e, size_t begin, size_t end) {
    const qn_eval_window *last = e->n_windows ? &e->windows[e->n_windows - 1] : NULL;
    size_t score = begin + 1;
    if (last && last->end > score) score = last->end;
    e->windows[e->n_windows++] = (qn_eval_window){begin, score, end, e->rows.n_scored};
    e->rows.n_scored += end - score;
}

static bool cut(eval *e, qn_err *err) {
    if (!e->context) e->context = QN_EVAL_CONTEXT;
    e->stride = e->o->stride ? e->o->stride : e->context;
    size_t n = e->dumped ? qn_tensor_rows(e->dumped) : e->n_tokens, begin = 0;
    if (e->context < 2)
        return qn_fail(err, QN_USAGE, "a window of %zu token is too short, expected at least 2",
                       e->context);
    if (e->stride > e->context)
        return qn_fail(err, QN_USAGE, "--stride is %zu, expected at most the context of %zu",
                       e->stride, e->context);
    if (!fits(e, e->model, err) || !fits(e, e->reference, err)) return false;
    e->windows = QN_NEW_ARRAY(qn_eval_window, n / e->stride + 2);
    for (; begin <= n && n - begin >= e->context; begin += e->stride)
        add_window(e, begin, begin + e->context);
    size_t end = e->n_windows ? e->windows[e->n_windows - 1].end : 0;
    if ((e->o->tail || !e->n_windows) && begin < n && n - begin >= 2 && n > end)
        add_window(e, begin, n);
    e->left_out = e->n_tokens - e->windows[e->n_windows - 1].end;
    return true;
}

// ---- figures ----

static double mean_nll(double *nll, size_t n, double *std_error) {
    qn_summary s;
    qn_summarize(nll, n, &s);
    *std_error = s.std_error;
    return s.mean;
}

static void put(json_t *o, const char *key, double x) {
    json_object_set_new(o, key, qn_json_number(x));
}

static void put_count(json_t *o, const char *key, size_t n) {
    json_object_set_new(o, key, json_integer((json_int_t)n));
}

// How far the value of rank r (from 1) of a sorted sample may be off: its spread over resamples of
// the same size, as the bootstrap would draw them, but without drawing (Maritz & Jarrett 1978).
// x[k] is that value with the share of Beta(r, n - r + 1) that lies in k/n … (k+1)/n, here by
// Simpson's rule over the cells that matter.
static double log_density(double p, double r, double n) {
    double low = r > 1 ? (r - 1) * log(p) : 0, high = n > r ? (n - r) * log1p(-p) : 0;
    return low + high;
}

static double rank_error(const double *x, size_t n, size_t r) {
    enum { STEPS = 8 };
    double nn = (double)n, rr = (double)r, reach = 10 * sqrt(rr * (nn - rr) / nn) + 40;
    double top = n > 1 ? log_density((rr - 1) / (nn - 1), rr, nn) : 0; // at its mode
    double sum = 0, mean = 0, square = 0;
    for (size_t k = 0; k < n; k++) {
        if (fabs((double)k - rr) > reach) continue;
        double share = 0, d = x[k] - x[r - 1];
        for (int i = 0; i <= STEPS; i++) {
            double p = ((double)k + (double)i / STEPS) / nn;
            share += (i == 0 || i == STEPS ? 1 : i % 2 ? 4 : 2) * exp(log_density(p, rr, nn) - top);
        }
        sum += share;
        mean += share * d;
        square += share * d * d;
    }
    mean /= sum;
    return sqrt(fmax(square / sum - mean * mean, 0));
}

// Of what qn_summarize takes between two ranks.
static double quantile_error(const double *sorted, size_t n, double q) {
    double at = q * (double)(n - 1), share = at - floor(at);
    size_t r = (size_t)at + 1;
    double low = rank_error(sorted, n, r), high = share > 0 ? rank_error(sorted, n, r + 1) : low;
    return low + share * (high - low);
}

static void add_reference(eval *e, json_t *j) {
    size_t n = e->rows.n_scored;
    double unused, p = 0;
    qn_summary kl;
    json_t *r = json_object(), *k = json_object(), *t = json_object();
    json_object_set_new(r, "kind", json_string(e->dumped ? "dump" : "model"));
    put(r, "perplexity", exp(mean_nll(e->rows.reference_nll, n, &unused)));
    json_object_set_new(j, "reference", r);
    qn_summarize(e->rows.kl, n, &kl);
    put(k, "mean", kl.mean);
    put(k, "std_error", kl.std_error);
    put(k, "median", kl.median);
    put(k, "median_error", quantile_error(e->rows.kl, n, 0.5)); // qn_summarize has sorted them
    put(k, "p99", kl.p99);
    put(k, "p99_error", quantile_error(e->rows.kl, n, 0.99));
    put(k, "max", kl.max);
    put(k, "max_error", rank_error(e->rows.kl, n, n));
    size_t endless = 0;
    for (size_t i = 0; i < n; i++) endless += isinf(e->rows.kl[i]) != 0;
    if (endless)
        qn_note("the divergence is infinite at %zu of %zu positions: the model rules out what the "
                "reference expects", endless, n);
    json_object_set_new(j, "kl", k);
    for (size_t i = 0; i < n; i++) p += e->rows.agree[i];
    p /= (double)n;
    put(t, "agreement", p);
    put(t, "std_error", sqrt(p * (1 - p) / (double)n));
    json_object_set_new(j, "top1", t);
}

static json_t *figures(eval *e, double seconds) {
    json_t *j = json_object();
    double error, nll = mean_nll(e->rows.nll, e->rows.n_scored, &error), ppl = exp(nll);
    put(j, "perplexity", ppl);
    put(j, "perplexity_error", ppl * error);
    put(j, "nll", nll);
    put(j, "nll_error", error);
    put_count(j, "tokens", e->rows.n_scored);
    put_count(j, "windows", e->n_windows);
    put_count(j, "context", e->context);
    put_count(j, "stride", e->stride);
    put_count(j, "text_tokens", e->n_tokens);
    put_count(j, "left_out", e->left_out);
    put(j, "seconds", seconds);
    put(j, "tok_s", seconds > 0 ? (double)e->rows.n_scored / seconds : 0);
    if (e->rows.kl) add_reference(e, j);
    return j;
}

// ---- all of it ----

static void choose_step(eval *e) {
    size_t vocab = (size_t)qn_model_get_info(e->model)->vocab_size;
    size_t step = ROWS_BYTES / (vocab * sizeof(float));
    if (step < LEAST_STEP) step = LEAST_STEP;
    if (step > MOST_STEP) step = MOST_STEP;
    qn_engine_options *o = &e->rows.engine;
    o->max_num_batched_tokens = e->o->max_num_batched_tokens ? e->o->max_num_batched_tokens : step;
    o->max_num_seqs = o->max_num_batched_tokens / e->context;
    if (e->o->max_num_seqs && o->max_num_seqs > e->o->max_num_seqs)
        o->max_num_seqs = e->o->max_num_seqs;
    if (!o->max_num_seqs) o->max_num_seqs = 1;
    o->max_model_len = e->context;
    o->kv_cache_bytes = e->o->kv_cache_bytes;
    o->no_prefix_cache = true;
}

static bool predict(eval *e, qn_err *err) {
    qn_eval_rows *r = &e->rows;
    r->model = e->model;
    r->reference = e->reference;
    r->dump = e->dumped;
    r->tokens = e->tokens;
    r->windows = e->windows;
    r->n_windows = e->n_windows;
    r->context = e->context;
    r->progress = e->o->progress;
    r->user = e->o->user;
    r->nll = QN_NEW_ARRAY(double, r->n_scored);
    if (e->reference || e->dumped) {
        r->reference_nll = QN_NEW_ARRAY(double, r->n_scored);
        r->kl = QN_NEW_ARRAY(double, r->n_scored);
        r->agree = QN_NEW_ARRAY(double, r->n_scored);
    }
    choose_step(e);
    r->pool = qn_pool_new(e->o->n_threads, err);
    return r->pool && qn_eval_rows_run(r, err);
}

bool qn_eval(const char *model, const qn_eval_options *o, json_t **report, qn_err *err) {
    eval e = {.o = o};
    *report = NULL;
    bool ok = open_all(&e, model, err) && fits_reference(&e, err) && read_tokens(&e, err) &&
              cut(&e, err);
    double started = qn_now();
    ok = ok && predict(&e, err);
    if (ok) *report = figures(&e, qn_now() - started);
    eval_done(&e);
    return ok;
}
