// The .npy format, versions 1 to 3: a magic number, the length of a header, and the header, a
// Python dictionary of three keys in any order. Read with a cursor that never leaves the header.
// What lies in big-endian or Fortran order is copied into the order that everything else reads.
#include "quant/npy.h"

#include <string.h>

#include "base/err.h"
#include "base/mem.h"

typedef struct cursor {
    const char *p, *end;
    const char *what;
    qn_err *err;
} cursor;

static bool bad(cursor *c, const char *expected) {
    return qn_fail(c->err, QN_INPUT, "%s: the .npy header is malformed, expected %s", c->what,
                   expected);
}

static void skip_blanks(cursor *c) {
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\t')) c->p++;
}

static bool take(cursor *c, char ch) {
    skip_blanks(c);
    if (c->p == c->end || *c->p != ch) return false;
    c->p++;
    return true;
}

// 'text' or "text" without escapes, at most cap - 1 bytes.
static bool quoted(cursor *c, char *out, size_t cap) {
    size_t n = 0;
    char quote = take(c, '\'') ? '\'' : take(c, '"') ? '"' : 0;
    if (!quote) return false;
    while (c->p < c->end && *c->p != quote && n + 1 < cap) out[n++] = *c->p++;
    out[n] = 0;
    return take(c, quote);
}

static bool word(cursor *c, const char *w) {
    size_t n = strlen(w);
    skip_blanks(c);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, w, n) != 0) return false;
    c->p += n;
    return true;
}

static bool integer(cursor *c, size_t *out) {
    size_t value = 0;
    skip_blanks(c);
    if (c->p == c->end || *c->p < '0' || *c->p > '9') return false;
    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
        if (!qn_mul(value, 10, &value) || !qn_plus(value, (size_t)(*c->p - '0'), &value))
            return false;
    take(c, 'L'); // Python 2 wrote its long integers so
    *out = value;
    return true;
}

static bool read_shape(cursor *c, qn_tensor *t) {
    t->n_dims = 0;
    t->n = 1;
    if (!take(c, '(')) return bad(c, "a tuple as shape");
    while (!take(c, ')')) {
        size_t d;
        if (t->n_dims == QN_MAX_DIMS) return bad(c, "at most 8 dimensions");
        if (!integer(c, &d)) return bad(c, "non-negative integers in shape");
        t->shape[t->n_dims++] = d;
        if (!qn_mul(t->n, d, &t->n)) return bad(c, "a shape that fits into memory");
        if (!take(c, ',') && (c->p == c->end || *c->p != ')')) return bad(c, "a comma in shape");
    }
    return true;
}

static bool refuse_type(cursor *c, const char *text) {
    if (text[0] && strcmp(text + 1, "V2") == 0)
        return qn_fail(c->err, QN_UNSUPPORTED, "%s: the array's type is \"%s\", two bytes without "
                       "a meaning (NumPy forgets bfloat16 so), expected floats or integers: save "
                       "it as float32, or in .safetensors", c->what, text);
    return qn_fail(c->err, QN_UNSUPPORTED, "%s: the array's type is \"%s\", expected floats or "
                   "integers such as \"<f4\"", c->what, text);
}

static bool read_type(cursor *c, const char *text, qn_npy *a) {
    static const struct {
        const char *name;
        qn_dtype dtype;
    } types[] = {{"f2", QN_DT_F16}, {"f4", QN_DT_F32}, {"f8", QN_DT_F64}, {"i1", QN_DT_I8},
                 {"i2", QN_DT_I16}, {"i4", QN_DT_I32}, {"i8", QN_DT_I64}, {"u1", QN_DT_U8},
                 {"u2", QN_DT_U16}, {"u4", QN_DT_U32}, {"u8", QN_DT_U64}, {"b1", QN_DT_BOOL}};
    bool order = text[0] && strchr("<>|=", text[0]);
    for (size_t i = 0; order && i < sizeof types / sizeof *types; i++)
        if (strcmp(text + 1, types[i].name) == 0) {
            a->tensor.dtype = types[i].dtype;
            a->big_endian = text[0] == '>' && qn_dtype_bytes(types[i].dtype) > 1;
            return true;
        }
    return refuse_type(c, text);
}

static bool read_value(cursor *c, const char *key, qn_npy *a) {
    char text[32];
    if (strcmp(key, "descr") == 0)
        return quoted(c, text, sizeof text) ? read_type(c, text, a)
                                            : bad(c, "a plain type, not a structure, as descr");
    if (strcmp(key, "shape") == 0) return read_shape(c, &a->tensor);
    if (strcmp(key, "fortran_order") != 0) return bad(c, "descr, fortran_order and shape");
    a->fortran = word(c, "True");
    return a->fortran || word(c, "False") || bad(c, "True or False as fortran_order");
}

static bool read_dictionary(cursor *c, qn_npy *a) {
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    unsigned seen = 0;
    char key[32];
    if (!take(c, '{')) return bad(c, "a dictionary");
    while (!take(c, '}')) {
        if (!quoted(c, key, sizeof key) || !take(c, ':')) return bad(c, "quoted keys");
        if (!read_value(c, key, a)) return false;
        for (unsigned i = 0; i < 3; i++)
            if (strcmp(key, keys[i]) == 0) seen |= 1u << i;
        take(c, ',');
    }
    return seen == 7 || bad(c, "descr, fortran_order and shape");
}

bool qn_npy_parse(const qn_map *file, const char *what, qn_npy *out, qn_err *err) {
    const uint8_t *d = file->data;
    *out = (qn_npy){0};
    if (file->n < 10 || memcmp(d, "\x93NUMPY", 6) != 0 || d[6] < 1 || d[6] > 3)
        return qn_fail(err, QN_INPUT, "%s: not a .npy file, expected the bytes \\x93NUMPY and a "
                       "version from 1 to 3", what);
    size_t start = d[6] == 1 ? 10 : 12, length = d[8] | (size_t)d[9] << 8;
    if (d[6] > 1 && file->n >= 12) length |= (size_t)d[10] << 16 | (size_t)d[11] << 24;
    if (file->n < start || length > file->n - start)
        return qn_fail(err, QN_INPUT, "%s: the .npy header of %zu bytes passes the file's end",
                       what, length);
    cursor c = {(const char *)d + start, (const char *)d + start + length, what, err};
    qn_tensor *t = &out->tensor;
    size_t bytes;
    if (!read_dictionary(&c, out)) return false;
    if (!qn_mul(t->n, qn_dtype_bytes(t->dtype), &bytes) || bytes != file->n - start - length)
        return qn_fail(err, QN_INPUT, "%s: %zu bytes of data, expected %zu values of %zu bytes",
                       what, file->n - start - length, t->n, qn_dtype_bytes(t->dtype));
    t->offset = start + length;
    t->data = d + t->offset;
    t->bytes = bytes;
    return true;
}

// ---- the usual order ----

static void copy_value(uint8_t *to, const uint8_t *from, size_t size, bool turned) {
    for (size_t i = 0; i < size; i++) to[i] = from[turned ? size - 1 - i : i];
}

// Element k in C order, with its coordinates counted up beside it, lies at the sum of coordinate
// times stride, where the first dimension is the one that runs fastest.
static void copy_fortran(const qn_npy *a, uint8_t *to) {
    const qn_tensor *t = &a->tensor;
    size_t size = qn_dtype_bytes(t->dtype), stride[QN_MAX_DIMS] = {1}, at[QN_MAX_DIMS] = {0};
    for (int i = 1; i < t->n_dims; i++) stride[i] = stride[i - 1] * t->shape[i - 1];
    for (size_t k = 0, from = 0; k < t->n; k++) {
        copy_value(to + k * size, t->data + from * size, size, a->big_endian);
        for (int i = t->n_dims - 1; i >= 0; i--) {
            from += stride[i];
            if (++at[i] < t->shape[i]) break;
            from -= at[i] * stride[i];
            at[i] = 0;
        }
    }
}

bool qn_npy_settle(qn_npy *a, const char *what, void **owned, qn_err *err) {
    qn_tensor *t = &a->tensor;
    size_t size = qn_dtype_bytes(t->dtype);
    *owned = NULL;
    if (!t->n || !(a->big_endian || (a->fortran && t->n_dims > 1))) return true;
    uint8_t *to = *owned = qn_big_alloc(t->bytes, what, err);
    if (!to) return false;
    if (a->fortran)
        copy_fortran(a, to);
    else
        for (size_t i = 0; i < t->n; i++) copy_value(to + i * size, t->data + i * size, size, true);
    t->data = to;
    a->big_endian = a->fortran = false;
    return true;
}
