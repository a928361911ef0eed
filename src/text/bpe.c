// Byte-level BPE. A piece starts as one token per byte; again and again the adjacent pair with the
// lowest rank (the leftmost of equals) becomes one token. Short pieces keep their tokens and pair
// ranks in two small arrays that are searched from the front: that beats every cleverer structure
// up to some hundred bytes. Long ones keep a list of nodes and a heap of candidate pairs, so that a
// word of a megabyte costs n log n.
//
// Most pieces of real text are a token by themselves. Whether a token's bytes, encoded, really give
// that token (some vocabularies have entries that no merges lead to) is found out on the first
// meeting and remembered in one byte per token; threads may do so at once, for the answer is fixed.
#include "text/bpe.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"

enum { SHORT = 128 };                  // bytes of a piece that is searched from the front
enum { UNKNOWN = 0, WHOLE, IN_PARTS }; // qn_bpe.whole

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
    free(b->slots);
    free(b->pairs);
    free((void *)b->whole);
    *b = (qn_bpe){0};
}

static inline size_t home(const qn_bpe *b, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (size_t)qn_mix(key ^ b->vocab.seed, 0x9E3779B97F4A7C15u) & b->mask;
}

// The slot of a pair, or the free one where it belongs.
static inline qn_merge *slot_of(const qn_bpe *b, int32_t left, int32_t right) {
    size_t at = home(b, left, right);
    while (b->slots[at].left >= 0 && (b->slots[at].left != left || b->slots[at].right != right))
        at = (at + 1) & b->mask;
    return &b->slots[at];
}

static void grow(qn_bpe *b) {
    size_t old = b->slots ? b->mask + 1 : 0, cap = old ? old * 2 : 1024;
    qn_merge *was = b->slots;
    b->slots = QN_NEW_ARRAY(qn_merge, cap);
    memset(b->slots, 0xFF, cap * sizeof *b->slots);
    b->mask = cap - 1;
    for (size_t i = 0; i < old; i++)
        if (was[i].left >= 0) *slot_of(b, was[i].left, was[i].right) = was[i];
    free(was);
}

static int32_t known(const qn_bpe *b, qn_span token, const char *what, qn_err *err) {
    int32_t id = qn_vocab_find(&b->vocab, token.text, token.n);
    if (id < 0)
        qn_fail(err, QN_INPUT, "%s: merge %zu: %.*s is not in the vocabulary", what, b->n_rules + 1,
                (int)(token.n < 80 ? token.n : 80), token.text);
    return id;
}

bool qn_bpe_add_merge(qn_bpe *b, qn_span left, qn_span right, const char *what, qn_err *err) {
    if (b->n_rules >= INT32_MAX - 1) return qn_fail(err, QN_LIMIT, "%s: too many merges", what);
    int32_t l = known(b, left, what, err);
    int32_t r = l < 0 ? -1 : known(b, right, what, err);
    if (r < 0) return false;
    char small[512];
    size_t n = left.n + right.n;
    char *joined = n <= sizeof small ? small : qn_alloc(n);
    memcpy(joined, left.text, left.n);
    memcpy(joined + left.n, right.text, right.n);
    int32_t id = known(b, (qn_span){joined, n}, what, err);
    if (joined != small) free(joined);
    if (id < 0) return false;
    if (!b->slots || b->n * 3 >= b->mask * 2) grow(b);
    qn_merge *slot = slot_of(b, l, r);
    if (slot->left < 0) b->n++; // a rule given twice counts where it stands last, as in the original
    *slot = (qn_merge){l, r, (int32_t)b->n_rules++, id};
    return true;
}

void qn_bpe_ready(qn_bpe *b) {
    if (!b->slots) grow(b);
    size_t n = b->vocab.n ? b->vocab.n : 1;
    b->whole = qn_calloc(n, sizeof *b->whole);
    b->pairs = QN_NEW_ARRAY(qn_merge, 65536);
    for (size_t i = 0; i < 65536; i++) {
        int32_t l = b->vocab.byte_id[i >> 8], r = b->vocab.byte_id[i & 255];
        qn_merge *slot = l >= 0 && r >= 0 ? slot_of(b, l, r) : NULL;
        b->pairs[i] = slot && slot->left >= 0 ? *slot : (qn_merge){l, r, QN_NO_RANK, -1};
    }
}

static inline int32_t rank_of(const qn_bpe *b, int32_t left, int32_t right) {
    const qn_merge *m = slot_of(b, left, right);
    return m->left < 0 ? QN_NO_RANK : m->rank;
}

// ---- short pieces ----

// The first tokens: one per byte. A byte without a token is left out, as the original does.
static int first_tokens(const qn_bpe *b, const char *s, size_t n, int32_t *id, int32_t *rank) {
    int m = 0;
    bool gap = false;
    for (size_t i = 0; i < n; i++) {
        int32_t token = b->vocab.byte_id[(unsigned char)s[i]];
        if (token < 0) gap = true;
        else id[m++] = token;
    }
    for (int i = 0; i + 1 < m; i++)
        rank[i] = gap ? rank_of(b, id[i], id[i + 1])
                      : b->pairs[(unsigned char)s[i] << 8 | (unsigned char)s[i + 1]].rank;
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
        id[at] = slot_of(b, id[at], id[at + 1])->id;
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
    node->rank = node->next < 0 ? QN_NO_RANK : rank_of(b, node->id, w->nodes[node->next].id);
    if (node->rank != QN_NO_RANK) heap_push(w, (uint64_t)node->rank << 32 | (uint32_t)i);
}

static int32_t link_bytes(const qn_bpe *b, qn_bpe_work *w, const char *s, size_t n) {
    int32_t m = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = b->vocab.byte_id[(unsigned char)s[i]];
        if (id < 0) continue;
        w->nodes[m] = (struct bpe_node){.id = id, .prev = m - 1, .next = m + 1};
        m++;
    }
    if (m) w->nodes[m - 1].next = -1;
    return m;
}

static void merge_at(const qn_bpe *b, qn_bpe_work *w, int32_t i) {
    struct bpe_node *node = &w->nodes[i], *next = &w->nodes[node->next];
    node->id = slot_of(b, node->id, next->id)->id;
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
    int32_t m = link_bytes(b, w, s, n);
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
