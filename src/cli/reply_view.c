// While text is still coming, a leading <think> without its end means reasoning, and a beginning
// that could still become a tag is held back. Once the text is complete the library's split
// decides.
#include "cli/reply_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/output.h"

#define OPEN "<think>"
#define CLOSE "</think>"

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

static void trim(const char *text, size_t *from, size_t *to) {
    while (*to > *from && is_space(text[*to - 1])) --*to;
    while (*from < *to && is_space(text[*from])) ++*from;
}

bool qn_prompt_thinks(const char *prompt, size_t n) {
    size_t from = 0, tag = strlen(OPEN);
    trim(prompt, &from, &n);
    return n >= tag && memcmp(prompt + n - tag, OPEN, tag) == 0;
}

// Bytes at the end of text that may be the beginning of tag.
static size_t partial(const char *text, size_t n, const char *tag) {
    size_t most = strlen(tag) - 1;
    for (size_t k = n < most ? n : most; k > 0; k--)
        if (memcmp(text + n - k, tag, k) == 0) return k;
    return 0;
}

void qn_reply_split(const char *text, size_t n, bool started_open, bool done,
                    qn_reply_parts *parts) {
    size_t start = 0, end = n, tag = strlen(OPEN);
    *parts = (qn_reply_parts){0};
    trim(text, &start, &end);
    bool tagged = end - start >= tag && memcmp(text + start, OPEN, tag) == 0;
    bool closed = n && memmem(text, n, CLOSE, strlen(CLOSE));
    if (done || closed) {
        qn_split_reply(text, n, started_open, parts);
    } else if (started_open || tagged) {
        parts->reasoning_from = tagged ? start + tag : 0;
        parts->reasoning_to = n - partial(text, n, CLOSE);
        if (parts->reasoning_to < parts->reasoning_from)
            parts->reasoning_to = parts->reasoning_from;
    } else if (partial(text + start, end - start, OPEN) != end - start) {
        parts->answer_to = n;
    }
    trim(text, &parts->reasoning_from, &parts->reasoning_to);
    trim(text, &parts->answer_from, &parts->answer_to);
}

static void show_reasoning(qn_reply_view *v, const char *text, size_t n) {
    if (!v->in_reasoning) v->colour = qn_out_is_terminal() && !getenv("NO_COLOR");
    if (qn_out_is_terminal()) {
        if (!v->in_reasoning && v->colour) qn_out_addf("\033[2m");
        qn_out_shown(text, n);
    } else if (!qn_log_quiet()) {
        fwrite(text, 1, n, stderr);
    }
    v->in_reasoning = true;
}

static void end_reasoning(qn_reply_view *v) {
    if (!v->in_reasoning) return;
    v->in_reasoning = false;
    if (qn_out_is_terminal()) qn_out_addf(v->colour ? "\033[22m\n\n" : "\n\n");
    else if (!qn_log_quiet()) fputs("\n\n", stderr);
}

void qn_reply_view_show(qn_reply_view *v, const char *text, size_t n, bool done) {
    qn_reply_parts p;
    qn_reply_split(text, n, v->started_open, done, &p);
    if (v->reasoning < p.reasoning_from) v->reasoning = p.reasoning_from;
    if (p.reasoning_to > v->reasoning) {
        show_reasoning(v, text + v->reasoning, p.reasoning_to - v->reasoning);
        v->reasoning = p.reasoning_to;
    }
    if (v->answer < p.answer_from) v->answer = p.answer_from;
    if (p.answer_to > v->answer) {
        end_reasoning(v);
        qn_out_shown(text + v->answer, p.answer_to - v->answer);
        v->answer = p.answer_to;
        v->answered = true;
    }
    if (done) {
        end_reasoning(v);
        if (v->answered) qn_out_add("\n", 1);
    }
    qn_out_flush(NULL);
}
