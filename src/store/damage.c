// Owns the list of damages, and the one place where strict and tolerant openings part.
#include "store/damage.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"

#define MOST 5000

static void append(qn_damages *d, const char *code, const char *tensor, const char *message) {
    if (d->n >= MOST) return;
    if (d->n == d->cap) {
        d->cap = d->cap ? 2 * d->cap : 8;
        d->list = qn_realloc(d->list, d->cap * sizeof *d->list);
    }
    char visible[QN_ERR_TEXT];
    qn_str_visible(message, visible, sizeof visible);
    d->list[d->n++] = (qn_damage){code, tensor ? qn_strdup(tensor) : NULL, qn_strdup(visible)};
}

bool qn_damage_add(qn_damages *d, const char *code, const char *tensor, qn_err *err,
                   const char *fmt, ...) {
    char text[QN_ERR_TEXT];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!d) return qn_fail(err, QN_INPUT, "%s", text);
    append(d, code, tensor, text);
    return true;
}

bool qn_damage_take(qn_damages *d, const char *code, const char *tensor, qn_err *err) {
    if (!d || err->code == QN_IO || err->code == QN_NOMEM) return false; // not the file's fault
    append(d, code, tensor, err->text);
    *err = (qn_err){0};
    return true;
}

void qn_damages_done(qn_damages *d) {
    for (size_t i = 0; i < d->n; i++) {
        qn_free(d->list[i].tensor);
        qn_free(d->list[i].message);
    }
    free(d->list);
    *d = (qn_damages){0};
}
