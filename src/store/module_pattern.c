// Owns regular expressions over module names (PCRE2; the common part of its and Python's language).
#define PCRE2_CODE_UNIT_WIDTH 8
#include "store/module_pattern.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

#define STEPS 100000

struct qn_pattern {
    pcre2_code *code;
    pcre2_match_data *found;
    pcre2_match_context *limits;
};

qn_pattern *qn_pattern_new(const char *regex, const char *what, qn_err *err) {
    int number;
    PCRE2_SIZE at;
    qn_pattern *p = QN_NEW(qn_pattern);
    p->code = pcre2_compile((PCRE2_SPTR)regex, strlen(regex), PCRE2_ANCHORED, &number, &at, NULL);
    if (!p->code) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(number, why, sizeof why);
        qn_pattern_free(p);
        return qn_fail_null(err, QN_INPUT, "%s: pattern %.200s at %zu: %s", what, regex, (size_t)at,
                            (char *)why);
    }
    p->found = pcre2_match_data_create_from_pattern(p->code, NULL);
    p->limits = pcre2_match_context_create(NULL);
    if (p->limits) {
        pcre2_set_match_limit(p->limits, STEPS);
        pcre2_set_heap_limit(p->limits, 1024);
    }
    return p;
}

void qn_pattern_free(qn_pattern *p) {
    if (!p) return;
    pcre2_code_free(p->code);
    pcre2_match_data_free(p->found);
    pcre2_match_context_free(p->limits);
    free(p);
}

bool qn_pattern_matches(const qn_pattern *p, const char *module) {
    return p->found && pcre2_match(p->code, (PCRE2_SPTR)module, strlen(module), 0, 0, p->found,
                                   p->limits) >= 0;
}
