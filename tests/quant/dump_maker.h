// Small dumps made by tests of compare, and what such a test asks of a report.
#ifndef TESTS_QUANT_DUMP_MAKER_H
#define TESTS_QUANT_DUMP_MAKER_H

#include <jansson.h>

#include "quant/compare.h"
#include "store/checkpoint.h"

typedef struct tensor {
    const char *name;
    qn_dtype dtype;
    size_t shape[3];
    int n_dims;
    const float *x; // converted; tokens: taken as integers
} tensor;

// A .safetensors file; its path is for scratch_remove.
char *write_dump(const char *name, const tensor *list, size_t n);

extern const qn_compare_options usual; // the thresholds of the command line
json_t *compare(const char *a, const char *b);
json_t *compare_with(const char *a, const char *b, qn_compare_options o);
void refused(const char *a, const char *b, qn_code code, const char *text);

const json_t *at(const json_t *o, const char *key);
double number(const json_t *r, const char *section, const char *key); // section may be NULL
void is_verdict(const json_t *r, const char *verdict);
void has_reason(const json_t *r, const char *text);
void has_note(const json_t *r, const char *text);
void near(double x, double y, double tolerance);

#endif
