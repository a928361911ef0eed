// Byte-level BPE. A piece starts as one token per byte; again and again the adjacent pair with the
// lowest rank (the leftmost of equals) becomes one token. Short pieces keep their tokens and pair
// ranks in two small arrays that are searched from the front: that beats every cleverer structure
// up to some hundred bytes. Long ones keep a list of nodes and a heap of candidate pairs, so that a
// word of a megabyte costs n log n.
//
// Two short cuts, both exact. Most pieces of real text are a token by themselves; whether a token's
// bytes, encoded, really give that token (some vocabularies have entries that no merges lead to) is
// found out on the first meeting and remembered in one byte per token; threads may do so at once,
// for the answer is fixed. And most characters beyond ASCII become one token whatever stands around
// them (bpe_chars.c finds out which), so they start as that.
#include "text/bpe.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "text/byte_alphabet.h"
#include "text/unicode.h"

enum { SHORT = 128 };                  // bytes of a piece that is searched from the front
enum { UNKNOWN = 0, WHOLE, IN_PARTS }; // qn_bpe.whole

#define FREE UINT64_MAX
#define RANK_BITS ((uint64_t)0xFFFFF)

struct bpe_node {
    int32_t id;   // -1: merged into the one before
    int32_t rank; // of the pair with the next node
    int32_t prev, next;
};

void qn_ids_reserve(qn_ids *ids, size_t more) {
    size_t need = ids->n + more, cap = ids->cap + ids->cap / 2;
    if (need <= ids->cap) return;
    if (cap < need) cap = need;
    if (cap < 64) cap = 64;
    ids->data = qn_realloc(ids->data, cap * sizeof *ids->data);
    ids->cap = cap;
}

// ---- rules ----

void qn_bpe_init(qn_bpe *b) {
    *b = (qn_bpe){0};
    qn_vocab_init(&b->vocab);
}

void qn_bpe_done(qn_bpe *b) {
    qn_vocab_done(&b->vocab);
    free(b->rules);
    free(b->products);
    free(b->filter);
    free(b->pair_rank);
    free(b->chars);
    free((void *)b->whole);
    *b = (qn_bpe){0};
}

static inline uint64_t hash_key(const qn_bpe *b, uint64_t key) {
    return qn_mix(key ^ b->vocab.seed, 0x9E3779B97F4A7C15u);
}

static inline uint64_t pair_key(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 42 | (uint64_t)(uint32_t)right << 20;
}

// The slot of a pair, or the free one where it belongs.
static inline uint64_t *slot_of(const qn_bpe *b, uint64_t key, uint64_t hash) {
    size_t at = (size_t)hash & b->mask;
    while (b->rules[at] != FREE && (b->rules[at] ^ key) >> 20) at = (at + 1) & b->mask;
    return &b->rules[at];
}

static inline int32_t rank_of(const qn_bpe *b, int32_t left, int32_t right) {
    uint64_t key = pair_key(left, right), hash = hash_key(b, key);
    size_t bit = (size_t)(hash >> 32) & b->filter_mask;
    if (!(b->filter[bit / 64] >> bit % 64 & 1)) return QN_NO_RANK;
    uint64_t rule = *slot_of(b, key, hash);
    return rule == FREE ? QN_NO_RANK : (int32_t)(rule & RANK_BITS);
}

int32_t qn_bpe_rank(const qn_bpe *b, int32_t left, int32_t right) {
    return rank_of(b, left, right);
}

static void put(qn_bpe *b, uint64_t rule) {
    uint64_t key = rule & ~RANK_BITS;
    *slot_of(b, key, hash_key(b, key)) = rule;
}

static void grow(qn_bpe *b) {
    size_t old = b->rules ? b->mask + 1 : 0, cap = old ? old * 2 : 1024;
    uint64_t *was = b->rules;
    b->rules = qn_table_new(cap * sizeof *b->rules);
    memset(b->rules, 0xFF, cap * sizeof *b->rules);
    b->mask = cap - 1;
    for (size_t i = 0; i < old; i++)
        if (was[i] != FREE) put(b, was[i]);
    free(was);
}

static void insert(qn_bpe *b, int32_t left, int32_t right, int32_t product) {
    if (!b->rules || b->n * 3 >= b->mask * 2) grow(b);
    if (b->n_rules == b->cap_products) {
        b->cap_products = b->cap_products ? b->cap_products * 2 : 1024;
        b->products = qn_realloc(b->products, b->cap_products * sizeof *b->products);
    }
    uint64_t key = pair_key(left, right), *slot = slot_of(b, key, hash_key(b, key));
    if (*slot == FREE) b->n++; // a rule given twice counts where it stands last, as in the original
    *slot = key | (uint64_t)b->n_rules;
    b->products[b->n_rules++] = product;
}

static int32_t known(const qn_bpe *b, qn_span token, const char *what, qn_err *err) {
    int32_t id = qn_vocab_find(&b->vocab, token.text, token.n);
    if (id < 0)
        qn_fail(err, QN_INPUT, "%s: merge %zu: %.*s is not in the vocabulary", what, b->n_rules + 1,
                (int)(token.n < 80 ? token.n : 80), token.text);
    return id;
}

static int32_t find_bytes(const qn_vocab *v, const char *s, size_t n) {
    return qn_vocab_find_hashed(v, s, n, qn_hash_bytes(s, n, v->seed));
}

// Vocabularies mostly list products in the order of their rules: the one behind the last product
// is looked at before the hash table.
static int32_t find_product(const qn_bpe *b, const char *s, size_t n) {
    const qn_vocab *v = &b->vocab;
    size_t next = b->n_rules ? (size_t)b->products[b->n_rules - 1] + 1 : v->n;
    if (next < v->n) {
        const qn_token *t = &v->tokens[next];
        if (t->present && !t->odd && t->n_bytes == n &&
            memcmp(v->bytes.data + t->bytes, s, n) == 0)
            return (int32_t)next;
    }
    return find_bytes(v, s, n);
}

enum { SMALL = 512 };

// A rule whose three tokens are all there and of the byte alphabet; false: to be looked at closely.
static bool add_plain(qn_bpe *b, qn_span left, qn_span right) {
    char small[SMALL];
    qn_buf bytes = {.data = small, .cap = sizeof small};
    if (left.n + right.n >= SMALL) return false;
    if (!qn_alphabet_bytes(left.text, left.n, &bytes)) return false;
    size_t n = bytes.n;
    if (!qn_alphabet_bytes(right.text, right.n, &bytes) || n == 0 || bytes.n == n) return false;
    int32_t l = find_bytes(&b->vocab, small, n);
    int32_t r = find_bytes(&b->vocab, small + n, bytes.n - n);
    int32_t product = find_product(b, small, bytes.n);
    if (l < 0 || r < 0 || product < 0) return false;
    insert(b, l, r, product);
    return true;
}

bool qn_bpe_add_merge(qn_bpe *b, qn_span left, qn_span right, const char *what, qn_err *err) {
    if (b->n_rules >= QN_BPE_MAX_RULES)
        return qn_fail(err, QN_LIMIT, "%s: more than %d merges", what, QN_BPE_MAX_RULES);
    if (add_plain(b, left, right)) return true;
    int32_t l = known(b, left, what, err);
    int32_t r = l < 0 ? -1 : known(b, right, what, err);
    if (r < 0) return false;
    size_t n = left.n + right.n;
    char *joined = qn_alloc(n);
    if (left.n) memcpy(joined, left.text, left.n);
    if (right.n) memcpy(joined + left.n, right.text, right.n);
    int32_t product = known(b, (qn_span){joined, n}, what, err);
    free(joined);
    if (product < 0) return false;
    insert(b, l, r, product);
    return true;
}

static void make_filter(qn_bpe *b) {
    size_t bits = 1024;
    while (bits < b->n * 8) bits *= 2;
    b->filter = QN_NEW_ARRAY(uint64_t, bits / 64);
    b->filter_mask = bits - 1;
    for (size_t i = 0; i <= b->mask; i++) {
        if (b->rules[i] == FREE) continue;
        size_t bit = (size_t)(hash_key(b, b->rules[i] & ~RANK_BITS) >> 32) & b->filter_mask;
        b->filter[bit / 64] |= (uint64_t)1 << bit % 64;
    }
}

void qn_bpe_ready(qn_bpe *b) {
    if (!b->rules) grow(b);
    make_filter(b);
    size_t n = b->vocab.n ? b->vocab.n : 1;
    b->whole = qn_calloc(n, sizeof *b->whole);
    b->pair_rank = QN_NEW_ARRAY(int32_t, 65536);
    for (size_t i = 0; i < 65536; i++) {
        int32_t l = b->vocab.byte_id[i >> 8], r = b->vocab.byte_id[i & 255];
        b->pair_rank[i] = l >= 0 && r >= 0 ? qn_bpe_rank(b, l, r) : QN_NO_RANK;
    }
    b->chars = qn_bpe_chars(b);
}

// ---- short pieces ----

static inline bool is_ascii(char c) { return (unsigned char)c < 0x80; }

// The token that the character at s[at] can start as, or -1. Its neighbours must not be ASCII:
// the short cut is exact on that condition. *len gets its bytes.
static inline int32_t whole_char(const qn_bpe *b, const char *s, size_t n, size_t at, size_t *len) {
    unsigned char lead = (unsigned char)s[at];
    if (lead < 0xC2 || lead >= 0xF0 || n - at < 3 || !b->chars) return -1;
    if (at > 0 && is_ascii(s[at - 1])) return -1;
    uint32_t c = qn_uni_decode(s + at, len);
    if (at + *len < n && is_ascii(s[at + *len])) return -1;
    return b->chars[c];
}

// The next first token of a piece, at *at, which moves on; -1 at the end. *byte gets the byte that
// it stands for, or -1. A byte without a token is left out, as the original does.
static inline int32_t next_token(const qn_bpe *b, const char *s, size_t n, size_t *at, int *byte) {
    while (*at < n) {
        size_t len = 1;
        *byte = -1;
        int32_t token = whole_char(b, s, n, *at, &len);
        if (token < 0) {
            *byte = (unsigned char)s[*at];
            token = b->vocab.byte_id[*byte];
            len = 1;
        }
        *at += len;
        if (token >= 0) return token;
    }
    return -1;
}

static int first_tokens(const qn_bpe *b, const char *s, size_t n, int32_t *id, int32_t *rank) {
    int m = 0, byte, last = -1;
    size_t at = 0;
    for (int32_t token; (token = next_token(b, s, n, &at, &byte)) >= 0; last = byte) {
        id[m++] = token;
        if (m == 1) continue;
        rank[m - 2] = byte >= 0 && last >= 0 ? b->pair_rank[last << 8 | byte]
                                             : rank_of(b, id[m - 2], token);
    }
    return m;
}

static int encode_short(const qn_bpe *b, const char *s, size_t n, int32_t *id) {
    int32_t rank[SHORT + 1];
    int m = first_tokens(b, s, n, id, rank);
    while (m > 1) {
        int32_t best = QN_NO_RANK;
        for (int i = 0; i < m - 1; i++) best = rank[i] < best ? rank[i] : best;
        if (best == QN_NO_RANK) break;
        int at = 0;
        while (rank[at] != best) at++;
        id[at] = b->products[best];
        m--;
        for (int i = at + 1; i < m; i++) id[i] = id[i + 1], rank[i - 1] = rank[i];
        if (at < m - 1) rank[at] = rank_of(b, id[at], id[at + 1]);
        if (at > 0) rank[at - 1] = rank_of(b, id[at - 1], id[at]);
    }
    return m;
}

// ---- long pieces ----

static void heap_push(qn_bpe_work *w, uint64_t x) {
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > x; i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = x;
}

static uint64_t heap_pop(qn_bpe_work *w) {
    uint64_t top = w->heap[0], x = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        if (child + 1 < w->n_heap && w->heap[child + 1] < w->heap[child]) child++;
        if (w->heap[child] >= x) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = x;
    return top;
}

// Each of n nodes enters the heap once and each of n merges adds two candidates at most.
static bool reserve(qn_bpe_work *w, size_t n, qn_err *err) {
    if (n <= w->n_nodes) return true;
    qn_bpe_work_done(w);
    size_t heap;
    if (n < INT32_MAX && qn_mul(n, 3 * sizeof *w->heap, &heap)) {
        w->nodes = malloc(n * sizeof *w->nodes);
        w->heap = malloc(heap);
    }
    if (!w->nodes || !w->heap) {
        qn_bpe_work_done(w);
        return qn_fail(err, QN_NOMEM, "no memory for a word of %zu bytes", n);
    }
    w->n_nodes = n;
    return true;
}

// Ranks the pair that starts at node i and makes it a candidate.
static void consider(const qn_bpe *b, qn_bpe_work *w, int32_t i) {
    struct bpe_node *node = &w->nodes[i];
    node->rank = node->next < 0 ? QN_NO_RANK
                                : rank_of(b, node->id, w->nodes[node->next].id);
    if (node->rank != QN_NO_RANK) heap_push(w, (uint64_t)node->rank << 32 | (uint32_t)i);
}

static int32_t link_tokens(const qn_bpe *b, qn_bpe_work *w, const char *s, size_t n) {
    int32_t m = 0;
    int byte;
    size_t at = 0;
    for (int32_t token; (token = next_token(b, s, n, &at, &byte)) >= 0; m++)
        w->nodes[m] = (struct bpe_node){.id = token, .prev = m - 1, .next = m + 1};
    if (m) w->nodes[m - 1].next = -1;
    return m;
}

static void merge_at(const qn_bpe *b, qn_bpe_work *w, int32_t i) {
    struct bpe_node *node = &w->nodes[i], *next = &w->nodes[node->next];
    node->id = b->products[node->rank];
    node->next = next->next;
    next->id = -1;
    if (node->next >= 0) w->nodes[node->next].prev = i;
    consider(b, w, i);
    if (node->prev >= 0) consider(b, w, node->prev);
}

static bool encode_long(const qn_bpe *b, qn_bpe_work *w, const char *s, size_t n, qn_ids *ids,
                        qn_err *err) {
    if (!reserve(w, n, err)) return false;
    w->n_heap = 0;
    int32_t m = link_tokens(b, w, s, n);
    for (int32_t i = 0; i < m; i++) consider(b, w, i);
    while (w->n_heap) {
        uint64_t top = heap_pop(w);
        int32_t i = (int32_t)(uint32_t)top, rank = (int32_t)(top >> 32);
        // A candidate is stale once either side has changed: then the node's rank is another.
        if (w->nodes[i].id >= 0 && w->nodes[i].rank == rank) merge_at(b, w, i);
    }
    for (int32_t i = m ? 0 : -1; i >= 0; i = w->nodes[i].next) qn_ids_add(ids, w->nodes[i].id);
    return true;
}

void qn_bpe_work_done(qn_bpe_work *w) {
    free(w->nodes);
    free(w->heap);
    *w = (qn_bpe_work){0};
}

// ---- pieces ----

bool qn_bpe_encode(const qn_bpe *b, qn_bpe_work *w, const char *s, size_t n, qn_ids *ids,
                   qn_err *err) {
    if (n > SHORT) return encode_long(b, w, s, n, ids, err);
    int32_t id[SHORT];
    int m = encode_short(b, s, n, id);
    if (m == 0) return true; // no token for any byte, and perhaps no array yet
    qn_ids_reserve(ids, (size_t)m);
    memcpy(ids->data + ids->n, id, (size_t)m * sizeof *id);
    ids->n += (size_t)m;
    return true;
}

int32_t qn_bpe_whole(const qn_bpe *b, qn_bpe_work *w, const char *s, size_t n, uint64_t hash) {
    int32_t id = n > b->vocab.longest ? -1 : qn_vocab_find_hashed(&b->vocab, s, n, hash);
    if (id < 0 || b->ignore_merges) return id;
    uint8_t state = atomic_load_explicit(&b->whole[id], memory_order_relaxed);
    if (state == UNKNOWN) {
        qn_ids ids = {0};
        bool done = qn_bpe_encode(b, w, s, n, &ids, NULL);
        state = done && ids.n == 1 && ids.data[0] == id ? WHOLE : IN_PARTS;
        free(ids.data);
        if (!done) return -1; // no memory: the caller will meet that too
        atomic_store_explicit(&b->whole[id], state, memory_order_relaxed);
    }
    return state == WHOLE ? id : -1;
}
