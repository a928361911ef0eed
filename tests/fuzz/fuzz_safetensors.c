// The safetensors header, strict and tolerant. What is read right must lie inside the file.
// An input that starts with 'H' is the header's text alone: its length and some data are added, so
// that the fuzzer does not have to find out about lengths.
#include "base/err.h"
#include "base/mem.h"
#include "fuzz_target.h"
#include "store/safetensors.h"

static void check_tensor(const qn_tensor *t, const uint8_t *file, size_t n) {
    size_t elements = 1;
    FUZZ_CHECK(t->name && t->n_dims >= 0 && t->n_dims <= QN_MAX_DIMS && t->dtype < QN_N_DTYPES);
    if (!t->data) return;
    for (int i = 0; i < t->n_dims; i++) FUZZ_CHECK(qn_mul(elements, t->shape[i], &elements));
    FUZZ_CHECK(elements == t->n && t->bytes == t->n * qn_dtype_bytes(t->dtype));
    FUZZ_CHECK(t->offset <= n && t->bytes <= n - t->offset && t->data == file + t->offset);
    float out[8];
    if (t->n) qn_tensor_to_f32(t, t->n > 8 ? t->n - 8 : 0, t->n > 8 ? 8 : t->n, out);
}

static void parse(const uint8_t *file, size_t n) {
    qn_header strict = {0}, tolerant = {0};
    qn_damages d = {0};
    qn_err err = {0}, err2 = {0};
    bool fits = qn_header_parse(file, n, "file", NULL, &strict, &err);
    FUZZ_CHECK(fits == (err.code == QN_OK));
    bool read = qn_header_parse(file, n, "file", &d, &tolerant, &err2);
    FUZZ_CHECK(!fits || (read && d.n == 0 && tolerant.n == strict.n)); // nothing to tolerate
    FUZZ_CHECK(fits || !read || d.n > 0);                                  // and never silently
    for (size_t i = 0; fits && i < strict.n; i++) {
        FUZZ_CHECK(strict.tensors[i].data);
        check_tensor(&strict.tensors[i], file, n);
    }
    for (size_t i = 0; read && i < tolerant.n; i++) check_tensor(&tolerant.tensors[i], file, n);
    qn_header_done(&strict);
    qn_header_done(&tolerant);
    qn_damages_done(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n == 0 || data[0] != 'H') {
        parse(data, n);
        return 0;
    }
    size_t text = n - 1, whole = 8 + text + 64;
    uint8_t *file = qn_alloc(whole);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)text >> (8 * i));
    memcpy(file + 8, data + 1, text);
    memset(file + 8 + text, 0x3c, 64);
    parse(file, whole);
    free(file);
    return 0;
}
