// Owns comparing a quantization config with the tensors, once they are understood. The content
// counts; a difference becomes one line, however many matrices show it: it names the first.
#include "store/label_compare.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "store/ckpt_state.h"
#include "store/schemes.h"

void qn_label_error_add(qn_ckpt *c, const char *text) {
    c->label_errors = qn_realloc(c->label_errors,
                                 (c->n_label_errors + 1) * sizeof *c->label_errors);
    c->label_errors[c->n_label_errors++] = qn_strdup(text);
}

size_t qn_ckpt_n_label_errors(const qn_ckpt *c) { return c->n_label_errors; }

const char *qn_ckpt_label_error(const qn_ckpt *c, size_t i) { return c->label_errors[i]; }

const char *qn_ckpt_label_fault(const qn_ckpt *c) { return c->label_fault; }

size_t qn_ckpt_n_doubles(const qn_ckpt *c) { return c->n_doubles; }

const qn_tensor *qn_ckpt_double(const qn_ckpt *c, size_t i) { return c->doubles[i]; }

const char *qn_ckpt_label_note(const qn_ckpt *c) { return c->label_note; }

// ---- one matrix ----

typedef enum kind {
    METHOD, FORMAT, BITS, GROUP, SYM, ACT, BLOCK, PACK, SKIPPED, DENSE, N_KINDS
} kind;

typedef struct finding {
    size_t n;
    char *first; // "…: says …, is …" for the first matrix
} finding;

static void QN_PRINTF(2, 3) add(finding *f, const char *fmt, ...) {
    if (f->n++) return;
    va_list args;
    char text[512];
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    f->first = qn_strdup(text);
}

static const char *format_of(const qn_weight *w) {
    return w->scheme->format ? w->scheme->format : w->layout;
}

static bool is_gptq(const qn_weight *w) { return strcmp(w->scheme->family, "gptq") == 0; }

// AutoRound's own format wraps those of others.
static bool method_fits(const qn_label *l, const qn_weight *w) {
    return strcmp(l->method, w->scheme->family) == 0 || strcmp(l->method, "auto-round") == 0;
}

// What the format's key is called, by method, and whether the name says nothing about the layout.
static const char *format_key(const qn_label *l) {
    if (strcmp(l->method, "gptq") == 0) return "checkpoint_format";
    return strcmp(l->method, "awq") == 0 ? "the AWQ version" : "format";
}

static bool is_vague(const char *format) {
    return strcmp(format, "mixed-precision") == 0 || strcmp(format, "naive-quantized") == 0;
}

// AutoRound's format wraps those of others; it writes v1 of GPTQ and does not say so.
static void compare_format(const qn_label *l, const qn_weight *w, finding *f) {
    bool own = strcmp(l->method, "auto-round") != 0;
    if (is_gptq(w) && (!own || !l->format || qn_str_starts(l->format, "gptq"))) {
        bool v2 = l->format && strcmp(l->format, "gptq_v2") == 0;
        if (v2 != (w->zero_offset == 0))
            add(f, "checkpoint_format is %s (stored zeros are %s), but the content is %s (%s)",
                v2 ? "gptq_v2" : "gptq", v2 ? "the zeros" : "one less", w->layout,
                w->zero_offset ? "one less" : "the zeros themselves");
    } else if (own && l->format && !is_vague(l->format) &&
               strcasecmp(l->format, format_of(w)) != 0) {
        add(f, "%s is %s, but the tensors are %s", format_key(l), l->format, format_of(w));
    }
}

// The methods whose loaders want both.
static bool must_say(const qn_label *l) {
    return strcmp(l->method, "gptq") == 0 || strcmp(l->method, "awq") == 0;
}

static void compare_bits(const qn_label *l, const qn_label_entry *e, const qn_weight *w,
                         finding *f) {
    if (e->skip) return;
    if (e->bits && e->bits != w->bits) add(f, "bits is %d, but codes have %d", e->bits, w->bits);
    if (!e->bits && must_say(l)) add(f, "bits is not said, and codes have %d", w->bits);
}

static void compare_group(const qn_label *l, const qn_label_entry *e, const qn_weight *w,
                          finding *f) {
    size_t said = e->group < 0 ? w->cols : (size_t)e->group;
    bool one = said >= w->cols && w->n_groups == 1;
    if (w->scheme->floats) return;
    if (e->group_zero)
        add(f, "group_size is 0, but scales are for %zu inputs each", w->group);
    else if (!e->group && must_say(l))
        add(f, "group_size is not said, and scales are for %zu inputs each", w->group);
    if (!e->group || one || said == w->group) return;
    add(f, "group_size is %lld, but scales are for %zu inputs each", (long long)e->group, w->group);
}

static void compare_pack(const qn_label *l, const qn_weight *w, finding *f) {
    const char *said = json_string_value(json_object_get(l->json, "pack_dtype"));
    if (!said || !must_say(l) || strcmp(said, "int32") == 0 || strcmp(said, "torch.int32") == 0)
        return;
    add(f, "pack_dtype is %.40s, but codes lie in %s", said, qn_dtype_name(w->parts[0]->dtype));
}

static void compare_block(const qn_weight *w, finding *f) {
    const size_t *said = w->said_block;
    if (!w->scheme->floats || !said[0]) return;
    size_t down = said[0] < w->rows ? said[0] : w->rows;
    size_t across = said[1] < w->cols ? said[1] : w->cols;
    if (down != w->scale_rows || across != w->group)
        add(f, "blocks are %zu by %zu, but scales are for %zu by %zu", said[0], said[1],
            w->scale_rows, w->group);
}

char *qn_weight_module(const qn_weight *w) {
    return qn_strndup(w->name, strlen(w->name) - strlen(".weight"));
}

qn_label_entry qn_label_of(const qn_label *l, const qn_weight *w) {
    char *module = qn_weight_module(w);
    qn_label_entry e = qn_label_for(l, module);
    qn_free(module);
    return e;
}

static void compare_one(const qn_label *l, const qn_weight *w, finding *f) {
    qn_label_entry e = qn_label_of(l, w);
    if (!method_fits(l, w)) {
        add(&f[METHOD], "the method is %s, but the tensors are %s", l->method, w->scheme->family);
        return;
    }
    if (e.skip) add(&f[SKIPPED], "%s says it is not quantized, but it is", e.skip);
    compare_format(l, w, &f[FORMAT]);
    compare_bits(l, &e, w, &f[BITS]);
    compare_group(l, &e, w, &f[GROUP]);
    compare_block(w, &f[BLOCK]);
    compare_pack(l, w, &f[PACK]);
    if (e.sym == 1 && !w->sym)
        add(&f[SYM], "it is said to be symmetric, but the zeros differ from %d",
            1 << (w->bits - 1));
    if (e.desc_act == 0 && w->act_order)
        add(&f[ACT], "desc_act is false, but g_idx is not in order");
}

// ---- what is not quantized ----

// The linear layers of the language model's own blocks, which every method quantizes unless told
// otherwise: towers, routers, heads and draft layers are left alone by habit.
static bool is_block_linear(const char *module) {
    static const char *const others[] = {"visual", "vision", "audio", "mtp"};
    static const char *const linears[] = {".q_proj", ".k_proj", ".v_proj", ".o_proj",
                                          ".gate_proj", ".up_proj", ".down_proj"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strstr(module, others[i])) return false;
    for (size_t i = 0; i < sizeof linears / sizeof *linears; i++)
        if (qn_str_ends(module, linears[i])) return strstr(module, "layers.") != NULL;
    return false;
}

// Sizes that a method cannot take are left out by all its tools.
static bool could_be_quantized(const qn_label_entry *e, const qn_weight *w) {
    const qn_tensor *t = w->parts[0];
    if (t->n_dims != 2 || !qn_dtype_is_float(t->dtype) || w->rows % 32 || w->cols % 32)
        return false;
    return e->group <= 0 || w->cols % (size_t)e->group == 0;
}

bool qn_label_misses(const qn_label *l, const qn_weight *w) {
    if (w->scheme || !qn_str_ends(w->name, "_proj.weight")) return false;
    char *module = qn_weight_module(w);
    qn_label_entry e = qn_label_for(l, module);
    bool misses = is_block_linear(module) && could_be_quantized(&e, w) && qn_label_wants(l, module);
    qn_free(module);
    return misses;
}

// GPTQModel says whether the head is quantized too.
static void compare_head(qn_ckpt *c) {
    const json_t *said = json_object_get(c->label.json, "lm_head");
    const qn_weight *head = qn_ckpt_weight(c, "lm_head.weight");
    bool is = head && head->scheme;
    if (!c->label.method || !must_say(&c->label) || !json_is_boolean(said)) return;
    if (is == json_is_true(said)) return;
    char *text = qn_strf("%s: lm_head is %s, but the head is %s", c->quant_file,
                         is ? "false" : "true", is ? "quantized" : "not quantized");
    qn_label_error_add(c, text);
    qn_free(text);
}

// ---- all ----

// Stored zeros that could differ, do not, and are the middle. "sym": false is legal then and nobody
// decodes anything else; but it keeps engines from what they have for symmetric codes.
static void note_symmetry(qn_ckpt *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->n_weights && c->label.method; i++) {
        const qn_weight *w = &c->weights[i];
        if (!w->scheme || w->scheme->floats) continue;
        if (!w->sym || !method_fits(&c->label, w) || qn_label_of(&c->label, w).sym != 0) return;
        n++;
    }
    if (!n) return;
    c->label_note = qn_strf("%s says that codes are not symmetric, but every zero of all %zu matrices "
                            "is the middle; that is no fault, only some engines are faster with "
                            "symmetric codes", c->quant_file, n);
    if (c->tolerant) qn_note("%s: %s", c->path, c->label_note); // others have no use for it
}

static void report(qn_ckpt *c, const finding *f, const char *first_name) {
    char *more = f->n > 1 ? qn_strf(" (and %zu more)", f->n - 1) : qn_strdup("");
    char *text = qn_strf("%s: %s: %s%s", c->quant_file, f->first, first_name, more);
    qn_label_error_add(c, text);
    qn_free(text);
    qn_free(more);
}

static void compare_all(qn_ckpt *c, size_t *n_quantized, const qn_weight **some) {
    finding found[N_KINDS] = {0};
    const char *names[N_KINDS] = {0};
    for (size_t i = 0; i < c->n_weights; i++) {
        const qn_weight *w = &c->weights[i];
        if (w->scheme && !(*n_quantized)++) *some = w;
        if (!c->label.method) continue;
        if (w->scheme)
            compare_one(&c->label, w, found);
        else if (qn_label_misses(&c->label, w))
            add(&found[DENSE], "it is not quantized, and nothing says so");
        for (int k = 0; k < N_KINDS; k++)
            if (found[k].n == 1 && !names[k]) names[k] = w->name;
    }
    if (found[METHOD].n || !*n_quantized) found[DENSE].n = 0; // said better otherwise
    for (int k = 0; k < N_KINDS; k++) {
        if (found[k].n) report(c, &found[k], names[k]);
        qn_free(found[k].first);
    }
}

void qn_label_compare(qn_ckpt *c) {
    size_t n = 0;
    const qn_weight *some = NULL;
    char *text = NULL;
    if (c->label_fault) return;
    compare_all(c, &n, &some);
    if (n) compare_head(c);
    if (n && !c->quant_config && c->config)
        text = qn_strf("no quantization config, but %zu matrices are stored as %s; first: %s", n,
                       some->layout, some->name);
    if (!n && c->label.method && c->n_tensors && !c->damages.n)
        text = qn_strf("%s: the method is %s, but no tensor is quantized", c->quant_file,
                       c->label.method);
    if (text) qn_label_error_add(c, text);
    qn_free(text);
    for (size_t i = 0; i < c->n_label_errors && !c->tolerant; i++)
        qn_note("%s: %s; the tensors count", c->path, c->label_errors[i]);
    note_symmetry(c);
}

// ---- what it is, in short ----

// Values and how often they occur; there are few different ones.
typedef struct tally {
    int64_t value[32];
    size_t count[32], n;
} tally;

static void tally_add(tally *t, int64_t value) {
    size_t k = 0;
    while (k < t->n && t->value[k] != value) k++;
    if (k == 32) return;
    if (k == t->n) t->value[t->n++] = value;
    t->count[k]++;
}

static int64_t tally_most(const tally *t, int64_t otherwise) {
    size_t best = 0;
    for (size_t k = 1; k < t->n; k++)
        if (t->count[k] > t->count[best]) best = k;
    return t->n ? t->value[best] : otherwise;
}

bool qn_ckpt_quant_info(const qn_ckpt *c, qn_quant_info *out) {
    *out = (qn_quant_info){.sym = true, .label_matches = c->n_label_errors == 0 && !c->label_fault};
    const qn_weight *first = NULL;
    tally bits = {0}, groups = {0};
    for (size_t i = 0; i < c->n_weights; i++) {
        const qn_weight *w = &c->weights[i];
        if (!w->scheme) continue;
        if (!first) first = w;
        tally_add(&bits, w->bits);
        // A single group over all inputs says nothing about the size that was asked for.
        if (w->n_groups > 1) tally_add(&groups, (int64_t)w->group);
        out->modules++;
        out->sym = out->sym && w->sym;
        out->desc_act = out->desc_act || w->act_order;
    }
    if (!first) return false;
    bool named = c->label.method && method_fits(&c->label, first);
    out->method = named ? c->label.method : first->scheme->family;
    out->format = format_of(first);
    out->bits = (int)tally_most(&bits, 0);
    out->group_size = tally_most(&groups, c->label.all.group > 0 ? c->label.all.group : -1);
    out->desc_act = out->desc_act || c->label.all.desc_act == 1;
    return true;
}
