// Opens either side of a comparison and says which kind it is. Formats that execute code when read
// (.pt) or that need an archive reader (.npz) are refused with what to do instead.
#include "quant/compare_file.h"

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

// "…/hidden.3.npy" holds hidden.3; a file with any other name holds logits.
static char *array_name(const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char *name = qn_strndup(base, strlen(base) - strlen(".npy"));
    if (is_dump_name(name) && strcmp(name, "tokens") != 0) return name;
    free(name);
    return qn_strdup("logits");
}

static bool open_npy(qn_compare_file *f, qn_err *err) {
    if (!qn_map_open(&f->npy, f->path, err) || !qn_npy_parse(&f->npy, f->path, &f->array, err))
        return false;
    f->array.name = array_name(f->path);
    f->is_dump = true;
    return true;
}

static bool open_tensors(qn_compare_file *f, bool folder, qn_err *err) {
    f->ckpt = qn_ckpt_open(f->path, 0, err);
    if (!f->ckpt) return false;
    for (size_t i = 0; !folder && i < qn_ckpt_n_tensors(f->ckpt); i++)
        if (is_dump_name(qn_ckpt_tensor(f->ckpt, i)->name)) f->is_dump = true;
    return true;
}

static bool refuse(const char *spec, qn_err *err) {
    static const char *const pickles[] = {".pt", ".pth", ".bin", ".pkl", ".ckpt"};
    if (qn_str_ends(spec, ".npz"))
        return qn_fail(err, QN_UNSUPPORTED, "%s: .npz archives are not read; save the arrays as "
                       "one .safetensors file, or the logits as .npy", spec);
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++)
        if (qn_str_ends(spec, pickles[i]))
            return qn_fail(err, QN_UNSUPPORTED, "%s: pickled files can run code and are not read; "
                           "save the tensors as .safetensors", spec);
    if (!qn_file_exists(spec))
        return qn_fail(err, QN_NOT_FOUND, "%s: no such file", spec);
    return qn_fail(err, QN_UNSUPPORTED, "%s: expected a .safetensors or .npy file, or a "
                   "checkpoint's folder", spec);
}

static bool looks_like_file(const char *spec) {
    static const char *const ends[] = {".npz", ".npy", ".safetensors", ".pt", ".pth", ".pkl"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (qn_str_ends(spec, ends[i])) return true;
    return qn_file_exists(spec);
}

bool qn_compare_file_open(qn_compare_file *f, const char *spec, qn_err *err) {
    *f = (qn_compare_file){0};
    bool ok, folder = qn_file_is_dir(spec);
    if (folder || !looks_like_file(spec)) {
        ok = qn_resolve(spec, &f->path, err) && open_tensors(f, true, err);
    } else if (qn_file_exists(spec) && qn_str_ends(spec, ".npy")) {
        f->path = qn_strdup(spec);
        ok = open_npy(f, err);
    } else if (qn_file_exists(spec) && qn_str_ends(spec, ".safetensors")) {
        f->path = qn_strdup(spec);
        ok = open_tensors(f, false, err);
    } else {
        ok = refuse(spec, err);
    }
    if (!ok) qn_compare_file_close(f);
    return ok;
}

void qn_compare_file_close(qn_compare_file *f) {
    qn_ckpt_free(f->ckpt);
    qn_map_close(&f->npy);
    qn_free(f->array.name);
    qn_free(f->path);
    *f = (qn_compare_file){0};
}

size_t qn_compare_file_n(const qn_compare_file *f) {
    return f->ckpt ? qn_ckpt_n_tensors(f->ckpt) : f->array.name != NULL;
}

const qn_tensor *qn_compare_file_at(const qn_compare_file *f, size_t i) {
    return f->ckpt ? qn_ckpt_tensor(f->ckpt, i) : &f->array;
}

const qn_tensor *qn_compare_file_find(const qn_compare_file *f, const char *name) {
    if (f->ckpt) return qn_ckpt_find(f->ckpt, name);
    return f->array.name && strcmp(f->array.name, name) == 0 ? &f->array : NULL;
}

size_t qn_tensor_cols(const qn_tensor *t) { return t->n_dims ? t->shape[t->n_dims - 1] : 1; }

size_t qn_tensor_rows(const qn_tensor *t) {
    size_t cols = qn_tensor_cols(t);
    return cols ? t->n / cols : 0;
}

static int64_t integer_at(const qn_tensor *t, size_t i) {
    int64_t wide;
    int32_t narrow;
    if (t->dtype == QN_DT_I32) {
        memcpy(&narrow, t->data + i * sizeof narrow, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, t->data + i * sizeof wide, sizeof wide);
    return wide;
}

bool qn_compare_file_tokens(const qn_compare_file *f, int64_t **ids, size_t *n, qn_err *err) {
    const qn_tensor *t = qn_compare_file_find(f, "tokens");
    *ids = NULL;
    *n = 0;
    if (!t) return true;
    if (t->dtype != QN_DT_I32 && t->dtype != QN_DT_I64)
        return qn_fail(err, QN_INPUT, "%s: tensor tokens is %s, expected I32 or I64", f->path,
                       qn_dtype_name(t->dtype));
    *ids = QN_NEW_ARRAY(int64_t, t->n + 1);
    *n = t->n;
    for (size_t i = 0; i < t->n; i++) (*ids)[i] = integer_at(t, i);
    return true;
}
