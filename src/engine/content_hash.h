// 128-bit keyed digests of content: token blocks, images. The key is drawn per process, so nobody
// outside can aim for a collision. The function is SipHash-2-4 with its 128-bit result.
#ifndef QN_ENGINE_CONTENT_HASH_H
#define QN_ENGINE_CONTENT_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qn_digest {
    uint64_t a, b;
} qn_digest;

typedef struct qn_hasher {
    uint64_t v[4], tail; // tail: the last n % 8 bytes, waiting for company
    size_t n;
} qn_hasher;

void qn_hash_init(qn_hasher *h, const uint64_t key[2]);
void qn_hash_add(qn_hasher *h, const void *data, size_t n);
qn_digest qn_hash_finish(qn_hasher *h);

static inline bool qn_digest_equal(qn_digest x, qn_digest y) { return x.a == y.a && x.b == y.b; }

#endif
