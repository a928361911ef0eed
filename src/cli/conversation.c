// Messages in, prompt out through the checkpoint's template, reply back into the messages.
#include "cli/conversation.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"

bool qn_conversation_init(qn_conversation *c, qn_session *s, const qn_args *a, qn_err *err) {
    *c = (qn_conversation){.session = s, .args = a, .messages = json_array(), .thinking = -1};
    if (!qn_model_tokenizer(s->model))
        return qn_fail(err, QN_UNSUPPORTED, "%s has no tokenizer, so one cannot chat with it",
                       s->path);
    if (!qn_model_template(s->model))
        return qn_fail(err, QN_UNSUPPORTED, "%s has no chat template (quern run continues plain "
                       "text)", s->path);
    if (qn_args_has(a, "think")) c->thinking = 1;
    if (qn_args_has(a, "no-think")) c->thinking = 0;
    qn_conversation_set_system(c, qn_args_text(a, "system", ""));
    size_t n;
    const char *const *images = qn_args_list(a, "image", &n);
    for (size_t i = 0; i < n; i++)
        if (!qn_conversation_add_image(c, images[i], err)) return false;
    return true;
}

void qn_conversation_done(qn_conversation *c) {
    json_decref(c->messages);
    qn_images_done(&c->images);
    *c = (qn_conversation){0};
}

static const char *role_of(const json_t *message) {
    const char *role = json_string_value(json_object_get(message, "role"));
    return role ? role : "";
}

void qn_conversation_reset(qn_conversation *c) {
    bool has_system = strcmp(role_of(json_array_get(c->messages, 0)), "system") == 0;
    while (json_array_size(c->messages) > (has_system ? 1u : 0u))
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    qn_images_done(&c->images);
    c->pending = 0;
}

void qn_conversation_set_system(qn_conversation *c, const char *text) {
    if (strcmp(role_of(json_array_get(c->messages, 0)), "system") == 0)
        json_array_remove(c->messages, 0);
    if (*text)
        json_array_insert_new(c->messages, 0,
                              json_pack("{ssss}", "role", "system", "content", text));
}

bool qn_conversation_add_image(qn_conversation *c, const char *path, qn_err *err) {
    if (!c->session->info->has_vision)
        return qn_fail(err, QN_UNSUPPORTED, "%s: the checkpoint %s has no vision tower, so it "
                       "takes no images", path, c->session->path);
    if (!qn_images_add(&c->images, path, err)) return false;
    c->pending++;
    return true;
}

bool qn_conversation_save(const qn_conversation *c, const char *path, qn_err *err) {
    char *text = qn_json_text(c->messages, true);
    bool ok = text && qn_file_write(path, text, strlen(text), err);
    free(text);
    return ok;
}

// ---- a turn ----

// A string, or a list of parts when images go with it.
static json_t *user_message(const qn_conversation *c, const char *text, size_t n) {
    json_t *words = json_stringn(text, n), *content = words;
    if (c->pending) {
        content = json_array();
        for (size_t i = 0; i < c->pending; i++)
            json_array_append_new(content, json_pack("{ss}", "type", "image"));
        json_array_append_new(content, json_pack("{ssso}", "type", "text", "text", words));
    }
    return json_pack("{ssso}", "role", "user", "content", content);
}

static bool render(const qn_conversation *c, char **prompt, size_t *n, qn_err *err) {
    char *messages = json_dumps(c->messages, JSON_COMPACT);
    const char *vars = c->thinking < 0 ? "{\"add_generation_prompt\":true}" :
                       c->thinking ? "{\"add_generation_prompt\":true,\"enable_thinking\":true}" :
                                     "{\"add_generation_prompt\":true,\"enable_thinking\":false}";
    bool ok = messages && qn_template_render(qn_model_template(c->session->model), messages, NULL,
                                             vars, prompt, n, err);
    free(messages);
    return ok;
}

typedef struct showing {
    qn_reply_view *view;
} showing;

static void show(void *user, qn_reply *r) {
    qn_reply_view_show(((showing *)user)->view, r->text.n ? r->text.data : "", r->text.n, r->done);
}

static json_t *assistant_message(const qn_reply *r, bool started_open) {
    const char *text = r->text.n ? r->text.data : "";
    qn_reply_parts p;
    qn_reply_split(text, r->text.n, started_open, true, &p);
    json_t *m = json_pack("{ssso}", "role", "assistant", "content",
                          json_stringn(text + p.answer_from, p.answer_to - p.answer_from));
    if (p.reasoning_to > p.reasoning_from)
        json_object_set_new(m, "reasoning_content", json_stringn(text + p.reasoning_from,
                                                        p.reasoning_to - p.reasoning_from));
    return m;
}

static bool answer(qn_conversation *c, qn_reply_view *view, qn_reply *r, qn_err *err) {
    char *prompt = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    qn_request_options o = {.images = c->images.images, .n_images = c->images.n};
    showing s = {view};
    bool ok = render(c, &prompt, &n, err) &&
              qn_encode(qn_model_tokenizer(c->session->model), prompt, n, 0, &ids, &o.n_tokens,
                        err) &&
              qn_session_sampling(c->session, c->args, &o.sampling, err);
    bool open = ok && qn_prompt_thinks(prompt, n);
    if (ok && o.n_tokens == 0)
        ok = qn_fail(err, QN_INPUT, "the prompt is empty, expected at least one token");
    if (view) {
        view->started_open = open;
        r->show = show;
        r->user = &s;
    }
    o.tokens = ids;
    ok = ok && qn_session_generate(c->session, &o, r, err);
    r->show = NULL;
    if (ok) json_array_append_new(c->messages, assistant_message(r, open));
    qn_free(prompt);
    qn_free(ids);
    return ok;
}

bool qn_conversation_say(qn_conversation *c, const char *text, size_t n, qn_reply_view *view,
                         qn_reply *reply, qn_err *err) {
    json_t *said = user_message(c, text, n);
    if (!said) return qn_fail(err, QN_INPUT, "the message is not UTF-8");
    json_array_append_new(c->messages, said);
    size_t pending = c->pending;
    c->pending = 0;
    if (answer(c, view, reply, err)) return true;
    json_array_remove(c->messages, json_array_size(c->messages) - 1);
    c->pending = pending;
    return false;
}
