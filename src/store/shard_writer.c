// Owns writing safetensors, streamed. All tensors are declared first, so every header is known
// before its file's first data byte; then bytes flow through in order, file after file. Names of
// shards tell their number, which is known then too.
#include "store/shard_writer.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "store/name_order.h"
#include "store/safetensors.h"
#include "store/shard_index.h"

typedef struct declared {
    char *name; // first, for name_order
    qn_dtype dtype;
    int n_dims;
    size_t shape[QN_MAX_DIMS], bytes, shard;
} declared;

struct qn_shards {
    char *dir, *base; // or, with dir NULL: base is the one file's path
    uint64_t limit;   // bytes of data per shard; 0: none
    json_t *metadata;
    declared *list;
    size_t n, cap;

    size_t n_shards; // 0: nothing has been written yet
    size_t shard;    // being written
    size_t next;     // tensor being filled
    uint64_t left;   // of its bytes
    uint64_t reserved_at; // where they begin in the file, between reserve and release
    bool written; // all files have their names
    qn_writer *out, *named; // being written; written, perhaps not on the disk yet
};

static qn_shards *new_shards(const json_t *metadata, qn_err *err) {
    const char *key;
    json_t *value;
    qn_shards *s = QN_NEW(qn_shards);
    s->metadata = json_object();
    json_object_set_new(s->metadata, "format", json_string("pt"));
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) {
        if (!json_is_string(value)) {
            qn_shards_free(s);
            return qn_fail_null(err, QN_USAGE, "metadata %s is no string", key);
        }
        json_object_set(s->metadata, key, value);
    }
    return s;
}

qn_shards *qn_shards_new(const char *dir, const char *base, uint64_t shard_bytes,
                         const json_t *metadata, qn_err *err) {
    qn_shards *s = new_shards(metadata, err);
    if (!s) return NULL;
    s->dir = qn_strdup(dir);
    s->base = qn_strdup(base);
    s->limit = shard_bytes;
    return s;
}

qn_shards *qn_shards_new_file(const char *path, const json_t *metadata, qn_err *err) {
    qn_shards *s = new_shards(metadata, err);
    if (s) s->base = qn_strdup(path);
    return s;
}

void qn_shards_free(qn_shards *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) qn_free(s->list[i].name);
    qn_writer_free(s->out);
    qn_writer_free(s->named);
    json_decref(s->metadata);
    free(s->list);
    free(s->dir);
    free(s->base);
    free(s);
}

// ---- declaring ----

bool qn_shards_declare(qn_shards *s, const char *name, qn_dtype dtype, const size_t *shape,
                       int n_dims, qn_err *err) {
    declared d = {.dtype = dtype, .n_dims = n_dims, .bytes = qn_dtype_bytes(dtype)};
    if (s->n_shards)
        return qn_fail(err, QN_USAGE, "tensor %s is declared after data were written", name);
    if (n_dims < 0 || n_dims > QN_MAX_DIMS)
        return qn_fail(err, QN_LIMIT, "tensor %s has %d dimensions, at most %d can be written",
                       name, n_dims, QN_MAX_DIMS);
    if (qn_utf8_valid(name, strlen(name)) != strlen(name) || strcmp(name, "__metadata__") == 0)
        return qn_fail(err, QN_USAGE, "tensor %s: not a name a tensor can have", name);
    for (int i = 0; i < n_dims; i++) {
        d.shape[i] = shape[i];
        if (!qn_mul(d.bytes, shape[i], &d.bytes))
            return qn_fail(err, QN_LIMIT, "tensor %s: its shape overflows", name);
    }
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->list = qn_realloc(s->list, s->cap * sizeof *s->list);
    }
    d.name = qn_strdup(name);
    s->list[s->n++] = d;
    return true;
}

static bool check_names(const qn_shards *s, qn_err *err) {
    size_t *order = qn_name_order_new(s->list, s->n, sizeof *s->list);
    const char *twice = NULL;
    for (size_t i = 1; i < s->n && !twice; i++)
        if (strcmp(s->list[order[i - 1]].name, s->list[order[i]].name) == 0)
            twice = s->list[order[i]].name;
    free(order);
    return !twice || qn_fail(err, QN_USAGE, "tensor %s is declared twice", twice);
}

// A shard takes tensors until the next one would pass the limit; one tensor is never split.
static void assign_shards(qn_shards *s) {
    uint64_t held = 0;
    size_t shard = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->limit && held && held + s->list[i].bytes > s->limit) {
            shard++;
            held = 0;
        }
        held += s->list[i].bytes;
        s->list[i].shard = shard;
    }
    s->n_shards = shard + 1;
}

static char *shard_name(const qn_shards *s, size_t shard) {
    if (s->n_shards == 1) return qn_strf("%s.safetensors", s->base);
    return qn_strf("%s-%05zu-of-%05zu.safetensors", s->base, shard + 1, s->n_shards);
}

// ---- files ----

static void add_json_string(qn_buf *b, const char *text) {
    json_t *j = json_string(text);
    char *quoted = json_dumps(j, JSON_ENCODE_ANY);
    qn_buf_adds(b, quoted ? quoted : "\"\"");
    free(quoted);
    json_decref(j);
}

static void add_entry(qn_buf *b, const declared *d, uint64_t at) {
    qn_buf_addc(b, ',');
    add_json_string(b, d->name);
    qn_buf_addf(b, ":{\"dtype\":\"%s\",\"shape\":[", qn_dtype_name(d->dtype));
    for (int i = 0; i < d->n_dims; i++) qn_buf_addf(b, "%s%zu", i ? "," : "", d->shape[i]);
    qn_buf_addf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                (unsigned long long)(at + d->bytes));
}

// The header is filled with blanks so that the data begin at a multiple of 8.
static bool write_header(qn_shards *s, qn_err *err) {
    qn_buf b = {0};
    uint64_t at = 0, length;
    char *metadata = qn_json_text(s->metadata, false);
    qn_buf_addf(&b, "{\"__metadata__\":%s", metadata);
    qn_free(metadata);
    for (size_t i = s->next; i < s->n && s->list[i].shard == s->shard; i++) {
        add_entry(&b, &s->list[i], at);
        at += s->list[i].bytes;
    }
    qn_buf_addc(&b, '}');
    while (b.n % 8) qn_buf_addc(&b, ' ');
    length = b.n;
    bool ok = b.n <= QN_HEADER_MAX ||
              qn_fail(err, QN_LIMIT, "the safetensors header would take %zu bytes, at most %zu are "
                      "allowed", b.n, QN_HEADER_MAX);
    ok = ok && qn_writer_expect(s->out, 8 + b.n + at, err) &&
         qn_writer_add(s->out, &length, 8, err) && qn_writer_add(s->out, b.data, b.n, err);
    qn_buf_done(&b);
    return ok;
}

static bool open_shard(qn_shards *s, qn_err *err) {
    if (s->dir) {
        char *name = shard_name(s, s->shard), *path = qn_path_join(s->dir, name);
        s->out = qn_writer_new(path, err);
        qn_free(name);
        qn_free(path);
    } else {
        s->out = qn_writer_new(s->base, err);
    }
    return s->out && write_header(s, err);
}

static bool settle(qn_shards *s, qn_err *err) {
    bool ok = !s->named || qn_writer_settle(s->named, err);
    qn_writer_free(s->named);
    s->named = NULL;
    return ok;
}

// A shard goes to the disk while the next one is made.
static bool close_shard(qn_shards *s, qn_err *err) {
    if (!settle(s, err)) return false;
    bool ok = s->dir ? qn_writer_name(s->out, err) : qn_writer_commit(s->out, err);
    if (ok && s->dir)
        s->named = s->out;
    else
        qn_writer_free(s->out);
    s->out = NULL;
    s->shard++;
    return ok;
}

// Goes on to the next tensor that has bytes, over the borders of files.
static bool advance(qn_shards *s, qn_err *err) {
    while (s->left == 0 && s->next < s->n) {
        s->next++;
        if (s->next < s->n && s->list[s->next].shard != s->shard &&
            !(close_shard(s, err) && open_shard(s, err)))
            return false;
        if (s->next < s->n) s->left = s->list[s->next].bytes;
    }
    return true;
}

static bool start(qn_shards *s, qn_err *err) {
    if (!check_names(s, err)) return false;
    assign_shards(s);
    if (!open_shard(s, err)) return false;
    if (s->n) s->left = s->list[0].bytes;
    return advance(s, err);
}

bool qn_shards_add(qn_shards *s, const void *data, size_t n, qn_err *err) {
    const char *p = data;
    if (!s->n_shards && !start(s, err)) return false;
    while (n) {
        if (s->next >= s->n)
            return qn_fail(err, QN_USAGE, "%zu bytes more than the declared tensors take", n);
        size_t part = n < s->left ? n : (size_t)s->left;
        if (!qn_writer_add(s->out, p, part, err)) return false;
        p += part;
        n -= part;
        s->left -= part;
        if (!advance(s, err)) return false;
    }
    return true;
}

bool qn_shards_reserve(qn_shards *s, qn_err *err) {
    if (!s->n_shards && !start(s, err)) return false;
    if (s->next >= s->n || s->left != s->list[s->next].bytes)
        return qn_fail(err, QN_USAGE, "no whole tensor is left to be written");
    s->reserved_at = qn_writer_size(s->out);
    return qn_writer_reserve(s->out, s->left, err);
}

bool qn_shards_put(qn_shards *s, uint64_t at, const void *data, size_t n, qn_err *err) {
    if (at > s->left || n > s->left - at)
        return qn_fail(err, QN_USAGE, "tensor %s: bytes beyond its end", s->list[s->next].name);
    return qn_writer_put_at(s->out, s->reserved_at + at, data, n, err);
}

bool qn_shards_release(qn_shards *s, qn_err *err) {
    s->left = 0;
    return advance(s, err);
}

// ---- the index ----

static bool write_index(qn_shards *s, qn_err *err) {
    json_t *map = json_object();
    uint64_t total = 0;
    for (size_t i = 0; i < s->n; i++) {
        char *name = shard_name(s, s->list[i].shard);
        json_object_set_new(map, s->list[i].name, json_string(name));
        total += s->list[i].bytes;
        qn_free(name);
    }
    json_t *index = json_pack("{s:{s:I},s:o}", "metadata", "total_size", (json_int_t)total,
                              "weight_map", map);
    char *text = qn_json_text(index, true), *name = qn_strf("%s.safetensors.index.json", s->base);
    char *path = qn_path_join(s->dir, name), *line = qn_strf("%s\n", text);
    bool ok = qn_file_write(path, line, strlen(line), err);
    json_decref(index);
    qn_free(text);
    qn_free(line);
    qn_free(name);
    qn_free(path);
    return ok;
}

bool qn_shards_name(qn_shards *s, qn_err *err) {
    if (!s->n_shards && !start(s, err)) return false;
    if (s->next < s->n)
        return qn_fail(err, QN_USAGE, "tensor %s: %llu of its bytes were not written",
                       s->list[s->next].name, (unsigned long long)s->left);
    if (!close_shard(s, err)) return false;
    s->written = true;
    return s->n_shards == 1 || write_index(s, err);
}

bool qn_shards_finish(qn_shards *s, qn_err *err) {
    return (s->written || qn_shards_name(s, err)) && settle(s, err);
}
