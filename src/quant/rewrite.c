// The one loop behind convert, repair and pad: produce a tensor block by block, measure and round it
// and write it while it is in cache; then prove the result and give it its name. Memory: a block a
// thread and the work space of a survey.
#include "quant/rewrite.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/map_guard.h"
#include "base/mem.h"
#include "base/progress.h"
#include "model/family.h"
#include "quant/out_place.h"
#include "quant/put_queue.h"
#include "quant/side_files.h"
#include "quant/tensor_report.h"
#include "quant/value_runs.h"
#include "store/shard_writer.h"

#define DEFAULT_SHARD ((uint64_t)5000000000)
#define STEP ((size_t)16 << 20) // bytes written between two looks at the progress
#define KEPT ((size_t)1 << 20)  // values

qn_out_tensor *qn_rewrite_add(qn_rewrite *r, const char *name) {
    if (r->n_tensors == r->cap_tensors) {
        r->cap_tensors = r->cap_tensors ? 2 * r->cap_tensors : 64;
        r->tensors = qn_realloc(r->tensors, r->cap_tensors * sizeof *r->tensors);
    }
    qn_out_tensor *t = &r->tensors[r->n_tensors++];
    *t = (qn_out_tensor){.name = qn_strdup(name)};
    return t;
}

qn_out_tensor *qn_rewrite_copy(qn_rewrite *r, const qn_tensor *source) {
    qn_out_tensor *t = qn_rewrite_add(r, source->name);
    t->dtype = source->dtype;
    t->n_dims = source->n_dims;
    memcpy(t->shape, source->shape, sizeof t->shape);
    t->bytes = source->data;
    return t;
}

void qn_rewrite_done(qn_rewrite *r) {
    for (size_t i = 0; i < r->n_tensors; i++) free(r->tensors[i].name);
    free(r->tensors);
    json_decref(r->config);
    json_decref(r->summary);
    json_decref(r->notes);
    free(r->readme_note);
    *r = (qn_rewrite){0};
}

// ---- one tensor ----

static size_t rows_of(const qn_out_tensor *t) { return t->n_dims > 1 ? t->shape[0] : 1; }

static size_t cols_of(const qn_out_tensor *t) {
    size_t n = 1;
    for (int i = t->n_dims > 1 ? 1 : 0; i < t->n_dims; i++) n *= t->shape[i];
    return n;
}

// What rounding a block found.
typedef struct rounded {
    qn_run_error error;
    size_t first_overflow; // element, when error.n_overflow
    float value;           // what it is
    qn_codes_seen codes;   // of a tensor that is decoded
} rounded;

// What runs over one tensor. Blocks are the survey's; figures are merged in block order.
typedef struct run {
    qn_rewrite *r;
    qn_pool *pool;
    qn_survey *survey;
    qn_shards *shards;
    uint8_t *stage; // STEP bytes, for rows as stored
    qn_put_queue *puts;
    float *kept; // a small tensor's values, for its norm; else they are produced again
    const qn_out_tensor *t;
    size_t rows, cols, n;
    rounded *parts; // per block
    qn_err *errs;   // per thread
    _Atomic uint64_t done; // bytes
    uint64_t total;
    atomic_bool stop;
    size_t n_faded; // tensors that f16 does not hold well, the first one's name
    const char *faded;
    atomic_bool differs; // a block of t is not as it was stored
    qn_report_totals totals;
} run;

static bool failed(const run *u, qn_err *err) {
    for (int i = 0; i < qn_pool_threads(u->pool); i++)
        if (u->errs[i].code) {
            if (err) *err = u->errs[i];
            return true;
        }
    return false;
}

static qn_run_dtype run_dtype(qn_dtype d) {
    return d == QN_DT_F32 ? QN_RUN_F32 : d == QN_DT_BF16 ? QN_RUN_BF16 : QN_RUN_F16;
}

static void round_block(run *u, rounded *p, const float *x, size_t from, size_t n, uint8_t *out) {
    const qn_value_runs *runs = qn_value_runs_best();
    size_t width = qn_dtype_bytes(u->t->dtype);
    for (size_t i = 0; i < n; i += QN_RUN)
        runs->round(run_dtype(u->t->dtype), x + i, n - i < QN_RUN ? n - i : QN_RUN, u->r->saturate,
                    out + i * width, &p->error);
    if (p->error.n_overflow == 0) return;
    size_t i = 0;
    while (fabsf(x[i]) < 65520) i++;
    p->first_overflow = from + i;
    p->value = x[i];
}

// Whether what is written is what was read, byte for byte: it then counts as copied.
static bool may_be_same(const qn_out_tensor *t) {
    const qn_weight *w = t->source;
    return w && !w->scheme && w->parts[0]->dtype == t->dtype && w->parts[0]->data;
}

static void compare_block(run *u, size_t at, const uint8_t *out, size_t bytes) {
    const qn_tensor *s = u->t->source->parts[0];
    if (at + bytes > s->bytes || memcmp(s->data + at, out, bytes) != 0)
        atomic_store(&u->differs, true);
}

// The calling thread tells how far all have come, and whether to go on.
static bool told(run *u, uint64_t bytes, int thread, qn_err *err) {
    uint64_t done = atomic_fetch_add(&u->done, bytes) + bytes;
    if (thread > 0 || !u->r->progress) return true;
    if (u->r->progress(u->r->progress_user, u->r->command, done, u->total)) return true;
    atomic_store(&u->stop, true);
    return qn_fail(err, QN_CANCELLED, "%s: stopped", u->r->command);
}

bool qn_decoded_rows(void *user, size_t row0, size_t n, float *out, qn_err *err) {
    return qn_weight_decode(user, row0, n, out, err);
}

static bool is_decoded(const qn_out_tensor *t) {
    return t->rows == qn_decoded_rows && t->user == (void *)(uintptr_t)t->source;
}

// Codes are looked at while they are unpacked: what they range over need not be asked again.
static bool rows_of_block(const run *u, size_t row0, size_t n, float *x, rounded *p, qn_err *err) {
    if (!is_decoded(u->t)) return u->t->rows(u->t->user, row0, n, x, err);
    p->codes = (qn_codes_seen){255, 0};
    return qn_weight_decode_seen(u->t->source, row0, n, x, &p->codes, err);
}

static void produce_block(void *ctx, size_t b, int thread) {
    run *u = ctx;
    qn_err *err = &u->errs[thread];
    size_t row0, n = qn_survey_block(u->survey, b, &row0), width = qn_dtype_bytes(u->t->dtype);
    size_t from = row0 * u->cols, values = n * u->cols;
    float *x = qn_survey_buffer(u->survey, thread);
    if (err->code || atomic_load(&u->stop)) return;
    if (!rows_of_block(u, row0, n, x, &u->parts[b], err)) return;
    qn_survey_look(u->survey, b, x, thread);
    if (u->kept) memcpy(u->kept + from, x, values * sizeof *x);
    uint8_t *out = qn_put_queue_take(u->puts, values * width);
    round_block(u, &u->parts[b], x, from, values, out);
    if (!atomic_load(&u->differs)) compare_block(u, from * width, out, values * width);
    if (!qn_put_queue_put(u->puts, u->shards, from * width, out, values * width, err))
        atomic_store(&u->stop, true);
    else
        told(u, values * width, thread, err);
}

// Rows once more, for the operator norm.
static bool rows_again(void *user, size_t row0, size_t n, float *out, qn_err *err) {
    const run *u = user;
    if (!u->kept) return u->t->rows(u->t->user, row0, n, out, err);
    memcpy(out, u->kept + row0 * u->cols, n * u->cols * sizeof *out);
    return true;
}

// The file that the tensor comes from.
static char *file_of(const run *u) {
    const qn_ckpt *c = u->r->source;
    const qn_tensor *s = u->t->source ? u->t->source->parts[0] : qn_ckpt_find(c, u->t->name);
    const char *path = qn_ckpt_path(c);
    if (!s || qn_file_is_dir(path) == false) return qn_strdup(path);
    return qn_path_join(path, qn_ckpt_shard_name(c, (size_t)s->shard));
}

// "[row, column]" of an element, for messages.
typedef struct place {
    char text[48];
} place;

static place place_of(const run *u, uint64_t at) {
    place p;
    unsigned long long row = at / u->cols, col = at % u->cols;
    if (u->t->n_dims > 1)
        snprintf(p.text, sizeof p.text, "[%llu, %llu]", row, col);
    else
        snprintf(p.text, sizeof p.text, "[%llu]", col);
    return p;
}

static bool overflow_error(const run *u, const rounded *part, qn_err *err) {
    char *file = file_of(u);
    qn_fail(err, QN_INPUT, "%s: tensor %s: %g at %s does not fit f16, which ends at 65504 "
            "(--saturate clamps it; bf16 holds it)", file, u->t->name, (double)part->value,
            place_of(u, part->first_overflow).text);
    qn_free(file);
    return false;
}

static bool merge_rounding(const run *u, size_t blocks, qn_tensor_figures *f, qn_err *err) {
    for (size_t b = 0; b < blocks; b++) {
        const qn_run_error *e = &u->parts[b].error;
        if (e->n_overflow && !u->r->saturate) return overflow_error(u, &u->parts[b], err);
        if ((double)e->max_abs > f->rounding.max_abs) f->rounding.max_abs = e->max_abs;
        f->rounding.abs_sum += e->abs_sum;
        f->n_not_close += e->n_not_close;
        f->n_overflow += e->n_overflow;
    }
    f->rounding.n = u->n;
    return true;
}

static bool show(run *u, uint64_t bytes, qn_err *err) {
    qn_maps_touched(bytes); // copied out of the source's mapping
    return told(u, bytes, 0, err);
}

// inf and nan are damage: a folder that carries them on would pass for a right one.
static bool nonfinite_error(const run *u, uint64_t at, float x, qn_err *err) {
    char *file = file_of(u);
    qn_fail(err, QN_NONFINITE, "%s: tensor %s: %g at %s, expected finite values (`quern check` lists "
            "them all)", file, u->t->name, (double)x, place_of(u, at).text);
    qn_free(file);
    return false;
}

// The block of a value that is not finite is produced once more, to show it.
static bool found_nonfinite(run *u, uint64_t at, qn_err *err) {
    float *x = qn_survey_buffer(u->survey, 0);
    size_t row = (size_t)at / u->cols, row0 = row / 16 * 16;
    size_t n = u->rows - row0 < 16 ? u->rows - row0 : 16;
    return u->t->rows(u->t->user, row0, n, x, err) &&
           nonfinite_error(u, at, x[at - row0 * u->cols], err);
}

// Codes and scales of what was decoded in blocks.
static bool measure_codes(const run *u, size_t blocks, qn_tensor_figures *f, qn_err *err) {
    const qn_weight *w = u->t->source;
    qn_codes_seen seen = {255, 0};
    bool decoded = is_decoded(u->t);
    if (!w || !w->scheme) return true;
    for (size_t b = 0; decoded && b < blocks; b++) {
        const qn_codes_seen *c = &u->parts[b].codes;
        seen.lo = c->lo < seen.lo ? c->lo : seen.lo;
        seen.hi = c->hi > seen.hi ? c->hi : seen.hi;
    }
    return qn_measure_codes(u->pool, w, decoded ? &seen : NULL, &f->codes, err);
}

static bool produce(run *u, qn_tensor_figures *f, qn_err *err) {
    qn_matrix_figures m = {0};
    bool norm = u->t->n_dims > 1 && u->rows > 1;
    const qn_matrix_source source = {.rows = u->rows, .cols = u->cols, .rows_of = rows_again,
                                     .user = u, .norm = norm};
    if (!qn_survey_begin(u->survey, &source, err) || !qn_shards_reserve(u->shards, err))
        return false;
    size_t blocks = qn_survey_blocks(u->survey);
    u->parts = QN_NEW_ARRAY(rounded, blocks);
    u->kept = norm && u->n <= KEPT ? qn_alloc(u->n * sizeof *u->kept) : NULL;
    atomic_store(&u->differs, !may_be_same(u->t));
    qn_pool_run(u->pool, blocks, produce_block, u);
    bool ok = !failed(u, err) && merge_rounding(u, blocks, f, err) &&
              qn_survey_end(u->survey, &m, err);
    if (ok && m.all.n_nonfinite) ok = found_nonfinite(u, m.all.first_nonfinite, err);
    ok = ok && measure_codes(u, blocks, f, err);
    f->exact = m.all;
    f->norm = m.norm;
    f->norm_tolerance = m.norm_tolerance;
    f->unchanged = !atomic_load(&u->differs);
    free(u->parts);
    free(u->kept);
    u->kept = NULL;
    return ok && qn_shards_release(u->shards, err);
}

static bool write_rows(run *u, qn_tensor_figures *f, qn_err *err) {
    if (!produce(u, f, err)) return false;
    const qn_weight *w = u->t->source;
    bool was_f16 = w && !w->scheme && w->parts[0]->dtype == QN_DT_F16;
    if (u->t->dtype == QN_DT_F16 && !was_f16 && qn_stats_fade_as_f16(&f->exact) && !u->n_faded++)
        u->faded = u->t->name;
    return true;
}

// Copied floats are not produced, so they are looked at here: element `at` is the first of them.
static bool finite_bytes(run *u, const uint8_t *bytes, size_t n, uint64_t at, qn_err *err) {
    const qn_tensor t = {.dtype = u->t->dtype, .data = bytes};
    float x[512];
    if (!qn_dtype_is_float(t.dtype) || qn_dtype_bytes(t.dtype) > sizeof *x) return true;
    for (size_t i = 0; i < n; i += 512) {
        size_t len = n - i < 512 ? n - i : 512;
        qn_tensor_to_f32(&t, i, len, x);
        if (qn_value_runs_best()->finite(x, len)) continue;
        size_t k = 0;
        while (isfinite(x[k])) k++;
        return nonfinite_error(u, at + i + k, x[k], err);
    }
    return true;
}

// Rows as they will be stored, a stage full at a time.
static bool write_raw(run *u, qn_err *err) {
    size_t pitch = u->cols * qn_dtype_bytes(u->t->dtype);
    size_t step = pitch ? STEP / pitch : u->rows;
    if (step == 0) return qn_fail(err, QN_LIMIT, "tensor %s: a row of %zu bytes", u->t->name, pitch);
    for (size_t row = 0; row < u->rows; row += step) {
        size_t n = u->rows - row < step ? u->rows - row : step;
        if (!u->t->raw(u->t->user, row, n, u->stage, err) ||
            !finite_bytes(u, u->stage, n * u->cols, row * u->cols, err) ||
            !qn_shards_add(u->shards, u->stage, n * pitch, err) || !show(u, n * pitch, err))
            return false;
    }
    return true;
}

static bool write_bytes(run *u, qn_err *err) {
    size_t bytes = u->n * qn_dtype_bytes(u->t->dtype), step = STEP;
    for (size_t at = 0; at < bytes; at += step) {
        size_t n = bytes - at < step ? bytes - at : step;
        size_t width = qn_dtype_bytes(u->t->dtype);
        if (!finite_bytes(u, u->t->bytes + at, n / width, at / width, err) ||
            !qn_shards_add(u->shards, u->t->bytes + at, n, err) || !show(u, n, err))
            return false;
    }
    return true;
}

static bool write_tensor(run *u, const qn_out_tensor *t, json_t *list, qn_err *err) {
    qn_tensor_figures f = {.norm = -1, .unchanged = t->bytes != NULL};
    u->t = t;
    u->rows = rows_of(t);
    u->cols = cols_of(t);
    u->n = u->rows * u->cols;
    bool ok = t->rows ? write_rows(u, &f, err) : t->raw ? write_raw(u, err) : write_bytes(u, err);
    if (!ok) return false;
    json_t *entry = qn_tensor_entry(t, &f);
    qn_totals_add(&u->totals, t, &f);
    if (u->r->describe) u->r->describe(u->r->user, t, entry);
    json_array_append_new(list, entry);
    return true;
}

// ---- all of them ----

static bool run_init(run *u, qn_err *err) {
    for (size_t i = 0; i < u->r->n_tensors; i++) {
        const qn_out_tensor *t = &u->r->tensors[i];
        size_t n = rows_of(t) * cols_of(t);
        u->total += n * qn_dtype_bytes(t->dtype);
    }
    u->pool = qn_pool_new(u->r->n_threads, err);
    if (!u->pool) return false;
    u->errs = QN_NEW_ARRAY(qn_err, (size_t)qn_pool_threads(u->pool));
    u->survey = qn_survey_new(u->pool);
    u->puts = qn_put_queue_new(qn_pool_threads(u->pool));
    u->stage = qn_big_alloc(STEP, "write buffer", err);
    return u->stage != NULL;
}

static void run_done(run *u) {
    qn_shards_free(u->shards);
    qn_big_free(u->stage, STEP);
    qn_put_queue_free(u->puts);
    qn_survey_free(u->survey);
    free(u->errs);
    qn_pool_free(u->pool);
}

static bool write_tensors(run *u, const char *dir, json_t *list, qn_err *err) {
    qn_rewrite *r = u->r;
    uint64_t limit = r->shard_bytes ? r->shard_bytes : DEFAULT_SHARD;
    u->shards = qn_shards_new(dir, "model", limit, NULL, err);
    bool ok = u->shards != NULL;
    for (size_t i = 0; ok && i < r->n_tensors; i++) {
        const qn_out_tensor *t = &r->tensors[i];
        ok = qn_shards_declare(u->shards, t->name, t->dtype, t->shape, t->n_dims, err);
    }
    for (size_t i = 0; ok && i < r->n_tensors; i++)
        ok = write_tensor(u, &r->tensors[i], list, err);
    return ok && qn_shards_name(u->shards, err);
}

// ---- the folder ----

static bool write_json(const char *dir, const char *name, const json_t *j, qn_err *err) {
    char *path = qn_path_join(dir, name), *text = qn_json_text(j, true);
    char *line = qn_strf("%s\n", text);
    bool ok = qn_file_write(path, line, strlen(line), err);
    free(path);
    qn_free(text);
    qn_free(line);
    return ok;
}

static json_t *new_report(const qn_rewrite *r) {
    char started[64];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_t *o = json_object();
    json_object_set_new(o, "quern_version", json_string(QN_VERSION));
    json_object_set_new(o, "command", json_string(r->command));
    json_object_set_new(o, "source", qn_json_string(qn_ckpt_path(r->source)));
    json_object_set_new(o, "result", qn_json_string(r->out));
    json_object_set_new(o, "started", json_string(started));
    json_object_set_new(o, "seconds", json_real(0));
    json_object_set_new(o, "tensors", json_array());
    return o;
}

// How many weights there are of each kind. Tensors that stay packed count as the weight they make up.
static void count_kind(const qn_layout *l, const char *name, bool *seen, size_t *kinds) {
    const qn_expected *e = qn_layout_find(l, name);
    const char *dot = strrchr(name, '.');
    char *weight = e || !dot ? NULL : qn_strf("%.*s.weight", (int)(dot - name), name);
    if (weight) e = qn_layout_find(l, weight);
    qn_free(weight);
    if (!e || seen[e - l->tensors]) return;
    seen[e - l->tensors] = true;
    kinds[e->role]++;
}

static void add_kinds(const qn_rewrite *r, json_t *summary) {
    qn_config config = {0};
    qn_layout l = {0};
    size_t kinds[QN_N_ROLES] = {0};
    const json_t *j = qn_ckpt_config(r->source);
    if (j && qn_config_read(&config, j, "config.json", NULL)) {
        qn_spelling spelling = qn_spelling_detect(&config, r->source);
        qn_layout_build(&l, &config, &spelling);
        bool *seen = QN_NEW_ARRAY(bool, l.n + 1);
        for (size_t i = 0; i < r->n_tensors; i++) count_kind(&l, r->tensors[i].name, seen, kinds);
        free(seen);
        json_t *o = json_object();
        for (int k = 0; k < QN_N_ROLES; k++)
            if (kinds[k])
                json_object_set_new(o, qn_role_name((qn_role)k), json_integer((json_int_t)kinds[k]));
        json_object_set_new(summary, "kinds", o);
    }
    qn_layout_done(&l);
    qn_config_done(&config);
}

// Files of weights in the result, and their bytes.
static void add_size(const char *dir, json_t *summary) {
    DIR *d = opendir(dir);
    int64_t bytes = 0;
    json_int_t files = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!qn_str_ends(e->d_name, ".safetensors")) continue;
        char *path = qn_path_join(dir, e->d_name);
        int64_t n = qn_file_size(path);
        bytes += n > 0 ? n : 0;
        files++;
        qn_free(path);
    }
    if (d) closedir(d);
    json_object_set_new(summary, "bytes", json_integer(bytes));
    json_object_set_new(summary, "files", json_integer(files));
}

// Weights that are packed in the source, however their tensors are handed on.
static json_int_t count_packed(const qn_rewrite *r) {
    const qn_weight *list;
    size_t n;
    json_int_t packed = 0;
    if (!qn_ckpt_weights(r->source, &list, &n, NULL)) return 0;
    for (size_t i = 0; i < n; i++) packed += list[i].scheme != NULL;
    return packed;
}

static void summarize(const run *u, const char *dir, json_t *report) {
    const qn_rewrite *r = u->r;
    json_t *s = r->summary ? json_copy(r->summary) : json_object();
    qn_totals_to_json(&u->totals, s);
    if (!u->totals.quantized) json_object_set_new(s, "quantized", json_integer(count_packed(r)));
    if (r->saturate)
        json_object_set_new(s, "saturated", json_integer((json_int_t)u->totals.n_overflow));
    add_kinds(r, s);
    add_size(dir, s);
    json_object_set_new(report, "summary", s);
}

// allclose at 1e-3 does not see it: the values are that small.
static void note_faded(run *u) {
    if (u->n_faded == 0) return;
    char *text = qn_strf("%zu %s many values below f16's normal numbers, which lose digits or become "
                         "0 (%s first); bf16 holds them", u->n_faded,
                         u->n_faded == 1 ? "tensor has" : "tensors have", u->faded);
    qn_note("%s", text);
    json_array_append_new(u->r->notes, json_string(text));
    qn_free(text);
}

static bool fill_folder(run *u, const char *dir, json_t *report, qn_err *err) {
    qn_rewrite *r = u->r;
    double started = qn_now();
    const qn_side_rules side = {r->drop, r->readme_note};
    if (!r->notes) r->notes = json_array();
    const json_t *config = r->config ? r->config : qn_ckpt_config(r->source);
    if (!qn_side_files_copy(r->source, dir, &side, r->notes, err) ||
        (config && !write_json(dir, "config.json", config, err)) ||
        !write_tensors(u, dir, json_object_get(report, "tensors"), err))
        return false;
    summarize(u, dir, report);
    note_faded(u);
    if (r->prove && !r->prove(r->user, dir, report, err)) return false; // while the disk works
    if (!qn_shards_finish(u->shards, err)) return false;
    json_object_set_new(report, "notes", json_copy(r->notes));
    json_object_set_new(report, "seconds", json_real(qn_now() - started));
    return write_json(dir, "quern-report.json", report, err);
}

bool qn_rewrite_run(qn_rewrite *r, json_t **report, qn_err *err) {
    run u = {.r = r};
    *report = NULL;
    if (!qn_out_place_ok(qn_ckpt_path(r->source), r->out, r->overwrite, err)) return false;
    qn_outdir *dir = qn_outdir_new(r->out, r->overwrite, err);
    if (!dir) return false;
    json_t *j = new_report(r);
    bool ok = run_init(&u, err) && fill_folder(&u, qn_outdir_path(dir), j, err) &&
              qn_outdir_commit(dir, err);
    run_done(&u);
    qn_outdir_free(dir);
    if (ok)
        *report = j;
    else
        json_decref(j);
    return ok;
}
