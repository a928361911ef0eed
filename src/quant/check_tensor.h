// One weight under check: its figures and what they say.
#ifndef QN_QUANT_CHECK_TENSOR_H
#define QN_QUANT_CHECK_TENSOR_H

#include "base/pool.h"
#include "model/family.h"
#include "quant/matrix_survey.h"
#include "quant/problems.h"
#include "store/weight.h"

// All of the reference, for weights that are none of its own: which other one are they?
typedef struct qn_siblings {
    qn_ckpt *model;
    size_t left; // comparisons that may still be made
} qn_siblings;

typedef struct qn_check_tensor {
    const qn_weight *w;
    const qn_expected *expected; // what the family says it is; NULL: unknown
    const qn_weight *reference;  // or NULL
    qn_siblings *siblings;       // or NULL
    size_t order;                // in the file
    size_t group_hint;
    bool read; // set by qn_check_one: its values are floats and could be read
} qn_check_tensor;

// Elements of a weight, and of its innermost dimension.
size_t qn_weight_count(const qn_weight *w);
size_t qn_weight_columns(const qn_weight *w);
// Rows row0 … row0 + n - 1 of so many columns as floats; quantized ones as qn_weight_decode has them.
bool qn_weight_rows(const qn_weight *w, size_t row0, size_t n, float *out, qn_err *err);

// Reads the weight and returns its entry of the report; adds what is wrong to problems. NULL only with
// QN_CANCELLED or QN_NOMEM in err. survey is work space on the same pool.
json_t *qn_check_one(qn_pool *pool, qn_survey *survey, qn_check_tensor *t, qn_problems *problems,
                     qn_err *err);

// Looks, side by side, for the marks of codes read wrongly (wrong_codes.h) in weights that have been
// read; adds to their entries and to problems.
void qn_check_origins(qn_pool *pool, const qn_check_tensor *list, json_t *const *entries, size_t n,
                      qn_problems *problems);

// Compares a weight with its reference: adds cosine, max_abs_error, relative_rms to the entry and
// differs-from-reference problems, with the kind of difference where it is a known one.
bool qn_check_against(qn_pool *pool, const qn_check_tensor *t, json_t *entry,
                      qn_problems *problems, qn_err *err);

#endif
