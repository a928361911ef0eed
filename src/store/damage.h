// Damage in files: an error in strict openings, one more line in a list in tolerant ones.
#ifndef QN_STORE_DAMAGE_H
#define QN_STORE_DAMAGE_H

#include "store/checkpoint.h"

typedef struct qn_damages { // {0} is empty
    qn_damage *list;
    size_t n, cap;
} qn_damages;

// d NULL: fails with QN_INPUT and this text. Else the damage is noted and the work goes on (true).
// tensor may be NULL. A hostile file cannot fill memory: after some thousands the rest is dropped.
bool qn_damage_add(qn_damages *d, const char *code, const char *tensor, qn_err *err,
                   const char *fmt, ...) QN_PRINTF(5, 6);
// The same for a failure that err holds already; empties err when the work goes on. A failure of
// the system stays one.
bool qn_damage_take(qn_damages *d, const char *code, const char *tensor, qn_err *err);
void qn_damages_done(qn_damages *d);

#endif
