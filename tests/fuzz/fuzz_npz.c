// One .npz archive.
#include "base/err.h"
#include "base/mem.h"
#include "fuzz_target.h"
#include "quant/npz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    qn_map file = {data, n};
    qn_npz z;
    qn_err err = {0};
    bool ok = qn_npz_read(&z, &file, "file.npz", &err);
    FUZZ_CHECK(ok == (err.code == QN_OK) && ok == (z.n > 0));
    for (size_t i = 0; i < z.n; i++) {
        const qn_tensor *t = &z.list[i];
        float out[4];
        FUZZ_CHECK(t->name && t->bytes == t->n * qn_dtype_bytes(t->dtype));
        if (t->n) qn_tensor_to_f32(t, t->n > 4 ? t->n - 4 : 0, t->n > 4 ? 4 : t->n, out);
    }
    qn_npz_close(&z);
    return 0;
}
