// Reading a command line against a command's tables.
#ifndef QN_CLI_OPTIONS_H
#define QN_CLI_OPTIONS_H

#include "cli/command.h"

// words: what stands behind the program's name, the command itself left out.
qn_args *qn_args_parse(const qn_command *c, char **words, size_t n, qn_err *err);
void qn_args_free(qn_args *a);

// Finds the option that a word "--name", "--name=value" or "-n" spells in a command's tables, or
// NULL. *value points behind the = or the letter, or is NULL.
const qn_option *qn_option_find(const qn_command *c, const char *word, const char **value);

#endif
