// Attention over the paged cache, and over one image. Keys and values lie in the cache in the panel
// layouts of the matrix leaves, so scores and weighted values are two more calls of them:
//   f32:  keys [block_tokens/16][d][16], values [d/16][block_tokens][16]
//   bf16: keys [block_tokens/16][d/2][16][2], values [d/16][block_tokens/2][16][2]
// per key-value head, d padded to even (keys) or 16 (values). Keys are visited block by block at
// absolute positions with an online softmax (Dao et al. 2022), and every SPLIT positions the
// running result is merged into the total, so that a later version may compute splits in parallel.
// A query's result depends on its own position and sequence only; queries that share a key-value
// head are taken together (at most TILE) because one pass over the keys then serves them all.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/f16.h"
#include "kernel/fp_mode.h"
#include "kernel/ops.h"
#include "kernel/table.h"

#define PANEL 16
#define TILE 32
#define SPLIT 512
#define ROOM (8 * QN_MAX_HEAD_DIM) // floats of a tile's queries; longer heads make smaller tiles

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Where one head's keys or values lie in a block, in elements.
static size_t key_size(const qn_kv_view *v) { return v->block_tokens * round_up(v->head_dim, 2); }
static size_t value_size(const qn_kv_view *v) {
    return v->block_tokens * round_up(v->head_dim, PANEL);
}
static size_t width(const qn_kv_view *v) { return v->type == QN_KV_BF16 ? 2 : 4; }

size_t qn_kv_layer_bytes(const qn_kv_view *v) {
    return round_up(v->n_kv_heads * (key_size(v) + value_size(v)) * width(v), 64);
}

static uint8_t *key_at(const qn_kv_view *v, uint32_t block, size_t head) {
    return v->base + block * v->block_stride + head * key_size(v) * width(v);
}

static uint8_t *value_at(const qn_kv_view *v, uint32_t block, size_t head) {
    size_t keys = v->n_kv_heads * key_size(v);
    return v->base + block * v->block_stride + (keys + head * value_size(v)) * width(v);
}

// ---- writing ----

static void put_f32(const qn_kv_view *v, float *keys, float *values, size_t slot, const float *k,
                    const float *val) {
    size_t d = round_up(v->head_dim, 2);
    keys += slot / PANEL * d * PANEL + slot % PANEL;
    for (size_t i = 0; i < v->head_dim; i++) keys[i * PANEL] = k[i];
    for (size_t i = 0; i < v->head_dim; i += PANEL) {
        size_t n = v->head_dim - i < PANEL ? v->head_dim - i : PANEL;
        memcpy(values + i * v->block_tokens + slot * PANEL, val + i, n * sizeof *val);
    }
}

static void put_bf16(const qn_kv_view *v, uint16_t *keys, uint16_t *values, size_t slot,
                     const float *k, const float *val) {
    size_t d = round_up(v->head_dim, 2);
    keys += slot / PANEL * d * PANEL + slot % PANEL * 2;
    for (size_t i = 0; i < v->head_dim; i++)
        keys[i / 2 * 2 * PANEL + i % 2] = qn_f32_to_bf16(k[i]);
    if (d > v->head_dim) keys[v->head_dim / 2 * 2 * PANEL + 1] = 0;
    values += slot / 2 * 2 * PANEL + slot % 2;
    for (size_t i = 0; i < v->head_dim; i++)
        values[i / PANEL * PANEL * v->block_tokens + i % PANEL * 2] = qn_f32_to_bf16(val[i]);
}

// Values are summed in pairs of slots; a token without a partner yet gets one of zeros, because
// whatever a former owner of the block left there (inf, nan) would survive a weight of zero.
static void clear_partner(const qn_kv_view *v, uint16_t *values, size_t slot) {
    values += slot / 2 * 2 * PANEL + 1;
    for (size_t i = 0; i < v->head_dim; i++)
        values[i / PANEL * PANEL * v->block_tokens + i % PANEL * 2] = 0;
}

typedef struct storing {
    const qn_kv_view *v;
    const qn_attn_row *rows;
    size_t m, ld;
    const float *k, *val;
} storing;

// All rows of one head: neighbours in a panel share cache lines.
static void store_head(void *ctx, size_t head, int thread) {
    (void)thread;
    const storing *s = ctx;
    const qn_kv_view *v = s->v;
    for (size_t r = 0; r < s->m; r++) {
        const qn_attn_row *row = s->rows + r;
        uint32_t block = row->blocks[row->position / v->block_tokens];
        size_t slot = row->position % v->block_tokens, at = r * s->ld + head * v->head_dim;
        void *keys = key_at(v, block, head), *values = value_at(v, block, head);
        if (v->type == QN_KV_F32) {
            put_f32(v, keys, values, slot, s->k + at, s->val + at);
            continue;
        }
        put_bf16(v, keys, values, slot, s->k + at, s->val + at);
        bool follows = r + 1 < s->m && row[1].blocks == row->blocks &&
                       row[1].position == row->position + 1;
        if (slot % 2 == 0 && !follows) clear_partner(v, values, slot);
    }
}

void qn_kv_store(qn_pool *p, const qn_kv_view *v, const qn_attn_row *rows, size_t m, const float *k,
                 const float *val, size_t ld) {
    assert(v->block_tokens % PANEL == 0 && v->block_tokens <= QN_MAX_BLOCK_TOKENS);
    storing s = {v, rows, m, ld, k, val};
    qn_pool_run(p, v->n_kv_heads, store_head, &s);
}

// ---- reading ----

static size_t tile_rows(size_t d) {
    size_t rows = ROOM / round_up(d, PANEL);
    return rows < TILE ? rows : TILE;
}

// One tile: up to TILE queries of one key-value head, and what they have seen so far.
typedef struct tile {
    const qn_table *t;
    size_t n, d, ldo;         // queries, head dimension, its padded length
    const float *q;           // [n][d padded to even], rounded to bf16 when the cache is
    size_t ldq;
    float scale;
    size_t from[TILE], to[TILE]; // visible positions
    float max[TILE], sum[TILE], total_max[TILE], total_sum[TILE];
    float *out, *total; // [n][ldo]
    float *scores;      // [n][block_tokens]
} tile;

// Keys and values of n slots from position `at` on.
typedef struct kv_block {
    const void *keys, *values;
    size_t at, tokens, n; // n <= tokens, the slots of the layout
    qn_kv_type type;
} kv_block;

static void dot(const tile *a, qn_kv_type type, const qn_tile *t) {
    if (type == QN_KV_BF16) a->t->dot_bf16(t);
    else a->t->dot_f32(t);
}

static void visit(tile *a, const kv_block *b) {
    size_t w = b->type == QN_KV_BF16 ? 2 : 4, slots = round_up(b->n, PANEL);
    size_t dk = round_up(a->d, 2);
    memset(a->scores, 0, a->n * b->tokens * sizeof(float));
    dot(a, b->type, &(qn_tile){.m = a->n, .n_panels = slots / PANEL, .x = a->q, .ldx = a->ldq,
                               .w = b->keys, .ldw = dk * PANEL * w,
                               .k = b->type == QN_KV_BF16 ? dk : a->d, .acc = a->scores,
                               .ldacc = b->tokens});
    for (size_t r = 0; r < a->n; r++) {
        float *s = a->scores + r * b->tokens;
        size_t from = a->from[r] > b->at ? a->from[r] - b->at : 0;
        size_t to = a->to[r] > b->at ? a->to[r] - b->at : 0;
        if (to > b->n) to = b->n;
        if (from >= to) { // nothing visible here: all weights 0, nothing rescaled
            memset(s, 0, slots * sizeof *s);
            continue;
        }
        qn_softmax_step step = {s, slots, from, to, a->scale, b->type == QN_KV_BF16, a->max[r],
                                a->sum[r]};
        float carry = a->t->softmax_step(&step);
        a->max[r] = step.max;
        a->sum[r] = step.sum;
        a->t->scale(a->out + r * a->ldo, carry, a->ldo);
    }
    dot(a, b->type, &(qn_tile){.m = a->n, .n_panels = a->ldo / PANEL, .x = a->scores,
                               .ldx = b->tokens, .w = b->values, .ldw = b->tokens * PANEL * w,
                               .k = b->type == QN_KV_BF16 ? round_up(b->n, 2) : b->n,
                               .acc = a->out, .ldacc = a->ldo});
}

static void begin_split(tile *a) {
    for (size_t r = 0; r < a->n; r++) {
        a->max[r] = -INFINITY;
        a->sum[r] = 0;
    }
    memset(a->out, 0, a->n * a->ldo * sizeof(float));
}

// total = total * exp(total_max - max) + out * exp(split_max - max), per query; a query's first
// split is taken as it is.
static void end_split(tile *a) {
    for (size_t r = 0; r < a->n; r++) {
        float *out = a->out + r * a->ldo, *total = a->total + r * a->ldo;
        if (a->sum[r] == 0) continue; // saw nothing
        if (a->total_sum[r] == 0) {
            memcpy(total, out, a->ldo * sizeof *out);
            a->total_sum[r] = a->sum[r];
            a->total_max[r] = a->max[r];
            continue;
        }
        float max = a->max[r] > a->total_max[r] ? a->max[r] : a->total_max[r];
        float keep = qn_exp(a->total_max[r] - max), add = qn_exp(a->max[r] - max);
        for (size_t i = 0; i < a->ldo; i++) total[i] = fmaf(out[i], add, total[i] * keep);
        a->total_sum[r] = fmaf(a->sum[r], add, a->total_sum[r] * keep);
        a->total_max[r] = max;
    }
}

// Normalised results; adding 0 turns -0 into 0, the only trace that masked slots could leave.
static void finish(const tile *a, size_t r, float *to) {
    float inv = 1.0f / a->total_sum[r];
    for (size_t i = 0; i < a->d; i++) to[i] = fmaf(a->total[r * a->ldo + i], inv, 0.0f);
}

typedef struct attending {
    const qn_table *t;
    const qn_kv_view *v;
    const qn_attn_row *rows;
    size_t m, ldq, n_heads, window, ldo;
    const float *q;
    float scale, *out;
    size_t rows_per_tile, heads_per_tile, head_tiles; // head tiles per key-value head
} attending;

// Rows row0 … of one sequence whose positions follow each other, at most rows_per_tile, starting
// at multiples of it within the step.
static size_t run_length(const attending *a, size_t row0) {
    size_t end = row0 + a->rows_per_tile < a->m ? row0 + a->rows_per_tile : a->m, n = 1;
    while (row0 + n < end && a->rows[row0 + n].blocks == a->rows[row0].blocks &&
           a->rows[row0 + n].position == a->rows[row0].position + n)
        n++;
    return n;
}

static void load_queries(const attending *a, tile *t, size_t row0, size_t n_rows, size_t head0,
                         size_t n_heads, float *q) {
    size_t d = a->v->head_dim;
    t->n = n_rows * n_heads;
    for (size_t i = 0; i < n_rows; i++)
        for (size_t h = 0; h < n_heads; h++) {
            size_t r = i * n_heads + h, position = a->rows[row0 + i].position;
            const float *from = a->q + (row0 + i) * a->ldq + (head0 + h) * d;
            if (a->v->type == QN_KV_BF16) a->t->round_bf16(from, q + r * t->ldq, d);
            else memcpy(q + r * t->ldq, from, d * sizeof *q);
            for (size_t j = d; j < t->ldq; j++) q[r * t->ldq + j] = 0;
            t->to[r] = position + 1;
            t->from[r] = a->window && position + 1 > a->window ? position + 1 - a->window : 0;
            t->total_sum[r] = 0;
            t->total_max[r] = -INFINITY;
        }
    t->q = q;
}

static void walk(const attending *a, tile *t, const uint32_t *blocks, size_t kv_head) {
    size_t bt = a->v->block_tokens, first = t->from[0] / bt, end = t->to[t->n - 1];
    size_t split = (SPLIT + bt - 1) / bt; // blocks
    begin_split(t);
    for (size_t b = first; b * bt < end; b++) {
        if (b > first && b % split == 0) {
            end_split(t);
            begin_split(t);
        }
        kv_block block = {key_at(a->v, blocks[b], kv_head), value_at(a->v, blocks[b], kv_head),
                          b * bt, bt, end - b * bt < bt ? end - b * bt : bt, a->v->type};
        visit(t, &block);
    }
    end_split(t);
}

static void attend_run(const attending *a, size_t row0, size_t n_rows, size_t task) {
    _Alignas(64) float q[ROOM], out[ROOM], total[ROOM], scores[TILE * QN_MAX_BLOCK_TOKENS];
    size_t d = a->v->head_dim, group = a->n_heads / a->v->n_kv_heads;
    size_t kv_head = task / a->head_tiles, in_group = task % a->head_tiles * a->heads_per_tile;
    size_t n_heads = group - in_group < a->heads_per_tile ? group - in_group : a->heads_per_tile;
    size_t head0 = kv_head * group + in_group;
    tile t = {.t = a->t, .d = d, .ldo = round_up(d, PANEL), .ldq = round_up(d, 2),
              .scale = a->scale, .out = out, .total = total, .scores = scores};
    load_queries(a, &t, row0, n_rows, head0, n_heads, q);
    walk(a, &t, a->rows[row0].blocks, kv_head);
    for (size_t r = 0; r < t.n; r++)
        finish(&t, r, a->out + (row0 + r / n_heads) * a->ldo + (head0 + r % n_heads) * d);
}

static void attend(void *ctx, size_t task, int thread) {
    (void)thread;
    const attending *a = ctx;
    size_t heads = a->v->n_kv_heads * a->head_tiles, row0 = task / heads * a->rows_per_tile;
    size_t end = row0 + a->rows_per_tile < a->m ? row0 + a->rows_per_tile : a->m;
    uint64_t mode = qn_fp_pin();
    while (row0 < end) {
        size_t n = run_length(a, row0);
        if (row0 + n > end) n = end - row0;
        attend_run(a, row0, n, task % heads);
        row0 += n;
    }
    qn_fp_restore(mode);
}

void qn_attention(qn_pool *p, const qn_kv_view *v, const qn_attn_row *rows, size_t m,
                  const float *q, size_t ldq, size_t n_heads, float scale, size_t window,
                  float *out, size_t ldo) {
    assert(v->head_dim <= QN_MAX_HEAD_DIM && v->block_tokens <= QN_MAX_BLOCK_TOKENS);
    size_t group = n_heads / v->n_kv_heads, most = tile_rows(v->head_dim);
    size_t heads = group < most ? group : most;
    attending a = {.t = qn_table_get(), .v = v, .rows = rows, .m = m, .ldq = ldq,
                   .n_heads = n_heads, .window = window, .ldo = ldo, .q = q, .scale = scale,
                   .out = out, .heads_per_tile = heads, .rows_per_tile = most / heads,
                   .head_tiles = (group + heads - 1) / heads};
    size_t row_tiles = (m + a.rows_per_tile - 1) / a.rows_per_tile;
    qn_pool_run(p, row_tiles * v->n_kv_heads * a.head_tiles, attend, &a);
}

// ---- one image ----

typedef struct image {
    const qn_table *t;
    const float *q, *k, *v;
    size_t ld, n, d, ldo, tiles, rows, block; // block: keys at a time, by d alone
    float scale, *out;
} image;

#define IMAGE_BLOCK 64
#define IMAGE_ROOM (16 * QN_MAX_HEAD_DIM)

static void pack(const image *im, size_t head, size_t at, size_t n, float *keys, float *values) {
    for (size_t s = 0; s < n; s++) {
        const float *k = im->k + (at + s) * im->ld + head * im->d;
        const float *v = im->v + (at + s) * im->ld + head * im->d;
        float *to = keys + s / PANEL * im->d * PANEL + s % PANEL;
        for (size_t i = 0; i < im->d; i++) to[i * PANEL] = k[i];
        for (size_t i = 0; i < im->d; i++)
            values[i / PANEL * PANEL * im->block + s * PANEL + i % PANEL] = v[i];
    }
}

static void attend_image(void *ctx, size_t task, int thread) {
    (void)thread;
    const image *im = ctx;
    _Alignas(64) float out[ROOM], total[ROOM], keys[IMAGE_ROOM], values[IMAGE_ROOM];
    _Alignas(64) float scores[TILE * IMAGE_BLOCK];
    size_t head = task / im->tiles, row0 = task % im->tiles * im->rows;
    tile t = {.t = im->t, .n = im->n - row0 < im->rows ? im->n - row0 : im->rows, .d = im->d,
              .ldo = round_up(im->d, PANEL), .q = im->q + row0 * im->ld + head * im->d,
              .ldq = im->ld, .scale = im->scale, .out = out, .total = total, .scores = scores};
    uint64_t mode = qn_fp_pin();
    for (size_t r = 0; r < t.n; r++) {
        t.to[r] = im->n;
        t.total_max[r] = -INFINITY;
    }
    begin_split(&t);
    memset(values, 0, im->block * round_up(im->d, PANEL) * sizeof *values);
    memset(keys, 0, im->block * round_up(im->d, PANEL) * sizeof *keys);
    for (size_t at = 0; at < im->n; at += im->block) {
        size_t n = im->n - at < im->block ? im->n - at : im->block;
        pack(im, head, at, n, keys, values);
        visit(&t, &(kv_block){keys, values, at, im->block, n, QN_KV_F32});
    }
    end_split(&t);
    for (size_t r = 0; r < t.n; r++)
        finish(&t, r, im->out + (row0 + r) * im->ldo + head * im->d);
    qn_fp_restore(mode);
}

void qn_attention_full(qn_pool *p, const float *q, const float *k, const float *v, size_t ld,
                       size_t n, size_t n_heads, size_t d, float scale, float *out, size_t ldo) {
    assert(d <= QN_MAX_HEAD_DIM);
    size_t rows = tile_rows(d), block = IMAGE_ROOM / round_up(d, PANEL) / PANEL * PANEL;
    image im = {.t = qn_table_get(), .q = q, .k = k, .v = v, .ld = ld, .n = n, .d = d, .ldo = ldo,
                .tiles = (n + rows - 1) / rows, .rows = rows, .scale = scale, .out = out,
                .block = block < IMAGE_BLOCK ? block : IMAGE_BLOCK};
    qn_pool_run(p, n_heads * im.tiles, attend_image, &im);
}
