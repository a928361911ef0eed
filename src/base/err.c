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
    char head[QN_ERR_TEXT];
    va_list args;
    va_start(args, fmt);
    vsnprintf(head, sizeof head, fmt, args);
    va_end(args);
    char tail[QN_ERR_TEXT];
    memcpy(tail, err->text, sizeof tail);
    char whole[2 * QN_ERR_TEXT + 3];
    snprintf(whole, sizeof whole, "%s: %s", head, tail);
    qn_str_visible(whole, err->text, sizeof err->text);
    return false;
}
