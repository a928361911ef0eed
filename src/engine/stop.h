// Text of one request's output: streaming detokenizer, stop strings over token boundaries, and
// text held back because a stop string may have begun in it.
#ifndef QN_ENGINE_STOP_H
#define QN_ENGINE_STOP_H

#include "base/str.h"
#include "quern.h"

typedef struct qn_output {
    qn_stream *stream; // NULL: the model has no tokenizer, the text stays empty
    char **stop;
    size_t *stop_len, n_stop, longest;
    qn_buf text;    // everything decoded so far, cut at the stop string
    size_t shown;   // bytes of it already handed out
    bool stopped, finished;
} qn_output;

bool qn_output_init(qn_output *o, const qn_tokenizer *t, const char *const *stop, size_t n_stop,
                    qn_err *err);
void qn_output_done(qn_output *o);
// Adds a token's text; o->stopped tells that a stop string was met.
bool qn_output_push(qn_output *o, int32_t id, qn_err *err);
void qn_output_finish(qn_output *o); // no more tokens: what was held back is shown
// The text that may be shown now and has not been; it lives until the next push.
void qn_output_next(qn_output *o, const char **text, size_t *n);

#endif
