// A short built-in text through a loaded model, for those who want to look at what comes out.
#ifndef QN_QUANT_FORWARD_TEXT_H
#define QN_QUANT_FORWARD_TEXT_H

#include "quern.h"

typedef struct qn_forward {
    unsigned probe; // QN_PROBE_…: what is looked at, position by position
    qn_probe_fn on_probe;
    void *user;
    size_t n_tokens; // result: of the text
    qn_err failed;   // result: code other than 0: the pass began and broke off (not finite)
} qn_forward;

// Tokens of the text, at most; a little text with a tokenizer of bytes has most.
enum { QN_FORWARD_TOKENS = 160 };

// False: the model could not be run at all. Models without a tokenizer get made-up ids.
bool qn_forward_text(const qn_model *m, qn_forward *f, qn_err *err);

#endif
