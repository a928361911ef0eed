// `quern chat`: a conversation on a terminal, from a pipe, or one question with -p.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/conversation.h"
#include "cli/line_input.h"
#include "cli/output.h"

// ---- one question ----

static void print_json(const qn_conversation *c, const qn_reply *r) {
    const json_t *last = json_array_get(c->messages, json_array_size(c->messages) - 1);
    json_t *reasoning = json_object_get(last, "reasoning_content"), *tokens = json_array();
    for (size_t i = 0; i < r->n_tokens; i++)
        json_array_append_new(tokens, json_integer(r->tokens[i]));
    reasoning = reasoning ? json_incref(reasoning) : json_string("");
    json_t *j = json_pack("{s:O, s:o, s:I, s:o, s:s, s:o}",
                          "answer", json_object_get(last, "content"), "reasoning", reasoning,
                          "prompt_tokens", (json_int_t)r->prompt_tokens, "tokens", tokens,
                          "finish_reason", qn_finish_name(r->finish),
                          "timing", qn_reply_timing(c->session, r));
    qn_out_json(j);
    json_decref(j);
}

static bool ask_once(qn_conversation *c, qn_err *err) {
    qn_buf text = {0};
    qn_reply r = {0};
    qn_reply_view view = {0};
    bool json = qn_args_has(c->args, "json");
    bool ok = qn_prompt_text(c->args, &text, err) &&
              qn_conversation_say(c, text.data ? text.data : "", text.n, json ? NULL : &view, &r,
                                  err);
    if (ok && json) print_json(c, &r);
    if (ok && qn_out_flush(NULL)) qn_reply_note(c->session, &r);
    if (ok && r.finish == QN_FINISH_CANCELLED && qn_interrupted())
        ok = qn_fail(err, QN_CANCELLED, "interrupted after %zu token%s", r.n_tokens,
                     qn_plural_s(r.n_tokens));
    qn_reply_done(&r);
    qn_buf_done(&text);
    return ok;
}

// ---- a conversation ----

typedef struct chat {
    qn_conversation talk;
    qn_line_input *input;
    bool quit;
} chat;

// What the program itself says: beside the conversation, never in the result.
static void tell(const char *text) {
    if (!qn_log_quiet()) fprintf(stderr, "%s\n", text);
}

static void tell_error(const qn_err *err) { fprintf(stderr, "quern: %s\n", err->text); }

static void do_reset(chat *c, const char *rest) {
    (void)rest;
    qn_conversation_reset(&c->talk);
    tell("(the conversation starts anew)");
}

static void do_system(chat *c, const char *rest) {
    qn_conversation_set_system(&c->talk, rest);
    tell(*rest ? "(system message set)" : "(no system message)");
}

static void do_save(chat *c, const char *rest) {
    qn_err err = {0};
    if (!*rest) tell("(usage: /save FILE)");
    else if (!qn_conversation_save(&c->talk, rest, &err)) tell_error(&err);
    else tell("(saved; quern template -f reads it)");
}

static void do_image(chat *c, const char *rest) {
    qn_err err = {0};
    if (!*rest) tell("(usage: /image FILE)");
    else if (!qn_conversation_add_image(&c->talk, rest, &err)) tell_error(&err);
    else tell("(shown with the next message)");
}

static void do_think(chat *c, const char *rest) {
    c->talk.thinking = strcmp(rest, "off") != 0;
    tell(c->talk.thinking ? "(thinking on)" : "(thinking off)");
}

static void do_quit(chat *c, const char *rest) {
    (void)rest;
    c->quit = true;
}

static void do_help(chat *c, const char *rest);

static const struct slash {
    const char *name, *help;
    void (*run)(chat *c, const char *rest);
} slashes[] = {
    {"/help", "this list", do_help},
    {"/reset", "forget the conversation, keep the system message", do_reset},
    {"/system", "TEXT: what the assistant is told first (without TEXT: nothing)", do_system},
    {"/save", "FILE: write the messages as JSON", do_save},
    {"/image", "FILE: show a picture with the next message", do_image},
    {"/think", "on|off: reason before answering", do_think},
    {"/quit", "leave (or Ctrl-D)", do_quit},
};
#define N_SLASHES (sizeof slashes / sizeof *slashes)

static void do_help(chat *c, const char *rest) {
    (void)c;
    (void)rest;
    for (size_t i = 0; i < N_SLASHES; i++)
        fprintf(stderr, "  %-8s %s\n", slashes[i].name, slashes[i].help);
    fprintf(stderr, "  A line that ends in \\ goes on in the next. Ctrl-C stops an answer.\n");
}

static void obey(chat *c, const char *line) {
    size_t n = strcspn(line, " \t");
    const char *rest = line + n + strspn(line + n, " \t"), *names[N_SLASHES];
    for (size_t i = 0; i < N_SLASHES; i++) {
        names[i] = slashes[i].name;
        if (strlen(names[i]) != n || strncmp(names[i], line, n) != 0) continue;
        slashes[i].run(c, rest);
        return;
    }
    char *word = qn_strndup(line, n);
    const char *near = qn_str_nearest(word, names, N_SLASHES);
    char visible[128];
    qn_str_visible(word, visible, sizeof visible);
    fprintf(stderr, "quern: unknown command %s; %s%s\n", visible, near ? "did you mean " : "",
            near ? near : "/help lists them");
    free(word);
}

static bool answer_line(chat *c, const qn_buf *line, qn_err *err) {
    qn_reply r = {0};
    qn_reply_view view = {0};
    qn_err why = {0};
    bool terminal = qn_line_input_is_terminal(c->input);
    bool ok = qn_conversation_say(&c->talk, line->data, line->n, &view, &r, &why);
    if (ok && terminal && qn_out_is_terminal() && !qn_log_quiet())
        qn_out_addf("\033[2m%zu token%s, %.0f tok/s%s\033[22m\n\n", r.n_tokens,
                    qn_plural_s(r.n_tokens), qn_reply_decode_rate(&r),
                    r.finish == QN_FINISH_CANCELLED ? ", stopped" :
                    r.finish == QN_FINISH_LENGTH ? ", cut off at the limit" : "");
    bool stopped = qn_interrupted();
    qn_reply_done(&r);
    if (ok && !qn_out_flush(err)) return false;
    if (stopped && !terminal) return qn_fail(err, QN_CANCELLED, "interrupted");
    if (stopped) qn_interrupt_reset(); // the answer ends, the conversation does not
    if (ok) return true;
    if (!terminal || why.code == QN_NOMEM || why.code == QN_IO) {
        *err = why;
        return false;
    }
    tell_error(&why);
    return true;
}

static bool converse(chat *c, qn_err *err) {
    qn_buf line = {0};
    bool ok = true;
    if (qn_line_input_is_terminal(c->input)) tell("/help lists commands, Ctrl-D leaves.");
    while (ok && !c->quit) {
        qn_line_kind kind;
        ok = qn_line_input_next(c->input, &line, &kind, err);
        if (ok && kind == QN_LINE_END && qn_interrupted())
            ok = qn_fail(err, QN_CANCELLED, "interrupted");
        if (!ok || kind == QN_LINE_END) break;
        if (kind == QN_LINE_ABANDONED || !line.n) continue;
        if (line.data[0] == '/') obey(c, line.data);
        else ok = answer_line(c, &line, err);
    }
    qn_buf_done(&line);
    return ok;
}

static int run(const qn_args *a, qn_err *err) {
    static const char *const inputs[] = {"prompt", "file", NULL};
    static const char *const thinking[] = {"think", "no-think", NULL};
    bool once = qn_args_has(a, "prompt") || qn_args_has(a, "file");
    if (!qn_args_exclude(a, inputs, err) || !qn_args_exclude(a, thinking, err)) return -1;
    if (qn_args_has(a, "json") && !once)
        return qn_fail(err, QN_USAGE, "--json needs -p TEXT or -f FILE") - 1;
    qn_session s;
    chat c = {0};
    const qn_session_options how = {.precision = QN_FAST, .seqs = 1};
    if (!qn_session_open(&s, a, &how, err)) return -1;
    bool ok = qn_conversation_init(&c.talk, &s, a, err);
    if (ok && once) {
        ok = ask_once(&c.talk, err);
    } else if (ok) {
        c.input = qn_line_input_new();
        ok = converse(&c, err);
        qn_line_input_free(c.input);
    }
    qn_conversation_done(&c.talk);
    qn_session_close(&s);
    return ok ? 0 : -1;
}

static const qn_option options[] = {
    {.name = "prompt", .letter = 'p', .kind = QN_OPT_TEXT, .value = "TEXT",
     .help = "one question: print the answer and exit"},
    {.name = "file", .letter = 'f', .kind = QN_OPT_FILE, .value = "FILE",
     .help = "the question from a file; - is stdin"},
    {.name = "system", .kind = QN_OPT_TEXT, .value = "TEXT", .help = "the system message"},
    {.name = "image", .kind = QN_OPT_FILE, .value = "FILE", .many = true,
     .help = "a picture (PNG, JPEG, WebP) shown with the first message (repeatable)"},
    {.name = "think", .help = "reason before answering (template variable enable_thinking)"},
    {.name = "no-think", .help = "answer at once"},
    {0},
};

const qn_command qn_cmd_chat = {
    .name = "chat",
    .group = "Run",
    .summary = "talk with a model, using its chat template",
    .usage = "MODEL [-p TEXT | -f FILE] [OPTIONS]",
    .about = "Without -p it reads messages line by line; on a terminal with editing, history and\n"
             "the commands that /help lists. Ctrl-C stops the answer, Ctrl-D leaves. Reasoning is\n"
             "dimmed on a terminal; elsewhere it goes to stderr, and the answer alone to stdout.",
    .examples = "quern chat models/tiny-qwen3\n"
                "quern chat models/tiny-qwen3 -p \"What is the capital of France?\" --no-think\n"
                "quern chat Qwen/Qwen3.5-0.8B --image photo.jpg -p \"What is this?\"\n"
                "quern chat models/tiny-qwen3 -p \"法国的首都是哪里?\" --json -q\n",
    .tables = {options, qn_sampling_table, qn_engine_table},
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
