// An .npz file is a zip archive of .npy files; libzip unpacks it. Owns the limits: an entry's size
// is believed only as far as it can be true for an archive of this size, before anything is allocated,
// and what comes out must be exactly that long, with the right checksum.
#include "quant/npz.h"

#include <stdlib.h>
#include <string.h>
#include <zip.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/npy.h"

#define MOST_ENTRIES 65536
#define MOST_BYTES ((uint64_t)4 << 30)
// Deflate cannot do better than 1032 to 1. Arrays of real numbers hardly reach 2 to 1; the constant
// ones that do are small.
#define DEFLATE_LIMIT 1032
#define FREE_BYTES ((uint64_t)64 << 20)
#define MOST_GROWTH 100

typedef struct archive {
    zip_t *zip;
    const char *path;
    uint64_t file_bytes, total; // of the file; promised by the entries so far
} archive;

static bool open_zip(archive *a, const qn_map *file, qn_err *err) {
    zip_error_t e;
    a->file_bytes = file->n;
    if (a->file_bytes > MOST_BYTES)
        return qn_fail(err, QN_LIMIT, "%s: the archive has %llu bytes, expected at most %llu; save "
                       "the arrays as .safetensors", a->path, (unsigned long long)a->file_bytes,
                       (unsigned long long)MOST_BYTES);
    zip_error_init(&e);
    zip_source_t *source = zip_source_buffer_create(file->data, file->n, 0, &e);
    a->zip = source ? zip_open_from_source(source, ZIP_RDONLY, &e) : NULL;
    if (!a->zip) {
        zip_source_free(source);
        qn_fail(err, QN_INPUT, "%s: not a readable .npz (zip) archive: %s", a->path,
                zip_error_strerror(&e));
    }
    zip_error_fini(&e);
    return a->zip != NULL;
}

static bool too_big(const archive *a, const char *name, uint64_t n, qn_err *err) {
    return qn_fail(err, QN_LIMIT, "%s: with %s the arrays unpack to %llu bytes, expected at most "
                   "%llu; save them as .safetensors", a->path, name, (unsigned long long)n,
                   (unsigned long long)MOST_BYTES);
}

// Whether the sizes can be true and are bearable.
static bool check_size(archive *a, const zip_stat_t *s, const char *name, qn_err *err) {
    uint64_t limit = s->comp_method == ZIP_CM_STORE ? s->comp_size
                                                    : s->comp_size * DEFLATE_LIMIT + DEFLATE_LIMIT;
    if (s->size > MOST_BYTES || s->size > MOST_BYTES - a->total)
        return too_big(a, name, s->size > MOST_BYTES ? s->size : a->total + s->size, err);
    if (s->comp_size > a->file_bytes || s->size > limit)
        return qn_fail(err, QN_INPUT, "%s: %s says it unpacks from %llu to %llu bytes, which "
                       "cannot be", a->path, name, (unsigned long long)s->comp_size,
                       (unsigned long long)s->size);
    a->total += s->size;
    if (a->total <= FREE_BYTES || a->total / MOST_GROWTH <= a->file_bytes) return true;
    return qn_fail(err, QN_LIMIT, "%s: %llu bytes unpack to at least %llu, expected at most %d "
                   "times as many", a->path, (unsigned long long)a->file_bytes,
                   (unsigned long long)a->total, MOST_GROWTH);
}

static bool check_entry(archive *a, const zip_stat_t *s, const char *name, qn_err *err) {
    const zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD |
                                ZIP_STAT_ENCRYPTION_METHOD;
    if ((s->valid & needed) != needed)
        return qn_fail(err, QN_INPUT, "%s: %s lacks its size or method", a->path, name);
    if (s->encryption_method != ZIP_EM_NONE)
        return qn_fail(err, QN_UNSUPPORTED, "%s: %s is encrypted, expected an archive by "
                       "numpy.savez", a->path, name);
    if (s->comp_method != ZIP_CM_STORE && s->comp_method != ZIP_CM_DEFLATE)
        return qn_fail(err, QN_UNSUPPORTED, "%s: %s is packed by method %u, expected stored (0) or "
                       "deflated (8)", a->path, name, s->comp_method);
    if (!qn_str_ends(name, ".npy"))
        return qn_fail(err, QN_INPUT, "%s: %s is not a .npy array, expected only what numpy.savez "
                       "writes", a->path, name);
    return check_size(a, s, name, err);
}

// n bytes exactly: the read behind them must find the end, and there libzip checks the checksum.
static bool unpack(const archive *a, zip_uint64_t i, const char *name, void *to, uint64_t n,
                   qn_err *err) {
    zip_file_t *f = zip_fopen_index(a->zip, i, 0);
    uint8_t *p = to, beyond;
    uint64_t done = 0;
    zip_int64_t got = f ? 1 : -1;
    while (got > 0 && done < n)
        if ((got = zip_fread(f, p + done, n - done)) > 0) done += (uint64_t)got;
    bool whole = done == n && got >= 0;
    if (whole) got = zip_fread(f, &beyond, 1);
    bool ok = whole && got == 0;
    if (!ok)
        qn_fail(err, QN_INPUT, "%s: %s does not unpack: %s", a->path, name,
                got < 0 ? f ? zip_error_strerror(zip_file_get_error(f)) : zip_strerror(a->zip)
                        : whole ? "it is longer than it says" : "it ends early");
    if (f) zip_fclose(f);
    return ok;
}

// Entry i of the archive becomes the next array.
static bool read_array(archive *a, qn_npz *z, zip_uint64_t i, qn_err *err) {
    zip_stat_t s;
    if (zip_stat_index(a->zip, i, 0, &s) != 0 || !(s.valid & ZIP_STAT_NAME))
        return qn_fail(err, QN_INPUT, "%s: entry %llu has no name", a->path,
                       (unsigned long long)i);
    if (!check_entry(a, &s, s.name, err)) return false;
    size_t k = z->n, n = (size_t)s.size;
    void *file = qn_big_alloc(n ? n : 1, s.name, err), *other = NULL;
    if (!file) return qn_err_prefix(err, "%s", a->path);
    z->n++;
    z->memory[k] = file;
    z->memory_bytes[k] = n ? n : 1;
    z->list[k].name = qn_strndup(s.name, strlen(s.name) - strlen(".npy"));
    char *what = qn_strf("%s: %s", a->path, s.name);
    qn_npy array = {0};
    bool ok = unpack(a, i, s.name, file, s.size, err) &&
              qn_npy_parse(&(qn_map){file, n}, what, &array, err) &&
              qn_npy_settle(&array, what, &other, err);
    free(what);
    if (other) { // the copy in the usual order takes the file's place
        qn_big_free(file, z->memory_bytes[k]);
        z->memory[k] = other;
        z->memory_bytes[k] = array.tensor.bytes;
    }
    array.tensor.name = z->list[k].name;
    z->list[k] = array.tensor;
    return ok;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const qn_tensor *const *)a)->name, (*(const qn_tensor *const *)b)->name);
}

static bool check_names(const archive *a, const qn_npz *z, qn_err *err) {
    const qn_tensor **sorted = QN_NEW_ARRAY(const qn_tensor *, z->n);
    const char *twice = NULL;
    for (size_t i = 0; i < z->n; i++) sorted[i] = &z->list[i];
    if (z->n) qsort(sorted, z->n, sizeof *sorted, by_name);
    for (size_t i = 1; i < z->n && !twice; i++)
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0) twice = sorted[i]->name;
    free(sorted);
    if (!twice) return true;
    return qn_fail(err, QN_INPUT, "%s: %s.npy is there twice", a->path, twice);
}

static bool read_all(archive *a, qn_npz *z, qn_err *err) {
    zip_int64_t n = zip_get_num_entries(a->zip, 0);
    if (n <= 0) return qn_fail(err, QN_INPUT, "%s: the archive is empty", a->path);
    if (n > MOST_ENTRIES)
        return qn_fail(err, QN_LIMIT, "%s: %lld entries, expected at most %d", a->path,
                       (long long)n, MOST_ENTRIES);
    z->list = QN_NEW_ARRAY(qn_tensor, (size_t)n);
    z->memory = QN_NEW_ARRAY(void *, (size_t)n);
    z->memory_bytes = QN_NEW_ARRAY(size_t, (size_t)n);
    for (zip_uint64_t i = 0; i < (zip_uint64_t)n; i++)
        if (!read_array(a, z, i, err)) return false;
    return check_names(a, z, err);
}

bool qn_npz_read(qn_npz *z, const qn_map *file, const char *what, qn_err *err) {
    archive a = {.path = what};
    *z = (qn_npz){0};
    bool ok = open_zip(&a, file, err) && read_all(&a, z, err);
    if (a.zip) zip_discard(a.zip);
    if (!ok) qn_npz_close(z);
    return ok;
}

void qn_npz_close(qn_npz *z) {
    for (size_t i = 0; i < z->n; i++) {
        qn_free(z->list[i].name);
        qn_big_free(z->memory[i], z->memory_bytes[i]);
    }
    free(z->list);
    free(z->memory);
    free(z->memory_bytes);
    *z = (qn_npz){0};
}
