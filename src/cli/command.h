// What a command is, and all that a command file needs: its descriptor, the options it was given,
// and where the result goes. A new command is a file cmd_X.c with a qn_command and one line in
// commands.c; help, option errors, exit status and output errors then work by themselves.
#ifndef QN_CLI_COMMAND_H
#define QN_CLI_COMMAND_H

#include "quern.h"

typedef enum qn_opt_kind {
    QN_OPT_FLAG,   // takes no value
    QN_OPT_TEXT,   // any UTF-8 text
    QN_OPT_FILE,   // a path: any bytes, but not the name of an option
    QN_OPT_INT,    // an integer in [lo, hi]
    QN_OPT_REAL,   // a number in [lo, hi]
    QN_OPT_CHOICE, // one of the words in value, "exact|fast"
} qn_opt_kind;

typedef struct qn_option {
    const char *name; // without dashes; NULL ends a table
    char letter;      // the short form, or 0
    qn_opt_kind kind;
    const char *value; // what help calls the value: "N", "FILE", or the choices
    const char *help;  // one line; NULL: understood but not listed
    double lo, hi;
    bool many;            // may be given more than once
    const char *same_as;  // this is another spelling of that option
} qn_option;

typedef struct qn_args qn_args; // what was typed; strings live as long as it does

#define QN_OPT_TABLES 4
#define QN_ANY_ARGS 1000000

typedef struct qn_command {
    const char *name;
    const char *group;    // heading in `quern help`: Look, Run, Trust, Change
    const char *summary;  // one line, no full stop
    const char *usage;    // behind "quern NAME ": "MODEL [OPTIONS]"
    const char *about;    // what help says below usage; may be NULL
    const char *examples; // whole lines "quern …\n"
    const qn_option *tables[QN_OPT_TABLES]; // own options first; --json --quiet --help come anyway
    int min_args, max_args; // arguments that are not options
    // The exit status (0, or 1 for "done, and what was looked at is bad"), or -1 with err filled.
    int (*run)(const qn_args *a, qn_err *err);
} qn_command;

// Tables that several commands share (option_tables.c).
extern const qn_option qn_engine_table[];   // --threads --precision --weights --max-num-… …
extern const qn_option qn_sampling_table[]; // --temperature … --max-tokens/-n
extern const qn_option qn_common_table[];   // --json --quiet --help, part of every command

// ---- what was typed ----
// Names are those of the table (without dashes); asking for one that no table has is a bug.
bool qn_args_has(const qn_args *a, const char *name);
const char *qn_args_text(const qn_args *a, const char *name, const char *otherwise);
int64_t qn_args_int(const qn_args *a, const char *name, int64_t otherwise);
double qn_args_real(const qn_args *a, const char *name, double otherwise);
const char *const *qn_args_list(const qn_args *a, const char *name, size_t *n); // in order
size_t qn_args_count(const qn_args *a);               // arguments that are not options
const char *qn_args_at(const qn_args *a, size_t i);   // NULL past the end
// What two or more options cannot be together: an error naming the first two of the
// NULL-terminated list that were given.
bool qn_args_exclude(const qn_args *a, const char *const *names, qn_err *err);

// --threads (0: all), --precision (with the command's default), --weights.
int qn_args_threads(const qn_args *a);
qn_precision qn_args_precision(const qn_args *a, qn_precision otherwise);
qn_weights qn_args_weights(const qn_args *a);

// The folder of a MODEL argument (qn_free); NULL on failure.
char *qn_find_model(const char *model, qn_err *err);

#endif
