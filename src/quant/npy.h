// One array of a NumPy .npy file, mapped.
#ifndef QN_QUANT_NPY_H
#define QN_QUANT_NPY_H

#include "base/file.h"
#include "store/checkpoint.h"

// Reads the header of a mapped file and fills *out, whose data points into the map. The name is
// left to the caller. what names the file in errors. C order, little-endian, numbers only; a raw
// two-byte type ("<V2") is taken for bfloat16, which NumPy itself does not know.
bool qn_npy_parse(const qn_map *file, const char *what, qn_tensor *out, qn_err *err);

#endif
