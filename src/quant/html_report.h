// The page of `quern compare --html`: one file that stands alone.
#ifndef QN_QUANT_HTML_REPORT_H
#define QN_QUANT_HTML_REPORT_H

#include <jansson.h>

#include "quern.h"

// report: the document of qn_compare with page set. Written under a temporary name and renamed.
bool qn_html_report_write(const char *path, const json_t *report, qn_err *err);
// The page's text (qn_free).
char *qn_html_report_text(const json_t *report, size_t *n);

#endif
