// A stand-in for the model and text rooms: cheap, deterministic, and unforgiving. Its answers
// depend on every token of the sequence as read back from the paged blocks and the recurrent
// state, so that any mistake of the engine's book-keeping changes the output.
#ifndef TESTS_ENGINE_FAKE_MODEL_H
#define TESTS_ENGINE_FAKE_MODEL_H

#include "model/model.h"

enum { FAKE_ROWS = 64, FAKE_SPELLED = 60, FAKE_HOLE = 7, FAKE_EOS = 5, FAKE_NAN = 61,
       FAKE_IMAGE = 62, FAKE_HIDDEN = 8 };

typedef struct fake_config {
    size_t context, block_tokens, state_bytes; // state_bytes: 0 or at least 8
    bool mtp, vision, tokenizer, faults; // faults: FAKE_NAN makes nan
    int draft_percent;   // how often the draft layer is right
    int sharp;           // 0: flat logits; else the spread in nats
    unsigned step_us, row_us, draft_us; // made-up cost of a forward, of its rows, of a draft call
} fake_config;

typedef struct fake_counters { // of everything since the last reset
    size_t positions, steps, draft_calls, holes, encoded, most_rows, most_segments;
} fake_counters;
extern fake_counters fake_counted;

qn_model *fake_model_new(const fake_config *c);
void fake_model_free(qn_model *m);
double fake_now(void); // seconds of made-up cost so far: a clock that no load disturbs
const char *fake_text(int32_t id); // what a token says, "" for specials

#endif
