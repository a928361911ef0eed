// pad: the sizes, the float tensors and the config. Quantized matrices are pad_quantized.c's, the
// proof pad_proof.c's, writing rewrite.c's.
#include "quant/pad.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "quant/pad_plan.h"
#include "quant/relabel.h"
#include "quant/side_files.h"
#include "store/label_compare.h"

#define MAX_SIZE ((size_t)1 << 24)

size_t qn_pad_source(const qn_pad_size *s, size_t place) {
    size_t zeros = s->to - s->from;
    if (s->layout == QN_PAD_TAIL || zeros == 0) return place < s->from ? place : SIZE_MAX;
    if (zeros <= s->from) {
        if (place >= 2 * zeros) return place - zeros;
        return place % 2 ? SIZE_MAX : place / 2;
    }
    // The first unit whose place is not before this one: k = ceil(place * from / to).
    size_t k = (place * s->from + s->to - 1) / s->to;
    return k < s->from && k * s->to / s->from == place ? k : SIZE_MAX;
}

static bool in_mlp(const qn_expected *e) {
    return e->part != QN_PART_VISION && strstr(e->name, ".mlp.");
}

static bool is_down(const qn_expected *e) {
    return in_mlp(e) && qn_str_ends(e->name, ".down_proj.weight");
}

qn_pad_axis qn_pad_axis_of(const qn_expected *e, const qn_pad_size sizes[3],
                           const qn_pad_size **size) {
    const char *name = e->name;
    *size = NULL;
    if (!in_mlp(e)) return QN_PAD_NONE;
    *size = strstr(name, ".shared_expert.") ? &sizes[2] : strstr(name, ".experts.") ? &sizes[1]
                                                                                   : &sizes[0];
    if ((*size)->to == (*size)->from) return QN_PAD_NONE;
    if (qn_str_ends(name, ".experts.gate_up_proj")) return QN_PAD_FUSED_ROWS;
    if (qn_str_ends(name, ".experts.down_proj")) return QN_PAD_FUSED_COLS;
    if (qn_str_ends(name, ".gate_proj.weight") || qn_str_ends(name, ".up_proj.weight"))
        return QN_PAD_ROWS;
    return is_down(e) ? QN_PAD_COLS : QN_PAD_NONE;
}

// ---- float tensors ----

// Rows are padded by picking source rows, columns by picking source columns; a 3-D tensor is a
// stack of both. All in the stored dtype: bytes move, nothing is computed.
typedef struct shift {
    const qn_tensor *t;
    qn_pad_axis axis;
    const qn_pad_size *size;
} shift;

static void copy_row(const shift *s, size_t source_row, uint8_t *out) {
    size_t width = qn_dtype_bytes(s->t->dtype), cols = s->t->shape[s->t->n_dims - 1];
    bool wide = s->axis == QN_PAD_COLS || s->axis == QN_PAD_FUSED_COLS;
    size_t to = wide ? s->size->to : cols;
    if (source_row == SIZE_MAX) {
        memset(out, 0, to * width);
        return;
    }
    const uint8_t *from = s->t->data + source_row * cols * width;
    if (!wide) {
        memcpy(out, from, cols * width);
        return;
    }
    for (size_t c = 0; c < to; c++) {
        size_t k = qn_pad_source(s->size, c);
        if (k == SIZE_MAX)
            memset(out + c * width, 0, width);
        else
            memcpy(out + c * width, from + k * width, width);
    }
}

// The source row of a row of the result; rows count through a 3-D tensor's first two dimensions.
static size_t source_row(const shift *s, size_t row) {
    const qn_pad_size *z = s->size;
    if (s->axis == QN_PAD_COLS || s->axis == QN_PAD_FUSED_COLS) return row;
    if (s->axis == QN_PAD_ROWS) return qn_pad_source(z, row);
    size_t half = row / z->to, k = qn_pad_source(z, row % z->to); // halves: gate, up, gate, …
    return k == SIZE_MAX ? SIZE_MAX : half * z->from + k;
}

static bool float_rows(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err) {
    (void)err;
    const shift *s = user;
    bool wide = s->axis == QN_PAD_COLS || s->axis == QN_PAD_FUSED_COLS;
    size_t cols = wide ? s->size->to : s->t->shape[s->t->n_dims - 1];
    size_t per = s->axis == QN_PAD_FUSED_ROWS ? 2 * s->size->to
                 : s->axis == QN_PAD_FUSED_COLS ? s->t->shape[1] : 1;
    size_t pitch = cols * qn_dtype_bytes(s->t->dtype);
    for (size_t r = row0 * per; r < (row0 + n) * per; r++, out += pitch)
        copy_row(s, source_row(s, r), out);
    return true;
}

static void add_float(qn_rewrite *r, const qn_weight *w, qn_pad_axis axis,
                      const qn_pad_size *size) {
    shift *s = QN_NEW(shift);
    *s = (shift){w->parts[0], axis, size};
    qn_out_tensor *t = qn_rewrite_copy(r, w->parts[0]);
    t->bytes = NULL;
    t->raw = float_rows;
    t->user = s;
    t->source = w;
    if (axis == QN_PAD_ROWS) t->shape[0] = size->to;
    if (axis == QN_PAD_COLS) t->shape[1] = size->to;
    if (axis == QN_PAD_FUSED_ROWS) t->shape[1] = 2 * size->to;
    if (axis == QN_PAD_FUSED_COLS) t->shape[2] = size->to;
}

// ---- the plan ----

static bool set_size(qn_pad_size *s, const char *key, size_t from, size_t unit,
                     qn_pad_layout layout, qn_err *err) {
    *s = (qn_pad_size){key, from, (from + unit - 1) / unit * unit, layout};
    if (s->to <= MAX_SIZE) return true;
    return qn_fail(err, QN_LIMIT, "%s would become %zu, expected at most %zu", key, s->to, MAX_SIZE);
}

// What is padded, and what was found out on the way.
typedef struct plan {
    const qn_source_model *m;
    const qn_pad_options *o;
    qn_label label;       // how groups are meant; {0} for a float checkpoint
    size_t group;         // inputs that must not be parted
    qn_pad_size sizes[3]; // dense, experts, shared experts
    qn_pad_subject subject;
} plan;

// Inputs per scale of a quantized matrix. One group over all its inputs may be a group of the
// label's size that only happens to be as wide or wider; then new inputs begin new groups. 0: one
// scale per output, whatever the width.
static size_t group_of(const plan *p, const qn_weight *w) {
    if (w->n_groups > 1) return w->group;
    int64_t said = qn_label_of(&p->label, w).group;
    return said > 0 && (size_t)said >= w->cols ? (size_t)said : 0;
}

static size_t gcd(size_t a, size_t b) {
    while (b) {
        size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// The groups along the padded inputs count; without any, --group-size or the usual size.
static bool find_group(plan *p, qn_err *err) {
    const qn_weight *with = NULL;
    size_t all = 1;
    for (size_t i = 0; i < p->m->n_weights; i++) {
        const qn_weight *w = p->m->weights[i];
        const qn_expected *e = qn_layout_find(&p->m->layout, w->name);
        size_t g = w->scheme && e && is_down(e) ? group_of(p, w) : 0;
        if (!g || !qn_mul(all / gcd(all, g), g, &all) || all > MAX_SIZE) g = 0;
        if (g) with = w;
    }
    if (with && p->o->group_size % all)
        return qn_fail(err, QN_USAGE, "--group-size is %zu, but tensor %s is stored in groups of "
                       "%zu inputs, expected a multiple of that", p->o->group_size, with->name,
                       all);
    qn_quant_info info;
    p->group = with ? all : 128;
    if (!with && qn_ckpt_quant_info(p->m->ckpt, &info) && info.group_size > 0)
        p->group = (size_t)info.group_size;
    if (p->o->group_size) p->group = p->o->group_size;
    return true;
}

static bool find_sizes(plan *p, qn_err *err) {
    const qn_config *c = &p->m->config;
    const qn_pad_options *o = p->o;
    size_t unit;
    if (o->tp < 1 || o->tp > 1024)
        return qn_fail(err, QN_USAGE, "--tp is %d, expected 1 to 1024", o->tp);
    if (!find_group(p, err)) return false;
    if (!qn_mul(p->group, (size_t)o->tp, &unit) || unit > MAX_SIZE)
        return qn_fail(err, QN_USAGE, "group size %zu times %d devices is too much", p->group,
                       o->tp);
    return set_size(&p->sizes[0], "intermediate_size", c->intermediate_size, unit, o->layout,
                    err) &&
           set_size(&p->sizes[1], "moe_intermediate_size", c->moe_intermediate_size, unit,
                    o->layout, err) &&
           set_size(&p->sizes[2], "shared_expert_intermediate_size",
                    c->shared_expert_intermediate_size, unit, o->layout, err);
}

static bool refuse_interleave(const qn_weight *w, qn_err *err) {
    return qn_fail(err, QN_UNSUPPORTED, "tensor %s: interleaved padding moves inputs into other "
                   "groups, which a quantized checkpoint cannot follow; use --layout tail, or pad "
                   "the float checkpoint and quantize it then", w->name);
}

static json_t *padded_config(const json_t *config, const qn_pad_size sizes[3]) {
    json_t *c = json_deep_copy(config), *text = json_object_get(c, "text_config");
    if (!json_is_object(text)) text = c;
    for (int i = 0; i < 3; i++)
        if (sizes[i].to != sizes[i].from && json_object_get(text, sizes[i].key))
            json_object_set_new(text, sizes[i].key, json_integer((json_int_t)sizes[i].to));
    return c;
}

static bool add_weight(qn_rewrite *r, plan *p, const qn_weight *w, qn_err *err) {
    const qn_expected *e = qn_layout_find(&p->m->layout, w->name);
    qn_pad_matrix to = {.w = w};
    if (e) to.axis = qn_pad_axis_of(e, p->sizes, &to.size);
    p->subject.n_quantized += w->scheme != NULL;
    p->subject.n_padded += to.axis != QN_PAD_NONE;
    if (w->scheme) {
        if (to.axis != QN_PAD_NONE && p->o->layout == QN_PAD_INTERLEAVE)
            return refuse_interleave(w, err);
        to.group = group_of(p, w);
        return qn_pad_quantized(r, p->m->ckpt, &to, err);
    }
    if (to.axis == QN_PAD_NONE)
        qn_rewrite_copy(r, w->parts[0])->source = w;
    else
        add_float(r, w, to.axis, to.size);
    return true;
}

static void note(qn_rewrite *r, const char *text) {
    qn_note("%s", text);
    json_array_append_new(r->notes, json_string(text));
}

// What padding cannot mend.
static void say_heads(qn_rewrite *r, const plan *p) {
    size_t heads = p->m->config.num_attention_heads, tp = (size_t)p->o->tp;
    char text[256];
    if (heads % tp == 0) return;
    snprintf(text, sizeof text, "%zu devices still cannot share num_attention_heads %zu: padding "
             "is for intermediate sizes", tp, heads);
    note(r, text);
}

// A size that divides is not all it takes: inputs in the order of their activations have their groups
// all over the matrix.
static void say_act_order(qn_rewrite *r, const plan *p) {
    for (size_t i = 0; i < p->m->n_weights; i++) {
        const qn_weight *w = p->m->weights[i];
        const qn_expected *e = qn_layout_find(&p->m->layout, w->name);
        if (!w->act_order || !e || !is_down(e)) continue;
        char *text = qn_strf("%s is quantized in act-order (desc_act): its groups span all devices, so "
                             "each device needs all of its scales, whatever the size", w->name);
        note(r, text);
        qn_free(text);
        return;
    }
}

static void say_sizes(qn_rewrite *r, const plan *p) {
    char text[256];
    bool any = false;
    say_heads(r, p);
    r->summary = json_object();
    for (int i = 0; i < 3; i++) {
        const qn_pad_size *s = &p->sizes[i];
        if (s->to == s->from) continue;
        any = true;
        json_t *o = json_pack("{s:I, s:I, s:s}", "from", (json_int_t)s->from, "to",
                              (json_int_t)s->to, "layout",
                              s->layout == QN_PAD_TAIL ? "tail" : "interleave");
        json_object_set_new(r->summary, s->key, o);
    }
    if (any) return;
    json_object_set_new(r->summary, "nothing_to_pad", json_true());
    snprintf(text, sizeof text, "nothing to pad: every intermediate size is a multiple of %zu * %d "
             "already; the weights are a plain copy", p->group, p->o->tp);
    note(r, text);
    say_act_order(r, p);
}

// Padded codes mean 0 by what the tensors are. A loader that believes a wrong label would see other
// numbers there, so the label written is the right one.
static void fix_label(qn_rewrite *r, const qn_source_model *m) {
    size_t n = qn_ckpt_n_label_errors(m->ckpt);
    json_t *label = n ? qn_relabel_corrected(m) : NULL;
    if (!label) return;
    json_object_set_new(r->config, "quantization_config", label);
    r->drop = qn_side_labels;
    for (size_t i = 0; i < n; i++) {
        char *text = qn_strf("%s; corrected", qn_ckpt_label_error(m->ckpt, i));
        json_array_append_new(r->notes, json_string(text));
        qn_free(text);
    }
}

static void free_jobs(qn_rewrite *r) {
    for (size_t i = 0; i < r->n_tensors; i++)
        if (r->tensors[i].raw) free(r->tensors[i].user);
}

static bool read_label(plan *p, qn_err *err) {
    const qn_ckpt *c = p->m->ckpt;
    return !qn_ckpt_quant_config(c) || qn_label_read(&p->label, qn_ckpt_quant_config(c),
                                                     qn_ckpt_quant_config_file(c), err);
}

static bool write_padded(qn_rewrite *r, plan *p, json_t **report, qn_err *err) {
    const qn_source_model *m = p->m;
    for (size_t i = 0; i < m->n_weights; i++)
        if (!add_weight(r, p, m->weights[i], err)) return false;
    p->subject.source = m;
    p->subject.sizes = p->sizes;
    p->subject.forward = p->o->forward;
    p->subject.n_threads = p->o->n_threads;
    p->subject.progress = p->o->progress;
    p->subject.user = p->o->user;
    r->source = m->ckpt;
    r->prove = qn_pad_prove;
    r->user = &p->subject;
    r->config = padded_config(qn_ckpt_config(m->ckpt), p->sizes);
    r->readme_note = qn_strf("Padded by quern %s for %d devices; quern-report.json says how.",
                             QN_VERSION, p->o->tp);
    say_sizes(r, p);
    fix_label(r, m);
    return qn_rewrite_run(r, report, err);
}

bool qn_pad(const char *model, const char *out, const qn_pad_options *o, json_t **report,
            qn_err *err) {
    qn_source_model m;
    plan p = {.m = &m, .o = o};
    qn_rewrite r = {.command = "pad", .out = out, .overwrite = o->overwrite,
                    .shard_bytes = o->shard_bytes, .n_threads = o->n_threads,
                    .progress = o->progress, .progress_user = o->user, .notes = json_array()};
    *report = NULL;
    bool ok = qn_source_model_open(&m, model, false, r.notes, err) &&
              qn_source_model_sound(&m, o->n_threads, o->as_is, r.notes, err) &&
              read_label(&p, err) &&
              find_sizes(&p, err) && write_padded(&r, &p, report, err);
    qn_label_done(&p.label);
    free_jobs(&r);
    qn_rewrite_done(&r);
    qn_source_model_close(&m);
    return ok;
}
