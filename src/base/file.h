// Files: mapping, reading whole, and writing so that nothing half-written looks complete.
#ifndef QN_BASE_FILE_H
#define QN_BASE_FILE_H

#include <stdint.h>
#include <stdio.h>

#include "base/str.h"
#include "quern.h"

typedef struct qn_map { // a read-only mapping; {0} is none
    const uint8_t *data;
    size_t n;
} qn_map;

// A folder or other non-regular file is QN_INPUT, as is one that may not be read; an empty file
// maps as n = 0.
bool qn_map_open(qn_map *m, const char *path, qn_err *err);
void qn_map_close(qn_map *m);
// Tells the system that these bytes will be read soon / not again (drops them from memory).
void qn_map_will_need(const qn_map *m, size_t from, size_t n);
void qn_map_dont_need(const qn_map *m, size_t from, size_t n);

// Reads a whole file of at most max bytes (QN_LIMIT beyond) into *out (which is cleared first).
// "-" reads stdin.
bool qn_file_read(const char *path, size_t max, qn_buf *out, qn_err *err);
bool qn_file_exists(const char *path); // any kind
bool qn_file_is_dir(const char *path);
int64_t qn_file_size(const char *path); // -1 when it is not there
char *qn_path_join(const char *dir, const char *name); // allocated

// A file written under a temporary name beside its target, then synced and renamed. Until commit
// the target is untouched; _free without a commit removes the temporary file. A device or pipe is
// written as it is. Failures are QN_IO.
typedef struct qn_writer qn_writer;
qn_writer *qn_writer_new(const char *path, qn_err *err);
// Says before anything is added that n bytes will be: room for them is found now, or known to lack.
// A hint otherwise: fewer or more may follow.
bool qn_writer_expect(qn_writer *w, uint64_t n, qn_err *err);
bool qn_writer_add(qn_writer *w, const void *data, size_t n, qn_err *err); // buffered
uint64_t qn_writer_size(const qn_writer *w); // bytes added so far
// Overwrites bytes already added (a header whose contents are known last).
bool qn_writer_put_at(qn_writer *w, uint64_t at, const void *data, size_t n, qn_err *err);
// Room for n bytes more, which put_at fills: from any thread, until something else is added.
bool qn_writer_reserve(qn_writer *w, uint64_t n, qn_err *err);
bool qn_writer_commit(qn_writer *w, qn_err *err); // w must still be freed
// Commit in two steps, for a file in a folder that gets its own name later: named it can be read
// while the disk still works; settled it is on the disk, or an error says why not.
bool qn_writer_name(qn_writer *w, qn_err *err);
bool qn_writer_settle(qn_writer *w, qn_err *err);
void qn_writer_free(qn_writer *w);
bool qn_file_write(const char *path, const void *data, size_t n, qn_err *err); // all of it, so

// A folder built under a temporary name beside its target and renamed when complete. With
// overwrite an existing folder is swapped with the new one in one step and then removed. A killed
// run leaves only something hidden, ".NAME.quern-tmp-PID"; the next run over the same target
// removes it.
typedef struct qn_outdir qn_outdir;
qn_outdir *qn_outdir_new(const char *path, bool overwrite, qn_err *err);
const char *qn_outdir_path(const qn_outdir *d); // where to write now
bool qn_outdir_commit(qn_outdir *d, qn_err *err); // syncs every file and folder, renames
void qn_outdir_free(qn_outdir *d); // removes it unless committed

#endif
