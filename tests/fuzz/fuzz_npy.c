// One .npy array.
#include "base/err.h"
#include "base/mem.h"
#include "fuzz_target.h"
#include "quant/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    qn_map file = {data, n};
    qn_npy a = {0};
    qn_err err = {0};
    bool ok = qn_npy_parse(&file, "file.npy", &a, &err);
    qn_tensor t = a.tensor;
    FUZZ_CHECK(ok == (err.code == QN_OK));
    if (!ok) return 0;
    size_t elements = 1;
    for (int i = 0; i < t.n_dims; i++) FUZZ_CHECK(qn_mul(elements, t.shape[i], &elements));
    FUZZ_CHECK(elements == t.n && t.bytes == t.n * qn_dtype_bytes(t.dtype));
    FUZZ_CHECK(t.offset <= n && t.bytes <= n - t.offset && t.data == data + t.offset);
    float out[4];
    void *copy = NULL;
    FUZZ_CHECK(qn_npy_settle(&a, "file.npy", &copy, &err));
    t = a.tensor;
    if (t.n) qn_tensor_to_f32(&t, t.n > 4 ? t.n - 4 : 0, t.n > 4 ? 4 : t.n, out);
    qn_big_free(copy, t.bytes);
    return 0;
}
