// Errors travel by argument. This file only formats them; it knows nobody.
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

const char *qn_version(void) { return QN_VERSION; }

void qn_free(void *p) { free(p); }

int qn_exit_status(qn_code code) {
    switch (code) {
    case QN_OK: return 0;
    case QN_IO:
    case QN_NOMEM: return 3;
    case QN_CANCELLED: return 130;
    default: return 2;
    }
}

static void fill(qn_err *err, qn_code code, const char *fmt, va_list args) {
    if (!err) return;
    char raw[QN_ERR_TEXT];
    vsnprintf(raw, sizeof raw, fmt, args);
    err->code = code;
    qn_str_visible(raw, err->text, sizeof err->text);
}

bool qn_fail(qn_err *err, qn_code code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fill(err, code, fmt, args);
    va_end(args);
    return false;
}

void *qn_fail_null(qn_err *err, qn_code code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fill(err, code, fmt, args);
    va_end(args);
    return NULL;
}

bool qn_fail_errno(qn_err *err, int errnum, const char *fmt, ...) {
    qn_code code = errnum == ENOMEM ? QN_NOMEM : errnum == ENOENT ? QN_NOT_FOUND : QN_IO;
    va_list args;
    va_start(args, fmt);
    fill(err, code, fmt, args);
    va_end(args);
    if (!err) return false;
    char why[128];
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, ": %s", strerror_r(errnum, why, sizeof why));
    return false;
}

bool qn_err_prefix(qn_err *err, const char *fmt, ...) {
    if (!err) return false;
    char raw[QN_ERR_TEXT], head[QN_ERR_TEXT], whole[2 * QN_ERR_TEXT + 3];
    va_list args;
    va_start(args, fmt);
    vsnprintf(raw, sizeof raw, fmt, args);
    va_end(args);
    qn_str_visible(raw, head, sizeof head);
    // The rest is visible already, and a look-up's has lines of its own.
    snprintf(whole, sizeof whole, "%s: %s", head, err->text);
    whole[sizeof err->text - 1] = 0;
    whole[qn_utf8_valid(whole, strlen(whole))] = 0; // cut between characters
    memcpy(err->text, whole, sizeof err->text);
    return false;
}
