// Owns the safetensors header: 8 bytes of length, JSON, then the data. The JSON is walked in place;
// afterwards the tensors, in the order of their offsets, have to cover the data exactly once.
//
// Tolerant reading goes on after every breach that leaves something to read. Even a wrong length
// field does not end it: the JSON says itself where it stops, and the data stand at the file's end.
#include "store/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "store/name_order.h"
#include "text/json_scan.h"

typedef struct reader {
    const uint8_t *file;
    size_t n, header_n;
    size_t data_from; // 0: unknown
    const char *name;
    qn_damages *d;
    qn_header *h;
    qn_scan scan;
    bool length_lies; // the length field cannot be right; the JSON's own end counts
} reader;

static bool bad(reader *r, const char *tensor, qn_err *err, const char *what) {
    if (!tensor) return qn_damage_add(r->d, "bad-header", NULL, err, "%s: %s", r->name, what);
    return qn_damage_add(r->d, "bad-header", tensor, err, "%s: tensor %s: %s", r->name, tensor,
                         what);
}

// ---- the JSON ----

// A tensor's entry as written: nothing is checked yet.
typedef struct entry {
    char dtype[16];
    size_t shape[QN_MAX_DIMS], n_dims, offsets[2], n_offsets;
    bool negative, has_dtype, has_shape, has_offsets, twice;
} entry;

static bool read_sizes(reader *r, size_t *out, size_t max, size_t *n, entry *e, qn_err *err) {
    bool more;
    *n = 0;
    if (!qn_scan_open(&r->scan, '[', err)) return false;
    for (;;) {
        if (!qn_scan_item(&r->scan, &more, err)) return false;
        if (!more) return true;
        int64_t x;
        if (!qn_scan_int(&r->scan, &x, err)) return false;
        if (x < 0) e->negative = true;
        if (*n < max) out[*n] = x < 0 ? 0 : (size_t)x;
        ++*n;
    }
}

static bool read_field(reader *r, const char *key, entry *e, qn_buf *text, qn_err *err) {
    if (strcmp(key, "dtype") == 0) {
        if (!qn_scan_string(&r->scan, text, err)) return false;
        e->twice = e->twice || e->has_dtype;
        e->has_dtype = true;
        snprintf(e->dtype, sizeof e->dtype, "%s", text->data ? text->data : "");
        return true;
    }
    if (strcmp(key, "shape") == 0) {
        e->twice = e->twice || e->has_shape;
        e->has_shape = true;
        return read_sizes(r, e->shape, QN_MAX_DIMS, &e->n_dims, e, err);
    }
    if (strcmp(key, "data_offsets") == 0) {
        e->twice = e->twice || e->has_offsets;
        e->has_offsets = true;
        return read_sizes(r, e->offsets, 2, &e->n_offsets, e, err);
    }
    return qn_scan_skip(&r->scan, NULL, err);
}

static bool read_entry(reader *r, entry *e, qn_err *err) {
    qn_buf key = {0}, text = {0};
    bool more = false, ok = qn_scan_open(&r->scan, '{', err);
    *e = (entry){0};
    while (ok && (ok = qn_scan_member(&r->scan, &key, &more, err)) && more)
        ok = read_field(r, key.data ? key.data : "", e, &text, err);
    qn_buf_done(&key);
    qn_buf_done(&text);
    return ok;
}

static bool read_metadata(reader *r, qn_err *err) {
    qn_buf key = {0}, text = {0};
    bool more = false, ok = true, strings = true;
    if (qn_scan_peek(&r->scan) != '{') {
        ok = bad(r, NULL, err, "__metadata__ is not an object") &&
             qn_scan_skip(&r->scan, NULL, err);
    } else {
        ok = qn_scan_open(&r->scan, '{', err);
        while (ok && (ok = qn_scan_member(&r->scan, &key, &more, err)) && more) {
            if (qn_scan_peek(&r->scan) == '"') {
                ok = qn_scan_string(&r->scan, &text, err);
            } else {
                strings = false;
                ok = qn_scan_skip(&r->scan, NULL, err);
            }
        }
        if (ok && !strings) ok = bad(r, NULL, err, "__metadata__ holds a value that is no string");
    }
    qn_buf_done(&key);
    qn_buf_done(&text);
    return ok;
}

static qn_dtype find_dtype(const char *name) {
    int d = 0;
    while (d < QN_N_DTYPES && strcmp(qn_dtype_name((qn_dtype)d), name) != 0) d++;
    return (qn_dtype)d;
}

static bool shape_bytes(const entry *e, qn_dtype dtype, size_t *n, size_t *bytes) {
    *n = 1;
    for (size_t i = 0; i < e->n_dims; i++)
        if (!qn_mul(*n, e->shape[i], n)) return false;
    return qn_mul(*n, qn_dtype_bytes(dtype), bytes);
}

// What makes an entry unusable in itself, or NULL.
static const char *fault_of(const entry *e) {
    if (e->twice) return "a field is there twice";
    if (!e->has_dtype) return "dtype is missing";
    if (!e->has_shape) return "shape is missing";
    if (!e->has_offsets || e->n_offsets != 2) return "data_offsets are not two numbers";
    if (e->negative) return "a size or offset is negative";
    if (e->n_dims > QN_MAX_DIMS) return "more than 8 dimensions";
    if (e->offsets[0] > e->offsets[1]) return "data_offsets end before they begin";
    return NULL;
}

static void keep(reader *r, const char *name, const entry *e, qn_dtype dtype, size_t n,
                 bool sound) {
    qn_header *h = r->h;
    if (h->n == h->cap) {
        h->cap = h->cap ? 2 * h->cap : 64;
        h->tensors = qn_realloc(h->tensors, h->cap * sizeof *h->tensors);
    }
    qn_tensor *t = &h->tensors[h->n++];
    *t = (qn_tensor){.name = qn_strdup(name), .dtype = dtype, .n_dims = (int)e->n_dims, .n = n,
                     .bytes = e->offsets[1] - e->offsets[0], .offset = e->offsets[0]};
    memcpy(t->shape, e->shape, e->n_dims * sizeof *e->shape);
    // Until the data's place is known, `data` marks whether shape and extent agree.
    t->data = sound ? r->file : NULL;
}

static bool unknown_dtype(reader *r, const char *name, const char *dtype, qn_err *err) {
    if (r->d)
        return qn_damage_add(r->d, "bad-header", name, err, "%s: tensor %s: unknown dtype %s",
                             r->name, name, dtype);
    return qn_fail(err, QN_UNSUPPORTED, "%s: tensor %s: unknown dtype %s, expected F64, F32, F16, "
                   "BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U64, U32, U16, U8 or BOOL", r->name,
                   name, dtype);
}

static bool add_entry(reader *r, const qn_buf *key, const entry *e, qn_err *err) {
    const char *name = key->data ? key->data : "", *fault = fault_of(e);
    size_t n, bytes;
    if (strlen(name) != key->n) return bad(r, name, err, "its name holds U+0000");
    if (fault) return bad(r, name, err, fault);
    qn_dtype dtype = find_dtype(e->dtype);
    if (dtype == QN_N_DTYPES) return unknown_dtype(r, name, e->dtype, err);
    if (!shape_bytes(e, dtype, &n, &bytes)) return bad(r, name, err, "its shape overflows");
    size_t extent = e->offsets[1] - e->offsets[0];
    if (extent != bytes &&
        !qn_damage_add(r->d, "bad-header", name, err, "%s: tensor %s: shape and dtype %s take %zu "
                       "bytes, data_offsets give %zu", r->name, name, e->dtype, bytes, extent))
        return false;
    keep(r, name, e, dtype, n, extent == bytes);
    return true;
}

static bool read_members(reader *r, qn_err *err) {
    qn_buf key = {0};
    entry e;
    bool more = false, ok = qn_scan_open(&r->scan, '{', err);
    while (ok && (ok = qn_scan_member(&r->scan, &key, &more, err)) && more) {
        if (key.n == 12 && memcmp(key.data, "__metadata__", 12) == 0)
            ok = read_metadata(r, err);
        else
            ok = read_entry(r, &e, err) && add_entry(r, &key, &e, err);
    }
    qn_buf_done(&key);
    return ok && (r->length_lies || qn_scan_end(&r->scan, err));
}

// ---- the extents ----

static bool drop_duplicates(reader *r, qn_err *err) {
    qn_header *h = r->h;
    size_t *order = qn_name_order_new(h->tensors, h->n, sizeof *h->tensors), kept = 0;
    bool ok = true, *twice = qn_zalloc(h->n + 1);
    for (size_t i = 1; ok && i < h->n; i++) {
        const qn_tensor *a = &h->tensors[order[i - 1]], *b = &h->tensors[order[i]];
        twice[order[i]] = strcmp(a->name, b->name) == 0;
        if (twice[order[i]])
            ok = qn_damage_add(r->d, "duplicate-key", b->name, err, "%s: tensor %s is in the "
                               "header twice, at offsets %zu and %zu", r->name, b->name, a->offset,
                               b->offset);
    }
    for (size_t i = 0; ok && i < h->n; i++) {
        if (twice[i]) qn_free(h->tensors[i].name);
        else h->tensors[kept++] = h->tensors[i];
    }
    if (ok) h->n = kept;
    free(twice);
    free(order);
    return ok;
}

static int by_offset(const void *x, const void *y) {
    const qn_tensor *a = x, *b = y;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

// With a length field that lies, the data are what ends the file, if only blanks stand before.
static void guess_data(reader *r, size_t end) {
    size_t json_end = 8 + r->scan.at;
    r->data_from = 0;
    if (end > r->n || r->n - end < json_end) return;
    for (size_t i = json_end; i < r->n - end; i++)
        if (r->file[i] != ' ') return;
    r->data_from = r->n - end;
}

static bool touch(reader *r, const qn_tensor *t, const qn_tensor *before, size_t reach,
                  qn_err *err) {
    if (t->offset < reach)
        return qn_damage_add(r->d, "overlap", t->name, err, "%s: tensors %s and %s overlap: one "
                             "ends at offset %zu, the other begins at %zu", r->name, before->name,
                             t->name, reach, t->offset);
    if (t->offset > reach)
        return qn_damage_add(r->d, "bad-header", t->name, err, "%s: %zu byte%s before tensor "
                             "%s belong%s to no tensor", r->name, t->offset - reach,
                             qn_plural_s(t->offset - reach), t->name,
                             t->offset - reach == 1 ? "s" : "");
    return true;
}

// Finds where a tensor lies, or that it does not.
static bool place(reader *r, qn_tensor *t, qn_err *err) {
    size_t room = r->data_from ? r->n - r->data_from : 0, begin = t->offset;
    t->offset = r->data_from + begin;
    if (!r->data_from) t->data = NULL;
    if (!t->data) return true;
    if (begin <= room && t->bytes <= room - begin) {
        t->data = r->file + t->offset;
        return true;
    }
    t->data = NULL;
    return qn_damage_add(r->d, "truncated", t->name, err, "%s: the file has %zu bytes, but tensor "
                         "%s ends at %zu: truncated", r->name, r->n, t->name,
                         t->offset + t->bytes);
}

static bool check_extents(reader *r, qn_err *err) {
    qn_header *h = r->h;
    size_t reach = 0;
    const qn_tensor *before = NULL;
    if (h->n) qsort(h->tensors, h->n, sizeof *h->tensors, by_offset);
    for (size_t i = 0; i < h->n; i++) {
        const qn_tensor *t = &h->tensors[i];
        if (!touch(r, t, before, reach, err)) return false;
        if (t->offset + t->bytes > reach) {
            reach = t->offset + t->bytes;
            before = t;
        }
    }
    if (r->length_lies) guess_data(r, reach);
    for (size_t i = 0; i < h->n; i++)
        if (!place(r, &h->tensors[i], err)) return false;
    if (r->data_from && r->n - r->data_from > reach)
        return qn_damage_add(r->d, "bad-header", NULL, err, "%s: %zu byte%s behind the last "
                             "tensor", r->name, r->n - r->data_from - reach,
                             qn_plural_s(r->n - r->data_from - reach));
    return true;
}

// ---- the whole ----

static bool read_length(reader *r, qn_err *err) {
    if (r->n < 9)
        return qn_damage_add(r->d, "truncated", NULL, err, "%s: %zu bytes are too few for a "
                             "safetensors file", r->name, r->n);
    uint64_t length;
    memcpy(&length, r->file, 8);
    if (memcmp(r->file, "GGUF", 4) == 0)
        return qn_fail(err, QN_UNSUPPORTED, "%s is a GGUF file, expected safetensors", r->name);
    r->header_n = r->n - 8 < QN_HEADER_MAX ? r->n - 8 : QN_HEADER_MAX;
    r->length_lies = length > r->header_n;
    if (length > QN_HEADER_MAX) {
        if (!qn_damage_add(r->d, "bad-header", NULL, err, "%s: header of %llu bytes, expected at "
                           "most %zu", r->name, (unsigned long long)length, QN_HEADER_MAX))
            return false;
    } else if (r->length_lies) {
        if (!qn_damage_add(r->d, "truncated", NULL, err, "%s: header of %llu bytes, but only %zu "
                           "follow", r->name, (unsigned long long)length, r->n - 8))
            return false;
    } else {
        r->header_n = (size_t)length;
        r->data_from = 8 + r->header_n;
    }
    if (r->header_n == 0 || r->file[8] != '{') {
        r->header_n = 0;
        return bad(r, NULL, err, "the header does not begin with '{'");
    }
    return true;
}

bool qn_header_parse(const uint8_t *file, size_t n, const char *name, qn_damages *d, qn_header *out,
                     qn_err *err) {
    reader r = {.file = file, .n = n, .name = name, .d = d, .h = out};
    qn_err local = {0}, *e = err ? err : &local;
    char *what = qn_strf("%s: header", name);
    *out = (qn_header){0};
    bool ok = read_length(&r, e);
    if (ok && r.header_n) {
        r.scan = (qn_scan){.text = (const char *)file + 8, .n = r.header_n, .what = what};
        // JSON that breaks off: what stood before it is kept.
        ok = read_members(&r, e) || qn_damage_take(d, "bad-header", NULL, e);
    }
    ok = ok && check_extents(&r, e) && drop_duplicates(&r, e);
    qn_free(what);
    if (!ok) qn_header_done(out);
    return ok;
}

void qn_header_done(qn_header *h) {
    for (size_t i = 0; i < h->n; i++) qn_free(h->tensors[i].name);
    free(h->tensors);
    *h = (qn_header){0};
}
