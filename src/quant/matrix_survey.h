// A matrix read once, block of rows by block of rows over the pool: statistics, zero rows and columns
// and, for its operator norm, a copy in 7 bits a value; then once more for the norm itself. Memory: a
// block per thread and that copy; kept from matrix to matrix.
#ifndef QN_QUANT_MATRIX_SURVEY_H
#define QN_QUANT_MATRIX_SURVEY_H

#include "base/pool.h"
#include "quant/measure.h"

// Rows of a matrix on demand: fills out with rows row0 … row0 + n - 1, cols floats each. Called
// from several threads at once.
typedef bool (*qn_rows_fn)(void *user, size_t row0, size_t n, float *out, qn_err *err);

typedef struct qn_matrix_figures {
    qn_stats all;
    size_t zero_rows, zero_cols;
    double norm, norm_tolerance; // operator_norm.h; negative: not asked for
} qn_matrix_figures;

typedef struct qn_survey qn_survey;
qn_survey *qn_survey_new(qn_pool *pool); // pool may be NULL; must outlive the survey
void qn_survey_free(qn_survey *s);

typedef struct qn_matrix_source {
    size_t rows, cols;
    qn_rows_fn rows_of;
    void *user;
    bool single; // rows are cheap one by one: no block of them need leave the first cache
    bool norm;   // wanted
    // bf16 or f16 values as they lie in memory, looked at where they are (the figures are those of
    // rows_of, to the bit); NULL: rows_of only.
    const uint8_t *stored;
    qn_run_dtype dtype;
} qn_matrix_source;

// All of it. Values that are not finite are counted, and taken as 0 for the norm.
bool qn_survey_matrix(qn_survey *s, const qn_matrix_source *m, qn_matrix_figures *out,
                      qn_err *err);

// The same in steps, for who needs the rows too: begin; for every block, from any thread, look at
// all its rows (values that are not finite become 0 in place); end, which reads rows_of again.
bool qn_survey_begin(qn_survey *s, const qn_matrix_source *m, qn_err *err);
size_t qn_survey_blocks(const qn_survey *s);
size_t qn_survey_block(const qn_survey *s, size_t block, size_t *row0); // its number of rows
float *qn_survey_buffer(const qn_survey *s, int thread); // room for the rows of a block
void qn_survey_look(qn_survey *s, size_t block, float *x, int thread);
bool qn_survey_end(qn_survey *s, qn_matrix_figures *out, qn_err *err);

#endif
