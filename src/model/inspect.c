// What a checkpoint is, from its headers alone: the document of `quern inspect --json`.
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/parts.h"

typedef struct look {
    const char *path;
    qn_ckpt *ckpt;
    qn_config config;
    qn_layout layout;
    const qn_weight *weights;
    size_t n_weights;
} look;

static json_t *size_json(size_t n) { return json_integer((json_int_t)n); }

static size_t logical(const qn_weight *w) { return w->scheme ? w->rows * w->cols : w->parts[0]->n; }

static size_t stored_bytes(const qn_weight *w) {
    size_t n = 0;
    for (int i = 0; i < QN_MAX_PARTS; i++)
        if (w->parts[i]) n += w->parts[i]->bytes;
    return n;
}

static size_t stored_tensors(const qn_weight *w) {
    size_t n = 0;
    for (int i = 0; i < QN_MAX_PARTS; i++) n += w->parts[i] != NULL;
    return n;
}

// ---- tensors ---------------------------------------------------------------------------------

static void put_totals(json_t *o, const look *l) {
    size_t parameters = 0, bytes = 0, tensors[QN_N_DTYPES] = {0}, sizes[QN_N_DTYPES] = {0};
    json_t *dtypes = json_object();
    for (size_t i = 0; i < l->n_weights; i++) parameters += logical(&l->weights[i]);
    for (size_t i = 0; i < qn_ckpt_n_tensors(l->ckpt); i++) {
        const qn_tensor *t = qn_ckpt_tensor(l->ckpt, i);
        bytes += t->bytes;
        tensors[t->dtype]++;
        sizes[t->dtype] += t->bytes;
    }
    for (int d = 0; d < QN_N_DTYPES; d++)
        if (tensors[d])
            json_object_set_new(dtypes, qn_dtype_name((qn_dtype)d),
                                json_pack("{sI sI}", "tensors", (json_int_t)tensors[d], "bytes",
                                          (json_int_t)sizes[d]));
    json_object_set_new(o, "parameters", size_json(parameters));
    json_object_set_new(o, "tensors", size_json(qn_ckpt_n_tensors(l->ckpt)));
    json_object_set_new(o, "bytes", size_json(bytes));
    json_object_set_new(o, "shards", size_json(qn_ckpt_n_shards(l->ckpt)));
    json_object_set_new(o, "dtypes", dtypes);
}

static json_t *tensor_list(const look *l) {
    json_t *list = json_array();
    for (size_t i = 0; i < qn_ckpt_n_tensors(l->ckpt); i++) {
        const qn_tensor *t = qn_ckpt_tensor(l->ckpt, i);
        json_t *shape = json_array(), *o = json_object();
        for (int d = 0; d < t->n_dims; d++) json_array_append_new(shape, size_json(t->shape[d]));
        json_object_set_new(o, "name", json_string(t->name));
        json_object_set_new(o, "dtype", json_string(qn_dtype_name(t->dtype)));
        json_object_set_new(o, "shape", shape);
        json_object_set_new(o, "bytes", size_json(t->bytes));
        json_object_set_new(o, "file",
                            qn_json_string(qn_ckpt_shard_name(l->ckpt, (size_t)t->shard)));
        json_array_append_new(list, o);
    }
    return list;
}

// ---- groups ----------------------------------------------------------------------------------

// What a reader of the list wants to see together: a group is a few tensors with one purpose.
enum { EMBEDDING, ATTENTION, DELTANET, MLP, EXPERTS, NORMS, DRAFT, VISION, OTHER, N_GROUPS };
static const char *const group_names[N_GROUPS] = {
    "embedding and head", "attention layers", "gated deltanet layers", "mlp", "experts",
    "norms",              "draft layer (mtp)", "vision tower",         "not known to the family",
};

static int group_of(const look *l, const qn_weight *w) {
    const qn_expected *e = qn_layout_find(&l->layout, w->name);
    if (!e) return OTHER;
    if (e->part == QN_PART_VISION) return VISION;
    if (e->part == QN_PART_MTP) return DRAFT;
    if (e->role == QN_ROLE_EMBED || e->role == QN_ROLE_HEAD) return EMBEDDING;
    if (strstr(w->name, ".self_attn.")) return ATTENTION;
    if (strstr(w->name, ".linear_attn.")) return DELTANET;
    if (e->role == QN_ROLE_NORM) return NORMS;
    return e->layer >= 0 && l->config.layers[e->layer].ffn == QN_FFN_MOE ? EXPERTS : MLP;
}

static json_t *groups(const look *l) {
    size_t tensors[N_GROUPS] = {0}, parameters[N_GROUPS] = {0}, bytes[N_GROUPS] = {0};
    json_t *list = json_array();
    for (size_t i = 0; i < l->n_weights; i++) {
        int g = group_of(l, &l->weights[i]);
        tensors[g] += stored_tensors(&l->weights[i]);
        parameters[g] += logical(&l->weights[i]);
        bytes[g] += stored_bytes(&l->weights[i]);
    }
    for (int g = 0; g < N_GROUPS; g++)
        if (tensors[g])
            json_array_append_new(list, json_pack("{ss sI sI sI}", "name", group_names[g],
                                                  "tensors", (json_int_t)tensors[g], "parameters",
                                                  (json_int_t)parameters[g], "bytes",
                                                  (json_int_t)bytes[g]));
    return list;
}

// ---- quantization ----------------------------------------------------------------------------

static json_t *quantization(const look *l) {
    qn_quant_info q;
    if (!qn_ckpt_quant_info(l->ckpt, &q)) return json_null();
    return json_pack("{ss si sI sb sb ss sI sb}", "method", q.method, "bits", q.bits, "group_size",
                     (json_int_t)q.group_size, "sym", q.sym, "desc_act", q.desc_act, "format",
                     q.format, "modules", (json_int_t)q.modules, "label_matches", q.label_matches);
}

// ---- sizes -----------------------------------------------------------------------------------

// The target's layers alone, keys and values in bf16; a draft layer adds one more when it is used.
static void put_cache_sizes(json_t *o, const qn_config *c) {
    size_t full = 0, linear = 0;
    for (size_t i = 0; i < c->num_hidden_layers; i++)
        c->layers[i].mixer == QN_MIXER_ATTENTION ? full++ : linear++;
    size_t k = c->linear_num_key_heads * c->linear_key_head_dim;
    size_t v = c->linear_num_value_heads * c->linear_value_head_dim;
    size_t state = (3 * (2 * k + v) + v * c->linear_key_head_dim) * sizeof(float);
    json_object_set_new(o, "kv_bytes_per_token",
                        size_json(full * 2 * c->num_key_value_heads * c->head_dim * 2));
    json_object_set_new(o, "state_bytes_per_sequence", size_json(linear * state));
}

static void put_config(json_t *o, const qn_config *c) {
    json_object_set_new(o, "layers", size_json(c->num_hidden_layers));
    json_object_set_new(o, "hidden_size", size_json(c->hidden_size));
    json_object_set_new(o, "intermediate_size",
                        size_json(c->intermediate_size ? c->intermediate_size
                                                       : c->moe_intermediate_size));
    json_object_set_new(o, "heads", size_json(c->num_attention_heads));
    json_object_set_new(o, "kv_heads", size_json(c->num_key_value_heads));
    json_object_set_new(o, "head_dim", size_json(c->head_dim));
    json_object_set_new(o, "vocab_size", size_json(c->vocab_size));
    json_object_set_new(o, "context_length", size_json(c->max_position_embeddings));
    json_object_set_new(o, "tied_embeddings", json_boolean(c->tie_word_embeddings));
}

static char *document(const look *l, bool list_tensors) {
    json_t *o = json_object();
    json_object_set_new(o, "path", qn_json_string(l->path));
    json_object_set_new(o, "architecture", json_string(l->config.architecture));
    json_object_set_new(o, "model_type", json_string(l->config.model_type));
    json_object_set_new(o, "family", json_string(l->config.family->name));
    put_totals(o, l);
    put_config(o, &l->config);
    json_object_set_new(o, "quantization", quantization(l));
    put_cache_sizes(o, &l->config);
    json_object_set_new(o, "groups", groups(l));
    if (list_tensors) json_object_set_new(o, "tensor_list", tensor_list(l));
    char *text = qn_json_text(o, true);
    json_decref(o);
    return text;
}

static bool read_all(look *l, qn_err *err) {
    l->ckpt = qn_ckpt_open(l->path, 0, err);
    if (!l->ckpt) return false;
    char *what = qn_path_join(l->path, "config.json");
    const json_t *config = qn_ckpt_config(l->ckpt);
    bool ok = config ? qn_config_read(&l->config, config, what, err)
                     : qn_fail(err, QN_NOT_FOUND, "%s: not there", what);
    qn_free(what);
    if (!ok || !qn_ckpt_weights(l->ckpt, &l->weights, &l->n_weights, err)) return false;
    qn_spelling spelling = qn_spelling_detect(&l->config, l->ckpt);
    qn_layout_build(&l->layout, &l->config, &spelling);
    return true;
}

bool qn_inspect(const char *path, bool list_tensors, char **json, qn_err *err) {
    look l = {.path = path};
    bool ok = read_all(&l, err);
    if (ok) *json = document(&l, list_tensors);
    qn_layout_done(&l.layout);
    qn_config_done(&l.config);
    qn_ckpt_free(l.ckpt);
    return ok;
}
