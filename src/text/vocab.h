// The vocabulary: id <-> spelling <-> bytes.
#ifndef QN_TEXT_VOCAB_H
#define QN_TEXT_VOCAB_H

#include <string.h>

#include "base/str.h"

#define QN_VOCAB_MAX_ID ((1 << 22) - 1) // sixteen times the largest vocabulary known

typedef struct qn_token {
    uint32_t spelling;  // offset into spellings, which has a 0 behind each
    uint32_t bytes;     // offset into bytes
    uint32_t n_bytes : 30;
    uint32_t present : 1;
    uint32_t odd : 1;   // its spelling is outside the byte-level alphabet, so no text makes it
} qn_token;

typedef struct qn_vocab_slot {
    uint32_t tag; // more of the key's hash
    int32_t id;   // -1: free
} qn_vocab_slot;

typedef struct qn_vocab_index { // open addressing; the keys lie in the vocabulary
    qn_vocab_slot *slots;
    size_t mask, n;
} qn_vocab_index;

typedef struct qn_vocab {
    qn_token *tokens;
    size_t n, cap;   // n: largest id + 1
    qn_buf spellings, bytes;
    qn_vocab_index plain; // tokens by their bytes
    qn_vocab_index odd;   // the others by their spelling
    uint64_t seed;        // hashes depend on it, so that no file can be made to collide
    size_t longest;       // of the plain tokens' bytes
    int32_t byte_id[256]; // token of a single byte, or -1
} qn_vocab;

// Memory for tables that are looked at in random order: in huge pages when it is big, which halves
// the time of a look-up. Uninitialised; release with free.
void *qn_table_new(size_t bytes);

void qn_vocab_init(qn_vocab *v);
void qn_vocab_done(qn_vocab *v);
// what names the file in errors. Ids and spellings must be new.
bool qn_vocab_add(qn_vocab *v, const char *spelling, size_t n, int64_t id, const char *what,
                  qn_err *err);
// Ids by spelling and by bytes, or -1.
int32_t qn_vocab_find(const qn_vocab *v, const char *spelling, size_t n);
int32_t qn_vocab_find_hashed(const qn_vocab *v, const char *bytes, size_t n, uint64_t hash);

static inline uint64_t qn_mix(uint64_t a, uint64_t b) {
    __extension__ unsigned __int128 p = (unsigned __int128)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static inline uint64_t qn_load(const char *s, size_t n) { // n from 1 to 8 bytes
    uint64_t x = 0;
    if (n >= 4) {
        uint32_t a, b;
        memcpy(&a, s, 4);
        memcpy(&b, s + n - 4, 4);
        return (uint64_t)a << 32 | b;
    }
    x = (unsigned char)s[0];
    return x << 16 | (uint64_t)(unsigned char)s[n / 2] << 8 | (unsigned char)s[n - 1];
}

static inline uint64_t qn_hash_bytes(const char *s, size_t n, uint64_t seed) {
    uint64_t h = seed ^ n;
    for (; n > 8; s += 8, n -= 8) {
        uint64_t x;
        memcpy(&x, s, 8);
        h = qn_mix(h ^ x, 0x9E3779B97F4A7C15u);
    }
    if (n) h = qn_mix(h ^ qn_load(s, n), 0x9E3779B97F4A7C15u);
    return qn_mix(h, seed | 1);
}

#endif
