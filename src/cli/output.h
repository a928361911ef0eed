// stdout: the result and nothing else. Writing never fails at the spot: the first error sticks, the
// rest is dropped, and qn_out_flush (or main, at the end) reports it. Tables are for people; with
// --json a command prints one document instead.
#ifndef QN_CLI_OUTPUT_H
#define QN_CLI_OUTPUT_H

#include <jansson.h>

#include "base/str.h"
#include "quern.h"

void qn_out_add(const char *data, size_t n);
// Text of a model or a stranger: exact, but on a terminal control characters lose their power.
void qn_out_shown(const char *text, size_t n);
// The same for names of files and tensors, everywhere: control characters and what is not UTF-8 are
// written as \xNN. Cells of tables and wrapped text are shown so too.
void qn_out_name(const char *name);
void qn_out_addf(const char *fmt, ...) QN_PRINTF(1, 2);
void qn_out_json(const json_t *document); // indented, with a line end
bool qn_out_flush(qn_err *err);           // false, and QN_IO, once anything was not written
bool qn_out_failed(void);
bool qn_out_is_terminal(void);
// A line end, when stdout is a terminal and the last byte was none: texts are printed exactly.
void qn_out_end_line(void);

// Columns of text, aligned by display width. align has a '<' or '>' for each column.
typedef struct qn_table {
    const char *align;
    char **cells;
    size_t n, cap;
} qn_table;
void qn_table_add(qn_table *t, const char *cell);
void qn_table_addf(qn_table *t, const char *fmt, ...) QN_PRINTF(2, 3);
void qn_table_print(qn_table *t, int indent); // prints and empties it
// The same for a table whose first row is its heading and whose first column says what a row is about,
// made to fit the width: columns without any cell are left out, those with the same cell in every row
// become one line above, the others are spread over as many tables as needed.
void qn_table_print_fitted(qn_table *t, int indent);

// Columns to write in: $COLUMNS, else the terminal's; 0: not a terminal, lines are not broken.
size_t qn_out_width(void);
// One paragraph, broken at blanks: the first line begins where the cursor is, `at` cells from the left
// margin, the others are indented by `hang`. Ends the line.
void qn_out_wrapped(const char *words, size_t at, size_t hang);

// A JSON document as an indented list of "key  value", for people. Keys lose their underscores;
// values of keys with "bytes" in them are shown in units.
void qn_out_tree(const json_t *document, int indent);

// Cells a terminal needs for UTF-8 text: wide characters count 2, combining ones 0.
size_t qn_text_width(const char *s);
void qn_format_bytes(double bytes, char out[32]);   // "1.72 GB"
void qn_format_count(uint64_t count, char out[32]); // "1,720,574,976"

#endif
