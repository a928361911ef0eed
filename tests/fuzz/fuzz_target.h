// What fuzz targets share: the entry that libFuzzer and replay.c both call, inputs made of several
// files, and a check that works in every build.
#ifndef TESTS_FUZZ_TARGET_H
#define TESTS_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

// A broken promise ends the program as a crash would, so that the fuzzer keeps the input.
#define FUZZ_CHECK(promise)                                                                        \
    do {                                                                                           \
        if (promise) break;                                                                        \
        fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #promise);                      \
        abort();                                                                                   \
    } while (0)

// Inputs that stand for several files hold them one behind the other with this byte between; it
// occurs neither in JSON nor in UTF-8 text.
#define FUZZ_SPLIT 0xFF

typedef struct fuzz_part {
    const uint8_t *data; // NULL: there are no more
    size_t n;
} fuzz_part;

// The next part; *data and *n become what is behind it.
static inline fuzz_part fuzz_next(const uint8_t **data, size_t *n) {
    fuzz_part p = {*data, *n};
    const uint8_t *cut = *n ? memchr(*data, FUZZ_SPLIT, *n) : NULL;
    if (cut) p.n = (size_t)(cut - *data);
    *data = cut ? cut + 1 : NULL;
    *n = cut ? *n - p.n - 1 : 0;
    return p;
}

#endif
