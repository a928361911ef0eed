// What a quantized weight is made of: how often each code occurs, the range of its scales and zero
// points, groups whose scale is zero or whose codes all are the zero point.
#ifndef QN_QUANT_CHECK_CODES_H
#define QN_QUANT_CHECK_CODES_H

#include "quant/matrix_survey.h"
#include "quant/problems.h"
#include "store/weight.h"

typedef struct qn_code_figures qn_code_figures;
qn_code_figures *qn_code_figures_new(qn_pool *pool, const qn_weight *w); // of at most 8 bits
void qn_code_figures_free(qn_code_figures *f);

// Surveys the matrix (m describes w) and counts its codes as they pass by: each is read once.
bool qn_code_figures_take(qn_code_figures *f, qn_survey *survey, const qn_matrix_source *m,
                          qn_matrix_figures *out, qn_err *err);
// Adds "quantized" to the weight's entry, and what is wrong to problems.
void qn_code_figures_report(const qn_code_figures *f, size_t order, json_t *entry,
                            qn_problems *problems);

#endif
