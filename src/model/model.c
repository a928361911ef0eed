// Loading a model: config, weights, text files, and what the rest of the program wants to know
// about it. Read-only afterwards.
#include "model/model.h"

#include <string.h>

#include "base/cpu.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/generation.h"
#include "model/parts.h"
#include "model/rope.h"

// Positions per block of the paged cache: a hit of the prefix cache is a multiple of it.
#define BLOCK_TOKENS 32

// ---- weights ---------------------------------------------------------------------------------

static void note_missing_parts(const qn_config *c, const qn_spelling *s,
                               const qn_model_options *o) {
    if (!o->no_mtp && c->mtp_num_hidden_layers && !s->mtp)
        qn_note("%s", c->mtp_usable ? "the checkpoint has no draft layer (mtp.*): text runs, "
                                      "without speculation"
                                    : "its draft layers are of a kind not supported: left out");
}

static bool load_weights(qn_model *m, qn_ckpt *ckpt, const qn_model_options *o, qn_pool *pool,
                         qn_err *err) {
    qn_loader l = {.want = o->weights, .pool = pool, .progress = o->progress, .user = o->user};
    bool ok = qn_loader_init(&l, ckpt, &m->config, err);
    if (ok) {
        note_missing_parts(&m->config, &l.binder.spelling, o);
        if (o->no_mtp) l.binder.spelling.mtp = false;
        ok = qn_parts_bind(&m->parts, &l.binder, err) && qn_loader_check_strays(&l, err);
    }
    qn_loader_done(&l);
    if (!ok || o->no_vision) return ok;
    return qn_vision_load(ckpt, qn_ckpt_config(ckpt), m->config.hidden_size, pool, &m->vision, err);
}

static bool invent_weights(qn_model *m, const qn_model_options *o, qn_pool *pool, qn_err *err) {
    qn_dummy d = {.want = o->weights, .pool = pool};
    bool ok = qn_dummy_init(&d, &m->config, err);
    if (o->no_mtp) d.binder.spelling.mtp = false;
    ok = ok && qn_parts_bind(&m->parts, &d.binder, err);
    qn_dummy_done(&d);
    return ok;
}

static bool fill(qn_model *m, qn_ckpt *ckpt, const qn_model_options *o, qn_err *err) {
    qn_pool *pool = qn_pool_new(o->n_threads, err);
    if (!pool) return false;
    m->n_threads = qn_pool_threads(pool);
    bool ok = o->dummy ? invent_weights(m, o, pool, err) : load_weights(m, ckpt, o, pool, err);
    qn_pool_free(pool);
    return ok;
}

// ---- text ------------------------------------------------------------------------------------

static bool in_folder(const char *dir, const char *name) {
    char *path = qn_path_join(dir, name);
    bool there = qn_file_exists(path);
    qn_free(path);
    return there;
}

static bool load_text(qn_model *m, qn_err *err) {
    qn_err e = {0};
    if (in_folder(m->path, "tokenizer.json") || in_folder(m->path, "vocab.json")) {
        m->tokenizer = qn_tokenizer_load(m->path, err);
        if (!m->tokenizer) return false;
        int32_t n = qn_tokenizer_size(m->tokenizer);
        if ((size_t)n > m->config.vocab_size)
            return qn_fail(err, QN_INPUT, "%s: the tokenizer has %d ids, expected at most "
                           "vocab_size (%zu): vocabulary larger than the embedding", m->path, n,
                           m->config.vocab_size);
    }
    m->template = qn_template_load(m->path, &e);
    if (!m->template && e.code != QN_NOT_FOUND) qn_note("chat template left out: %s", e.text);
    return true;
}

// ---- info ------------------------------------------------------------------------------------

static void describe(qn_model *m) {
    const qn_config *c = &m->config;
    size_t vision = m->vision ? qn_vision_bytes(m->vision) : 0;
    qn_model_info *i = &m->info;
    i->path = m->path;
    i->family = c->family->name;
    i->architecture = c->architecture;
    i->n_layers = (int)c->num_hidden_layers;
    i->hidden_size = (int)c->hidden_size;
    i->vocab_size = (int)c->vocab_size;
    i->context_length = (int)c->max_position_embeddings;
    i->weight_bytes = qn_parts_bytes(&m->parts) + vision;
    i->params_per_token = qn_parts_weights_per_token(&m->parts);
    i->kv_bytes_per_token = m->cache.block_bytes / m->cache.block_tokens;
    i->state_bytes_per_sequence = m->cache.state_bytes;
    i->has_mtp = m->parts.draft.present;
    i->has_vision = m->vision != NULL;
    i->image_token = m->vision ? c->image_token_id : -1;
    i->video_token = m->vision ? c->video_token_id : -1;
}

// eos of generation_config.json counts before config.json's, which often names only one.
static bool read_generation(qn_model *m, const qn_ckpt *ckpt, qn_err *err) {
    const json_t *g = qn_ckpt_generation_config(ckpt);
    m->info.n_eos = m->config.n_eos;
    memcpy(m->info.eos, m->config.eos, sizeof m->info.eos);
    return qn_eos_read(g, m->info.eos, &m->info.n_eos, "generation_config.json", err) &&
           qn_generation_read(g, &m->sampling, "generation_config.json", err);
}

static bool read_config(qn_model *m, const qn_ckpt *ckpt, qn_err *err) {
    char *what = qn_path_join(m->path, "config.json");
    const json_t *config = qn_ckpt_config(ckpt);
    bool ok = config ? qn_config_read(&m->config, config, what, err)
                     : qn_fail(err, QN_NOT_FOUND, "%s: not there", what);
    qn_free(what);
    return ok;
}

qn_model *qn_model_load(const char *path, const qn_model_options *o, qn_err *err) {
    qn_model_options plain = {0};
    if (!o) o = &plain;
    qn_model *m = QN_NEW(qn_model);
    m->path = qn_strdup(path);
    m->precision = o->precision;
    m->kv_type = o->precision == QN_EXACT ? QN_KV_F32 : QN_KV_BF16;
    qn_ckpt *ckpt = qn_ckpt_open(path, o->dummy ? QN_CKPT_NO_WEIGHTS : 0, err);
    if (!ckpt || !read_config(m, ckpt, err) || !read_generation(m, ckpt, err) ||
        !fill(m, ckpt, o, err) || !load_text(m, err))
        goto fail;
    m->rope = qn_rope_frequencies(&m->config.rope);
    qn_parts_place(&m->parts, m->kv_type, BLOCK_TOKENS, &m->cache);
    describe(m);
    qn_ckpt_free(ckpt);
    return m;
fail:
    qn_ckpt_free(ckpt);
    qn_model_free(m);
    return NULL;
}

void qn_model_free(qn_model *m) {
    if (!m) return;
    qn_parts_done(&m->parts);
    qn_config_done(&m->config);
    qn_vision_free(m->vision);
    qn_tokenizer_free(m->tokenizer);
    qn_template_free(m->template);
    qn_free(m->rope);
    qn_free(m->path);
    free(m);
}

const qn_model_info *qn_model_get_info(const qn_model *m) { return &m->info; }
const qn_tokenizer *qn_model_tokenizer(const qn_model *m) { return m->tokenizer; }
const qn_template *qn_model_template(const qn_model *m) { return m->template; }
qn_precision qn_model_precision(const qn_model *m) { return m->precision; }
int qn_model_threads(const qn_model *m) { return m->n_threads; }
void qn_model_cache_spec(const qn_model *m, qn_cache_spec *spec) { *spec = m->cache; }
void qn_sampling_default(const qn_model *m, qn_sampling *s) { *s = m->sampling; }
