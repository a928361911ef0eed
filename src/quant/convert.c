// convert: which tensors the plain checkpoint has, in the family's order, and its config. The work
// itself is rewrite.c's, the proof proof.c's.
#include "quant/convert.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "model/family.h"
#include "quant/proof.h"
#include "quant/side_files.h"
#include "quant/source_model.h"
#include "store/label_compare.h"

static qn_dtype stored_dtype(qn_convert_dtype d) {
    return d == QN_TO_F32 ? QN_DT_F32 : d == QN_TO_BF16 ? QN_DT_BF16 : QN_DT_F16;
}

static const char *torch_name(qn_convert_dtype d) {
    return d == QN_TO_F32 ? "float32" : d == QN_TO_BF16 ? "bfloat16" : "float16";
}

// Sets the dtype under the key that the config uses, also inside text_config and vision_config.
static void set_dtype(json_t *config, const char *dtype, bool top) {
    const char *const keys[] = {"dtype", "torch_dtype"};
    bool any = false;
    for (size_t i = 0; i < 2; i++)
        if (json_object_get(config, keys[i])) {
            json_object_set_new(config, keys[i], json_string(dtype));
            any = true;
        }
    if (!any && top) json_object_set_new(config, "torch_dtype", json_string(dtype));
    const char *const nested[] = {"text_config", "vision_config"};
    for (size_t i = 0; top && i < 2; i++)
        if (json_is_object(json_object_get(config, nested[i])))
            set_dtype(json_object_get(config, nested[i]), dtype, false);
}

static json_t *plain_config(const json_t *config, const char *dtype) {
    json_t *c = json_deep_copy(config);
    const char *const nested[] = {"text_config", "vision_config"};
    json_object_del(c, "quantization_config");
    json_object_del(c, "compression_config");
    for (size_t i = 0; i < 2; i++)
        if (json_is_object(json_object_get(c, nested[i])))
            json_object_del(json_object_get(c, nested[i]), "quantization_config");
    set_dtype(c, dtype, true);
    return c;
}

// Float32 where the recurrence needs it: cutting A_log to 16 bits moves every decay.
static bool stays_f32(const qn_expected *e, const qn_weight *w) {
    if (w->scheme || w->parts[0]->dtype != QN_DT_F32 || !e) return false;
    return e->role == QN_ROLE_DECAY ||
           (e->role == QN_ROLE_NORM && strstr(e->name, "linear_attn.norm"));
}

static void note_f32(qn_rewrite *r, qn_convert_dtype to) {
    const char *first = NULL;
    size_t n = 0;
    for (size_t i = 0; to != QN_TO_F32 && i < r->n_tensors; i++) {
        const qn_out_tensor *t = &r->tensors[i];
        if (t->dtype == QN_DT_F32 && n++ == 0) first = t->name;
    }
    if (n == 0) return;
    char *text = qn_strf("%zu tensor%s of the linear attention stay%s F32, as releases keep %s: the "
                         "recurrence adds up what rounding would change (%s%s)", n, qn_plural_s(n),
                         n == 1 ? "s" : "", n == 1 ? "it" : "them", first, n == 1 ? "" : ", …");
    qn_note("%s", text);
    json_array_append_new(r->notes, json_string(text));
    qn_free(text);
}

static void add_weight(qn_rewrite *r, const qn_source_model *m, const qn_weight *w,
                       qn_dtype dtype) {
    const qn_expected *e = qn_layout_find(&m->layout, w->name);
    if (!w->scheme && !qn_dtype_is_float(w->parts[0]->dtype)) { // an extra one that is kept
        qn_rewrite_copy(r, w->parts[0])->source = w;
        return;
    }
    qn_out_tensor *t = qn_rewrite_add(r, w->name);
    qn_source_float(t, w);
    t->dtype = stays_f32(e, w) ? QN_DT_F32 : dtype;
}

// "allclose: no" looks like damage and is not: a half-precision number is only so fine.
static void explain_closeness(qn_rewrite *r, const json_t *report) {
    if (!json_is_false(json_object_get(json_object_get(report, "summary"), "allclose_1e3"))) return;
    const char *text =
        r->saturate ? "allclose_1e3 (numpy's rule: |stored - exact| <= 0.001 + 0.001 |exact|) is "
                      "no because values that the dtype cannot hold were clamped"
                    : "allclose_1e3 is numpy's rule, |stored - exact| <= 0.001 + 0.001 |exact|. "
                      "Rounding to bf16 alone may move a value by 1/512 of itself, so weights "
                      "beyond 1 can miss it; every one is still the nearest bf16 number";
    json_array_append_new(r->notes, json_string(text));
}

static bool prove(void *user, const char *dir, json_t *report, qn_err *err) {
    explain_closeness(user, report);
    return qn_prove_decoded(user, dir, report, err);
}

static void note_labels(const qn_source_model *m, json_t *notes) {
    for (size_t i = 0; i < qn_ckpt_n_label_errors(m->ckpt); i++)
        json_array_append_new(notes, qn_json_string(qn_ckpt_label_error(m->ckpt, i)));
    for (size_t i = 0; i < qn_ckpt_n_doubles(m->ckpt); i++)
        json_array_append_new(notes, json_sprintf("%s is stored twice: the codes were converted, the "
                                                  "dense tensor was left out",
                                                  qn_ckpt_double(m->ckpt, i)->name));
}

bool qn_convert(const char *model, const char *out, const qn_convert_options *o, json_t **report,
                qn_err *err) {
    qn_source_model m;
    *report = NULL;
    qn_rewrite r = {.command = "convert", .out = out, .overwrite = o->overwrite,
                    .saturate = o->saturate, .shard_bytes = o->shard_bytes,
                    .n_threads = o->n_threads, .drop = qn_side_labels, .prove = prove,
                    .progress = o->progress, .progress_user = o->user};
    r.user = &r;
    r.notes = json_array();
    bool ok = qn_source_model_open(&m, model, o->keep_extra, r.notes, err) &&
              qn_source_model_sound(&m, o->n_threads, o->as_is, r.notes, err);
    if (ok) {
        r.source = m.ckpt;
        r.config = plain_config(qn_ckpt_config(m.ckpt), torch_name(o->dtype));
        for (size_t i = 0; i < m.n_weights; i++)
            add_weight(&r, &m, m.weights[i], stored_dtype(o->dtype));
        note_f32(&r, o->dtype);
        note_labels(&m, r.notes);
        r.readme_note = qn_strf("Converted to %s by quern %s; quern-report.json says from what and "
                                "how it was verified.", torch_name(o->dtype), QN_VERSION);
        ok = qn_rewrite_run(&r, report, err);
    }
    qn_rewrite_done(&r);
    qn_source_model_close(&m);
    return ok;
}
