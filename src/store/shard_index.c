// Owns the reading of model.safetensors.index.json. A shard is a plain file name in the folder
// itself (a link is fine): an index must not lead a reader elsewhere.
#include "store/shard_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

#define INDEX_MAX ((size_t)256 << 20)

static bool plain_name(const char *s) {
    return s[0] && s[0] != '.' && !strchr(s, '/') && !strchr(s, '\\') &&
           qn_str_ends(s, ".safetensors");
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Every name once, sorted: that is the order in which tensors are listed.
static void sort_unique(qn_shard_list *l) {
    size_t kept = 0;
    if (l->n) qsort(l->names, l->n, sizeof *l->names, by_name);
    for (size_t i = 0; i < l->n; i++) {
        if (kept && strcmp(l->names[kept - 1], l->names[i]) == 0) qn_free(l->names[i]);
        else l->names[kept++] = l->names[i];
    }
    l->n = kept;
}

static bool read_map(json_t *map, const char *path, qn_damages *d, qn_shard_list *out,
                     qn_err *err) {
    const char *tensor;
    json_t *file;
    out->names = QN_NEW_ARRAY(char *, json_object_size(map) + 1);
    json_object_foreach(map, tensor, file) {
        const char *name = json_string_value(file);
        if (!name || json_string_length(file) != strlen(name) || !plain_name(name)) {
            char *found = json_dumps(file, JSON_ENCODE_ANY);
            bool on = qn_damage_add(d, "bad-header", tensor, err, "%s: tensor %s is said to be in "
                                    "%.200s, expected a .safetensors file of this folder", path,
                                    tensor, found ? found : "?");
            free(found);
            if (!on) return false;
            continue;
        }
        if (out->n == 0 || strcmp(out->names[out->n - 1], name) != 0)
            out->names[out->n++] = qn_strdup(name);
    }
    sort_unique(out);
    return true;
}

static bool read_index(const char *path, qn_damages *d, qn_shard_list *out, qn_err *err) {
    json_t *index = qn_json_load(path, INDEX_MAX, err);
    if (!index) return qn_damage_take(d, "bad-header", NULL, err);
    json_t *map = json_object_get(index, "weight_map");
    bool ok;
    if (!json_is_object(map) || json_object_size(map) == 0) {
        ok = qn_damage_add(d, "bad-header", NULL, err,
                           "%s: weight_map is missing or empty, expected an object", path);
    } else {
        ok = read_map(map, path, d, out, err);
        out->weight_map = json_incref(map);
    }
    json_decref(index);
    return ok;
}

bool qn_shard_list_read(const char *dir, qn_damages *d, qn_shard_list *out, qn_err *err) {
    char *index = qn_path_join(dir, QN_SHARD_INDEX);
    char *single = qn_path_join(dir, "model.safetensors");
    bool ok = true, has_index = qn_file_exists(index);
    *out = (qn_shard_list){0};
    if (qn_file_exists(single)) {
        // As other loaders do: an index that was left beside a merged file does not count.
        if (has_index) qn_note("%s: model.safetensors is read, not the index beside it", dir);
        out->names = QN_NEW_ARRAY(char *, 1);
        out->names[out->n++] = qn_strdup("model.safetensors");
    } else if (has_index) {
        ok = read_index(index, d, out, err);
    } else {
        ok = qn_fail(err, QN_NOT_FOUND, "%s: no weights: neither model.safetensors nor %s is there",
                     dir, QN_SHARD_INDEX) || qn_damage_take(d, "missing-tensor", NULL, err);
    }
    qn_free(index);
    qn_free(single);
    if (!ok) qn_shard_list_done(out);
    return ok;
}

void qn_shard_list_done(qn_shard_list *l) {
    for (size_t i = 0; i < l->n; i++) qn_free(l->names[i]);
    free(l->names);
    json_decref(l->weight_map);
    *l = (qn_shard_list){0};
}
