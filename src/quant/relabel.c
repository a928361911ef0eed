// Correcting the label on the box. Only what the tensors prove is changed: bits, group size, symmetry
// and, for GPTQ, the format that says how zeros are stored.
#include "quant/relabel.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"

// What most quantized weights are; modules that differ keep what the config says of them.
typedef struct content {
    const qn_weight *sample;
    size_t n, n_sym;
    bool is_gptq, v2;
} content;

static content look(const qn_source_model *m) {
    content c = {0};
    for (size_t i = 0; i < m->n_weights; i++) {
        const qn_weight *w = m->weights[i];
        if (!w->scheme) continue;
        if (!c.sample || w->n_groups > c.sample->n_groups) c.sample = w; // shows the group size
        c.n++;
        c.n_sym += w->sym;
    }
    if (c.sample) {
        c.is_gptq = qn_str_starts(c.sample->layout, "gptq");
        c.v2 = c.is_gptq && c.sample->zero_offset == 0;
    }
    return c;
}

static void set_known(json_t *q, const char *const *keys, size_t n, json_t *value) {
    bool any = false;
    for (size_t i = 0; i < n; i++)
        if (json_object_get(q, keys[i])) {
            json_object_set(q, keys[i], value);
            any = true;
        }
    if (!any) json_object_set(q, keys[0], value);
    json_decref(value);
}

static void correct(json_t *q, const content *c) {
    const char *const bits[] = {"bits", "w_bit", "wbits"};
    const char *const group[] = {"group_size", "q_group_size"};
    const char *const format[] = {"checkpoint_format", "format"};
    const qn_weight *w = c->sample;
    set_known(q, bits, 3, json_integer(w->bits));
    if (w->n_groups > 1) set_known(q, group, 2, json_integer((json_int_t)w->group));
    if (c->is_gptq) {
        set_known(q, format, 2, json_string(c->v2 ? "gptq_v2" : "gptq"));
        json_object_set_new(q, "sym", json_boolean(c->n_sym == c->n));
    } else if (json_object_get(q, "zero_point")) {
        json_object_set_new(q, "zero_point", json_boolean(c->n_sym != c->n));
    }
}

json_t *qn_relabel_corrected(const qn_source_model *m) {
    content c = look(m);
    json_t *q = c.sample ? json_deep_copy(qn_ckpt_quant_config(m->ckpt)) : NULL;
    if (q) correct(q, &c);
    return q;
}

// The result must carry no contradiction any more.
static bool prove(void *user, const char *dir, json_t *report, qn_err *err) {
    (void)user;
    const qn_weight *list;
    size_t n;
    qn_ckpt *c = qn_ckpt_open(dir, 0, err);
    if (!c || !qn_ckpt_weights(c, &list, &n, err)) {
        qn_ckpt_free(c);
        return qn_err_prefix(err, "proof: the result cannot be read back");
    }
    size_t left = qn_ckpt_n_label_errors(c);
    char first[512] = "";
    if (left) snprintf(first, sizeof first, "%s", qn_ckpt_label_error(c, 0));
    qn_ckpt_free(c);
    json_t *o = json_object();
    json_object_set_new(o, "decoder", json_string("the result's label against its tensors"));
    json_object_set_new(o, "mismatches", json_integer((json_int_t)left));
    json_object_set_new(report, "independent_check", o);
    if (!left) return true;
    return qn_fail(err, QN_UNSUPPORTED, "the label cannot be corrected automatically: %s", first);
}

static bool write_side_label(const qn_source_model *m, json_t *config, const content *c,
                             json_t **side) {
    const char *file = qn_ckpt_quant_config_file(m->ckpt);
    *side = NULL;
    json_t *q = json_object_get(config, "quantization_config");
    if (json_is_object(q)) correct(q, c);
    if (!file || strcmp(file, "config.json") == 0) return json_is_object(q);
    *side = json_deep_copy(qn_ckpt_quant_config(m->ckpt));
    correct(*side, c);
    return true;
}

typedef struct relabel {
    json_t *side; // contents of the side file, or NULL
    const char *file;
} relabel;

static bool finish(void *user, const char *dir, json_t *report, qn_err *err) {
    relabel *r = user;
    if (r->side) {
        char *path = qn_path_join(dir, r->file), *text = qn_json_text(r->side, true);
        char *line = qn_strf("%s\n", text);
        bool ok = qn_file_write(path, line, strlen(line), err);
        free(path);
        qn_free(text);
        qn_free(line);
        if (!ok) return false;
    }
    return prove(NULL, dir, report, err);
}

bool qn_relabel(qn_source_model *m, const char *out, const qn_relabel_options *o, json_t *notes,
                json_t **report, qn_err *err) {
    size_t n = qn_ckpt_n_label_errors(m->ckpt);
    if (n == 0)
        return qn_fail(err, QN_INPUT, "%s: nothing to repair: the quantized tensors are as their "
                       "config says", qn_ckpt_path(m->ckpt));
    static const char *const all_files[] = {"quantize_config.json", "quant_config.json",
                                            "quantization_config.json", NULL};
    content c = look(m);
    relabel job = {.file = qn_ckpt_quant_config_file(m->ckpt)};
    json_t *config = json_deep_copy(qn_ckpt_config(m->ckpt));
    if (!c.sample || !write_side_label(m, config, &c, &job.side)) {
        json_decref(config);
        return qn_fail(err, QN_UNSUPPORTED, "%s: the label cannot be corrected automatically: %s",
                       qn_ckpt_path(m->ckpt), qn_ckpt_label_error(m->ckpt, 0));
    }
    for (size_t i = 0; i < n; i++)
        json_array_append_new(notes, json_string(qn_ckpt_label_error(m->ckpt, i)));
    qn_rewrite r = {.command = "repair", .source = m->ckpt, .out = out, .config = config,
                    .overwrite = o->overwrite, .shard_bytes = o->shard_bytes,
                    .n_threads = o->n_threads, .prove = finish, .user = &job, .drop = all_files,
                    .progress = o->progress, .progress_user = o->user,
                    .notes = json_incref(notes)};
    for (size_t i = 0; i < qn_ckpt_n_tensors(m->ckpt); i++)
        qn_rewrite_copy(&r, qn_ckpt_tensor(m->ckpt, i));
    r.summary = json_object();
    json_object_set_new(r.summary, "relabelled", json_integer((json_int_t)n));
    r.readme_note = qn_strf("quern %s corrected the quantization config, which did not fit the "
                            "tensors; quern-report.json says what was wrong.", QN_VERSION);
    bool ok = qn_rewrite_run(&r, report, err);
    qn_rewrite_done(&r);
    json_decref(job.side);
    return ok;
}
