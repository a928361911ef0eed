// `quern dump`: logits and hidden states of a prompt as safetensors.
#include <stdlib.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/prompt.h"
#include "cli/session.h"
#include "quant/dump.h"

static bool dump(const qn_args *a, qn_session *s, const qn_image_list *images, qn_err *err) {
    qn_progress bar = {0};
    int32_t *ids = NULL;
    qn_dump_options o = {.hidden = qn_args_has(a, "hidden"), .mtp = qn_args_has(a, "mtp"),
                         .images = images->images, .n_images = images->n,
                         .progress = qn_progress_show, .user = &bar};
    const char *path = qn_args_text(a, "output", NULL);
    bool ok = qn_prompt_ids(a, qn_model_tokenizer(s->model), &ids, &o.n_tokens, err);
    o.tokens = ids;
    ok = ok && qn_dump_write(s->model, s->engine, path, &o, err);
    qn_progress_clear_line();
    if (ok && qn_args_has(a, "json")) {
        json_t *j = json_pack("{s:o, s:o}", "file", qn_json_string(path), "load_s",
                              qn_json_number(s->load_s));
        qn_out_json(j);
        json_decref(j);
    } else if (ok) {
        qn_note_each("dumped to %s", path);
    }
    qn_free(ids);
    return ok;
}

// What reads a dump knows it by its name. A device or pipe takes what it is given.
static bool is_safetensors(const char *path, qn_err *err) {
    struct stat st;
    if (qn_str_ends(path, ".safetensors")) return true;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) return true; // a folder cannot be written
    return qn_fail(err, QN_USAGE, "-o %s: a dump is a safetensors file, expected a name that ends in "
                   ".safetensors", path);
}

static int run(const qn_args *a, qn_err *err) {
    qn_session s;
    qn_image_list images = {0};
    size_t n;
    const char *const *paths = qn_args_list(a, "image", &n);
    if (!qn_args_has(a, "output"))
        return qn_fail(err, QN_USAGE, "no output is given, expected -o FILE.safetensors") - 1;
    bool ok = is_safetensors(qn_args_text(a, "output", ""), err);
    for (size_t i = 0; ok && i < n; i++) ok = qn_images_add(&images, paths[i], err);
    const qn_session_options how = {.precision = QN_EXACT, .seqs = 1, .no_prefix_cache = true,
                                    .text_only = n == 0};
    ok = ok && qn_session_open(&s, a, &how, err);
    if (ok) {
        ok = dump(a, &s, &images, err);
        qn_session_close(&s);
    }
    qn_images_done(&images);
    return ok ? 0 : -1;
}

static const qn_option options[] = {
    {.name = "prompt", .letter = 'p', .kind = QN_OPT_TEXT, .value = "TEXT", .help = "the prompt"},
    {.name = "file", .letter = 'f', .kind = QN_OPT_FILE, .value = "FILE",
     .help = "the prompt from a file; - is stdin"},
    {.name = "tokens", .kind = QN_OPT_TEXT, .value = "IDS",
     .help = "the prompt as token ids: \"1 2 3\""},
    {.name = "output", .letter = 'o', .kind = QN_OPT_FILE, .value = "FILE",
     .help = "the safetensors file to write"},
    {.name = "hidden", .help = "the residual stream too: hidden.0 … hidden.L, hidden.final"},
    {.name = "mtp", .help = "the draft layer's logits too: mtp.logits"},
    {.name = "image", .kind = QN_OPT_FILE, .value = "FILE", .many = true,
     .help = "a picture for the prompt's next image placeholder (repeatable)"},
    {0},
};

const qn_command qn_cmd_dump = {
    .name = "dump",
    .group = "Run",
    .summary = "logits and hidden states of a prompt, as safetensors",
    .usage = "MODEL (-p TEXT | --tokens IDS) -o FILE.safetensors [OPTIONS]",
    .about = "Tensors: tokens I32[T], logits F32[T,V]; hidden.N, hidden.final F32[T,H];\n"
             "mtp.logits F32[T-1,V]; vision.pixel_values, vision.grid_thw, vision.embeds.\n"
             "Precision is exact unless --precision says otherwise.",
    .examples = "quern dump models/tiny-qwen3 --tokens \"1 2 3\" -o logits.safetensors\n"
                "quern dump models/tiny-qwen3 -p \"Paris is\" --hidden -o hidden.safetensors\n"
                "quern dump Qwen/Qwen3-0.6B -p \"Paris is\" --precision fast -o fast.safetensors\n",
    .tables = {options, qn_engine_table},
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
