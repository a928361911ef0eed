// Text operations that string methods and filters share. Strings given are of kind STR; results
// keep the mark of their source.
#ifndef QN_TEXT_JINJA_TEXT_H
#define QN_TEXT_JINJA_TEXT_H

#include "text/jinja_run.h"

enum { QN_STRIP_LEFT = 1, QN_STRIP_RIGHT = 2 };
// chars NONE or ABSENT: white space.
qn_value qn_text_strip(qn_jrun *r, qn_value v, qn_value chars, unsigned sides);
qn_value qn_text_replace(qn_jrun *r, qn_value v, const qn_vstr *from, const qn_vstr *to,
                         int64_t count); // count -1: all
qn_vlist *qn_text_lines(qn_jrun *r, qn_value v, bool keep_ends); // splitlines
typedef enum qn_align { QN_ALIGN_LEFT, QN_ALIGN_RIGHT, QN_ALIGN_CENTER } qn_align;
qn_value qn_text_pad(qn_jrun *r, qn_value v, int64_t width, qn_align align, const qn_vstr *fill);

const qn_jinja_func *qn_str_method_find(const qn_vstr *name);
const qn_jinja_func *qn_sequence_filter_find(const qn_vstr *name); // NULL: not one of sequences

#endif
