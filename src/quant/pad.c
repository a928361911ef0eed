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

qn_pad_axis qn_pad_axis_of(const qn_expected *e, const qn_pad_size sizes[3],
                           const qn_pad_size **size) {
    const char *name = e->name;
    *size = NULL;
    if (e->part == QN_PART_VISION || !strstr(name, ".mlp.")) return QN_PAD_NONE;
    bool fused = qn_str_ends(name, ".experts.gate_up_proj") ||
                 qn_str_ends(name, ".experts.down_proj");
    *size = strstr(name, ".shared_expert.") ? &sizes[2] : strstr(name, ".experts.") ? &sizes[1]
                                                                                   : &sizes[0];
    if ((*size)->to == (*size)->from) return QN_PAD_NONE;
    if (fused)
        return qn_str_ends(name, "gate_up_proj") ? QN_PAD_FUSED_ROWS : QN_PAD_FUSED_COLS;
    if (qn_str_ends(name, ".gate_proj.weight") || qn_str_ends(name, ".up_proj.weight"))
        return QN_PAD_ROWS;
    return qn_str_ends(name, ".down_proj.weight") ? QN_PAD_COLS : QN_PAD_NONE;
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

static const qn_weight *first_quantized(const qn_source_model *m) {
    for (size_t i = 0; i < m->n_weights; i++)
        if (m->weights[i]->scheme) return m->weights[i];
    return NULL;
}

static size_t group_size(const qn_source_model *m, const qn_pad_options *o) {
    const qn_weight *q = first_quantized(m);
    if (o->group_size) return o->group_size;
    return q && q->n_groups > 1 ? q->group : 128;
}

static bool make_plan(const qn_source_model *m, const qn_pad_options *o, qn_pad_size sizes[3],
                      qn_err *err) {
    const qn_config *c = &m->config;
    size_t group = group_size(m, o), unit;
    if (o->tp < 1 || o->tp > 1024)
        return qn_fail(err, QN_USAGE, "--tp is %d, expected 1 to 1024", o->tp);
    if (!qn_mul(group, (size_t)o->tp, &unit) || unit > MAX_SIZE)
        return qn_fail(err, QN_USAGE, "group size %zu times %d devices is too much", group, o->tp);
    if (first_quantized(m) && o->layout == QN_PAD_INTERLEAVE)
        return qn_fail(err, QN_UNSUPPORTED, "interleaved padding moves inputs into other groups, "
                       "which a quantized checkpoint cannot follow; use --layout tail, or pad the "
                       "float checkpoint and quantize it then");
    return set_size(&sizes[0], "intermediate_size", c->intermediate_size, unit, o->layout, err) &&
           set_size(&sizes[1], "moe_intermediate_size", c->moe_intermediate_size, unit, o->layout,
                    err) &&
           set_size(&sizes[2], "shared_expert_intermediate_size",
                    c->shared_expert_intermediate_size, unit, o->layout, err);
}

static json_t *padded_config(const json_t *config, const qn_pad_size sizes[3]) {
    json_t *c = json_deep_copy(config), *text = json_object_get(c, "text_config");
    if (!json_is_object(text)) text = c;
    for (int i = 0; i < 3; i++)
        if (sizes[i].to != sizes[i].from && json_object_get(text, sizes[i].key))
            json_object_set_new(text, sizes[i].key, json_integer((json_int_t)sizes[i].to));
    return c;
}

static bool add_weight(qn_rewrite *r, const qn_source_model *m, const qn_weight *w,
                       const qn_pad_size sizes[3], qn_err *err) {
    const qn_expected *e = qn_layout_find(&m->layout, w->name);
    const qn_pad_size *size;
    qn_pad_axis axis = e ? qn_pad_axis_of(e, sizes, &size) : QN_PAD_NONE;
    if (w->scheme) return qn_pad_quantized(r, m->ckpt, w, axis, size, err);
    if (axis == QN_PAD_NONE)
        qn_rewrite_copy(r, w->parts[0])->source = w;
    else
        add_float(r, w, axis, size);
    return true;
}

static void say(qn_rewrite *r, const qn_pad_size sizes[3], size_t group, int tp) {
    r->summary = json_object();
    char text[256];
    bool any = false;
    for (int i = 0; i < 3; i++) {
        const qn_pad_size *s = &sizes[i];
        if (s->to == s->from) continue;
        any = true;
        json_t *o = json_pack("{s:I, s:I, s:s}", "from", (json_int_t)s->from, "to",
                              (json_int_t)s->to, "layout",
                              s->layout == QN_PAD_TAIL ? "tail" : "interleave");
        json_object_set_new(r->summary, s->key, o);
    }
    if (any) return;
    snprintf(text, sizeof text, "every intermediate size is a multiple of %zu * %d already: a "
             "plain copy", group, tp);
    qn_note("%s", text);
    json_array_append_new(r->notes, json_string(text));
}

// Padded codes mean 0 by what the tensors are. A loader that believes a wrong label would see other
// numbers there, so the label written is the right one.
static void fix_label(qn_rewrite *r, const qn_source_model *m) {
    static const char *const side_labels[] = {"quantize_config.json", "quant_config.json",
                                              "quantization_config.json", NULL};
    size_t n = qn_ckpt_n_label_errors(m->ckpt);
    json_t *label = n ? qn_relabel_corrected(m) : NULL;
    if (!label) return;
    json_object_set_new(r->config, "quantization_config", label);
    r->drop = side_labels;
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

bool qn_pad(const char *model, const char *out, const qn_pad_options *o, json_t **report,
            qn_err *err) {
    qn_source_model m;
    qn_pad_size sizes[3];
    qn_rewrite r = {.command = "pad", .out = out, .overwrite = o->overwrite,
                    .shard_bytes = o->shard_bytes, .n_threads = o->n_threads,
                    .progress = o->progress, .progress_user = o->user, .notes = json_array()};
    *report = NULL;
    bool ok = qn_source_model_open(&m, model, false, r.notes, err) && make_plan(&m, o, sizes, err);
    qn_pad_subject subject = {&m, sizes, ok && first_quantized(&m), o->n_threads};
    for (size_t i = 0; ok && i < m.n_weights; i++) ok = add_weight(&r, &m, m.weights[i], sizes, err);
    if (ok) {
        r.source = m.ckpt;
        r.prove = qn_pad_prove;
        r.user = &subject;
        r.config = padded_config(qn_ckpt_config(m.ckpt), sizes);
        r.readme_note = qn_strf("Padded by quern %s for %d devices; quern-report.json says how.",
                                QN_VERSION, o->tp);
        say(&r, sizes, group_size(&m, o), o->tp);
        fix_label(&r, &m);
        ok = qn_rewrite_run(&r, report, err);
    }
    free_jobs(&r);
    qn_rewrite_done(&r);
    qn_source_model_close(&m);
    return ok;
}
