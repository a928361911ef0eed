// Reading vector files for tests of templates: lines of JSON, taken apart without changing a
// number in them.
#ifndef TESTS_TEXT_TEMPLATE_SUPPORT_H
#define TESTS_TEXT_TEMPLATE_SUPPORT_H

#include "base/str.h"

typedef struct vector { // members that a line lacks stay NULL; JSON values as their text
    char *text;         // source, template, rendered, error, error_kind, kind, feature: decoded
    char *source, *template_name, *error, *error_kind, *label;
    qn_buf rendered;
    bool has_rendered;
    char *context, *messages, *tools, *kwargs;
} vector;

// Calls visit for each line of a file under tests/data/chat_templates; returns how many.
size_t vectors_each(const char *file, void (*visit)(const vector *v, size_t line));
char *template_text(const char *name, size_t *n); // a template of that folder

#endif
