// Every command on one screen. A new one is its file, a declaration and a line here.
#include "cli/commands.h"

#include <string.h>

#include "base/err.h"
#include "base/str.h"

extern const qn_command qn_cmd_cpu, qn_cmd_where, qn_cmd_inspect, qn_cmd_tokenize, qn_cmd_template;
extern const qn_command qn_cmd_run, qn_cmd_chat, qn_cmd_dump, qn_cmd_bench, qn_cmd_help;
extern const qn_command qn_cmd_check, qn_cmd_compare, qn_cmd_eval;
extern const qn_command qn_cmd_convert, qn_cmd_repair, qn_cmd_pad;

const qn_command *const qn_commands[] = {
    // Look
    &qn_cmd_cpu,
    &qn_cmd_where,
    &qn_cmd_inspect,
    &qn_cmd_tokenize,
    &qn_cmd_template,
    // Run
    &qn_cmd_run,
    &qn_cmd_chat,
    &qn_cmd_dump,
    &qn_cmd_bench,
    // Trust
    &qn_cmd_check,
    &qn_cmd_compare,
    &qn_cmd_eval,
    // Change
    &qn_cmd_convert,
    &qn_cmd_repair,
    &qn_cmd_pad,
    // Help
    &qn_cmd_help,
    NULL,
};

// Promised, and refused until they are built.
static const char *const later[] = {"batch", "serve", "quantize"};

const qn_command *qn_command_find(const char *name) {
    for (const qn_command *const *c = qn_commands; *c; c++)
        if (strcmp((*c)->name, name) == 0) return *c;
    return NULL;
}

bool qn_command_unknown(const char *word, qn_err *err) {
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (strcmp(later[i], word) == 0)
            return qn_fail(err, QN_UNSUPPORTED, "the command %s is not built yet", word);
    const char *names[64];
    size_t n = 0;
    for (const qn_command *const *c = qn_commands; *c && n < 64; c++) names[n++] = (*c)->name;
    const char *near = qn_str_nearest(word, names, n);
    if (near)
        return qn_fail(err, QN_USAGE, "unknown command \"%s\"; did you mean %s?", word, near);
    return qn_fail(err, QN_USAGE, "unknown command \"%s\"; `quern help` lists them", word);
}
