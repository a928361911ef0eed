// Owns opening a checkpoint folder: configs, shards mapped and checked, one list of tensors. What
// the tensors mean is weight_sets.c's business.
#include "store/checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "store/ckpt_state.h"
#include "store/name_order.h"
#include "store/safetensors.h"
#include "store/shard_index.h"

#define CONFIG_MAX ((size_t)64 << 20)

// ---- configs ----

// *out is the object in a file of the folder; an absent file leaves NULL and is no error.
static bool load_object(qn_ckpt *c, const char *name, json_t **out, qn_err *err) {
    char *path = qn_path_join(c->path, name);
    bool ok = true;
    if (qn_file_exists(path)) {
        *out = qn_json_load(path, CONFIG_MAX, err);
        ok = *out != NULL;
        if (ok && !json_is_object(*out)) {
            ok = qn_fail(err, QN_INPUT, "%s: not a JSON object", path);
            json_decref(*out);
            *out = NULL;
        }
        ok = ok || qn_damage_take(qn_ckpt_damages(c), "bad-header", NULL, err);
    }
    qn_free(path);
    return ok;
}

static json_t *quant_part(const json_t *config) {
    static const char *const keys[] = {"quantization_config", "compression_config"};
    json_t *found = qn_json_any(config, keys, 2);
    if (!found) found = qn_json_any(json_object_get(config, "text_config"), keys, 2);
    return json_is_object(found) ? found : NULL;
}

static bool load_configs(qn_ckpt *c, qn_err *err) {
    static const char *const files[] = {"quantize_config.json", "quant_config.json",
                                        "quantization_config.json"};
    if (!load_object(c, "config.json", &c->config, err) ||
        !load_object(c, "generation_config.json", &c->generation_config, err))
        return false;
    c->quant_config = json_incref(quant_part(c->config));
    if (c->quant_config) c->quant_file = "config.json";
    for (size_t i = 0; !c->quant_config && i < sizeof files / sizeof *files; i++) {
        if (!load_object(c, files[i], &c->quant_config, err)) return false;
        if (c->quant_config) c->quant_file = files[i];
    }
    return true;
}

// ---- shards ----

static void take_tensors(qn_ckpt *c, qn_header *h, size_t shard) {
    if (!h->n) return;
    c->tensors = qn_realloc(c->tensors, (c->n_tensors + h->n) * sizeof *c->tensors);
    for (size_t i = 0; i < h->n; i++) {
        h->tensors[i].shard = (int)shard;
        c->tensors[c->n_tensors++] = h->tensors[i];
    }
    free(h->tensors); // the names have moved
    *h = (qn_header){0};
}

static bool open_shard(qn_ckpt *c, const char *path, const char *name, bool listed, qn_err *err) {
    qn_damages *d = qn_ckpt_damages(c);
    qn_ckpt_shard *s = &c->shards[c->n_shards];
    if (listed && qn_file_size(path) < 0)
        return qn_fail(err, QN_NOT_FOUND, "%s is missing, and the index names it", path) ||
               qn_damage_take(d, "missing-tensor", NULL, err);
    if (!qn_map_open(&s->map, path, err)) return qn_damage_take(d, "bad-header", NULL, err);
    s->name = qn_strdup(name);
    c->n_shards++;
    qn_header h;
    if (!qn_header_parse(s->map.data, s->map.n, path, d, &h, err)) return false;
    take_tensors(c, &h, c->n_shards - 1);
    qn_header_done(&h);
    return true;
}

static bool order_tensors(qn_ckpt *c, qn_err *err) {
    c->by_name = qn_name_order_new(c->tensors, c->n_tensors, sizeof *c->tensors);
    for (size_t i = 1; i < c->n_tensors; i++) {
        const qn_tensor *a = &c->tensors[c->by_name[i - 1]], *b = &c->tensors[c->by_name[i]];
        if (strcmp(a->name, b->name) == 0 &&
            !qn_damage_add(qn_ckpt_damages(c), "duplicate-key", b->name, err,
                           "%s: tensor %s is in %s and in %s", c->path, b->name,
                           c->shards[a->shard].name, c->shards[b->shard].name))
            return false;
    }
    return true;
}

static bool shard_is_open(const qn_ckpt *c, const char *name) {
    for (size_t i = 0; i < c->n_shards; i++)
        if (strcmp(c->shards[i].name, name) == 0) return true;
    return false;
}

// The index against the shards. Tensors that the index does not name count all the same.
static bool check_map(qn_ckpt *c, const json_t *map, qn_err *err) {
    const char *name;
    json_t *file;
    json_object_foreach((json_t *)(uintptr_t)map, name, file) {
        const char *said = json_string_value(file);
        if (!said || !shard_is_open(c, said)) continue; // reported already
        const qn_tensor *t = qn_ckpt_find(c, name);
        if (t && strcmp(c->shards[t->shard].name, said) == 0) continue;
        if (!qn_damage_add(qn_ckpt_damages(c), "missing-tensor", name, err,
                           "%s/%s: tensor %s is said to be in %s, but %s%s", c->path,
                           QN_SHARD_INDEX, name, said, t ? "it is in " : "is not there",
                           t ? c->shards[t->shard].name : ""))
            return false;
    }
    return true;
}

static bool open_folder(qn_ckpt *c, unsigned flags, qn_err *err) {
    qn_shard_list list = {0};
    if (!load_configs(c, err)) return false;
    if (flags & QN_CKPT_NO_WEIGHTS) return true;
    if (!qn_shard_list_read(c->path, qn_ckpt_damages(c), &list, err)) return false;
    c->shards = QN_NEW_ARRAY(qn_ckpt_shard, list.n + 1);
    bool ok = true;
    for (size_t i = 0; ok && i < list.n; i++) {
        char *path = qn_path_join(c->path, list.names[i]);
        ok = open_shard(c, path, list.names[i], list.weight_map, err);
        qn_free(path);
    }
    ok = ok && order_tensors(c, err);
    if (ok && list.weight_map) ok = check_map(c, list.weight_map, err);
    qn_shard_list_done(&list);
    return ok;
}

static bool open_file(qn_ckpt *c, qn_err *err) {
    const char *slash = strrchr(c->path, '/');
    c->shards = QN_NEW_ARRAY(qn_ckpt_shard, 1);
    if (qn_file_size(c->path) < 0) // no damage to report on: there is nothing
        return qn_fail(err, QN_NOT_FOUND, "%s: no such file or folder", c->path);
    return open_shard(c, c->path, slash ? slash + 1 : c->path, false, err) &&
           order_tensors(c, err);
}

qn_ckpt *qn_ckpt_open(const char *path, unsigned flags, qn_err *err) {
    qn_err local = {0};
    if (!err) err = &local; // damage is taken out of it
    qn_ckpt *c = QN_NEW(qn_ckpt);
    c->path = qn_strdup(path);
    c->tolerant = flags & QN_CKPT_TOLERANT;
    if (qn_file_is_dir(path) ? open_folder(c, flags, err) : open_file(c, err)) {
        if (!c->by_name) c->by_name = qn_name_order_new(NULL, 0, 1);
        return c;
    }
    qn_ckpt_free(c);
    return NULL;
}

void qn_ckpt_free(qn_ckpt *c) {
    if (!c) return;
    for (size_t i = 0; i < c->n_tensors; i++) qn_free(c->tensors[i].name);
    for (size_t i = 0; i < c->n_weights; i++) qn_free(c->weights[i].name);
    for (size_t i = 0; i < c->n_label_errors; i++) qn_free(c->label_errors[i]);
    for (size_t i = 0; c->shards && i < c->n_shards; i++) {
        qn_map_close(&c->shards[i].map);
        qn_free(c->shards[i].name);
    }
    qn_damages_done(&c->damages);
    qn_label_done(&c->label);
    json_decref(c->config);
    json_decref(c->generation_config);
    json_decref(c->quant_config);
    free(c->label_errors);
    qn_free(c->label_note);
    qn_free(c->label_fault);
    free(c->doubles);
    free(c->weights);
    free(c->weights_by_name);
    free(c->by_name);
    free(c->tensors);
    free(c->shards);
    free(c->path);
    free(c);
}

// ---- looking ----

const char *qn_ckpt_path(const qn_ckpt *c) { return c->path; }
const json_t *qn_ckpt_config(const qn_ckpt *c) { return c->config; }
const json_t *qn_ckpt_generation_config(const qn_ckpt *c) { return c->generation_config; }
const json_t *qn_ckpt_quant_config(const qn_ckpt *c) { return c->quant_config; }
const char *qn_ckpt_quant_config_file(const qn_ckpt *c) { return c->quant_file; }
size_t qn_ckpt_n_shards(const qn_ckpt *c) { return c->n_shards; }
const char *qn_ckpt_shard_name(const qn_ckpt *c, size_t i) { return c->shards[i].name; }
const qn_map *qn_ckpt_shard_map(const qn_ckpt *c, size_t i) { return &c->shards[i].map; }
size_t qn_ckpt_n_tensors(const qn_ckpt *c) { return c->n_tensors; }
const qn_tensor *qn_ckpt_tensor(const qn_ckpt *c, size_t i) { return &c->tensors[i]; }
size_t qn_ckpt_n_damages(const qn_ckpt *c) { return c->damages.n; }
const qn_damage *qn_ckpt_damage(const qn_ckpt *c, size_t i) { return &c->damages.list[i]; }

const qn_tensor *qn_ckpt_find(const qn_ckpt *c, const char *name) {
    return qn_name_order_find(c->by_name, c->tensors, c->n_tensors, sizeof *c->tensors, name);
}
