// What compare and eval are given: a dump (a file of named arrays), or a checkpoint.
#ifndef QN_QUANT_COMPARE_FILE_H
#define QN_QUANT_COMPARE_FILE_H

#include "quant/npz.h"
#include "store/weight.h"

typedef struct qn_compare_file { // {0} is none
    char *path;
    bool is_dump;
    qn_ckpt *ckpt;   // a folder or a .safetensors file
    qn_npz npz;      // or the arrays of an .npz file,
    qn_map npy;      // or one .npy file,
    qn_tensor array; // whose only tensor is named after the file, if that is a dump's name
    void *copy;      // its data, if the file has it in another order
} qn_compare_file;

// spec is a .safetensors, .npy or .npz file, a folder, or a name Org/Name. A .safetensors file is a
// dump when it has a tensor that only dumps have (tokens, logits, hidden.N …), else a bare
// checkpoint. A lone array of any other name holds logits.
bool qn_compare_file_open(qn_compare_file *f, const char *spec, qn_err *err);
void qn_compare_file_close(qn_compare_file *f);

size_t qn_compare_file_n(const qn_compare_file *f); // tensors of a dump
const qn_tensor *qn_compare_file_at(const qn_compare_file *f, size_t i);
const qn_tensor *qn_compare_file_find(const qn_compare_file *f, const char *name); // NULL: none

// A dump's tokens as integers; *n is 0 when it has none.
bool qn_compare_file_tokens(const qn_compare_file *f, int64_t **ids, size_t *n, qn_err *err);

// Whether every value is an F32 number (or NaN): what is compared is F32.
bool qn_tensor_fits_f32(const qn_tensor *t);

// Positions and values of each: all dimensions but the last, and the last.
size_t qn_tensor_rows(const qn_tensor *t);
size_t qn_tensor_cols(const qn_tensor *t);

#endif
