// The arrays of a NumPy .npz archive, read into memory.
#ifndef QN_QUANT_NPZ_H
#define QN_QUANT_NPZ_H

#include "base/file.h"
#include "store/checkpoint.h"

typedef struct qn_npz { // {0} is none
    qn_tensor *list;    // named as numpy.savez was told
    void **memory;      // what their data points into, [n] of memory_bytes[n]
    size_t *memory_bytes;
    size_t n;
} qn_npz;

// Every entry must be a .npy array, stored or deflated, of a name of its own. At most 65536 entries
// and 4 GiB unpacked; an archive that promises more than deflate can hold is refused unread. what
// names the file in errors; the file is not needed any more afterwards.
bool qn_npz_read(qn_npz *z, const qn_map *file, const char *what, qn_err *err);
void qn_npz_close(qn_npz *z);

#endif
