// The template engine for its users in this room: parse once, render any number of times, from
// any number of threads. Templates come from strangers: nothing they say may crash, hang or reach
// outside; see the limits in jinja_run.h.
#ifndef QN_TEXT_JINJA_H
#define QN_TEXT_JINJA_H

#include "text/jinja_ast.h"

// JSON text as values: integers of any length, 1 and 1.0 apart, of equal keys the last one counts.
// Not read by jansson, which has no integers past 64 bits. what names the source in errors.
bool qn_json_value(qn_arena *a, const char *text, size_t n, const char *what, qn_value *out,
                   qn_err *err);

// Renders with the variables of a mapping. All values made on the way stay in the arena.
bool qn_jinja_render(const qn_jinja *t, qn_arena *a, const qn_vdict *context, qn_buf *out,
                     qn_err *err);

#endif
