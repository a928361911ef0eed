// Making a new checkpoint folder out of an old one, streamed: convert, repair and pad each say which
// tensors the result has and how a block of rows of each is produced; everything else — threads,
// rounding once to the stored dtype, figures, shards and index, side files, config, fsync, rename,
// the report, cleaning up after a failure — is done here, once.
#ifndef QN_QUANT_REWRITE_H
#define QN_QUANT_REWRITE_H

#include <jansson.h>

#include "base/pool.h"
#include "quant/matrix_survey.h"
#include "store/weight.h"

// One tensor of the result. Exactly one of rows, raw, bytes says where it comes from.
// A matrix has shape[0] rows of the product of the other dimensions; a vector is one row.
typedef struct qn_out_tensor {
    char *name; // allocated; freed with the rewrite
    qn_dtype dtype;
    int n_dims;
    size_t shape[QN_MAX_DIMS];
    qn_rows_fn rows;      // exact float rows, rounded here once to dtype (to nearest even);
                          // asked for in blocks from multiples of 16, again for a message
    bool (*raw)(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err); // rows as stored
    const uint8_t *bytes; // the tensor as stored, in the source's mapping
    void *user;           // of rows or raw
    const qn_weight *source; // the weight it was made from, for the report's dtype_in, codes and
                             // scales; may be NULL
} qn_out_tensor;

typedef struct qn_rewrite {
    const char *command; // "convert", …: goes into the report
    qn_ckpt *source;
    const char *out;
    bool overwrite, saturate; // saturate: values f16 cannot hold become ±65504 instead of an error
    uint64_t shard_bytes;     // 0: 5 GB
    int n_threads;
    qn_out_tensor *tensors;
    size_t n_tensors, cap_tensors;
    json_t *config;  // the new config.json (owned); NULL: the source's as it is
    const char *const *drop; // side files that must not be carried over, NULL-terminated; or NULL
    char *readme_note; // put on top of README.md (owned); or NULL
    json_t *summary;   // more keys for the report's summary (owned); may be NULL
    json_t *notes;     // array of strings for the report (owned); may be NULL
    // Called for every finished tensor to add keys to its entry in the report; may be NULL.
    void (*describe)(void *user, const qn_out_tensor *t, json_t *entry);
    // Called when all is written and readable under dir, before anything gets its final name:
    // proves the result (adds independent_check to the report). False stops and removes it all.
    bool (*prove)(void *user, const char *dir, json_t *report, qn_err *err);
    void *user; // of describe and prove
    qn_progress_fn progress;
    void *progress_user;
} qn_rewrite;

// Rows of a weight, user, as it decodes: a qn_rows_fn whose codes are looked at on the way.
bool qn_decoded_rows(void *user, size_t row0, size_t n, float *out, qn_err *err);
// Appends a tensor and returns it for filling; name is copied.
qn_out_tensor *qn_rewrite_add(qn_rewrite *r, const char *name);
// Plain copy of a stored tensor.
qn_out_tensor *qn_rewrite_copy(qn_rewrite *r, const qn_tensor *t);
void qn_rewrite_done(qn_rewrite *r); // frees tensors, config, summary, notes; not the source

// Refuses OUT that exists (without overwrite), OUT inside the source or the source inside OUT; then
// writes. *report gets quern-report.json's document (cli.md); also written into the folder.
bool qn_rewrite_run(qn_rewrite *r, json_t **report, qn_err *err);

#endif
