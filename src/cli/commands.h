// The list of commands.
#ifndef QN_CLI_COMMANDS_H
#define QN_CLI_COMMANDS_H

#include "cli/command.h"

extern const qn_command *const qn_commands[]; // NULL at the end
const qn_command *qn_command_find(const char *name);
// Why a word is no command: not built yet, or unknown, with the nearest one. Returns false.
bool qn_command_unknown(const char *word, qn_err *err);

void qn_help_overview(void);
void qn_help_command(const qn_command *c);

#endif
