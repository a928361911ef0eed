// Memory: a small allocation that fails ends the program (status 3), big ones fail politely.
#ifndef QN_BASE_MEM_H
#define QN_BASE_MEM_H

#include <stddef.h>

#include "quern.h"

void *qn_alloc(size_t n);             // uninitialised; never NULL; n = 0 gives a valid pointer
void *qn_zalloc(size_t n);            // zeroed
void *qn_realloc(void *p, size_t n);
// count * size bytes, zeroed; an overflow counts as out of memory.
void *qn_calloc(size_t count, size_t size);

#define QN_NEW(type) ((type *)qn_zalloc(sizeof(type)))
#define QN_NEW_ARRAY(type, n) ((type *)qn_calloc((n), sizeof(type)))

// Weights, caches, arenas: zeroed, aligned to 64 bytes (2 MiB and huge-page advice from 4 MiB on),
// mapped straight from the system. On failure NULL and QN_NOMEM with the size and `what` in the
// text. Release with qn_big_free and the same size.
void *qn_big_alloc(size_t n, const char *what, qn_err *err);
void qn_big_free(void *p, size_t n);

// a * b and a + b in size_t; false on overflow.
bool qn_mul(size_t a, size_t b, size_t *out);
bool qn_plus(size_t a, size_t b, size_t *out);

size_t qn_rss_bytes(void);        // resident memory of this process now
size_t qn_rss_peak_bytes(void);   // its peak
size_t qn_memory_available(void); // what can still be used: MemAvailable and the cgroup's limit

#endif
