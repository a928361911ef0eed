// SHA-256 (FIPS 180-4), for comparing decoded weights with the sums in expected.json.
#ifndef TESTS_SUPPORT_SHA256_H
#define TESTS_SUPPORT_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
} sha256;

void sha256_init(sha256 *s);
void sha256_update(sha256 *s, const void *data, size_t n);
void sha256_hex(sha256 *s, char out[65]); // finishes; s is spent afterwards

#endif
