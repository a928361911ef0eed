// SipHash-2-4 (Aumasson and Bernstein) with 128 bits out, fed in pieces.
#include "engine/content_hash.h"

static uint64_t rotl(uint64_t x, int by) { return x << by | x >> (64 - by); }

static void rounds(uint64_t v[4], int n) {
    while (n--) {
        v[0] += v[1], v[1] = rotl(v[1], 13) ^ v[0], v[0] = rotl(v[0], 32);
        v[2] += v[3], v[3] = rotl(v[3], 16) ^ v[2];
        v[0] += v[3], v[3] = rotl(v[3], 21) ^ v[0];
        v[2] += v[1], v[1] = rotl(v[1], 17) ^ v[2], v[2] = rotl(v[2], 32);
    }
}

static void word(qn_hasher *h, uint64_t m) {
    h->v[3] ^= m;
    rounds(h->v, 2);
    h->v[0] ^= m;
}

void qn_hash_init(qn_hasher *h, const uint64_t key[2]) {
    *h = (qn_hasher){.v = {key[0] ^ 0x736F6D6570736575u, key[1] ^ 0x646F72616E646F6Du ^ 0xEE,
                           key[0] ^ 0x6C7967656E657261u, key[1] ^ 0x7465646279746573u}};
}

void qn_hash_add(qn_hasher *h, const void *data, size_t n) {
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++) {
        h->tail |= (uint64_t)p[i] << 8 * (h->n & 7);
        if ((++h->n & 7) == 0) {
            word(h, h->tail);
            h->tail = 0;
        }
    }
}

qn_digest qn_hash_finish(qn_hasher *h) {
    word(h, h->tail | (uint64_t)h->n << 56);
    h->v[2] ^= 0xEE;
    rounds(h->v, 4);
    qn_digest d = {.a = h->v[0] ^ h->v[1] ^ h->v[2] ^ h->v[3]};
    h->v[1] ^= 0xDD;
    rounds(h->v, 4);
    d.b = h->v[0] ^ h->v[1] ^ h->v[2] ^ h->v[3];
    return d;
}
