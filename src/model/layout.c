// The list of tensors that a checkpoint of a family has. Text and draft layer are listed by walking
// the very code that loads them, with a binder that only writes names down; the vision tower has
// its own loader, so its names stand here a second time (tests compare).
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/parts.h"

const char *qn_role_name(qn_role r) {
    static const char *const names[] = {
        [QN_ROLE_EMBED] = "embedding",  [QN_ROLE_HEAD] = "head",   [QN_ROLE_LINEAR] = "linear",
        [QN_ROLE_SMALL] = "small linear", [QN_ROLE_EXPERTS] = "experts", [QN_ROLE_NORM] = "norm",
        [QN_ROLE_BIAS] = "bias",        [QN_ROLE_CONV] = "convolution", [QN_ROLE_DECAY] = "decay",
        [QN_ROLE_VISION] = "vision",
    };
    return r < QN_N_ROLES ? names[r] : "unknown";
}

bool qn_role_is_layer(qn_role r) {
    return r == QN_ROLE_LINEAR || r == QN_ROLE_EXPERTS || r == QN_ROLE_HEAD;
}

bool qn_role_is_matrix(qn_role r) {
    return qn_role_is_layer(r) || r == QN_ROLE_EMBED || r == QN_ROLE_SMALL || r == QN_ROLE_VISION;
}

const char *qn_part_name(qn_part p) {
    static const char *const names[] = {"text", "mtp", "vision"};
    return p < QN_N_PARTS ? names[p] : "unknown";
}

// ---- spelling --------------------------------------------------------------------------------

qn_spelling qn_spelling_release(const qn_config *c) {
    const qn_family *f = c->family;
    return (qn_spelling){.prefix = f->prefix, .fused_experts = f->fused_experts,
                         .fused_mtp_experts = f->fused_experts, .interleaved = f->interleaved,
                         .mtp = c->mtp_usable && c->mtp_num_hidden_layers == 1,
                         .vision = c->vision.depth > 0};
}

static bool has(qn_ckpt *ckpt, const char *prefix, const char *name) {
    char *full = qn_strf("%s%s", prefix, name);
    bool found = qn_ckpt_weight(ckpt, full) || qn_ckpt_find(ckpt, full);
    qn_free(full);
    return found;
}

static bool any_starts(qn_ckpt *ckpt, const char *prefix) {
    for (size_t i = 0; i < qn_ckpt_n_tensors(ckpt); i++)
        if (qn_str_starts(qn_ckpt_tensor(ckpt, i)->name, prefix)) return true;
    return false;
}

static bool any_contains(qn_ckpt *ckpt, const char *prefix, const char *part) {
    for (size_t i = 0; i < qn_ckpt_n_tensors(ckpt); i++) {
        const char *name = qn_ckpt_tensor(ckpt, i)->name;
        if (qn_str_starts(name, prefix) && strstr(name, part)) return true;
    }
    return false;
}

// Text-only re-saves keep either prefix under either config, so the tensors decide.
static const char *text_prefix(const qn_config *c, qn_ckpt *ckpt) {
    static const char *const known[] = {"model.", "model.language_model.", "language_model.model.",
                                        ""};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (has(ckpt, known[i], "embed_tokens.weight")) return known[i];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) // the embedding itself is missing
        if (has(ckpt, known[i], "norm.weight")) return known[i];
    return c->family->prefix;
}

qn_spelling qn_spelling_detect(const qn_config *c, qn_ckpt *ckpt) {
    qn_spelling s = qn_spelling_release(c);
    s.prefix = text_prefix(c, ckpt);
    char *layers = qn_strf("%slayers.", s.prefix);
    if (c->family->moe) {
        bool fused = any_contains(ckpt, layers, ".mlp.experts.gate_up_proj");
        s.fused_experts = fused || (s.fused_experts && !any_contains(ckpt, layers, ".experts.0."));
        fused = any_starts(ckpt, "mtp.layers.0.mlp.experts.gate_up_proj");
        s.fused_mtp_experts = fused || (s.fused_mtp_experts &&
                                        !any_starts(ckpt, "mtp.layers.0.mlp.experts.0."));
    }
    if (c->family->hybrid)
        s.interleaved = any_contains(ckpt, layers, ".linear_attn.in_proj_qkvz.") ||
                        (s.interleaved && !any_contains(ckpt, layers, ".linear_attn.in_proj_qkv."));
    qn_free(layers);
    s.mtp = c->mtp_usable && any_starts(ckpt, "mtp.");
    s.vision = c->vision.depth &&
               (any_starts(ckpt, "model.visual.") || any_starts(ckpt, "visual."));
    return s;
}

// ---- listing ---------------------------------------------------------------------------------

typedef struct lister {
    qn_binder binder;
    qn_layout *layout;
} lister;

static void add(qn_layout *l, const qn_expected *e) {
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 256;
        l->tensors = qn_realloc(l->tensors, l->cap * sizeof *l->tensors);
    }
    l->tensors[l->n] = *e;
    l->tensors[l->n++].name = qn_strdup(e->name);
}

static bool list_matrix(qn_binder *b, const qn_expected *e, const qn_cut *cuts, size_t n,
                        qn_err *err) {
    (void)cuts, (void)n, (void)err;
    add(((lister *)b)->layout, e);
    return true;
}

static bool list_floats(qn_binder *b, const qn_expected *e, float *out, qn_err *err) {
    (void)out, (void)err;
    add(((lister *)b)->layout, e);
    return true;
}

static void add_vision(qn_layout *l, int layer, qn_role role, const char *prefix, const char *name,
                       const size_t shape[6]) {
    qn_expected e = {.name = qn_strf("model.visual.%s%s", prefix, name), .role = role,
                     .part = QN_PART_VISION, .layer = layer};
    for (; shape[e.n_dims]; e.n_dims++) e.shape[e.n_dims] = shape[e.n_dims];
    add(l, &e);
    qn_free(e.name);
}

// A matrix [rows, cols] with its bias, or a norm with its bias (cols 0).
static void add_pair(qn_layout *l, int layer, const char *prefix, const char *name, size_t rows,
                     size_t cols) {
    char *weight = qn_strf("%s.weight", name), *bias = qn_strf("%s.bias", name);
    add_vision(l, layer, cols ? QN_ROLE_VISION : QN_ROLE_NORM, prefix, weight,
               (const size_t[6]){rows, cols});
    add_vision(l, layer, QN_ROLE_BIAS, prefix, bias, (const size_t[6]){rows});
    qn_free(weight);
    qn_free(bias);
}

static void list_vision(qn_layout *l, const qn_vision_shape *v) {
    size_t h = v->hidden, wide = h * v->merge * v->merge;
    add_vision(l, -1, QN_ROLE_VISION, "", "patch_embed.proj.weight",
               (const size_t[6]){h, v->channels, v->temporal, v->patch, v->patch});
    add_vision(l, -1, QN_ROLE_BIAS, "", "patch_embed.proj.bias", (const size_t[6]){h});
    add_vision(l, -1, QN_ROLE_VISION, "", "pos_embed.weight", (const size_t[6]){v->positions, h});
    for (size_t i = 0; i < v->depth; i++) {
        char *p = qn_strf("blocks.%zu.", i);
        add_pair(l, (int)i, p, "norm1", h, 0);
        add_pair(l, (int)i, p, "norm2", h, 0);
        add_pair(l, (int)i, p, "attn.qkv", 3 * h, h);
        add_pair(l, (int)i, p, "attn.proj", h, h);
        add_pair(l, (int)i, p, "mlp.linear_fc1", v->intermediate, h);
        add_pair(l, (int)i, p, "mlp.linear_fc2", h, v->intermediate);
        qn_free(p);
    }
    add_pair(l, -1, "merger.", "norm", h, 0);
    add_pair(l, -1, "merger.", "linear_fc1", wide, wide);
    add_pair(l, -1, "merger.", "linear_fc2", v->out_hidden, wide);
}

static int compare_names(const void *a, const void *b, void *layout) {
    const qn_expected *t = ((const qn_layout *)layout)->tensors;
    return strcmp(t[*(const size_t *)a].name, t[*(const size_t *)b].name);
}

static void sort_names(qn_layout *l) {
    l->by_name = QN_NEW_ARRAY(size_t, l->n);
    for (size_t i = 0; i < l->n; i++) l->by_name[i] = i;
    qsort_r(l->by_name, l->n, sizeof *l->by_name, compare_names, l);
}

void qn_layout_build(qn_layout *l, const qn_config *c, const qn_spelling *s) {
    lister b = {{.config = c, .spelling = *s, .matrix = list_matrix, .floats = list_floats}, l};
    qn_parts parts = {0};
    *l = (qn_layout){0};
    qn_parts_bind(&parts, &b.binder, NULL); // writing down does not fail
    qn_parts_done(&parts);
    qn_binder_done(&b.binder);
    if (s->vision) list_vision(l, &c->vision);
    sort_names(l);
}

void qn_layout_done(qn_layout *l) {
    for (size_t i = 0; i < l->n; i++) qn_free(l->tensors[i].name);
    qn_free(l->tensors);
    free(l->by_name);
    *l = (qn_layout){0};
}

const qn_expected *qn_layout_find(const qn_layout *l, const char *name) {
    for (size_t lo = 0, hi = l->n; lo < hi;) {
        size_t mid = (lo + hi) / 2;
        const qn_expected *e = &l->tensors[l->by_name[mid]];
        int order = strcmp(name, e->name);
        if (!order) return e;
        if (order < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

// ---- shapes ----------------------------------------------------------------------------------

static void add_shape(qn_buf *b, const size_t *shape, int n) {
    qn_buf_addc(b, '[');
    for (int i = 0; i < n; i++) qn_buf_addf(b, "%s%zu", i ? ", " : "", shape[i]);
    qn_buf_addc(b, ']');
}

static bool same_shape(const qn_expected *e, const size_t *shape, int n) {
    bool same = n == e->n_dims;
    for (int i = 0; same && i < n; i++) same = shape[i] == e->shape[i];
    return same;
}

bool qn_expected_matches(const qn_expected *e, const qn_weight *w, qn_err *err) {
    const size_t logical[] = {w->rows, w->cols};
    const size_t *shape = w->scheme ? logical : w->parts[0]->shape;
    int n = w->scheme ? 2 : w->parts[0]->n_dims;
    if (!w->scheme && !qn_dtype_is_float(w->parts[0]->dtype))
        return qn_fail(err, QN_INPUT, "tensor %s: dtype is %s, expected floats, or codes with their "
                       "scales", e->name, qn_dtype_name(w->parts[0]->dtype));
    if (same_shape(e, shape, n)) return true;
    qn_buf text = {0};
    add_shape(&text, shape, n);
    qn_buf_adds(&text, ", expected ");
    add_shape(&text, e->shape, e->n_dims);
    qn_fail(err, QN_INPUT, "tensor %s: shape is %s by config.json", e->name, text.data);
    qn_buf_done(&text);
    return false;
}
