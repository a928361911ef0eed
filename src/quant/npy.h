// One array as NumPy writes it (.npy).
#ifndef QN_QUANT_NPY_H
#define QN_QUANT_NPY_H

#include "base/file.h"
#include "store/checkpoint.h"

typedef struct qn_npy {
    qn_tensor tensor;         // data points into the file; the name is left to the caller
    bool big_endian, fortran; // how the data lies there: see qn_npy_settle
} qn_npy;

// Reads the header of a mapped file. what names the file in errors. Floats of 16, 32 and 64 bits,
// integers and bools; a raw type such as "<V2" (what NumPy makes of bfloat16) could be anything and
// is refused.
bool qn_npy_parse(const qn_map *file, const char *what, qn_npy *out, qn_err *err);

// Brings the data into C order and little-endian. *owned is the copy that takes (qn_big_free with
// the tensor's bytes), NULL when the data lies right already.
bool qn_npy_settle(qn_npy *a, const char *what, void **owned, qn_err *err);

#endif
