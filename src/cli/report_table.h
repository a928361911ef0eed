// quern-report.json for people: what convert, repair and pad print.
#ifndef QN_CLI_REPORT_TABLE_H
#define QN_CLI_REPORT_TABLE_H

#include <jansson.h>

#include "cli/command.h"

// The report itself with --json, else a short table: summary, the proof, the matrices' figures
// (the first of each kind unless all), notes.
void qn_print_report(const qn_args *a, const json_t *report);

// "5GB", "500MB", "1.5GiB" or plain bytes.
bool qn_parse_size(const char *text, const char *option, uint64_t *bytes, qn_err *err);

#endif
