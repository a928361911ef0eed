// Owns the element types of safetensors: names, sizes, and reading any of them as float.
#include <string.h>

#include "base/f16.h"
#include "base/map_guard.h"
#include "store/checkpoint.h"
#include "store/code_loops.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian, and so are we");

static const struct {
    const char *name;
    size_t bytes;
    bool is_float;
} types[QN_N_DTYPES] = {
    [QN_DT_F64] = {"F64", 8, true},         [QN_DT_F32] = {"F32", 4, true},
    [QN_DT_F16] = {"F16", 2, true},         [QN_DT_BF16] = {"BF16", 2, true},
    [QN_DT_F8_E4M3] = {"F8_E4M3", 1, true}, [QN_DT_F8_E5M2] = {"F8_E5M2", 1, true},
    [QN_DT_I64] = {"I64", 8, false},        [QN_DT_I32] = {"I32", 4, false},
    [QN_DT_I16] = {"I16", 2, false},        [QN_DT_I8] = {"I8", 1, false},
    [QN_DT_U8] = {"U8", 1, false},          [QN_DT_BOOL] = {"BOOL", 1, false},
    [QN_DT_U16] = {"U16", 2, false},        [QN_DT_U32] = {"U32", 4, false},
    [QN_DT_U64] = {"U64", 8, false},
};

const char *qn_dtype_name(qn_dtype d) { return types[d].name; }

size_t qn_dtype_bytes(qn_dtype d) { return types[d].bytes; }

bool qn_dtype_is_float(qn_dtype d) { return types[d].is_float; }

static void widen_bytes(const uint8_t *from, size_t n, float (*one)(uint8_t), float *out) {
    float table[256];
    for (unsigned i = 0; i < 256; i++) table[i] = one((uint8_t)i);
    for (size_t i = 0; i < n; i++) out[i] = table[from[i]];
}

#define EACH(type, expression)                                                                     \
    for (size_t i = 0; i < n; i++) {                                                               \
        type x;                                                                                    \
        memcpy(&x, p + i * sizeof x, sizeof x);                                                    \
        out[i] = expression;                                                                       \
    }                                                                                              \
    break

void qn_tensor_to_f32(const qn_tensor *t, size_t from, size_t n, float *out) {
    const uint8_t *p = t->data + from * qn_dtype_bytes(t->dtype);
    const qn_code_loops *loops = n < 16 ? &qn_code_loops_plain : qn_code_loops_best();
    switch (t->dtype) {
    case QN_DT_F32: memcpy(out, p, n * sizeof *out); break;
    case QN_DT_F64: EACH(double, (float)x);
    case QN_DT_F16: loops->widen_f16(p, n, out); break;
    case QN_DT_BF16: loops->widen_bf16(p, n, out); break;
    case QN_DT_F8_E4M3: widen_bytes(p, n, qn_f8e4m3_to_f32, out); break;
    case QN_DT_F8_E5M2: widen_bytes(p, n, qn_f8e5m2_to_f32, out); break;
    case QN_DT_I64: EACH(int64_t, (float)x);
    case QN_DT_I32: EACH(int32_t, (float)x);
    case QN_DT_I16: EACH(int16_t, (float)x);
    case QN_DT_I8: EACH(int8_t, (float)x);
    case QN_DT_U64: EACH(uint64_t, (float)x);
    case QN_DT_U32: EACH(uint32_t, (float)x);
    case QN_DT_U16: EACH(uint16_t, (float)x);
    case QN_DT_U8:
    case QN_DT_BOOL: EACH(uint8_t, (float)x);
    case QN_N_DTYPES: break;
    }
    if (n >= 16) qn_maps_touched(n * qn_dtype_bytes(t->dtype)); // single values are not worth it
}
