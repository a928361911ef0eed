// `quern run`: the continuation of a text, exactly as given, streamed as it comes.
#include <stdlib.h>

#include "base/err.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/prompt.h"
#include "cli/session.h"

#define DEFAULT_TOKENS 512

typedef struct view {
    size_t shown;      // bytes of text, or tokens when there is no tokenizer
    bool no_tokenizer; // then the ids are the result
} view;

static void show(void *user, qn_reply *r) {
    view *v = user;
    if (v->no_tokenizer) {
        for (; v->shown < r->n_tokens; v->shown++)
            qn_out_addf("%s%d", v->shown ? " " : "", r->tokens[v->shown]);
        if (r->done) qn_out_add("\n", 1);
    } else if (r->text.n > v->shown) {
        qn_out_shown(r->text.data + v->shown, r->text.n - v->shown);
        v->shown = r->text.n;
    }
    qn_out_flush(NULL);
}

static void print_json(const qn_session *s, const qn_reply *r) {
    json_t *tokens = json_array();
    for (size_t i = 0; i < r->n_tokens; i++)
        json_array_append_new(tokens, json_integer(r->tokens[i]));
    json_t *text = json_stringn(r->text.n ? r->text.data : "", r->text.n);
    json_t *j = json_pack("{s:I, s:o, s:o, s:s, s:o}",
                          "prompt_tokens", (json_int_t)r->prompt_tokens, "tokens", tokens,
                          "text", text, "finish_reason", qn_finish_name(r->finish),
                          "timing", qn_reply_timing(s, r));
    qn_out_json(j);
    json_decref(j);
}

static bool generate(const qn_args *a, qn_session *s, qn_reply *r, qn_err *err) {
    qn_request_options o = {0};
    int32_t *ids = NULL;
    view v = {.no_tokenizer = !qn_model_tokenizer(s->model)};
    bool ok = qn_session_sampling(s, a, &o.sampling, err) &&
              qn_prompt_ids(a, qn_model_tokenizer(s->model), &ids, &o.n_tokens, err);
    if (!qn_args_has(a, "max-tokens") && !o.sampling.max_tokens)
        o.sampling.max_tokens = DEFAULT_TOKENS;
    if (!qn_args_has(a, "json")) {
        r->show = show;
        r->user = &v;
    }
    o.tokens = ids;
    ok = ok && qn_session_generate(s, &o, r, err);
    r->show = NULL;
    qn_free(ids);
    qn_out_end_line();
    return ok;
}

static int run(const qn_args *a, qn_err *err) {
    qn_session s;
    qn_reply r = {0};
    const qn_session_options how = {.precision = QN_FAST, .seqs = 1, .text_only = true};
    if (!qn_session_open(&s, a, &how, err)) return -1;
    bool ok = generate(a, &s, &r, err);
    if (ok && qn_args_has(a, "json")) print_json(&s, &r);
    if (ok && qn_out_flush(NULL)) qn_reply_note(&s, &r);
    if (ok && r.finish == QN_FINISH_CANCELLED && qn_interrupted())
        ok = qn_fail(err, QN_CANCELLED, "interrupted after %zu token%s", r.n_tokens,
                     qn_plural_s(r.n_tokens));
    qn_reply_done(&r);
    qn_session_close(&s);
    return ok ? 0 : -1;
}

static const qn_option options[] = {
    {.name = "prompt", .letter = 'p', .kind = QN_OPT_TEXT, .value = "TEXT",
     .help = "the text to continue, exactly as given"},
    {.name = "file", .letter = 'f', .kind = QN_OPT_FILE, .value = "FILE",
     .help = "the text of a file; - is stdin"},
    {.name = "tokens", .kind = QN_OPT_TEXT, .value = "IDS",
     .help = "token ids instead of a text: \"1 2 3\""},
    {0},
};

const qn_command qn_cmd_run = {
    .name = "run",
    .group = "Run",
    .summary = "continue a text, streamed to stdout",
    .usage = "MODEL (-p TEXT | -f FILE | --tokens IDS) [OPTIONS]",
    .about = "At most 512 new tokens unless -n says otherwise. Timing goes to stderr. No chat\n"
             "template is applied: `quern chat` does that. Without a tokenizer ids are printed.",
    .examples = "quern run models/tiny-qwen3 -p \"The capital of France is\" -n 16 --temp 0\n"
                "quern run models/tiny-qwen3 -p \"Tom has a\" --seed 7 --stop \".\"\n"
                "quern run models/tiny-qwen3 --tokens \"1 2 3\" --json -q\n",
    .tables = {options, qn_sampling_table, qn_engine_table},
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
