// A conversation with a model: the messages so far, the images they show, and a turn on one engine
// whose prefix cache makes each turn cost its own tokens only.
#ifndef QN_CLI_CONVERSATION_H
#define QN_CLI_CONVERSATION_H

#include <jansson.h>

#include "cli/prompt.h"
#include "cli/reply_view.h"
#include "cli/session.h"

typedef struct qn_conversation {
    qn_session *session;
    const qn_args *args;  // sampling
    json_t *messages;
    qn_image_list images; // in the order of their placeholders
    size_t pending;       // of them, not yet part of a message
    int thinking;         // enable_thinking: 1, 0, or -1: as the template wants it
} qn_conversation;

bool qn_conversation_init(qn_conversation *c, qn_session *s, const qn_args *a, qn_err *err);
void qn_conversation_done(qn_conversation *c);
void qn_conversation_reset(qn_conversation *c);                        // keeps the system message
void qn_conversation_set_system(qn_conversation *c, const char *text); // empty: none
bool qn_conversation_add_image(qn_conversation *c, const char *path, qn_err *err);
bool qn_conversation_save(const qn_conversation *c, const char *path, qn_err *err);

// Says text and gets the reply. view may be NULL (nothing is shown). A stopped answer becomes part
// of the conversation; after an error it is as before the call.
bool qn_conversation_say(qn_conversation *c, const char *text, size_t n, qn_reply_view *view,
                         qn_reply *reply, qn_err *err);

#endif
