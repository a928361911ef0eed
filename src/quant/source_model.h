// A checkpoint that is going to be changed: opened strictly, understood by its family, its weights
// in the family's order with nothing missing and nothing unexplained.
#ifndef QN_QUANT_SOURCE_MODEL_H
#define QN_QUANT_SOURCE_MODEL_H

#include "model/family.h"
#include "quant/rewrite.h"

typedef struct qn_source_model {
    qn_ckpt *ckpt;
    qn_config config;
    qn_layout layout;
    const qn_weight **weights; // in the family's order, extra ones (keep_extra) at the end
    size_t n_weights;
} qn_source_model;

// model is a folder or a name. A missing tensor, one of another shape, or one that the architecture
// does not know is an error that names it — except all-zero biases that the architecture lacks and
// a second copy of a tied head, which are left out with a note, and unknown ones with keep_extra.
// notes: a JSON array that gets what was noted.
bool qn_source_model_open(qn_source_model *m, const char *model, bool keep_extra, json_t *notes,
                          qn_err *err);
void qn_source_model_close(qn_source_model *m); // {0} or half-open is fine

// Refuses (QN_INPUT) float weights that were certainly made from codes read wrongly (wrong_codes.h): a
// new folder would pass for a right one. as_is: goes on. What is noted, and what is suspected only,
// goes into notes and to stderr.
bool qn_source_model_sound(const qn_source_model *m, int n_threads, bool as_is, json_t *notes,
                           qn_err *err);

// Whether a plain weight holds nothing but zeros (an invented bias that does no harm).
bool qn_weight_all_zero(const qn_weight *w);

// Makes t produce weight w exactly, as float rows (shape and source are set, dtype is the caller's).
void qn_source_float(qn_out_tensor *t, const qn_weight *w);

#endif
