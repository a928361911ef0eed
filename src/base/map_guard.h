// Mapped files that change under us. Reading a page that a file no longer has is a signal, SIGBUS,
// not an error; here it becomes one. All maps of qn_map_open are known here by name.
#ifndef QN_BASE_MAP_GUARD_H
#define QN_BASE_MAP_GUARD_H

#include <sys/stat.h>

#include "base/file.h"

// For the program, which owns its signals (a library does not): a page that is gone reads as zeros,
// the map counts as changed, and the interrupt flag is set, so that long work stops and cleans up.
void qn_map_guard_install(void);

// Fails (QN_IO) when a file that is mapped now is not what it was when it was opened.
bool qn_maps_unchanged(qn_err *err);
// The same for every map the process ever had.
bool qn_maps_never_changed(qn_err *err);

// Says that n more bytes of mapped files have been read. Now and then all of them are let go, so that
// what is resident stays small however large the files are; what is needed again comes back from
// the page cache. From any thread.
void qn_maps_touched(size_t n);

// For file.c: a map begins, with what fstat said; a map ends.
void qn_map_enlist(const qn_map *m, const char *path, const struct stat *st);
void qn_map_dismiss(const qn_map *m);

#endif
