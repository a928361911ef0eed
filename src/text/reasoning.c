// Splits a reply into reasoning and answer as vLLM's `qwen3` reasoning parser does for a whole
// text. Qwen3 opens <think> itself; from Qwen3.5 on the template does, and the reply holds only
// the end. A tool call that begins inside the reasoning ends it.
#include <string.h>

#include "quern.h"
#include "text/char_case.h"

static const char open_tag[] = "<think>", close_tag[] = "</think>", call_tag[] = "<tool_call>";

static const char *find(const char *from, const char *end, const char *tag) {
    return from < end ? memmem(from, (size_t)(end - from), tag, strlen(tag)) : NULL;
}

// "<function=" or "<function " behind white space: the call is meant, not only talked about.
static bool opens_function(const char *s, const char *end) {
    static const char name[] = "<function";
    size_t n = sizeof name - 1, len;
    int32_t c;
    for (; s < end; s += len) {
        len = qn_utf8_next(s, (size_t)(end - s), &c);
        if (c < 0 || !qn_char_space((uint32_t)c)) break;
    }
    if ((size_t)(end - s) <= n || memcmp(s, name, n) != 0) return false;
    qn_utf8_next(s + n, (size_t)(end - s) - n, &c);
    return c == '=' || (c >= 0 && qn_char_space((uint32_t)c));
}

void qn_split_reply(const char *text, size_t n, bool started_open, qn_reply_parts *parts) {
    const char *end = text + n, *open = find(text, end, open_tag);
    const char *from = open ? open + strlen(open_tag) : text; // what stands before it is dropped
    const char *close = find(from, end, close_tag), *split = end, *answer = end;
    if (close) {
        split = close;
        answer = close + strlen(close_tag);
    } else if (!open && !started_open) {
        split = answer = from; // nothing was opened: all of it is the answer
    } else {
        const char *call = find(from, end, call_tag);
        if (call && opens_function(call + strlen(call_tag), end)) split = answer = call;
    }
    *parts = (qn_reply_parts){(size_t)(from - text), (size_t)(split - text),
                              (size_t)(answer - text), n};
}
