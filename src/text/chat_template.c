// Chat templates as transformers applies them (5.23): which text is the template, and what happens
// to messages, tools and variables before and after the template is rendered. The engine itself is
// jinja_*.c.
#include <string.h>

#include <jansson.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "text/char_case.h"
#include "text/jinja.h"
#include "text/jinja_run.h"

#define MAX_CONFIG ((size_t)64 << 20)

// Tokens that transformers offers to templates as variables of these names.
static const char *const special_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                            "pad_token", "cls_token", "mask_token"};
enum { N_SPECIAL = sizeof special_names / sizeof *special_names };

struct qn_template {
    qn_jinja *jinja;
    char *source;
    size_t n;
    char *special[N_SPECIAL]; // from tokenizer_config.json, or NULL
};

// ---- loading ----

qn_template *qn_template_new(const char *source, size_t n, qn_err *err) {
    qn_jinja *jinja = qn_jinja_parse(source, n, err);
    if (!jinja) return NULL;
    qn_template *t = QN_NEW(qn_template);
    t->jinja = jinja;
    t->source = qn_strndup(source, n);
    t->n = n;
    return t;
}

void qn_template_free(qn_template *t) {
    if (!t) return;
    qn_jinja_free(t->jinja);
    qn_free(t->source);
    for (int i = 0; i < N_SPECIAL; i++) qn_free(t->special[i]);
    qn_free(t);
}

// A chat_template member: a text, or a list of {name, template} whose "default" counts.
static const json_t *template_of(const json_t *config) {
    const json_t *v = json_object_get(config, "chat_template"), *entry;
    if (json_is_string(v)) return v;
    for (size_t i = 0; i < json_array_size(v); i++) {
        entry = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        const json_t *text = json_object_get(entry, "template");
        if (name && strcmp(name, "default") == 0 && json_is_string(text)) return text;
    }
    return NULL;
}

static void keep_special(qn_template *t, const json_t *config) {
    for (int i = 0; i < N_SPECIAL; i++) {
        const json_t *v = json_object_get(config, special_names[i]);
        if (json_is_object(v)) v = json_object_get(v, "content");
        if (json_is_string(v)) t->special[i] = qn_strdup(json_string_value(v));
    }
}

static bool load_config(const char *dir, const char *name, json_t **out, qn_err *err) {
    char *path = qn_path_join(dir, name);
    bool there = qn_file_exists(path);
    *out = there ? qn_json_load(path, MAX_CONFIG, err) : NULL;
    qn_free(path);
    return !there || *out;
}

static qn_template *from_json(const char *dir, const char *name, const json_t *config,
                              qn_err *err) {
    const json_t *v = template_of(config);
    qn_template *t = qn_template_new(json_string_value(v), json_string_length(v), err);
    if (!t) qn_err_prefix(err, "%s/%s", dir, name);
    return t;
}

static qn_template *from_file(const char *dir, const char *name, qn_err *err) {
    char *path = qn_path_join(dir, name);
    qn_buf text = {0};
    qn_template *t = NULL;
    if (qn_file_read(path, QN_JINJA_MAX_SOURCE, &text, err)) {
        t = qn_template_new(text.data ? text.data : "", text.n, err);
        if (!t) qn_err_prefix(err, "%s", path);
    }
    qn_buf_done(&text);
    qn_free(path);
    return t;
}

qn_template *qn_template_load(const char *dir, qn_err *err) {
    static const char file[] = "chat_template.jinja", config_name[] = "tokenizer_config.json",
                      old_name[] = "chat_template.json";
    json_t *config = NULL, *old = NULL;
    qn_template *t = NULL;
    char *path = qn_path_join(dir, file);
    bool has_file = qn_file_exists(path);
    qn_free(path);
    if (!load_config(dir, config_name, &config, err)) return NULL;
    if (has_file) t = from_file(dir, file, err);
    else if (template_of(config)) t = from_json(dir, config_name, config, err);
    else if (!load_config(dir, old_name, &old, err)) t = NULL;
    else if (template_of(old)) t = from_json(dir, old_name, old, err);
    else
        qn_fail(err, QN_NOT_FOUND, "%s: no chat template: neither %s nor a chat_template in %s or "
                                   "%s", dir, file, config_name, old_name);
    if (t) keep_special(t, config);
    json_decref(config);
    json_decref(old);
    return t;
}

// ---- applying ----

#define TAG "CONTINUE_FINAL_MESSAGE_TAG " // what transformers marks the place to continue with

static const char *const reasoning_names[] = {"reasoning_content", "thinking", "reasoning"};

typedef struct job {
    const qn_template *t;
    qn_arena arena;
    qn_vdict *context;
    qn_value messages, tools, vars; // tools: none when there are none
    qn_value add_generation_prompt, documents;
    const char *field; // continue_final_message: the field to continue, or NULL
    qn_value final;    // its text
    qn_err *err;
} job;

static bool refuse(job *j, const char *why) { return qn_fail(j->err, QN_INPUT, "%s", why); }

static bool truthy(qn_value v) {
    qn_jrun none = {0};
    return qn_v_true(&none, v);
}

// A message without its null members, and with its reasoning under the names that templates read.
static qn_value cleaned(job *j, const qn_vdict *m) {
    const qn_value *reasoning = NULL;
    for (int i = 0; i < 3 && !reasoning; i++) {
        reasoning = qn_vdict_get_name(m, reasoning_names[i]);
        if (reasoning && reasoning->kind == QN_V_NONE) reasoning = NULL;
    }
    qn_vdict *out = qn_vdict_new(&j->arena);
    if (reasoning) qn_vdict_set_name(&j->arena, out, "thinking", *reasoning);
    for (size_t i = 0; i < m->n; i++)
        if (m->e[i].value.kind != QN_V_NONE)
            qn_vdict_set(&j->arena, out, m->e[i].key, m->e[i].value);
    if (reasoning) qn_vdict_set_name(&j->arena, out, "reasoning_content", *reasoning);
    return qn_v_of_dict(out);
}

static bool clean_messages(job *j) {
    if (j->messages.kind != QN_V_LIST) return refuse(j, "messages: expected an array");
    const qn_vlist *in = j->messages.list;
    if (!in->n) return refuse(j, "Cannot apply chat template to an empty conversation. Provide at "
                                 "least one message.");
    qn_vlist *out = qn_vlist_new(&j->arena, in->n);
    for (size_t i = 0; i < in->n; i++) {
        if (in->v[i].kind != QN_V_DICT)
            return qn_fail(j->err, QN_INPUT, "messages: message %zu is %s, expected an object", i,
                           qn_v_type(in->v[i]));
        qn_vlist_push(&j->arena, out, cleaned(j, in->v[i].dict));
    }
    j->messages = qn_v_of_list(out);
    return true;
}

static bool all_objects(job *j, qn_value list, const char *what) {
    if (list.kind == QN_V_NONE) return true;
    if (list.kind != QN_V_LIST) return qn_fail(j->err, QN_INPUT, "%s: expected an array", what);
    for (size_t i = 0; i < list.list->n; i++)
        if (list.list->v[i].kind != QN_V_DICT)
            return qn_fail(j->err, QN_INPUT, "%s: entry %zu is %s, expected an object", what, i,
                           qn_v_type(list.list->v[i]));
    return true;
}

// Sorts the variables given: some are arguments of apply_chat_template, the rest go through.
static bool take_vars(job *j) {
    j->add_generation_prompt = qn_v_bool(false);
    j->documents = qn_v_none();
    if (j->vars.kind == QN_V_NONE) return true;
    if (j->vars.kind != QN_V_DICT) return refuse(j, "template variables: expected an object");
    for (size_t i = 0; i < j->vars.dict->n; i++) {
        const qn_ventry *e = &j->vars.dict->e[i];
        const qn_vstr *name = e->key.s;
        if (qn_vstr_is(name, "messages") || qn_vstr_is(name, "tools"))
            return qn_fail(j->err, QN_USAGE, "template variables: %s is given apart from them",
                           qn_vstr_is(name, "tools") ? "tools" : "messages");
        if (qn_vstr_is(name, "add_generation_prompt")) {
            j->add_generation_prompt = e->value;
        } else if (qn_vstr_is(name, "documents")) {
            j->documents = e->value;
        } else if (qn_vstr_is(name, "continue_final_message")) {
            bool text = e->value.kind == QN_V_STR && e->value.s->n;
            if (truthy(e->value)) j->field = "content";
            if (text && memchr(e->value.s->s, 0, e->value.s->n))
                return refuse(j, "continue_final_message: no field has such a name");
            if (text) {
                char *copy = qn_arena_alloc(&j->arena, e->value.s->n + 1);
                if (!copy) return refuse(j, "continue_final_message: name too long");
                memcpy(copy, e->value.s->s, e->value.s->n);
                copy[e->value.s->n] = 0;
                j->field = copy;
            }
        } else {
            qn_vdict_set(&j->arena, j->context, e->key, e->value);
        }
    }
    return true;
}

// ---- continuing the final message ----

static qn_value tagged(job *j, qn_value text) {
    qn_buf b = {0};
    qn_buf_add(&b, text.s->s, text.s->n);
    qn_buf_adds(&b, TAG);
    qn_value v = qn_v_str(&j->arena, b.data, b.n);
    qn_buf_done(&b);
    return v;
}

static bool source_has(const job *j, const char *field) {
    return !*field || (j->t->n && memmem(j->t->source, j->t->n, field, strlen(field)));
}

// Content in parts: the last part that has a text is the one to continue.
static bool tag_last_part(job *j, const qn_vlist *parts) {
    for (size_t i = parts->n; i-- > 0;) {
        qn_value part = parts->v[i];
        if (part.kind == QN_V_LIST) {
            bool named = false;
            for (size_t k = 0; k < part.list->n && !named; k++)
                named = part.list->v[k].kind == QN_V_STR && qn_vstr_is(part.list->v[k].s, "text");
            if (!named) continue;
        }
        if (part.kind == QN_V_STR && !(part.s->n && memmem(part.s->s, part.s->n, "text", 4)))
            continue;
        if (part.kind != QN_V_DICT)
            return refuse(j, "continue_final_message: a part of the final message is no object");
        qn_value *text = qn_vdict_get_name(part.dict, "text");
        if (!text) continue;
        if (text->kind != QN_V_STR)
            return refuse(j, "continue_final_message: the final part's text is no string");
        j->final = *text;
        *text = tagged(j, *text); // the part is shared by every name of the reasoning
        return true;
    }
    return refuse(j, "continue_final_message is set but we could not find any text to continue in "
                     "the final message!");
}

static bool same_text(qn_value x, qn_value y) {
    qn_jrun none = {.arena = &(qn_arena){.cap = 1024}};
    return qn_v_equal(&none, x, y);
}

static bool tag_final(job *j) {
    qn_vdict *last = j->messages.list->v[j->messages.list->n - 1].dict;
    const qn_value *value = qn_vdict_get_name(last, j->field);
    if (!value)
        return qn_fail(j->err, QN_INPUT, "continue_final_message is set but the final message has "
                                         "no \"%s\" to continue!", j->field);
    // Reasoning stands under several names: each copy is tagged, whichever the template reads.
    const char *fields[3] = {j->field};
    size_t n = 1;
    bool accepted = false;
    for (int i = 0; i < 3; i++) {
        if (strcmp(j->field, reasoning_names[i]) != 0) continue;
        n = 0;
        for (int k = 0; k < 3; k++) {
            const qn_value *other = qn_vdict_get_name(last, reasoning_names[k]);
            if (other && same_text(*other, *value)) fields[n++] = reasoning_names[k];
        }
        break;
    }
    for (size_t i = 0; i < n; i++) accepted = accepted || source_has(j, fields[i]);
    if (!accepted)
        return qn_fail(j->err, QN_INPUT, "continue_final_message is set to \"%s\" but this is not "
                                         "an accepted field in the chat_template", j->field);
    j->final = *value;
    if (value->kind == QN_V_LIST) return tag_last_part(j, value->list);
    if (value->kind != QN_V_STR)
        return refuse(j, "continue_final_message: what is to be continued is no string");
    qn_value with_tag = tagged(j, j->final);
    for (size_t i = 0; i < n; i++) qn_vdict_set_name(&j->arena, last, fields[i], with_tag);
    return true;
}

static size_t stripped_end(const char *s, size_t n) {
    while (n) {
        size_t at = n - 1;
        int32_t c;
        while (at && ((unsigned char)s[at] & 0xC0) == 0x80) at--;
        qn_utf8_next(s + at, n - at, &c);
        if (c < 0 || !qn_char_space((uint32_t)c)) break;
        n = at;
    }
    return n;
}

static bool has_stripped(const qn_buf *out, const qn_vstr *text) {
    size_t to = stripped_end(text->s, text->n), from = 0;
    while (from < to) {
        int32_t c;
        size_t len = qn_utf8_next(text->s + from, to - from, &c);
        if (c < 0 || !qn_char_space((uint32_t)c)) break;
        from += len;
    }
    return from == to || (out->n && memmem(out->data, out->n, text->s + from, to - from));
}

// Cuts the result at the tag. A template that trimmed the message also lost the tag's space; then
// white space in front of the tag goes as well.
static bool cut_at_tag(job *j, qn_buf *out) {
    static const char tag[] = TAG;
    size_t n = strlen(tag) - 1, at = out->n;
    while (at > 0 && (out->n - (at - 1) < n || memcmp(out->data + at - 1, tag, n) != 0)) at--;
    if (!at || !has_stripped(out, j->final.s))
        return refuse(j, "continue_final_message is set but the final message does not appear in "
                         "the chat after applying the chat template!");
    bool whole = out->n - (at - 1) > n && out->data[at - 1 + n] == ' ';
    out->n = whole ? at - 1 : stripped_end(out->data, at - 1);
    out->data[out->n] = 0;
    return true;
}

// ---- rendering ----

static bool read_json(job *j, const char *text, const char *what, qn_value *out) {
    *out = qn_v_none();
    return !text || qn_json_value(&j->arena, text, strlen(text), what, out, j->err);
}

static bool apply(job *j, qn_buf *out) {
    if (!clean_messages(j) || !take_vars(j)) return false;
    if (j->field && truthy(j->add_generation_prompt))
        return refuse(j, "continue_final_message and add_generation_prompt are not compatible.");
    if (!all_objects(j, j->tools, "tools") || !all_objects(j, j->documents, "documents"))
        return false;
    if (j->field && !tag_final(j)) return false;
    qn_arena *a = &j->arena;
    qn_vdict_set_name(a, j->context, "messages", j->messages);
    qn_vdict_set_name(a, j->context, "tools", j->tools);
    qn_vdict_set_name(a, j->context, "documents", j->documents);
    qn_vdict_set_name(a, j->context, "add_generation_prompt", j->add_generation_prompt);
    if (!qn_jinja_render(j->t->jinja, a, j->context, out, j->err)) return false;
    return !j->field || cut_at_tag(j, out);
}

bool qn_template_render(const qn_template *t, const char *messages, const char *tools,
                        const char *vars, char **text, size_t *n_text, qn_err *err) {
    job j = {.t = t, .arena = {.cap = QN_JINJA_MEMORY}, .err = err};
    qn_buf out = {0};
    j.context = qn_vdict_new(&j.arena);
    for (int i = 0; i < N_SPECIAL; i++)
        if (t->special[i])
            qn_vdict_set_name(&j.arena, j.context, special_names[i],
                              qn_v_cstr(&j.arena, t->special[i]));
    bool ok = read_json(&j, messages, "messages", &j.messages) &&
              read_json(&j, tools, "tools", &j.tools) &&
              read_json(&j, vars, "template variables", &j.vars) && apply(&j, &out);
    if (ok) *text = qn_buf_take(&out, n_text);
    qn_buf_done(&out);
    qn_arena_done(&j.arena);
    return ok;
}

bool qn_template_render_raw(const qn_template *t, const char *context, char **text,
                            size_t *n_text, qn_err *err) {
    qn_arena arena = {.cap = QN_JINJA_MEMORY};
    qn_buf out = {0};
    qn_value vars;
    bool ok = qn_json_value(&arena, context, strlen(context), "template variables", &vars, err);
    if (ok && vars.kind != QN_V_DICT)
        ok = qn_fail(err, QN_INPUT, "template variables: expected an object");
    ok = ok && qn_jinja_render(t->jinja, &arena, vars.dict, &out, err);
    if (ok) *text = qn_buf_take(&out, n_text);
    qn_buf_done(&out);
    qn_arena_done(&arena);
    return ok;
}
