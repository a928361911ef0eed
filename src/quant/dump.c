// One request with probes. The file's order is tokens, logits, the rest: logits are by far the
// largest and come position by position, so they are written as they come; hidden states and draft
// logits are collected meanwhile. Pictures are encoded here once more than the engine does, because
// their pixels are part of the dump.
#include "quant/dump.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/image.h"
#include "model/model.h"
#include "store/shard_writer.h"

typedef struct picture {
    int grid[3];
    float *rows, *pixels; // [n_rows][hidden_size], [patches][patch_dim]
    size_t n_rows;
} picture;

typedef struct dump {
    const qn_model_info *info;
    const qn_dump_options *o;
    qn_shards *file;
    int32_t *tokens; // with placeholders expanded
    size_t t, v, h, n_hidden; // n_hidden: layers + 2
    float *hidden, *mtp;      // [n_hidden][t][h], [t - 1][v]
    size_t hidden_bytes, mtp_bytes, n_logits;
    picture *pictures;
    size_t patch_dim;
    bool done, failed, drafts; // drafts: mtp.logits has rows
    const char *broken;  // "logits" or "mtp.logits", once one was not finite
    size_t broken_at;    // its position
    qn_err err;
} dump;

static void dump_done(dump *d) {
    for (size_t i = 0; d->pictures && i < d->o->n_images; i++) {
        qn_free(d->pictures[i].rows);
        qn_free(d->pictures[i].pixels);
    }
    free(d->pictures);
    qn_free(d->tokens);
    if (d->hidden) qn_big_free(d->hidden, d->hidden_bytes);
    if (d->mtp) qn_big_free(d->mtp, d->mtp_bytes);
    qn_shards_free(d->file);
}

// ---- pictures ----

// Numbers in one patch vector, as the folder's image processor makes them.
static bool read_patch_dim(dump *d, qn_err *err) {
    qn_image_config c = {0};
    char *path = qn_path_join(d->info->path, "preprocessor_config.json");
    json_t *j = qn_file_exists(path) ? qn_json_load(path, 1 << 20, err) : json_object();
    bool ok = j && qn_image_config_read(j, path, &c, err);
    d->patch_dim = ok ? 3u * (size_t)c.temporal_patch_size * (size_t)c.patch_size *
                            (size_t)c.patch_size : 0;
    json_decref(j);
    free(path);
    return ok;
}

static bool encode_pictures(dump *d, const qn_model *m, qn_err *err) {
    qn_pool *pool = qn_pool_new(qn_model_threads(m), err);
    if (!pool) return false;
    qn_compute *c = qn_compute_new(pool, qn_model_precision(m));
    d->pictures = QN_NEW_ARRAY(picture, d->o->n_images);
    bool ok = read_patch_dim(d, err);
    for (size_t i = 0; ok && i < d->o->n_images; i++) {
        picture *p = &d->pictures[i];
        p->n_rows = (size_t)d->info->context_length;
        ok = qn_model_encode_image(m, c, &d->o->images[i], p->grid, &p->rows, &p->n_rows,
                                   &p->pixels, err) ||
             qn_err_prefix(err, "image %zu", i + 1);
    }
    qn_compute_free(c);
    qn_pool_free(pool);
    return ok;
}

static bool expand_tokens(dump *d, const qn_model *m, qn_err *err) {
    int(*grids)[3] = qn_calloc(d->o->n_images + 1, sizeof *grids);
    int32_t(*rope3)[3] = NULL, delta;
    for (size_t i = 0; i < d->o->n_images; i++)
        memcpy(grids[i], d->pictures[i].grid, sizeof *grids);
    bool ok = qn_model_expand_images(m, d->o->tokens, d->o->n_tokens, (const int(*)[3])grids,
                                     d->o->n_images, &d->tokens, &d->t, &rope3, &delta, err);
    qn_free(rope3);
    free(grids);
    return ok;
}

static bool prepare(dump *d, const qn_model *m, qn_err *err) {
    if (d->o->n_images && !d->info->has_vision)
        return qn_fail(err, QN_UNSUPPORTED, "%s has no vision tower, so it takes no images",
                       d->info->path);
    if (d->o->mtp && !d->info->has_mtp)
        return qn_fail(err, QN_UNSUPPORTED, "%s has no draft layer (multi-token prediction), so "
                       "there is no mtp.logits", d->info->path);
    if (d->o->n_images)
        return encode_pictures(d, m, err) && expand_tokens(d, m, err);
    d->t = d->o->n_tokens;
    d->tokens = qn_calloc(d->t, sizeof *d->tokens);
    memcpy(d->tokens, d->o->tokens, d->t * sizeof *d->tokens);
    return true;
}

// ---- the file's layout ----

static bool declare(dump *d, const char *name, qn_dtype dtype, size_t rows, size_t cols,
                    qn_err *err) {
    size_t shape[2] = {rows, cols};
    return qn_shards_declare(d->file, name, dtype, shape, cols ? 2 : 1, err);
}

static void hidden_name(const dump *d, size_t i, char out[32]) {
    if (i + 1 < d->n_hidden) snprintf(out, 32, "hidden.%zu", i);
    else snprintf(out, 32, "hidden.final");
}

static bool declare_pictures(dump *d, qn_err *err) {
    size_t patches = 0, rows = 0;
    for (size_t i = 0; i < d->o->n_images; i++) {
        const int *g = d->pictures[i].grid;
        patches += (size_t)g[0] * (size_t)g[1] * (size_t)g[2];
        rows += d->pictures[i].n_rows;
    }
    return declare(d, "vision.pixel_values", QN_DT_F32, patches, d->patch_dim, err) &&
           declare(d, "vision.grid_thw", QN_DT_I32, d->o->n_images, 3, err) &&
           declare(d, "vision.embeds", QN_DT_F32, rows, d->h, err);
}

static bool declare_all(dump *d, qn_err *err) {
    char name[32];
    bool ok = declare(d, "tokens", QN_DT_I32, d->t, 0, err) &&
              declare(d, "logits", QN_DT_F32, d->t, d->v, err);
    for (size_t i = 0; ok && d->o->hidden && i < d->n_hidden; i++) {
        hidden_name(d, i, name);
        ok = declare(d, name, QN_DT_F32, d->t, d->h, err);
    }
    if (ok && d->drafts) ok = declare(d, "mtp.logits", QN_DT_F32, d->t - 1, d->v, err);
    if (ok && d->o->n_images) ok = declare_pictures(d, err);
    return ok && qn_shards_add(d->file, d->tokens, d->t * sizeof *d->tokens, err);
}

static bool allocate(float **out, size_t *bytes, size_t a, size_t b, const char *what,
                     qn_err *err) {
    if (!qn_mul(a, b, bytes) || !qn_mul(*bytes, sizeof(float), bytes))
        return qn_fail(err, QN_LIMIT, "%s does not fit into the address space", what);
    *out = qn_big_alloc(*bytes ? *bytes : 1, what, err);
    return *out != NULL;
}

// ---- probes ----

static bool probe_fail(dump *d, const char *name, size_t position, size_t n) {
    d->failed = true;
    return qn_fail(&d->err, QN_UNSUPPORTED, "%s at position %zu has %zu values, which does not fit "
                   "the model's description", name, position, n);
}

static bool all_finite(const float *x, size_t n) {
    float probe = 0; // inf * 0 and nan * 0 are nan
    for (size_t i = 0; i < n; i++) probe += x[i] * 0;
    return probe == 0;
}

static void watch(dump *d, const char *name, size_t position, const float *x, size_t n) {
    if (d->broken || all_finite(x, n)) return;
    d->broken = name;
    d->broken_at = position;
}

static bool put_logits(dump *d, size_t position, const float *data, size_t n) {
    if (n != d->v || position != d->n_logits) return probe_fail(d, "logits", position, n);
    d->n_logits++;
    watch(d, "logits", position, data, n);
    if (!qn_shards_add(d->file, data, n * sizeof *data, &d->err)) d->failed = true;
    if (!d->failed && d->o->progress &&
        !d->o->progress(d->o->user, "computing", d->n_logits, d->t)) {
        qn_fail(&d->err, QN_CANCELLED, "interrupted");
        d->failed = true;
    }
    return !d->failed;
}

static void on_probe(void *user, const char *name, size_t position, const float *data, size_t n) {
    dump *d = user;
    if (d->failed || position >= d->t) return;
    if (strcmp(name, "logits") == 0) {
        put_logits(d, position, data, n);
    } else if (strcmp(name, "mtp.logits") == 0 && d->mtp) {
        if (n != d->v) probe_fail(d, name, position, n);
        else if (position + 1 < d->t) memcpy(d->mtp + position * d->v, data, n * sizeof *data);
        watch(d, "mtp.logits", position, data, n);
    } else if (qn_str_starts(name, "hidden.") && d->hidden) {
        bool final = strcmp(name + 7, "final") == 0;
        size_t i = final ? d->n_hidden - 1 : (size_t)strtoul(name + 7, NULL, 10);
        if (n != d->h || i >= d->n_hidden) probe_fail(d, name, position, n);
        else memcpy(d->hidden + (i * d->t + position) * d->h, data, n * sizeof *data);
    }
}

static void on_event(void *user, qn_request *r, const qn_event *e) {
    (void)r;
    dump *d = user;
    if (e->finish == QN_FINISH_NONE) return;
    d->done = true;
    if (e->finish != QN_FINISH_ERROR || d->failed) return;
    d->failed = true;
    if (e->err) d->err = *e->err;
    else qn_fail(&d->err, QN_IO, "the request failed without a reason");
}

static bool compute(dump *d, qn_engine *e, qn_err *err) {
    qn_request_options r = {.tokens = d->o->tokens, .n_tokens = d->o->n_tokens,
                            .on_event = on_event, .on_probe = on_probe, .user = d,
                            .probe = QN_PROBE_LOGITS, .images = d->o->images,
                            .n_images = d->o->n_images, .no_output = true};
    r.sampling = (qn_sampling){.top_p = 1, .repetition_penalty = 1, .max_tokens = 1};
    if (d->o->hidden) r.probe |= QN_PROBE_HIDDEN;
    if (d->drafts) r.probe |= QN_PROBE_MTP;
    qn_request *request = qn_engine_submit(e, &r, err);
    if (!request) return false;
    bool busy = true, cancelled = false;
    while (busy && !d->done) {
        if (!qn_engine_step(e, &busy, err)) return false;
        if (d->failed && !d->done && !cancelled) {
            qn_request_cancel(request);
            cancelled = true;
        }
    }
    if (!d->failed && d->n_logits != d->t)
        return qn_fail(err, QN_IO, "only %zu of %zu positions were computed", d->n_logits, d->t);
    if (d->failed) *err = d->err;
    return !d->failed;
}

// What was collected, behind the logits.
static bool finish(dump *d, qn_err *err) {
    bool ok = true;
    if (d->hidden) ok = qn_shards_add(d->file, d->hidden, d->hidden_bytes, err);
    if (ok && d->mtp) ok = qn_shards_add(d->file, d->mtp, d->mtp_bytes, err);
    for (size_t i = 0; ok && i < d->o->n_images; i++) {
        const int *g = d->pictures[i].grid;
        size_t patches = (size_t)g[0] * (size_t)g[1] * (size_t)g[2];
        ok = qn_shards_add(d->file, d->pictures[i].pixels,
                           patches * d->patch_dim * sizeof(float), err);
    }
    for (size_t i = 0; ok && i < d->o->n_images; i++) {
        int32_t grid[3] = {d->pictures[i].grid[0], d->pictures[i].grid[1], d->pictures[i].grid[2]};
        ok = qn_shards_add(d->file, grid, sizeof grid, err);
    }
    for (size_t i = 0; ok && i < d->o->n_images; i++)
        ok = qn_shards_add(d->file, d->pictures[i].rows,
                           d->pictures[i].n_rows * d->h * sizeof(float), err);
    return ok && qn_shards_finish(d->file, err);
}

// The file is complete, but nobody should take it for a sound model's: where it broke, in the order
// of the computation.
static bool sound(const dump *d, const char *path, qn_err *err) {
    for (size_t i = 0; d->hidden && i < d->n_hidden; i++)
        for (size_t t = 0; t < d->t; t++) {
            const float *x = d->hidden + (i * d->t + t) * d->h;
            char name[32];
            if (all_finite(x, d->h)) continue;
            hidden_name(d, i, name);
            return qn_fail(err, QN_NONFINITE, "%s: %s holds a value that is not finite at position "
                           "%zu, before all others (%s is written)", d->info->path, name, t, path);
        }
    if (!d->broken) return true;
    return qn_fail(err, QN_NONFINITE, "%s: %s holds a value that is not finite at position %zu (%s "
                   "is written; --hidden tells the layer)", d->info->path, d->broken,
                   d->broken_at, path);
}

bool qn_dump_write(const qn_model *m, qn_engine *e, const char *path, const qn_dump_options *o,
                   qn_err *err) {
    const qn_model_info *info = qn_model_get_info(m);
    dump d = {.info = info, .o = o, .v = (size_t)info->vocab_size, .h = (size_t)info->hidden_size,
              .n_hidden = (size_t)info->n_layers + 2};
    bool ok = o->n_tokens > 0 || qn_fail(err, QN_USAGE, "a dump needs at least one token");
    ok = ok && prepare(&d, m, err);
    if (ok && o->hidden)
        ok = allocate(&d.hidden, &d.hidden_bytes, d.n_hidden * d.t, d.h, "hidden states", err);
    d.drafts = ok && o->mtp && d.t > 1;
    if (ok && o->mtp && !d.drafts) // an empty tensor is none: some readers refuse it
        qn_note("one token has no next one, so there is no mtp.logits");
    if (d.drafts)
        ok = allocate(&d.mtp, &d.mtp_bytes, d.t - 1, d.v, "draft logits", err);
    ok = ok && (d.file = qn_shards_new_file(path, NULL, err)) != NULL && declare_all(&d, err) &&
         compute(&d, e, err) && finish(&d, err) && sound(&d, path, err);
    dump_done(&d);
    return ok;
}
