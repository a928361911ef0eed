// quern-report.json for people: what convert, repair and pad print.
#ifndef QN_CLI_REPORT_TABLE_H
#define QN_CLI_REPORT_TABLE_H

#include <jansson.h>

#include "cli/command.h"

// The report itself with --json, else a short table: summary, the proof, the matrices' figures
// (the first of each kind unless all), notes.
void qn_print_report(const qn_args *a, const json_t *report);

// What the commands that write a checkpoint have in common: --shard-size --overwrite --threads.
extern const qn_option qn_rewrite_table[];
bool qn_args_shard_bytes(const qn_args *a, uint64_t *bytes, qn_err *err);
// Their end: prints and releases the report. The command's exit status.
int qn_report_done(const qn_args *a, bool ok, json_t *report);

#endif
