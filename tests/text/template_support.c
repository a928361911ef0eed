#include "text/template_support.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "text/json_scan.h"

#define FOLDER "tests/data/chat_templates/"

static char *take_string(qn_scan *s) {
    qn_err err = {0};
    qn_buf text = {0};
    if (!qn_scan_string(s, &text, &err)) fail_msg("%s", err.text);
    return qn_buf_take(&text, NULL);
}

static char *take_json(qn_scan *s) {
    qn_err err = {0};
    qn_span span;
    if (!qn_scan_skip(s, &span, &err)) fail_msg("%s", err.text);
    return qn_strndup(span.text, span.n);
}

static void take_member(qn_scan *s, const char *key, vector *v) {
    char **text = strcmp(key, "source") == 0                                    ? &v->source
                  : strcmp(key, "template") == 0                                ? &v->template_name
                  : strcmp(key, "error") == 0                                   ? &v->error
                  : strcmp(key, "error_kind") == 0                              ? &v->error_kind
                  : strcmp(key, "kind") == 0 || strcmp(key, "feature") == 0     ? &v->label
                                                                                : NULL;
    char **json = strcmp(key, "context") == 0    ? &v->context
                  : strcmp(key, "messages") == 0 ? &v->messages
                  : strcmp(key, "tools") == 0    ? &v->tools
                                                 : &v->kwargs;
    qn_err err = {0};
    if (strcmp(key, "rendered") == 0) {
        v->has_rendered = true;
        if (!qn_scan_string(s, &v->rendered, &err)) fail_msg("%s", err.text);
    } else if (text) {
        *text = take_string(s);
    } else {
        char *value = take_json(s);
        bool known = strcmp(key, "level") != 0 && strcmp(value, "null") != 0;
        if (known) *json = value;
        else qn_free(value);
    }
}

static void forget(vector *v) {
    char *all[] = {v->source, v->template_name, v->error, v->error_kind, v->label,
                   v->context, v->messages, v->tools, v->kwargs};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) qn_free(all[i]);
    qn_buf_done(&v->rendered);
}

size_t vectors_each(const char *file, void (*visit)(const vector *v, size_t line)) {
    qn_err err = {0};
    qn_buf data = {0}, key = {0};
    char *path = qn_strf(FOLDER "%s", file);
    if (!qn_file_read(path, 64 << 20, &data, &err)) fail_msg("%s", err.text);
    size_t lines = 0;
    for (char *line = data.data, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        if (!end) break;
        qn_scan s = {.text = line, .n = (size_t)(end - line), .what = file};
        vector v = {0};
        bool more = true;
        if (!qn_scan_open(&s, '{', &err)) fail_msg("%s", err.text);
        while (qn_scan_member(&s, &key, &more, &err) && more) take_member(&s, key.data, &v);
        if (more) fail_msg("%s", err.text);
        visit(&v, ++lines);
        forget(&v);
    }
    qn_buf_done(&data);
    qn_buf_done(&key);
    qn_free(path);
    return lines;
}

char *template_text(const char *name, size_t *n) {
    qn_err err = {0};
    qn_buf data = {0};
    char *path = qn_strf(FOLDER "%s", name);
    if (!qn_file_read(path, 1 << 20, &data, &err)) fail_msg("%s", err.text);
    qn_free(path);
    return qn_buf_take(&data, n);
}
