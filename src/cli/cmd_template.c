// `quern template`: the prompt that a conversation becomes. Messages and variables are handed to
// the template engine as they were written (json_spans.h says why).
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/json_spans.h"
#include "cli/output.h"
#include "cli/prompt.h"

typedef struct job {
    const qn_template *t;
    qn_json_object vars; // from the options
    qn_buf tools;        // of --tools
} job;

typedef struct rendered {
    char *text;
    size_t n;
} rendered;

// A prompt for the assistant is added unless something says otherwise.
static void set_default_prompt(qn_json_object *vars) {
    const qn_json_member *more = qn_json_find(vars, "continue_final_message");
    bool continues = more && !qn_json_span_is_null(more->value) && more->value.text[0] != 'f';
    if (!qn_json_find(vars, "add_generation_prompt"))
        qn_json_set(vars, "add_generation_prompt", continues ? "false" : "true", continues ? 5 : 4);
}

static bool set_variables(const qn_args *a, qn_json_object *vars, qn_err *err) {
    size_t n;
    const char *const *list = qn_args_list(a, "set", &n);
    for (size_t i = 0; i < n; i++) {
        const char *equals = strchr(list[i], '=');
        if (!equals || equals == list[i] || !qn_json_first(equals + 1, strlen(equals + 1)))
            return qn_fail(err, QN_USAGE, "--set is \"%s\", expected NAME=JSON, as in "
                           "enable_thinking=false", list[i]);
        json_t *j = json_loads(equals + 1, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
        char *name = qn_strndup(list[i], (size_t)(equals - list[i]));
        bool ok = j || qn_fail(err, QN_USAGE, "--set %s: %s is not valid JSON (a text is written "
                               "'\"so\"')", name, equals + 1);
        if (ok) qn_json_set(vars, name, equals + 1, strlen(equals + 1));
        json_decref(j);
        free(name);
        if (!ok) return false;
    }
    if (qn_args_has(a, "no-generation-prompt"))
        qn_json_set(vars, "add_generation_prompt", "false", 5);
    if (qn_args_has(a, "continue-final")) qn_json_set(vars, "continue_final_message", "true", 4);
    return true;
}

static bool render_messages(const job *j, qn_json_span messages, const qn_json_span *tools,
                            const qn_json_object *kwargs, rendered *out, qn_err *err) {
    qn_json_object vars = {0};
    for (size_t i = 0; i < j->vars.n; i++)
        qn_json_set(&vars, j->vars.members[i].key, j->vars.members[i].value.text,
                    j->vars.members[i].value.n);
    for (size_t i = 0; kwargs && i < kwargs->n; i++)
        qn_json_set(&vars, kwargs->members[i].key, kwargs->members[i].value.text,
                    kwargs->members[i].value.n);
    set_default_prompt(&vars);
    qn_buf text = {0};
    qn_json_write(&vars, &text);
    char *m = qn_json_span_text(messages);
    char *t = tools && !qn_json_span_is_null(*tools) ? qn_json_span_text(*tools) : NULL;
    const char *tool_text = t ? t : j->tools.n ? j->tools.data : NULL;
    bool ok = qn_template_render(j->t, m, tool_text, text.data, &out->text, &out->n, err);
    free(m);
    free(t);
    qn_buf_done(&text);
    qn_json_object_done(&vars);
    return ok;
}

// {"source": a template, "context": its variables}
static bool render_source(const qn_json_object *line, rendered *out, qn_err *err) {
    qn_json_span s = qn_json_find(line, "source")->value;
    const qn_json_member *context = qn_json_find(line, "context");
    json_t *source = json_loadb(s.text, s.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!json_is_string(source)) {
        json_decref(source);
        return qn_fail(err, QN_INPUT, "source is %.*s, expected a string",
                       (int)(s.n < 60 ? s.n : 60), s.text);
    }
    qn_template *t = qn_template_new(json_string_value(source), json_string_length(source), err);
    char *vars = context ? qn_json_span_text(context->value) : qn_strdup("{}");
    bool ok = t && qn_template_render_raw(t, vars, &out->text, &out->n, err);
    free(vars);
    qn_template_free(t);
    json_decref(source);
    return ok;
}

// A whole conversation: {"messages", "tools", "kwargs"}.
static bool render_object(const job *j, const qn_json_object *o, rendered *out, qn_err *err) {
    const qn_json_member *messages = qn_json_find(o, "messages"), *tools = qn_json_find(o, "tools");
    const qn_json_member *kwargs = qn_json_find(o, "kwargs");
    qn_json_object vars = {0};
    if (!messages) return qn_fail(err, QN_INPUT, "expected the key \"messages\"");
    if (!j->t) return qn_fail(err, QN_NOT_FOUND, "the checkpoint has no chat template");
    bool ok = !kwargs || qn_json_span_is_null(kwargs->value) ||
              qn_json_members(kwargs->value.text, kwargs->value.n, "kwargs", &vars, err);
    if (ok) ok = render_messages(j, messages->value, tools ? &tools->value : NULL, &vars, out, err);
    qn_json_object_done(&vars);
    return ok;
}

static bool render_text(const job *j, const char *text, size_t n, const char *what, rendered *out,
                        qn_err *err) {
    if (qn_json_first(text, n) == '[')
        return render_messages(j, (qn_json_span){text, n}, NULL, NULL, out, err);
    qn_json_object o = {0};
    bool ok = qn_json_members(text, n, what, &o, err);
    if (ok) ok = qn_json_find(&o, "source") ? render_source(&o, out, err)
                                            : render_object(j, &o, out, err);
    qn_json_object_done(&o);
    return ok;
}

static void print_result(json_t *document, size_t flags) {
    char *text = json_dumps(document, flags);
    if (text) qn_out_addf("%s\n", text);
    free(text);
    json_decref(document);
}

// Every line gets an answer: what cannot be rendered gives {"error"} and the next line follows.
static bool render_lines(const job *j, qn_err *err) {
    qn_lines lines = {0};
    const char *text;
    size_t n;
    bool ok = true;
    while (ok && (ok = qn_lines_next(&lines, &text, &n, err)) && text) {
        if (strspn(text, " \t\r") == n) continue;
        rendered r = {0};
        qn_err why = {0};
        char what[48];
        snprintf(what, sizeof what, "stdin line %zu", lines.number);
        json_t *line = render_text(j, text, n, what, &r, &why)
                           ? json_pack("{so}", "rendered", json_stringn(r.text, r.n))
                           : json_pack("{ss}", "error", why.text);
        print_result(line, JSON_COMPACT | JSON_ENSURE_ASCII);
        qn_free(r.text);
        if (why.code == QN_NOMEM) {
            *err = why;
            ok = false;
        }
    }
    qn_lines_done(&lines);
    return ok;
}

static bool render_file(const job *j, const qn_args *a, qn_err *err) {
    const char *file = qn_args_text(a, "file", NULL);
    if (!file)
        return qn_fail(err, QN_USAGE, "no messages are given, expected -f FILE (or -f -, or "
                       "--jsonl)");
    qn_buf text = {0};
    rendered r = {0};
    bool ok = qn_file_read(file, QN_MAX_TEXT, &text, err);
    if (ok && !render_text(j, text.data ? text.data : "", text.n, file, &r, err))
        ok = strncmp(err->text, file, strlen(file)) == 0 ? false : qn_err_prefix(err, "%s", file);
    if (ok && qn_args_has(a, "json")) {
        print_result(json_pack("{so}", "rendered", json_stringn(r.text, r.n)), JSON_INDENT(2));
    } else if (ok) {
        qn_out_shown(r.text, r.n);
        qn_out_end_line();
    }
    qn_free(r.text);
    qn_buf_done(&text);
    return ok;
}

static qn_template *load_template(const qn_args *a, const char *path, qn_err *err) {
    const char *file = qn_args_text(a, "template", NULL);
    if (!file) return qn_template_load(path, err);
    qn_buf text = {0};
    qn_template *t = NULL;
    if (qn_file_read(file, QN_MAX_TEXT, &text, err)) {
        t = qn_template_new(text.data ? text.data : "", text.n, err);
        if (!t) qn_err_prefix(err, "%s", file);
    }
    qn_buf_done(&text);
    return t;
}

static int run(const qn_args *a, qn_err *err) {
    static const char *const inputs[] = {"file", "jsonl", NULL};
    static const char *const ends[] = {"no-generation-prompt", "continue-final", NULL};
    job j = {0};
    const char *tools = qn_args_text(a, "tools", NULL);
    bool lines = qn_args_has(a, "jsonl");
    bool ok = qn_args_exclude(a, inputs, err) && qn_args_exclude(a, ends, err) &&
              set_variables(a, &j.vars, err) &&
              (!tools || qn_file_read(tools, QN_MAX_TEXT, &j.tools, err));
    char *path = ok ? qn_find_model(qn_args_at(a, 0), err) : NULL;
    qn_template *t = path ? load_template(a, path, err) : NULL;
    // Lines may bring their own templates, so there only a broken one is an error.
    bool none = path && !t && lines && err->code == QN_NOT_FOUND && !qn_args_has(a, "template");
    if (none) *err = (qn_err){0};
    j.t = t;
    ok = (t || none) && (lines ? render_lines(&j, err) : render_file(&j, a, err));
    qn_template_free(t);
    free(path);
    qn_json_object_done(&j.vars);
    qn_buf_done(&j.tools);
    return ok ? 0 : -1;
}

static const qn_option options[] = {
    {.name = "file", .letter = 'f', .kind = QN_OPT_FILE, .value = "FILE",
     .help = "the messages: a JSON array, or {\"messages\",\"tools\",\"kwargs\"}; - is stdin"},
    {.name = "tools", .kind = QN_OPT_FILE, .value = "FILE", .help = "a JSON array of tools"},
    {.name = "set", .kind = QN_OPT_TEXT, .value = "NAME=JSON", .many = true,
     .help = "a template variable, as in enable_thinking=false (repeatable)"},
    {.name = "no-generation-prompt", .help = "do not open the assistant's turn"},
    {.name = "continue-final", .help = "continue the last message instead of a new turn"},
    {.name = "template", .kind = QN_OPT_FILE, .value = "FILE",
     .help = "this template instead of the checkpoint's"},
    {.name = "jsonl",
     .help = "{\"messages\",\"tools\",\"kwargs\"} or {\"source\",\"context\"} a line in, "
             "{\"rendered\"} or {\"error\"} out"},
    {0},
};

const qn_command qn_cmd_template = {
    .name = "template",
    .group = "Look",
    .summary = "the prompt that a conversation becomes",
    .usage = "MODEL (-f MESSAGES.json | --jsonl) [OPTIONS]",
    .examples = "quern template models/tiny-qwen3 -f examples/messages.json\n"
                "quern template models/tiny-qwen3 -f examples/messages.json --set "
                "enable_thinking=false\n"
                "quern template models/tiny-qwen3 -f examples/messages.json --tools "
                "examples/tools.json --json\n"
                "echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | quern template "
                "models/tiny-qwen3 -f -\n",
    .tables = {options},
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
