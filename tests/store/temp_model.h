// Small folders and files for tests of the store, made and removed again.
#ifndef TESTS_STORE_TEMP_MODEL_H
#define TESTS_STORE_TEMP_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "store/checkpoint.h"

char *temp_dir_new(void);        // allocated
void temp_dir_free(char *dir);   // removes it with all that is in it
void temp_write(const char *dir, const char *name, const void *data, size_t n); // makes folders
void temp_text(const char *dir, const char *name, const char *text);
void temp_link(const char *dir, const char *name, const char *target);

// A safetensors file in memory: the header as given, then n_data bytes (0, 1, 2, …). Allocated.
uint8_t *st_bytes(const char *header, size_t n_data, size_t *n);

// One tensor for st_write.
typedef struct st_tensor {
    const char *name;
    qn_dtype dtype;
    int n_dims;
    size_t shape[3];
    const void *data;
} st_tensor;
// Writes DIR/NAME with these tensors, their bytes one after the other.
void st_write(const char *dir, const char *name, const st_tensor *list, size_t n);

#endif
