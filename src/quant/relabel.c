// Correcting the label on the box: the tensors are copied, the config gets what label_mend.c says of
// them, and the result is opened again and must carry no contradiction.
#include "quant/relabel.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "quant/label_mend.h"
#include "quant/side_files.h"

json_t *qn_relabel_corrected(const qn_source_model *m) {
    const char *why;
    return qn_label_mend(qn_ckpt_quant_config(m->ckpt), m, &why);
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

// The object that holds the label in config.json (NULL: none does), and under which key.
static json_t *holder(json_t *config, const char **key) {
    static const char *const keys[] = {"quantization_config", "compression_config"};
    json_t *places[] = {config, json_object_get(config, "text_config")};
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 2; k++)
            if (json_is_object(json_object_get(places[i], keys[k]))) {
                *key = keys[k];
                return places[i];
            }
    *key = keys[0];
    return NULL;
}

// Where the label was, or into config.json if it was nowhere.
static void put_label(const qn_source_model *m, json_t *config, json_t *label, json_t **side) {
    const char *file = qn_ckpt_quant_config_file(m->ckpt), *key;
    json_t *in_config = holder(config, &key);
    if (file && strcmp(file, "config.json") != 0) *side = json_incref(label);
    if (in_config || !*side) json_object_set(in_config ? in_config : config, key, label);
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
    relabel job = {.file = qn_ckpt_quant_config_file(m->ckpt)};
    const char *why;
    json_t *label = qn_label_mend(qn_ckpt_quant_config(m->ckpt), m, &why);
    if (!label)
        return qn_fail(err, QN_UNSUPPORTED, "%s: the label cannot be corrected automatically (%s): "
                       "%s", qn_ckpt_path(m->ckpt), why, qn_ckpt_label_error(m->ckpt, 0));
    json_t *config = json_deep_copy(qn_ckpt_config(m->ckpt));
    put_label(m, config, label, &job.side);
    json_decref(label);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(notes, qn_json_string(qn_ckpt_label_error(m->ckpt, i)));
    qn_rewrite r = {.command = "repair", .source = m->ckpt, .out = out, .config = config,
                    .overwrite = o->overwrite, .shard_bytes = o->shard_bytes,
                    .n_threads = o->n_threads, .prove = finish, .user = &job,
                    .drop = qn_side_labels,
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
