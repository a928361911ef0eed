// A model with an engine, opened as the options say, and the loop that answers one request on it.
// run, chat, dump and bench stand on this.
#ifndef QN_CLI_SESSION_H
#define QN_CLI_SESSION_H

#include <jansson.h>

#include "base/str.h"
#include "cli/command.h"

typedef struct qn_session {
    char *path;
    qn_model *model;
    qn_engine *engine;
    const qn_model_info *info;
    double load_s;
} qn_session;

typedef struct qn_session_options {
    qn_precision precision; // unless --precision says otherwise
    bool dummy, no_prefix_cache;
    bool text_only;    // no images will come: leave the vision tower on disk
    size_t seqs;       // sequences at once, unless --max-num-seqs says otherwise
} qn_session_options;

// Reads the engine table's options. On failure nothing is left open.
bool qn_session_open(qn_session *s, const qn_args *a, const qn_session_options *o, qn_err *err);
void qn_session_close(qn_session *s);
// Defaults of the checkpoint under the sampling table's options. stop strings live with a.
bool qn_session_sampling(const qn_session *s, const qn_args *a, qn_sampling *out, qn_err *err);

// What came back. Free with qn_reply_done.
typedef struct qn_reply {
    qn_buf text;
    int32_t *tokens;
    size_t n_tokens, cap_tokens, prompt_tokens;
    qn_finish finish;
    qn_err err;                 // of a request that failed
    double started, first, last; // seconds: submitted, first token, end
    void (*show)(void *user, struct qn_reply *r); // after each piece of text, and at the end
    void *user;
    bool done;
} qn_reply;
void qn_reply_done(qn_reply *r);
// Fills in tokens, sampling, images of o; on_event is ours. Ctrl-C and a stdout that cannot be
// written cancel the request: finish is then QN_FINISH_CANCELLED and the call still succeeds.
bool qn_session_generate(qn_session *s, qn_request_options *o, qn_reply *r, qn_err *err);

double qn_reply_prefill_s(const qn_reply *r);
double qn_reply_decode_s(const qn_reply *r);
double qn_reply_prefill_rate(const qn_reply *r); // tokens per second; 0 when there is none
double qn_reply_decode_rate(const qn_reply *r);
// {load_s, prefill_s, decode_s, prefill_tok_s, decode_tok_s}
json_t *qn_reply_timing(const qn_session *s, const qn_reply *r);
// "34 of 41 drafts accepted, 0.12 s saved", of the engine's whole life; empty without drafts.
void qn_drafts_format(const qn_session *s, char text[128]);
void qn_reply_note(const qn_session *s, const qn_reply *r); // timing, as a note on stderr

#endif
