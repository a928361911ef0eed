// What stands around a template: finding it in a folder, special tokens, continuing a message,
// refusing what transformers refuses; and that one template may render on many threads at once.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "text/template_support.h"

typedef struct folder {
    char path[64];
} folder;

static folder folder_new(void) {
    folder f = {"/tmp/quern-template-XXXXXX"};
    assert_non_null(mkdtemp(f.path));
    return f;
}

static void put(const folder *f, const char *name, const char *text) {
    qn_err err = {0};
    char *path = qn_path_join(f->path, name);
    if (!qn_file_write(path, text, strlen(text), &err)) fail_msg("%s", err.text);
    qn_free(path);
}

static void drop(const folder *f, const char *name) {
    char *path = qn_path_join(f->path, name);
    unlink(path);
    qn_free(path);
}

static void folder_done(const folder *f) {
    drop(f, "chat_template.jinja");
    drop(f, "chat_template.json");
    drop(f, "tokenizer_config.json");
    rmdir(f->path);
}

static const char one_user[] = "[{\"role\": \"user\", \"content\": \"hi\"}]";

static void expect_loaded(const folder *f, const char *wanted) {
    qn_err err = {0};
    char *text;
    size_t n;
    qn_template *t = qn_template_load(f->path, &err);
    if (!t) fail_msg("%s", err.text);
    if (!qn_template_render(t, one_user, NULL, NULL, &text, &n, &err)) fail_msg("%s", err.text);
    assert_string_equal(text, wanted);
    qn_free(text);
    qn_template_free(t);
}

static void expect_not_loaded(const folder *f, qn_code code, const char *part) {
    qn_err err = {0};
    assert_null(qn_template_load(f->path, &err));
    assert_int_equal(err.code, code);
    if (!strstr(err.text, part)) fail_msg("%s", err.text);
}

static void test_load(void **state) {
    (void)state;
    folder f = folder_new();
    expect_not_loaded(&f, QN_NOT_FOUND, "no chat template");
    put(&f, "chat_template.json", "{\"chat_template\": \"old {{ bos_token }}\"}");
    expect_loaded(&f, "old ");
    put(&f, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"}, {\"name\": "
        "\"default\", \"template\": \"list {{ eos_token }}{{ bos_token }}\"}], \"eos_token\": "
        "\"<e>\", \"bos_token\": {\"content\": \"<b>\"}}");
    expect_loaded(&f, "list <e><b>");
    put(&f, "tokenizer_config.json", "{\"chat_template\": \"text {{ pad_token }}\"}");
    expect_loaded(&f, "text ");
    put(&f, "chat_template.jinja", "file {{ messages[0].content }}\n");
    expect_loaded(&f, "file hi");
    put(&f, "chat_template.jinja", "\n{% if %}");
    expect_not_loaded(&f, QN_INPUT, "chat_template.jinja: template line 2");
    put(&f, "tokenizer_config.json", "{");
    expect_not_loaded(&f, QN_INPUT, "tokenizer_config.json");
    folder_done(&f);
}

typedef struct turn {
    const char *source, *messages, *tools, *vars, *expected; // expected: text or start of an error
} turn;

#define SHOW "{% for m in messages %}{{ m }}{% endfor %}"
#define LAST "<{% for m in messages %}{{ m.content }}{{ m.thinking }}{% endfor %}> end"

static void test_around(void **state) {
    (void)state;
    static const turn turns[] = {
        {SHOW, "[{\"content\": null, \"a\": [null], \"role\": \"user\"}]", NULL, NULL,
         "{'a': [None], 'role': 'user'}"},
        {SHOW, "[{\"role\": \"a\", \"reasoning\": \"r\", \"thinking\": null}]", NULL, NULL,
         "{'thinking': 'r', 'role': 'a', 'reasoning': 'r', 'reasoning_content': 'r'}"},
        {"{{ tools }}{{ documents }}{{ add_generation_prompt }}", one_user, NULL, NULL,
         "NoneNoneFalse"},
        {"{{ tools }}{{ k }}", one_user, "[{\"a\": 1.0}]", "{\"k\": 36893488147419103232}",
         "[{'a': 1.0}]36893488147419103232"},
        {LAST, "[{\"content\": \"so \"}]", NULL, "{\"continue_final_message\": true}", "<so "},
        {"{% for m in messages %}{{ m.content|trim }}{% endfor %}. end",
         "[{\"content\": \"so \\n\"}]", NULL, "{\"continue_final_message\": true}", "so"},
        {"{% for m in messages %}{{ m.thinking }}</think>{{ m.content }}{% endfor %}",
         "[{\"content\": \"c\", \"reasoning\": \"r\"}]", NULL,
         "{\"continue_final_message\": \"reasoning\"}", "r"},
        {"{{ messages[-1].content[0].text }} end",
         "[{\"content\": [{\"text\": \"a\"}, {\"b\": 1}]}]", NULL,
         "{\"continue_final_message\": true}", "a"},
        // refused, with transformers' words where it has some
        {"x", "[]", NULL, NULL, "Cannot apply chat template to an empty conversation"},
        {"x", "{}", NULL, NULL, "messages: expected an array"},
        {"x", "[3]", NULL, NULL, "messages: message 0 is int"},
        {"x", one_user, "[3]", NULL, "tools: entry 0 is int"},
        {"x", one_user, "{}", NULL, "tools: expected an array"},
        {"x", one_user, NULL, "{\"messages\": 1}", "template variables: messages"},
        {"content", one_user, NULL,
         "{\"continue_final_message\": true, \"add_generation_prompt\": true}",
         "continue_final_message and add_generation_prompt"},
        {"content", one_user, NULL, "{\"continue_final_message\": true}",
         "continue_final_message is set but the final message does not appear"},
        {"x", one_user, NULL, "{\"continue_final_message\": true}",
         "continue_final_message is set to \"content\" but"},
        {"x", one_user, NULL, "{\"continue_final_message\": \"text\"}",
         "continue_final_message is set but the final message has no \"text\""},
    };
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
        const turn *u = &turns[i];
        qn_err err = {0};
        char *text = NULL;
        size_t n;
        qn_template *t = qn_template_new(u->source, strlen(u->source), &err);
        assert_non_null(t);
        bool ok = qn_template_render(t, u->messages, u->tools, u->vars, &text, &n, &err);
        bool right = ok ? strcmp(text, u->expected) == 0 : qn_str_starts(err.text, u->expected);
        if (!right) fail_msg("turn %zu: want %s\n  got %s", i, u->expected, ok ? text : err.text);
        qn_free(text);
        qn_template_free(t);
    }
}

// ---- one template, many threads ----

typedef struct worker {
    const qn_template *t;
    const char *messages;
    char *text;
    bool ok;
} worker;

static void *work(void *arg) {
    worker *w = arg;
    w->ok = true;
    for (int i = 0; i < 20 && w->ok; i++) {
        qn_err err = {0};
        size_t n;
        qn_free(w->text);
        w->text = NULL;
        w->ok = qn_template_render(w->t, w->messages, NULL, NULL, &w->text, &n, &err);
    }
    return NULL;
}

static char *long_conversation(void) {
    qn_buf b = {0};
    for (int i = 0; i < 200; i++)
        qn_buf_addf(&b, "%s{\"role\": \"%s\", \"content\": \"message %d\"}", i ? ", " : "[",
                    i % 2 ? "assistant" : "user", i);
    qn_buf_adds(&b, "]");
    return qn_buf_take(&b, NULL);
}

static void test_threads(void **state) {
    (void)state;
    enum { N = 4 };
    qn_err err = {0};
    size_t n;
    char *source = template_text("Qwen3.5-4B.jinja", &n), *messages = long_conversation();
    qn_template *t = qn_template_new(source, n, &err);
    assert_non_null(t);
    worker w[N];
    pthread_t threads[N];
    for (int i = 0; i < N; i++) {
        w[i] = (worker){t, messages, NULL, false};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < N; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < N; i++) {
        assert_true(w[i].ok);
        assert_string_equal(w[i].text, w[0].text);
    }
    for (int i = 0; i < N; i++) qn_free(w[i].text);
    qn_template_free(t);
    qn_free(source);
    qn_free(messages);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_around),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
