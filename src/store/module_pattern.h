// Patterns over module names in quantization configs: Python regular expressions, matched at the
// start of the name as re.match does. They come from strangers, so matching has a step limit.
#ifndef QN_STORE_MODULE_PATTERN_H
#define QN_STORE_MODULE_PATTERN_H

#include "quern.h"

typedef struct qn_pattern qn_pattern;
qn_pattern *qn_pattern_new(const char *regex, const char *what, qn_err *err);
void qn_pattern_free(qn_pattern *p);
bool qn_pattern_matches(const qn_pattern *p, const char *module);

#endif
