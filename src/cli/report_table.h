// quern-report.json for people: what convert, repair and pad print.
#ifndef QN_CLI_REPORT_TABLE_H
#define QN_CLI_REPORT_TABLE_H

#include <jansson.h>

#include "cli/command.h"
#include "cli/output.h"

// The report itself with --json, else short tables: figures of the matrices (estimates first, then the
// computed ones, at most a few), of the model, the proof, notes.
void qn_print_report(const qn_args *a, const json_t *report);

// Cells of one entry of a report's or a check's tensors: "-0.27 … 0.26", "4.897 ± 0.0007", "256×768".
void qn_table_add_range(qn_table *t, const json_t *entry, const char *low, const char *high);
void qn_table_add_norm(qn_table *t, const json_t *entry);
void qn_table_add_shape(qn_table *t, const json_t *entry);

// What the commands that write a checkpoint have in common: --shard-size --overwrite --threads.
extern const qn_option qn_rewrite_table[];
bool qn_args_shard_bytes(const qn_args *a, uint64_t *bytes, qn_err *err);
// Their end: prints and releases the report. The command's exit status.
int qn_report_done(const qn_args *a, bool ok, json_t *report);

#endif
