// A list of problems under a lock.
#include "quant/problems.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

void qn_problems_init(qn_problems *p) {
    *p = (qn_problems){0};
    pthread_mutex_init(&p->lock, NULL);
}

void qn_problems_done(qn_problems *p) {
    for (size_t i = 0; i < p->n; i++) {
        free(p->list[i].tensor);
        free(p->list[i].message);
    }
    free(p->list);
    pthread_mutex_destroy(&p->lock);
    *p = (qn_problems){0};
}

void qn_problem_add(qn_problems *p, qn_severity severity, const char *code, const char *tensor,
                    size_t order, const char *fmt, ...) {
    char raw[1024], text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(raw, sizeof raw, fmt, args);
    va_end(args);
    qn_str_visible(raw, text, sizeof text);
    pthread_mutex_lock(&p->lock);
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 16;
        p->list = qn_realloc(p->list, p->cap * sizeof *p->list);
    }
    p->list[p->n++] = (qn_problem){code, severity, tensor ? qn_strdup(tensor) : NULL,
                                   qn_strdup(text), order};
    pthread_mutex_unlock(&p->lock);
}

size_t qn_problems_errors(const qn_problems *p) {
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) n += p->list[i].severity == QN_ERROR;
    return n;
}

static int in_order(const void *a, const void *b) {
    const qn_problem *x = a, *y = b;
    if (x->severity != y->severity) return x->severity > y->severity ? -1 : 1;
    if (x->order != y->order) return x->order < y->order ? -1 : 1;
    int by_code = strcmp(x->code, y->code);
    return by_code ? by_code : strcmp(x->message, y->message);
}

json_t *qn_problems_json(qn_problems *p) {
    json_t *list = json_array();
    if (p->n) qsort(p->list, p->n, sizeof *p->list, in_order);
    for (size_t i = 0; i < p->n; i++) {
        const qn_problem *q = &p->list[i];
        json_t *o = json_object();
        json_object_set_new(o, "code", json_string(q->code));
        json_object_set_new(o, "severity",
                            json_string(q->severity == QN_ERROR ? "error" : "warning"));
        char *name = q->tensor ? qn_strdup(q->tensor) : NULL;
        char visible[1024] = "";
        if (name) qn_str_visible(name, visible, sizeof visible);
        json_object_set_new(o, "tensor", name ? json_string(visible) : json_null());
        json_object_set_new(o, "message", json_string(q->message));
        json_array_append_new(list, o);
        free(name);
    }
    return list;
}
