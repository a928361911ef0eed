// Two arenas (spellings as the file has them, bytes as text has them), one record per id, and hash
// tables over the bytes. Nearly every token is plain; a foreign file's odd ones, whose spelling has
// a character outside the byte-level alphabet, can be printed and named but never encoded to.
#include "text/vocab.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/rng.h"
#include "text/byte_alphabet.h"

enum { HUGE_PAGE = 2 << 20 };

void *qn_table_new(size_t bytes) {
    if (bytes < HUGE_PAGE) return qn_alloc(bytes);
    size_t rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *p = aligned_alloc(HUGE_PAGE, rounded);
    if (!p) return qn_alloc(bytes); // aborts in one place
    madvise(p, rounded, MADV_HUGEPAGE);
    return p;
}

void qn_vocab_init(qn_vocab *v) {
    *v = (qn_vocab){.seed = qn_rng_system()};
    memset(v->byte_id, 0xFF, sizeof v->byte_id);
}

void qn_vocab_done(qn_vocab *v) {
    free(v->tokens);
    free(v->plain.slots);
    free(v->odd.slots);
    qn_buf_done(&v->spellings);
    qn_buf_done(&v->bytes);
    *v = (qn_vocab){0};
}

static void put(qn_vocab_index *x, uint32_t tag, size_t at, int32_t id) {
    for (at &= x->mask; x->slots[at].id >= 0; at = (at + 1) & x->mask) {}
    x->slots[at] = (qn_vocab_slot){tag, id};
}

// The slot comes from the hash's low half and the tag is that half too: growing needs no keys.
static void grow(qn_vocab_index *x) {
    qn_vocab_index old = *x;
    size_t cap = old.slots ? (old.mask + 1) * 2 : 256;
    x->slots = qn_table_new(cap * sizeof *x->slots);
    memset(x->slots, 0xFF, cap * sizeof *x->slots);
    x->mask = cap - 1;
    for (size_t i = 0; old.slots && i <= old.mask; i++)
        if (old.slots[i].id >= 0) put(x, old.slots[i].tag, old.slots[i].tag, old.slots[i].id);
    free(old.slots);
}

static void insert(qn_vocab_index *x, uint64_t hash, int32_t id) {
    if (!x->slots || x->n * 4 >= x->mask * 3) grow(x);
    put(x, (uint32_t)hash, (size_t)(uint32_t)hash, id);
    x->n++;
}

int32_t qn_vocab_find_hashed(const qn_vocab *v, const char *bytes, size_t n, uint64_t hash) {
    const qn_vocab_index *x = &v->plain;
    if (!x->slots) return -1;
    uint32_t tag = (uint32_t)hash;
    for (size_t at = tag & x->mask; x->slots[at].id >= 0; at = (at + 1) & x->mask) {
        if (x->slots[at].tag != tag) continue;
        const qn_token *t = &v->tokens[x->slots[at].id];
        if (t->n_bytes == n && memcmp(v->bytes.data + t->bytes, bytes, n) == 0)
            return x->slots[at].id;
    }
    return -1;
}

static int32_t find_odd(const qn_vocab *v, const char *spelling, size_t n) {
    const qn_vocab_index *x = &v->odd;
    if (!x->slots) return -1;
    uint32_t tag = (uint32_t)qn_hash_bytes(spelling, n, v->seed);
    for (size_t at = tag & x->mask; x->slots[at].id >= 0; at = (at + 1) & x->mask) {
        const char *s = v->spellings.data + v->tokens[x->slots[at].id].spelling;
        if (x->slots[at].tag == tag && strlen(s) == n && memcmp(s, spelling, n) == 0)
            return x->slots[at].id;
    }
    return -1;
}

int32_t qn_vocab_find(const qn_vocab *v, const char *spelling, size_t n) {
    char small[256];
    qn_buf bytes = {.data = small, .cap = sizeof small};
    bool borrowed = n < sizeof small; // the alphabet never takes more bytes than the spelling
    if (!borrowed) bytes = (qn_buf){0};
    int32_t id;
    if (n > 0 && qn_alphabet_bytes(spelling, n, &bytes))
        id = qn_vocab_find_hashed(v, bytes.data, bytes.n,
                                  qn_hash_bytes(bytes.data, bytes.n, v->seed));
    else
        id = find_odd(v, spelling, n);
    if (!borrowed) qn_buf_done(&bytes);
    return id;
}

static void reserve(qn_vocab *v, size_t n) {
    if (n > v->cap) {
        size_t cap = v->cap ? v->cap + v->cap / 2 : 4096;
        if (cap < n) cap = n;
        v->tokens = qn_realloc(v->tokens, cap * sizeof *v->tokens);
        memset(v->tokens + v->cap, 0, (cap - v->cap) * sizeof *v->tokens);
        v->cap = cap;
    }
    if (n > v->n) v->n = n;
}

static bool acceptable(const qn_vocab *v, const char *spelling, size_t n, int64_t id,
                       const char *what, qn_err *err) {
    if (id < 0 || id > QN_VOCAB_MAX_ID)
        return qn_fail(err, QN_INPUT, "%s: token %.80s has id %lld, expected 0 to %d", what,
                       spelling, (long long)id, QN_VOCAB_MAX_ID);
    if (memchr(spelling, 0, n))
        return qn_fail(err, QN_UNSUPPORTED, "%s: token %lld has U+0000 in its spelling", what,
                       (long long)id);
    if ((size_t)id < v->n && v->tokens[id].present)
        return qn_fail(err, QN_INPUT, "%s: tokens %.80s and %.80s both have id %lld", what,
                       v->spellings.data + v->tokens[id].spelling, spelling, (long long)id);
    if (v->spellings.n + n + 1 > UINT32_MAX)
        return qn_fail(err, QN_LIMIT, "%s: more than 4 GB of tokens", what);
    return true;
}

bool qn_vocab_add(qn_vocab *v, const char *spelling, size_t n, int64_t id, const char *what,
                  qn_err *err) {
    if (!acceptable(v, spelling, n, id, what, err)) return false;
    qn_token t = {.spelling = (uint32_t)v->spellings.n, .bytes = (uint32_t)v->bytes.n,
                  .present = 1};
    t.odd = n == 0 || !qn_alphabet_bytes(spelling, n, &v->bytes);
    if (t.odd) qn_buf_add(&v->bytes, spelling, n);
    t.n_bytes = (uint32_t)(v->bytes.n - t.bytes) & 0x3FFFFFFF; // files are smaller
    const char *bytes = v->bytes.data + t.bytes;
    uint64_t hash = qn_hash_bytes(bytes, t.n_bytes, v->seed);
    int32_t other = t.odd ? find_odd(v, spelling, n)
                          : qn_vocab_find_hashed(v, bytes, t.n_bytes, hash);
    if (other >= 0)
        return qn_fail(err, QN_INPUT, "%s: token %.80s occurs twice, with ids %d and %lld", what,
                       spelling, other, (long long)id);
    qn_buf_add(&v->spellings, spelling, n);
    qn_buf_addc(&v->spellings, 0);
    reserve(v, (size_t)id + 1);
    v->tokens[id] = t;
    insert(t.odd ? &v->odd : &v->plain, hash, (int32_t)id);
    if (t.odd) return true;
    if (t.n_bytes > v->longest) v->longest = t.n_bytes;
    if (t.n_bytes == 1) v->byte_id[(unsigned char)bytes[0]] = (int32_t)id;
    return true;
}
