// PNG, JPEG and WebP bytes, and the EXIF block alone.
#include "base/err.h"
#include "fuzz_target.h"
#include "model/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    int turn = qn_exif_orientation(data, n);
    FUZZ_CHECK(turn >= 1 && turn <= 8);
    qn_pixels p = {0};
    qn_err err = {0};
    bool ok = qn_image_decode(data, n, &p, &err);
    FUZZ_CHECK(ok == (err.code == QN_OK));
    FUZZ_CHECK(!ok || (p.rgb && p.width > 0 && p.height > 0));
    volatile uint8_t last = ok ? p.rgb[3 * (size_t)p.width * (size_t)p.height - 1] : 0;
    (void)last;
    qn_pixels_done(&p);
    return 0;
}
