// Lines that a person types: with editing and a history file on a terminal, plain otherwise.
#ifndef QN_CLI_LINE_INPUT_H
#define QN_CLI_LINE_INPUT_H

#include "base/str.h"

typedef enum qn_line_kind { QN_LINE_TEXT, QN_LINE_ABANDONED, QN_LINE_END } qn_line_kind;

typedef struct qn_line_input qn_line_input;
qn_line_input *qn_line_input_new(void);
void qn_line_input_free(qn_line_input *in);
bool qn_line_input_is_terminal(const qn_line_input *in);
// A line ending in \ goes on in the next. ABANDONED: Ctrl-C at the prompt; END: Ctrl-D, end of
// input, or a signal that asks the program to stop (qn_interrupted then).
bool qn_line_input_next(qn_line_input *in, qn_buf *line, qn_line_kind *kind, qn_err *err);

#endif
