// Opens either side of a comparison and says which kind it is. Formats that execute code when read
// (.pt) are refused with what to do instead.
#include "quant/compare_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "quant/npy.h"

// Names that only a dump's tensors have.
static bool is_dump_name(const char *name) {
    return strcmp(name, "tokens") == 0 || strcmp(name, "logits") == 0 ||
           strcmp(name, "mtp.logits") == 0 || qn_str_starts(name, "hidden.") ||
           strcmp(name, "vision.pixel_values") == 0 || strcmp(name, "vision.grid_thw") == 0 ||
           strcmp(name, "vision.embeds") == 0;
}

// "…/hidden.3.npy" holds hidden.3; a file whose name is not a dump's holds logits.
static char *array_name(const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char *name = qn_strndup(base, strlen(base) - strlen(".npy"));
    if (is_dump_name(name)) return name;
    free(name);
    return qn_strdup("logits");
}

static bool open_npy(qn_compare_file *f, qn_err *err) {
    qn_npy a = {0};
    if (!qn_map_open(&f->npy, f->path, err) || !qn_npy_parse(&f->npy, f->path, &a, err) ||
        !qn_npy_settle(&a, f->path, &f->copy, err))
        return false;
    f->array = a.tensor;
    f->array.name = array_name(f->path);
    f->is_dump = true;
    return true;
}

static bool open_npz(qn_compare_file *f, qn_err *err) {
    qn_map file = {0};
    bool ok = qn_map_open(&file, f->path, err) && qn_npz_read(&f->npz, &file, f->path, err);
    qn_map_close(&file);
    if (!ok) return false;
    f->is_dump = true;
    for (size_t i = 0; i < f->npz.n; i++)
        if (is_dump_name(f->npz.list[i].name)) return true;
    if (f->npz.n > 1)
        return qn_fail(err, QN_INPUT, "%s: no array is named as a dump's tensors are (first: %s), "
                       "expected logits, tokens, hidden.N …", f->path, f->npz.list[0].name);
    qn_free(f->npz.list[0].name);
    f->npz.list[0].name = qn_strdup("logits");
    return true;
}

static bool open_folder(qn_compare_file *f, qn_err *err) {
    f->ckpt = qn_ckpt_open(f->path, 0, err);
    return f->ckpt != NULL;
}

static bool open_file(qn_compare_file *f, qn_err *err) {
    if (!open_folder(f, err)) return false;
    for (size_t i = 0; i < qn_ckpt_n_tensors(f->ckpt); i++)
        if (is_dump_name(qn_ckpt_tensor(f->ckpt, i)->name)) f->is_dump = true;
    return true;
}

static bool refuse(const char *spec, qn_err *err) {
    static const char *const pickles[] = {".pt", ".pth", ".bin", ".pkl", ".ckpt"};
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++)
        if (qn_str_ends(spec, pickles[i]))
            return qn_fail(err, QN_UNSUPPORTED, "%s: pickled files can run code and are not read; "
                           "save the tensors as .safetensors", spec);
    if (!qn_file_exists(spec))
        return qn_fail(err, QN_NOT_FOUND, "%s: no such file", spec);
    return qn_fail(err, QN_UNSUPPORTED, "%s: expected a .safetensors, .npy or .npz file, or "
                   "a checkpoint's folder", spec);
}

static bool looks_like_file(const char *spec) {
    static const char *const ends[] = {".npz", ".npy", ".safetensors", ".pt", ".pth", ".pkl"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (qn_str_ends(spec, ends[i])) return true;
    return qn_file_exists(spec);
}

bool qn_compare_file_open(qn_compare_file *f, const char *spec, qn_err *err) {
    static const struct {
        const char *end;
        bool (*open)(qn_compare_file *f, qn_err *err);
    } kinds[] = {{".npy", open_npy}, {".npz", open_npz}, {".safetensors", open_file}};
    *f = (qn_compare_file){0};
    bool ok, folder = qn_file_is_dir(spec), (*open)(qn_compare_file *, qn_err *) = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (qn_file_exists(spec) && qn_str_ends(spec, kinds[i].end)) open = kinds[i].open;
    if (folder || !looks_like_file(spec)) {
        ok = qn_resolve(spec, &f->path, err) && open_folder(f, err);
    } else if (open) {
        f->path = qn_strdup(spec);
        ok = open(f, err);
    } else {
        ok = refuse(spec, err);
    }
    if (!ok) qn_compare_file_close(f);
    return ok;
}

void qn_compare_file_close(qn_compare_file *f) {
    qn_ckpt_free(f->ckpt);
    qn_npz_close(&f->npz);
    qn_map_close(&f->npy);
    qn_big_free(f->copy, f->array.bytes);
    qn_free(f->array.name);
    qn_free(f->path);
    *f = (qn_compare_file){0};
}

size_t qn_compare_file_n(const qn_compare_file *f) {
    return f->ckpt ? qn_ckpt_n_tensors(f->ckpt) : f->npz.n ? f->npz.n : f->array.name != NULL;
}

const qn_tensor *qn_compare_file_at(const qn_compare_file *f, size_t i) {
    return f->ckpt ? qn_ckpt_tensor(f->ckpt, i) : f->npz.n ? &f->npz.list[i] : &f->array;
}

const qn_tensor *qn_compare_file_find(const qn_compare_file *f, const char *name) {
    if (f->ckpt) return qn_ckpt_find(f->ckpt, name);
    for (size_t i = 0; i < qn_compare_file_n(f); i++)
        if (strcmp(qn_compare_file_at(f, i)->name, name) == 0) return qn_compare_file_at(f, i);
    return NULL;
}

size_t qn_tensor_cols(const qn_tensor *t) { return t->n_dims ? t->shape[t->n_dims - 1] : 1; }

size_t qn_tensor_rows(const qn_tensor *t) {
    size_t cols = qn_tensor_cols(t);
    return cols ? t->n / cols : 0;
}

// Little-endian, as wide as its type; no token needs more than 63 bits.
static int64_t integer_at(const qn_tensor *t, size_t i) {
    size_t size = qn_dtype_bytes(t->dtype);
    uint64_t x = 0;
    memcpy(&x, t->data + i * size, size);
    bool is_signed = t->dtype == QN_DT_I8 || t->dtype == QN_DT_I16 || t->dtype == QN_DT_I32;
    if (is_signed && x >> (8 * size - 1)) x |= UINT64_MAX << (8 * size - 1);
    return (int64_t)x;
}

static bool is_integer(qn_dtype d) {
    return !qn_dtype_is_float(d) && d != QN_DT_BOOL;
}

// Of at most 24 digits between the first and the last that is not 0.
static bool short_integer(int64_t x, bool is_unsigned) {
    uint64_t magnitude = x < 0 && !is_unsigned ? 0 - (uint64_t)x : (uint64_t)x;
    while (magnitude && !(magnitude & 1)) magnitude >>= 1;
    return magnitude < (uint64_t)1 << 24;
}

bool qn_tensor_fits_f32(const qn_tensor *t) {
    if (qn_dtype_bytes(t->dtype) < 4 || t->dtype == QN_DT_F32) return true;
    bool is_unsigned = t->dtype == QN_DT_U32 || t->dtype == QN_DT_U64;
    for (size_t i = 0; i < t->n; i++) {
        double x;
        if (t->dtype == QN_DT_F64) memcpy(&x, t->data + i * sizeof x, sizeof x);
        if (t->dtype == QN_DT_F64 ? !isnan(x) && (double)(float)x != x
                                  : !short_integer(integer_at(t, i), is_unsigned))
            return false;
    }
    return true;
}

bool qn_compare_file_tokens(const qn_compare_file *f, int64_t **ids, size_t *n, qn_err *err) {
    const qn_tensor *t = qn_compare_file_find(f, "tokens");
    *ids = NULL;
    *n = 0;
    if (!t) return true;
    if (!is_integer(t->dtype))
        return qn_fail(err, QN_INPUT, "%s: tensor tokens is %s, expected integers such as I32",
                       f->path, qn_dtype_name(t->dtype));
    *ids = QN_NEW_ARRAY(int64_t, t->n + 1);
    *n = t->n;
    for (size_t i = 0; i < t->n; i++) (*ids)[i] = integer_at(t, i);
    return true;
}
