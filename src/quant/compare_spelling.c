// The same weights are spelled in several ways: text tensors under another prefix (text-only
// re-saves), all experts of a layer as one tensor or one by one, the delta rule's projections
// interleaved by key head or one after the other, a tied head stored again or not. What the model
// room's binders cut at load is cut here, so that such checkpoints are compared part by part.
#include "quant/compare_spelling.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/family.h"

typedef struct side {
    qn_ckpt *ckpt;
    const qn_config *config; // NULL: not known
    const qn_weight *weights;
    size_t n_weights;
    qn_pieces *out;
} side;

// ---- lists of pieces ----

static void add(qn_pieces *p, char *key_take, const qn_weight *w, size_t row0, size_t rows) {
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 256;
        p->list = qn_realloc(p->list, p->cap * sizeof *p->list);
    }
    p->list[p->n++] = (qn_piece){.key = key_take, .w = w, .row0 = row0, .rows = rows};
}

static void add_part(qn_pieces *p, char *key_take, const qn_weight *w, size_t row0, size_t rows) {
    add(p, key_take, w, row0, rows);
    p->list[p->n - 1].part = true;
}

static int compare_keys(const void *a, const void *b, void *list) {
    const qn_piece *p = list;
    return strcmp(p[*(const size_t *)a].key, p[*(const size_t *)b].key);
}

static void sort_keys(qn_pieces *p) {
    free(p->by_key);
    p->by_key = QN_NEW_ARRAY(size_t, p->n);
    for (size_t i = 0; i < p->n; i++) p->by_key[i] = i;
    if (p->n) qsort_r(p->by_key, p->n, sizeof *p->by_key, compare_keys, p->list);
}

const qn_piece *qn_pieces_find(const qn_pieces *p, const char *key) {
    for (size_t lo = 0, hi = p->n; lo < hi;) {
        size_t mid = (lo + hi) / 2;
        const qn_piece *at = &p->list[p->by_key[mid]];
        int order = strcmp(key, at->key);
        if (!order) return at;
        if (order < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

void qn_pieces_done(qn_pieces *p) {
    for (size_t i = 0; i < p->n; i++) {
        qn_free(p->list[i].key);
        free(p->list[i].order);
    }
    free(p->list);
    free(p->by_key);
    *p = (qn_pieces){0};
}

// ---- names ----

// Under the prefix that plain text models have. With no prefix at all only these are the text's.
static char *key_of(const char *name, const char *prefix) {
    static const char *const roots[] = {"layers.", "embed_tokens.", "norm."};
    if (qn_str_starts(name, "visual.")) return qn_strf("model.%s", name);
    if (!prefix) return qn_strdup(name);
    for (size_t i = 0; !*prefix && i < sizeof roots / sizeof *roots; i++)
        if (qn_str_starts(name, roots[i])) return qn_strf("model.%s", name);
    if (*prefix && qn_str_starts(name, prefix)) return qn_strf("model.%s", name + strlen(prefix));
    return qn_strdup(name);
}

static void list_whole(side *s) {
    if (s->config) s->out->prefix = qn_spelling_detect(s->config, s->ckpt).prefix;
    for (size_t i = 0; i < s->n_weights; i++) {
        const qn_weight *w = &s->weights[i];
        add(s->out, key_of(w->name, s->out->prefix), w, 0, w->rows);
    }
    sort_keys(s->out);
}

// The part of key before `end`, or NULL when it does not end so.
static char *stem(const char *key, const char *end) {
    return qn_str_ends(key, end) ? qn_strndup(key, strlen(key) - strlen(end)) : NULL;
}

static bool has(const qn_pieces *p, char *key_take) {
    bool found = qn_pieces_find(p, key_take) != NULL;
    qn_free(key_take);
    return found;
}

char *qn_piece_name(const qn_pieces *p, const qn_piece *piece) {
    if (!piece->part) return qn_strdup(piece->w->name);
    if (!p->prefix || !qn_str_starts(piece->key, "model.")) return qn_strdup(piece->key);
    return qn_strf("%s%s", p->prefix, piece->key + strlen("model."));
}

static void count_split(qn_pieces *p, const qn_weight *w) {
    if (!p->n_split++) p->split = w;
}

// ---- experts ----

typedef struct experts { // one fused tensor's matrices
    const char *fused, *single[2];
    size_t n; // per expert
} experts;

static char *expert_key(const experts *x, const char *stem_of, size_t i) {
    return qn_strf("%smlp.experts.%zu.%s.weight", stem_of, i / x->n, x->single[i % x->n]);
}

// [experts, rows, cols] is the experts' matrices one after the other; gate_up_proj holds an
// expert's gate above its up.
static bool split_experts(qn_pieces *p, const qn_pieces *other, const char *key,
                          const qn_weight *w) {
    static const experts kinds[] = {{"mlp.experts.gate_up_proj", {"gate_proj", "up_proj"}, 2},
                                    {"mlp.experts.down_proj", {"down_proj", NULL}, 1}};
    const qn_tensor *t = w->parts[0];
    if (w->scheme || t->n_dims != 3) return false;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const experts *x = &kinds[k];
        char *at = stem(key, x->fused);
        size_t n = x->n * t->shape[0], rows = t->shape[1] / x->n;
        bool some = false;
        for (size_t i = 0; at && t->shape[1] % x->n == 0 && i < n && !some; i++)
            some = has(other, expert_key(x, at, i));
        for (size_t i = 0; some && i < n; i++)
            add_part(p, expert_key(x, at, i), w, i * rows, rows);
        qn_free(at);
        if (some) return true;
    }
    return false;
}

// ---- delta rule ----

typedef struct run {
    size_t at, n; // rows within a key head's group
} run;

// Piece: the same runs of every group, run by run.
static void add_runs(qn_pieces *p, char *key_take, const qn_weight *w, size_t groups,
                     const run *runs, size_t n_runs) {
    size_t stride = w->rows / groups, rows = 0, *to;
    for (size_t i = 0; i < n_runs; i++) rows += groups * runs[i].n;
    add_part(p, key_take, w, 0, rows);
    to = p->list[p->n - 1].order = QN_NEW_ARRAY(size_t, rows);
    for (size_t i = 0; i < n_runs; i++)
        for (size_t g = 0; g < groups; g++)
            for (size_t r = 0; r < runs[i].n; r++) *to++ = g * stride + runs[i].at + r;
}

// Key head g of in_proj_qkvz is [q | k | v | z], of in_proj_ba [b | a]: see block_deltanet.c.
static bool split_projections(qn_pieces *p, const qn_pieces *other, const char *key,
                              const qn_weight *w, const qn_config *c) {
    if (!c || !c->family->hybrid || !c->linear_num_key_heads) return false;
    size_t groups = c->linear_num_key_heads, r = c->linear_num_value_heads / groups;
    size_t dk = c->linear_key_head_dim, rv = r * c->linear_value_head_dim;
    const run qkv[] = {{0, dk}, {dk, dk}, {2 * dk, rv}}, z = {2 * dk + rv, rv};
    const run b = {0, r}, a = {r, r};
    char *wide = stem(key, "linear_attn.in_proj_qkvz.weight");
    char *slim = stem(key, "linear_attn.in_proj_ba.weight");
    bool fits = false;
    if (wide && w->rows == groups * 2 * (dk + rv) &&
        has(other, qn_strf("%slinear_attn.in_proj_qkv.weight", wide))) {
        add_runs(p, qn_strf("%slinear_attn.in_proj_qkv.weight", wide), w, groups, qkv, 3);
        add_runs(p, qn_strf("%slinear_attn.in_proj_z.weight", wide), w, groups, &z, 1);
        fits = true;
    }
    if (slim && w->rows == groups * 2 * r &&
        has(other, qn_strf("%slinear_attn.in_proj_b.weight", slim))) {
        add_runs(p, qn_strf("%slinear_attn.in_proj_b.weight", slim), w, groups, &b, 1);
        add_runs(p, qn_strf("%slinear_attn.in_proj_a.weight", slim), w, groups, &a, 1);
        fits = true;
    }
    qn_free(wide);
    qn_free(slim);
    return fits;
}

// ---- both sides ----

// Both lists hold whole weights only; what is cut takes its parts' places in a new list.
static void split(const side *s, const qn_pieces *other, qn_pieces *out) {
    *out = (qn_pieces){.prefix = s->out->prefix};
    for (size_t i = 0; i < s->out->n; i++) {
        const qn_piece *p = &s->out->list[i];
        if (!qn_pieces_find(other, p->key) &&
            (split_experts(out, other, p->key, p->w) ||
             split_projections(out, other, p->key, p->w, s->config)))
            count_split(out, p->w);
        else
            add(out, qn_strdup(p->key), p->w, p->row0, p->rows);
    }
    const qn_piece *embed = qn_pieces_find(s->out, "model.embed_tokens.weight");
    out->tied = embed && s->config && s->config->tie_word_embeddings &&
                !qn_pieces_find(s->out, "lm_head.weight") &&
                qn_pieces_find(other, "lm_head.weight");
    if (out->tied) add_part(out, qn_strdup("lm_head.weight"), embed->w, 0, embed->rows);
    sort_keys(out);
}

// The family by this side's config; what cannot be understood is compared by its names.
static bool read_config(qn_config *c, qn_ckpt *ckpt) {
    const json_t *j = qn_ckpt_config(ckpt);
    qn_err ignored = {0};
    return j && qn_config_read(c, j, "config.json", &ignored);
}

bool qn_pieces_match(qn_ckpt *const ckpt[2], qn_pieces out[2], qn_err *err) {
    qn_config config[2] = {{0}, {0}};
    qn_pieces cut[2];
    side sides[2];
    bool known[2], ok = true;
    for (int s = 0; s < 2; s++) known[s] = read_config(&config[s], ckpt[s]);
    for (int s = 0; s < 2; s++) {
        sides[s] = (side){.ckpt = ckpt[s], .out = &out[s]};
        if (known[s] || known[1 - s]) sides[s].config = &config[known[s] ? s : 1 - s];
        ok = ok && (qn_ckpt_weights(ckpt[s], &sides[s].weights, &sides[s].n_weights, err) ||
                    qn_err_prefix(err, "%s", qn_ckpt_path(ckpt[s])));
    }
    for (int s = 0; ok && s < 2; s++) list_whole(&sides[s]);
    for (int s = 0; ok && s < 2; s++) split(&sides[s], &out[1 - s], &cut[s]);
    for (int s = 0; ok && s < 2; s++) {
        qn_pieces_done(&out[s]);
        out[s] = cut[s];
    }
    for (int s = 0; s < 2; s++) qn_config_done(&config[s]);
    return ok;
}
