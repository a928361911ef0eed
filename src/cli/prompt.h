// Texts and token ids as they are typed: from an option, a file, or stdin.
#ifndef QN_CLI_PROMPT_H
#define QN_CLI_PROMPT_H

#include "base/str.h"
#include "cli/command.h"

#define QN_MAX_TEXT ((size_t)1 << 30) // bytes of a prompt or JSON file
#define QN_MAX_IMAGE ((size_t)256 << 20)

// Ids separated by blanks or commas, appended to *ids (qn_free). what names the source.
bool qn_ids_parse(const char *text, const char *what, int32_t **ids, size_t *n, qn_err *err);

// The text of --prompt or --file (exactly one has to be given).
bool qn_prompt_text(const qn_args *a, qn_buf *text, qn_err *err);
// The ids of --prompt, --file or --tokens; none at all is an error. t may be NULL (--tokens only).
bool qn_prompt_ids(const qn_args *a, const qn_tokenizer *t, int32_t **ids, size_t *n, qn_err *err);

// Encoded image files, read whole.
typedef struct qn_image_list {
    qn_image *images;
    size_t n;
} qn_image_list;
bool qn_images_add(qn_image_list *l, const char *path, qn_err *err);
void qn_images_done(qn_image_list *l);

// stdin, line by line (without line ends). What was printed is flushed before waiting for more, so
// that a program at the other end gets each answer before it asks again. {0} is ready.
typedef struct qn_lines {
    qn_buf rest, line;
    size_t at, number; // number of the line just read, from 1
    bool ended;
} qn_lines;
// *line is valid until the next call; NULL at the end.
bool qn_lines_next(qn_lines *l, const char **line, size_t *n, qn_err *err);
void qn_lines_done(qn_lines *l);

#endif
