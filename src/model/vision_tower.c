// The vision transformer:
//   x = patches W_patch^T + b + resampled position table
//   x += proj(attention(norm1 x)); x += fc2(gelu_tanh(fc1(norm2 x)))        for every block
//   rows = fc2(gelu(fc1(4 normed patches of a merge block, side by side)))
// Attention is full inside one frame and rotary in two dimensions. Qwen3-VL technical report and the
// original implementation (transformers, qwen3_5); image.h makes the patches.
#include "model/vision.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "kernel/ops.h"

#define NORM_EPS 1e-6f

typedef struct norm {
    float *weight, *bias;
} norm;

typedef struct block {
    norm norm1, norm2;
    qn_mat qkv, proj, fc1, fc2;
} block;

struct qn_vision {
    int depth, hidden, heads, head_dim, intermediate, out_hidden, merge, patch_dim, side;
    double rope_theta;
    qn_image_config image;
    qn_mat patch_embed;
    float *positions; // [side * side][hidden]
    block *blocks;
    norm merger_norm;
    qn_mat merger_fc1, merger_fc2;
};

// ---- loading ----

typedef struct loader {
    qn_vision *v;
    qn_ckpt *ckpt;
    qn_pool *pool;
    const char *prefix;
    qn_err *err;
} loader;

// "prefix" + the formatted rest, looked up; a missing one is an error that names it.
static const qn_weight *find(loader *l, const char *rest) {
    char name[256];
    snprintf(name, sizeof name, "%s%s", l->prefix, rest);
    const qn_weight *w = qn_ckpt_weight(l->ckpt, name);
    if (!w) qn_fail(l->err, QN_NOT_FOUND, "tensor %s is missing", name);
    return w;
}

static bool load_floats(loader *l, const char *rest, size_t n, float **out) {
    const qn_weight *w = find(l, rest);
    if (!w) return false;
    *out = QN_NEW_ARRAY(float, n);
    return qn_weight_floats(w, n, *out, l->err);
}

static bool load_norm(loader *l, const char *name, norm *out) {
    char rest[128];
    size_t n = (size_t)l->v->hidden;
    snprintf(rest, sizeof rest, "%s.weight", name);
    if (!load_floats(l, rest, n, &out->weight)) return false;
    snprintf(rest, sizeof rest, "%s.bias", name);
    return load_floats(l, rest, n, &out->bias);
}

static bool load_linear(loader *l, const char *name, size_t rows, size_t cols, qn_mat *out) {
    char rest[128];
    snprintf(rest, sizeof rest, "%s.weight", name);
    const qn_weight *w = find(l, rest);
    if (!w) return false;
    if (w->rows != rows || w->cols != cols)
        return qn_fail(l->err, QN_INPUT, "tensor %s: shape [%zu, %zu], expected [%zu, %zu]",
                       w->name, w->rows, w->cols, rows, cols);
    if (!qn_weight_load(w, 0, rows, QN_STORED, l->pool, out, l->err)) return false;
    snprintf(rest, sizeof rest, "%s.bias", name);
    float *bias = NULL;
    bool ok = load_floats(l, rest, rows, &bias) && qn_mat_set_bias(out, bias, l->err);
    free(bias);
    return ok;
}

// The patch convolution has kernel = stride, so it is one matrix over flattened patches.
static bool load_patch_embed(loader *l) {
    qn_vision *v = l->v;
    size_t rows = (size_t)v->hidden, cols = (size_t)v->patch_dim;
    qn_mat_spec spec = {.format = QN_FORMAT_BF16, .rows = rows, .cols = cols,
                        .name = "visual.patch_embed.proj.weight"};
    const qn_weight *w = find(l, "patch_embed.proj.weight");
    if (!w) return false;
    if (w->parts[0] && w->parts[0]->dtype != QN_DT_BF16) spec.format = QN_FORMAT_F32;
    float *data = qn_big_alloc(rows * cols * sizeof *data, w->name, l->err), *bias = NULL;
    bool ok = data && qn_weight_floats(w, rows * cols, data, l->err) &&
              qn_mat_init(&v->patch_embed, &spec, l->err);
    if (ok) qn_mat_put(&v->patch_embed, &(qn_rows){.n = rows, .f32 = data});
    qn_big_free(data, rows * cols * sizeof *data);
    ok = ok && load_floats(l, "patch_embed.proj.bias", rows, &bias) &&
         qn_mat_set_bias(&v->patch_embed, bias, l->err);
    free(bias);
    return ok;
}

static bool load_block(loader *l, int i) {
    qn_vision *v = l->v;
    block *b = &v->blocks[i];
    size_t h = (size_t)v->hidden, m = (size_t)v->intermediate;
    struct {
        const char *name;
        size_t rows, cols;
        qn_mat *mat;
    } linears[] = {{"attn.qkv", 3 * h, h, &b->qkv}, {"attn.proj", h, h, &b->proj},
                   {"mlp.linear_fc1", m, h, &b->fc1}, {"mlp.linear_fc2", h, m, &b->fc2}};
    char name[128];
    for (size_t k = 0; k < 4; k++) {
        snprintf(name, sizeof name, "blocks.%d.%s", i, linears[k].name);
        if (!load_linear(l, name, linears[k].rows, linears[k].cols, linears[k].mat)) return false;
    }
    snprintf(name, sizeof name, "blocks.%d.norm1", i);
    if (!load_norm(l, name, &b->norm1)) return false;
    snprintf(name, sizeof name, "blocks.%d.norm2", i);
    return load_norm(l, name, &b->norm2);
}

static bool load_weights(loader *l) {
    qn_vision *v = l->v;
    size_t wide = (size_t)v->hidden * (size_t)(v->merge * v->merge);
    v->blocks = QN_NEW_ARRAY(block, (size_t)v->depth);
    if (!load_patch_embed(l) ||
        !load_floats(l, "pos_embed.weight", (size_t)(v->side * v->side) * (size_t)v->hidden,
                     &v->positions))
        return false;
    for (int i = 0; i < v->depth; i++)
        if (!load_block(l, i)) return false;
    return load_norm(l, "merger.norm", &v->merger_norm) &&
           load_linear(l, "merger.linear_fc1", wide, wide, &v->merger_fc1) &&
           load_linear(l, "merger.linear_fc2", (size_t)v->out_hidden, wide, &v->merger_fc2);
}

static bool need_int(const json_t *o, const char *key, int64_t hi, int *out, qn_err *err) {
    int64_t x = -1;
    if (!qn_json_int(o, key, 1, hi, &x, "config.json: vision_config", err)) return false;
    if (x < 0) return qn_fail(err, QN_INPUT, "config.json: vision_config.%s is missing", key);
    *out = (int)x;
    return true;
}

static bool read_config(const json_t *o, size_t hidden_size, qn_vision *v, qn_err *err) {
    int patch = 0, temporal = 0, channels = 0, positions = 0; // need_int sets them or fails
    if (!need_int(o, "depth", 512, &v->depth, err) ||
        !need_int(o, "hidden_size", 65536, &v->hidden, err) ||
        !need_int(o, "num_heads", 1024, &v->heads, err) ||
        !need_int(o, "intermediate_size", 1 << 20, &v->intermediate, err) ||
        !need_int(o, "out_hidden_size", 1 << 20, &v->out_hidden, err) ||
        !need_int(o, "spatial_merge_size", 16, &v->merge, err) ||
        !need_int(o, "patch_size", 256, &patch, err) ||
        !need_int(o, "temporal_patch_size", 16, &temporal, err) ||
        !need_int(o, "in_channels", 3, &channels, err) ||
        !need_int(o, "num_position_embeddings", 1 << 20, &positions, err))
        return false;
    v->patch_dim = channels * temporal * patch * patch;
    v->side = (int)floor(sqrt(positions) + 0.5);
    v->head_dim = v->hidden / v->heads;
    v->rope_theta = 10000;
    const json_t *rope = json_object_get(o, "rope_parameters");
    if (json_is_object(rope) && !qn_json_real(rope, "rope_theta", &v->rope_theta,
                                              "config.json: vision_config.rope_parameters", err))
        return false;
    if (channels != 3 || v->side * v->side != positions || v->hidden % v->heads ||
        v->head_dim % 4 || v->head_dim > QN_MAX_HEAD_DIM || (size_t)v->out_hidden != hidden_size)
        return qn_fail(err, QN_INPUT, "config.json: vision_config has in_channels %d, "
                       "num_position_embeddings %d, hidden_size %d over %d heads, out_hidden_size "
                       "%d; expected 3, a square, heads of a multiple of 4 up to %d, %zu",
                       channels, positions, v->hidden, v->heads, v->out_hidden, QN_MAX_HEAD_DIM,
                       hidden_size);
    const json_t *deepstack = json_object_get(o, "deepstack_visual_indexes");
    if (json_array_size(deepstack) > 0)
        return qn_fail(err, QN_UNSUPPORTED, "config.json: deepstack_visual_indexes is not empty; "
                       "towers with deepstack are not supported");
    return true;
}

static bool read_preprocessor(qn_ckpt *ckpt, qn_vision *v, qn_err *err) {
    char *path = qn_path_join(qn_ckpt_path(ckpt), "preprocessor_config.json");
    json_t *j = qn_json_load(path, (size_t)1 << 20, err);
    bool ok = j && qn_image_config_read(j, "preprocessor_config.json", &v->image, err);
    json_decref(j);
    free(path);
    if (!ok) return false;
    int dim = 3 * v->image.temporal_patch_size * v->image.patch_size * v->image.patch_size;
    if (dim == v->patch_dim && v->image.merge_size == v->merge) return true;
    return qn_fail(err, QN_INPUT, "preprocessor_config.json: patches of %d values merged %d x %d, "
                   "but config.json's tower takes %d and %d x %d", dim, v->image.merge_size,
                   v->image.merge_size, v->patch_dim, v->merge, v->merge);
}

bool qn_vision_load(qn_ckpt *ckpt, const json_t *config, size_t hidden_size, qn_pool *pool,
                    qn_vision **out, qn_err *err) {
    const json_t *o = json_object_get(config, "vision_config");
    *out = NULL;
    if (!json_is_object(o)) return true;
    const char *prefix = "model.visual.";
    if (!qn_ckpt_weight(ckpt, "model.visual.patch_embed.proj.weight")) {
        prefix = "visual.";
        if (!qn_ckpt_weight(ckpt, "visual.patch_embed.proj.weight")) {
            qn_note("%s: the vision tower's tensors are missing; text runs without it",
                    qn_ckpt_path(ckpt));
            return true;
        }
    }
    qn_vision *v = QN_NEW(qn_vision);
    loader l = {v, ckpt, pool, prefix, err};
    if (!read_config(o, hidden_size, v, err) || !read_preprocessor(ckpt, v, err) ||
        !load_weights(&l)) {
        qn_vision_free(v);
        return false;
    }
    *out = v;
    return true;
}

static void norm_done(norm *n) {
    free(n->weight);
    free(n->bias);
}

void qn_vision_free(qn_vision *v) {
    if (!v) return;
    for (int i = 0; v->blocks && i < v->depth; i++) {
        block *b = &v->blocks[i];
        norm_done(&b->norm1);
        norm_done(&b->norm2);
        qn_mat *mats[] = {&b->qkv, &b->proj, &b->fc1, &b->fc2};
        for (size_t k = 0; k < 4; k++) qn_mat_done(mats[k]);
    }
    free(v->blocks);
    free(v->positions);
    norm_done(&v->merger_norm);
    qn_mat_done(&v->patch_embed);
    qn_mat_done(&v->merger_fc1);
    qn_mat_done(&v->merger_fc2);
    free(v);
}

size_t qn_vision_bytes(const qn_vision *v) {
    if (!v) return 0;
    size_t n = qn_mat_bytes(&v->patch_embed) + qn_mat_bytes(&v->merger_fc1) +
               qn_mat_bytes(&v->merger_fc2) +
               (size_t)(v->side * v->side) * (size_t)v->hidden * sizeof(float);
    for (int i = 0; i < v->depth; i++) {
        const block *b = &v->blocks[i];
        n += qn_mat_bytes(&b->qkv) + qn_mat_bytes(&b->proj) + qn_mat_bytes(&b->fc1) +
             qn_mat_bytes(&b->fc2);
    }
    return n;
}

const qn_image_config *qn_vision_image_config(const qn_vision *v) { return &v->image; }

// ---- running ----

// Row and column of patch i of a frame: merge blocks in raster order, patches in raster order
// inside each.
static void patch_place(const qn_vision *v, const int grid[3], int i, int *row, int *col) {
    int m = v->merge, per = m * m, across = grid[2] / m;
    i %= grid[1] * grid[2];
    *row = i / per / across * m + i % per / m;
    *col = i / per % across * m + i % m;
}

// One axis of the resampled table: the two taps and the second one's weight (align_corners).
static void axis_taps(int index, int size, int side, int tap[2], float *second) {
    float src = (float)index * (float)(side - 1) / (float)(size > 1 ? size - 1 : 1);
    tap[0] = (int)floorf(src);
    tap[1] = tap[0] + 1 < side ? tap[0] + 1 : side - 1;
    *second = src - (float)tap[0];
}

static void add_positions(const qn_vision *v, const int grid[3], size_t n, float *x) {
    size_t h = (size_t)v->hidden;
    for (size_t i = 0; i < n; i++) {
        int row, col, ty[2], tx[2];
        float fy, fx;
        patch_place(v, grid, (int)i, &row, &col);
        axis_taps(row, grid[1], v->side, ty, &fy);
        axis_taps(col, grid[2], v->side, tx, &fx);
        const float weight[4] = {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx};
        const float *tap[4];
        for (int k = 0; k < 4; k++)
            tap[k] = v->positions + (size_t)(ty[k / 2] * v->side + tx[k % 2]) * h;
        for (size_t c = 0; c < h; c++)
            x[i * h + c] += weight[0] * tap[0][c] + weight[1] * tap[1][c] + weight[2] * tap[2][c] +
                            weight[3] * tap[3][c];
    }
}

// Per patch head_dim / 2 cosines, then as many sines: the first half turns by the row, the second
// by the column, inv[i] = theta^(-2i / (head_dim / 2)).
static void rope_table(const qn_vision *v, const int grid[3], size_t n, float *table) {
    int freq = v->head_dim / 2, axis = v->head_dim / 4;
    for (size_t i = 0; i < n; i++) {
        int place[2];
        patch_place(v, grid, (int)i, &place[0], &place[1]);
        float *row = table + i * 2 * (size_t)freq;
        for (int j = 0; j < freq; j++) {
            double inv = pow(v->rope_theta, -2.0 * (j % axis) / freq);
            double angle = place[j / axis] * inv;
            row[j] = (float)cos(angle);
            row[freq + j] = (float)sin(angle);
        }
    }
}

typedef struct scratch {
    size_t n; // patches
    float *x, *normed, *wide, *rope;
    qn_acts *acts;
    float *memory;
    size_t bytes;
} scratch;

static bool scratch_init(scratch *s, const qn_vision *v, qn_compute *c, size_t n, qn_err *err) {
    size_t h = (size_t)v->hidden, m = (size_t)v->intermediate, wide = 3 * h > m ? 3 * h : m;
    size_t rope = (size_t)v->head_dim;
    s->n = n;
    s->bytes = n * (2 * h + wide + rope) * sizeof(float);
    s->memory = qn_big_alloc(s->bytes, "vision tower", err);
    if (!s->memory) return false;
    s->x = s->memory;
    s->normed = s->x + n * h;
    s->wide = s->normed + n * h;
    s->rope = s->wide + n * wide;
    s->acts = qn_acts_new(c);
    return true;
}

static void scratch_done(scratch *s) {
    qn_acts_free(s->acts);
    qn_big_free(s->memory, s->bytes);
}

static void run_block(const qn_vision *v, qn_compute *c, const block *b, const int grid[3],
                      scratch *s) {
    qn_pool *pool = qn_compute_pool(c);
    size_t h = (size_t)v->hidden, m = (size_t)v->intermediate, heads = (size_t)v->heads;
    size_t d = (size_t)v->head_dim, frame = (size_t)(grid[1] * grid[2]);
    float *q = s->wide, *k = q + h, *val = k + h;
    qn_layernorm(pool, s->x, h, b->norm1.weight, b->norm1.bias, NORM_EPS, s->normed, h, s->n, h);
    qn_acts_set(s->acts, s->normed, s->n, h, h);
    qn_matmul(s->acts, &b->qkv, s->wide, 3 * h);
    qn_rope(pool, q, 3 * h, s->rope, s->n, heads, d, d / 2);
    qn_rope(pool, k, 3 * h, s->rope, s->n, heads, d, d / 2);
    for (size_t at = 0; at < s->n; at += frame)
        qn_attention_full(pool, q + at * 3 * h, k + at * 3 * h, val + at * 3 * h, 3 * h, frame,
                          heads, d, 1 / sqrtf((float)d), s->normed + at * h, h);
    qn_acts_set(s->acts, s->normed, s->n, h, h);
    qn_matmul(s->acts, &b->proj, s->wide, h);
    qn_add(pool, s->x, h, s->wide, h, s->n, h);

    qn_layernorm(pool, s->x, h, b->norm2.weight, b->norm2.bias, NORM_EPS, s->normed, h, s->n, h);
    qn_acts_set(s->acts, s->normed, s->n, h, h);
    qn_matmul(s->acts, &b->fc1, s->wide, m);
    qn_gelu_tanh(pool, s->wide, m, s->n, m);
    qn_acts_set(s->acts, s->wide, s->n, m, m);
    qn_matmul(s->acts, &b->fc2, s->normed, h);
    qn_add(pool, s->x, h, s->normed, h, s->n, h);
}

// The patches of a merge block lie side by side already, so four rows are one wide row.
static void run_merger(const qn_vision *v, qn_compute *c, scratch *s, float *rows) {
    qn_pool *pool = qn_compute_pool(c);
    size_t h = (size_t)v->hidden, per = (size_t)(v->merge * v->merge), n = s->n / per;
    qn_layernorm(pool, s->x, h, v->merger_norm.weight, v->merger_norm.bias, NORM_EPS, s->normed, h,
                 s->n, h);
    qn_acts_set(s->acts, s->normed, n, per * h, per * h);
    qn_matmul(s->acts, &v->merger_fc1, s->wide, per * h);
    qn_gelu_erf(pool, s->wide, per * h, n, per * h);
    qn_acts_set(s->acts, s->wide, n, per * h, per * h);
    qn_matmul(s->acts, &v->merger_fc2, rows, (size_t)v->out_hidden);
}

bool qn_vision_encode(const qn_vision *v, qn_compute *c, const float *patches, const int grid[3],
                      float **rows, size_t *n_rows, qn_err *err) {
    size_t per = (size_t)(v->merge * v->merge);
    if (grid[0] < 1 || grid[1] < 1 || grid[2] < 1 || grid[1] % v->merge || grid[2] % v->merge ||
        grid[0] > 1024 || grid[1] > 8192 || grid[2] > 8192)
        return qn_fail(err, QN_INPUT, "image: a grid of %d x %d x %d patches, expected multiples "
                       "of %d up to 8192", grid[0], grid[1], grid[2], v->merge);
    size_t n = (size_t)grid[0] * (size_t)grid[1] * (size_t)grid[2];
    scratch s = {0};
    float *out = malloc(n / per * (size_t)v->out_hidden * sizeof *out);
    if (!out) return qn_fail(err, QN_NOMEM, "image: no memory for %zu rows", n / per);
    if (!scratch_init(&s, v, c, n, err)) {
        free(out);
        return false;
    }
    qn_acts_set(s.acts, patches, n, (size_t)v->patch_dim, (size_t)v->patch_dim);
    qn_matmul(s.acts, &v->patch_embed, s.x, (size_t)v->hidden);
    add_positions(v, grid, n, s.x);
    rope_table(v, grid, n, s.rope);
    for (int i = 0; i < v->depth; i++) run_block(v, c, &v->blocks[i], grid, &s);
    run_merger(v, c, &s, out);
    scratch_done(&s);
    size_t bad = qn_first_nonfinite(out, n / per * (size_t)v->out_hidden);
    if (bad < n / per * (size_t)v->out_hidden) {
        free(out);
        return qn_fail(err, QN_NONFINITE, "vision tower: row %zu is not finite",
                       bad / (size_t)v->out_hidden);
    }
    *rows = out;
    *n_rows = n / per;
    return true;
}
