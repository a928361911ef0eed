// An answer on its way to the screen: reasoning apart from the answer, each as soon as it is sure
// which of the two a piece is.
#ifndef QN_CLI_REPLY_VIEW_H
#define QN_CLI_REPLY_VIEW_H

#include "base/str.h"

typedef struct qn_reply_view {
    bool started_open; // the prompt itself ended inside <think>
    size_t reasoning, answer; // offsets in the text up to which was shown
    bool in_reasoning, answered, colour;
} qn_reply_view;

// Whether a rendered prompt leaves the model inside <think>.
bool qn_prompt_thinks(const char *prompt, size_t n);
// Both parts without the white space around them; done false: what is sure so far.
void qn_reply_split(const char *text, size_t n, bool started_open, bool done,
                    qn_reply_parts *parts);
// Shows what is new. Reasoning goes dim to a terminal, else to stderr (not with --quiet).
void qn_reply_view_show(qn_reply_view *v, const char *text, size_t n, bool done);

#endif
