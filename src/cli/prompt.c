// Input of the commands: prompts, token ids, images, lines of stdin.
#include "cli/prompt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/mem.h"
#include "cli/output.h"

bool qn_ids_parse(const char *text, const char *what, int32_t **ids, size_t *n, qn_err *err) {
    size_t cap = *n;
    for (const char *p = text;;) {
        p += strspn(p, " \t\r\n,");
        if (!*p) return true;
        size_t length = strcspn(p, " \t\r\n,");
        char *end;
        errno = 0;
        long long x = strtoll(p, &end, 10);
        if (end != p + length)
            return qn_fail(err, QN_INPUT, "%s: \"%.*s\" is no token id, expected an integer", what,
                           (int)(length < 40 ? length : 40), p);
        if (errno || x < INT32_MIN || x > INT32_MAX)
            return qn_fail(err, QN_INPUT, "%s: token id %.*s is out of range", what,
                           (int)(length < 40 ? length : 40), p);
        if (*n == cap) {
            cap = cap ? 2 * cap : 64;
            *ids = qn_realloc(*ids, cap * sizeof **ids);
        }
        (*ids)[(*n)++] = (int32_t)x;
        p += length;
    }
}

static bool check_text(const qn_buf *text, const char *what, qn_err *err) {
    size_t bad = text->n ? qn_utf8_valid(text->data, text->n) : 0;
    if (bad == text->n) return true;
    return qn_fail(err, QN_INPUT, "%s is not UTF-8 at byte %zu (0x%02x)", what, bad,
                   (unsigned char)text->data[bad]);
}

bool qn_prompt_text(const qn_args *a, qn_buf *text, qn_err *err) {
    const char *prompt = qn_args_text(a, "prompt", NULL), *file = qn_args_text(a, "file", NULL);
    qn_buf_clear(text);
    if (file) return qn_file_read(file, QN_MAX_TEXT, text, err) && check_text(text, file, err);
    if (!prompt) return qn_fail(err, QN_USAGE, "no prompt is given, expected -p TEXT or -f FILE");
    qn_buf_adds(text, prompt);
    return true;
}

bool qn_prompt_ids(const qn_args *a, const qn_tokenizer *t, int32_t **ids, size_t *n, qn_err *err) {
    static const char *const sources[] = {"prompt", "file", "tokens", NULL};
    *ids = NULL;
    *n = 0;
    if (!qn_args_exclude(a, sources, err)) return false;
    const char *typed = qn_args_text(a, "tokens", NULL);
    qn_buf text = {0};
    bool ok;
    if (typed) {
        ok = qn_ids_parse(typed, "--tokens", ids, n, err);
    } else {
        ok = qn_prompt_text(a, &text, err);
        if (ok && !t)
            ok = qn_fail(err, QN_UNSUPPORTED, "the checkpoint has no tokenizer, so a text cannot "
                         "be its prompt; give ids with --tokens");
        if (ok && text.n) ok = qn_encode(t, text.data, text.n, 0, ids, n, err);
    }
    qn_buf_done(&text);
    if (ok && *n == 0)
        ok = qn_fail(err, QN_INPUT, "the prompt is empty, expected at least one token");
    return ok;
}

bool qn_images_add(qn_image_list *l, const char *path, qn_err *err) {
    qn_buf bytes = {0};
    if (!qn_file_read(path, QN_MAX_IMAGE, &bytes, err)) {
        qn_buf_done(&bytes);
        return false;
    }
    l->images = qn_realloc(l->images, (l->n + 1) * sizeof *l->images);
    size_t n;
    char *data = qn_buf_take(&bytes, &n);
    l->images[l->n++] = (qn_image){.data = data, .bytes = n};
    return true;
}

void qn_images_done(qn_image_list *l) {
    for (size_t i = 0; i < l->n; i++) free((void *)(uintptr_t)l->images[i].data);
    free(l->images);
    *l = (qn_image_list){0};
}

// ---- lines ----

static bool read_more(qn_lines *l, qn_err *err) {
    if (!qn_out_flush(err)) return false;
    if (l->at) { // what was handed out is dropped
        l->rest.n -= l->at;
        memmove(l->rest.data, l->rest.data + l->at, l->rest.n);
        l->at = 0;
    }
    if (l->rest.n > QN_MAX_TEXT)
        return qn_fail(err, QN_LIMIT, "stdin line %zu is longer than %zu bytes", l->number + 1,
                       QN_MAX_TEXT);
    size_t room = l->rest.n < 65536 ? 65536 : l->rest.n;
    qn_buf_reserve(&l->rest, room);
    for (;;) {
        ssize_t got = read(STDIN_FILENO, l->rest.data + l->rest.n, room);
        if (got < 0 && errno == EINTR && !qn_interrupted()) continue;
        if (got < 0 && errno == EINTR) return qn_fail(err, QN_CANCELLED, "interrupted");
        if (got < 0) return qn_fail_errno(err, errno, "cannot read stdin");
        l->rest.n += (size_t)got;
        l->ended = got == 0;
        return true;
    }
}

bool qn_lines_next(qn_lines *l, const char **line, size_t *n, qn_err *err) {
    *line = NULL;
    size_t seen = 0; // bytes behind at that hold no line end
    for (;;) {
        size_t left = l->rest.n - l->at;
        char *start = left ? l->rest.data + l->at : NULL;
        char *end = left > seen ? memchr(start + seen, '\n', left - seen) : NULL;
        if (!end && !l->ended) {
            seen = left;
            if (!read_more(l, err)) return false;
            continue;
        }
        if (!left) return true;
        *n = end ? (size_t)(end - start) : left;
        l->at += end ? *n + 1 : *n;
        l->number++;
        qn_buf_clear(&l->line); // own memory with a 0 behind it
        qn_buf_add(&l->line, start, *n);
        if (*n && l->line.data[*n - 1] == '\r') l->line.data[--*n] = 0;
        *line = l->line.data ? l->line.data : "";
        return true;
    }
}

void qn_lines_done(qn_lines *l) {
    qn_buf_done(&l->rest);
    qn_buf_done(&l->line);
}
