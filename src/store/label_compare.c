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

const char *qn_ckpt_label_note(const qn_ckpt *c) { return c->label_note; }

// ---- one matrix ----

typedef enum kind { METHOD, FORMAT, BITS, GROUP, SYM, ACT, BLOCK, SKIPPED, N_KINDS } kind;

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

static void compare_format(const qn_label *l, const qn_weight *w, finding *f) {
    if (is_gptq(w)) {
        bool v2 = l->format && strcmp(l->format, "gptq_v2") == 0;
        // AutoRound writes v1 and does not say so.
        if (v2 != (w->zero_offset == 0))
            add(f, "checkpoint_format is %s (stored zeros are %s), but the content is %s (%s)",
                v2 ? "gptq_v2" : "gptq", v2 ? "the zeros" : "one less", w->layout,
                w->zero_offset ? "one less" : "the zeros themselves");
    } else if (strcmp(l->method, "awq") == 0 && l->format &&
               strcasecmp(l->format, format_of(w)) != 0) {
        add(f, "the AWQ version is %s, but the tensors are %s", l->format, format_of(w));
    }
}

static void compare_group(const qn_label_entry *e, const qn_weight *w, finding *f) {
    size_t said = e->group < 0 ? w->cols : (size_t)e->group;
    bool one = said >= w->cols && w->n_groups == 1;
    if (!e->group || w->scheme->floats || one || said == w->group) return;
    add(f, "group_size is %lld, but scales are for %zu inputs each", (long long)e->group, w->group);
}

static void compare_block(const qn_label_entry *e, const qn_weight *w, finding *f) {
    if (!w->scheme->floats || !e->block[0]) return;
    size_t down = e->block[0] < w->rows ? e->block[0] : w->rows;
    size_t across = e->block[1] < w->cols ? e->block[1] : w->cols;
    if (down != w->scale_rows || across != w->group)
        add(f, "blocks are %zu by %zu, but scales are for %zu by %zu", e->block[0], e->block[1],
            w->scale_rows, w->group);
}

static void compare_one(const qn_label *l, const qn_weight *w, finding *f) {
    char *module = qn_strndup(w->name, strlen(w->name) - strlen(".weight"));
    qn_label_entry e = qn_label_for(l, module);
    qn_free(module);
    if (!method_fits(l, w)) {
        add(&f[METHOD], "the method is %s, but the tensors are %s", l->method, w->scheme->family);
        return;
    }
    if (e.skip) add(&f[SKIPPED], "%s says it is not quantized, but it is", e.skip);
    compare_format(l, w, &f[FORMAT]);
    if (e.bits && e.bits != w->bits && !e.skip)
        add(&f[BITS], "bits is %d, but codes have %d", e.bits, w->bits);
    compare_group(&e, w, &f[GROUP]);
    compare_block(&e, w, &f[BLOCK]);
    if (e.sym == 1 && !w->sym)
        add(&f[SYM], "it is said to be symmetric, but the zeros differ from %d",
            1 << (w->bits - 1));
    if (e.desc_act == 0 && w->act_order)
        add(&f[ACT], "desc_act is false, but g_idx is not in order");
}

// ---- all ----

// Stored zeros that could differ, do not, and are the middle. "sym": false is legal then and nobody
// decodes anything else; but it keeps engines from what they have for symmetric codes.
static void note_symmetry(qn_ckpt *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->n_weights && c->label.method; i++) {
        const qn_weight *w = &c->weights[i];
        if (!w->scheme || w->scheme->floats) continue;
        char *module = qn_strndup(w->name, strlen(w->name) - strlen(".weight"));
        bool fits = w->sym && method_fits(&c->label, w) && qn_label_for(&c->label, module).sym == 0;
        qn_free(module);
        if (!fits) return;
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
        if (!w->scheme) continue;
        if (!(*n_quantized)++) *some = w;
        if (!c->label.method) continue;
        compare_one(&c->label, w, found);
        for (int k = 0; k < N_KINDS; k++)
            if (found[k].n == 1 && !names[k]) names[k] = w->name;
    }
    for (int k = 0; k < N_KINDS; k++) {
        if (found[k].n) report(c, &found[k], names[k]);
        qn_free(found[k].first);
    }
}

void qn_label_compare(qn_ckpt *c) {
    size_t n = 0;
    const qn_weight *some = NULL;
    char *text = NULL;
    compare_all(c, &n, &some);
    if (n && !c->quant_config && c->config)
        text = qn_strf("no quantization config, but %zu matrices are stored as %s; first: %s", n,
                       some->layout, some->name);
    if (!n && c->label.method && c->n_tensors)
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
    *out = (qn_quant_info){.sym = true, .label_matches = c->n_label_errors == 0};
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
