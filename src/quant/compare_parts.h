// What the files of `compare` share: the report while it grows.
#ifndef QN_QUANT_COMPARE_PARTS_H
#define QN_QUANT_COMPARE_PARTS_H

#include "quant/compare.h"
#include "quant/compare_array.h"
#include "quant/compare_file.h"

typedef struct qn_comparison {
    const qn_compare_options *o;
    qn_compare_file file[2];
    qn_pool *pool;
    json_t *report;
    json_t *reasons, *reasons_zh; // why the verdict is not ok
    json_t *notes, *notes_zh;
    json_t *nonfinite, *histograms;
    bool differs; // any bit of what was compared
    bool partial; // something that a side has was not, or not as it is
    size_t alone[2], beside[2]; // tensors with the last position only; positions the other has
    const qn_tensor *wide;      // the first with values that F32 does not hold, and how many
    size_t n_wide;
} qn_comparison;

// Takes two allocated texts, English and Chinese.
void qn_compare_reason(qn_comparison *c, char *en, char *zh);
void qn_compare_note(qn_comparison *c, char *en, char *zh);

// Text as JSON; bytes that are not UTF-8 are made visible.
json_t *qn_compare_text(const char *s);
// A number with four digits, for a text.
void qn_compare_digits(double x, char out[32]);

// Exactly 1 when no finite value differs, whatever rounding says.
double qn_compare_cosine(const qn_diff *d);
// cosine, max_abs_error, max_rel_error, mse, relative_rms, norm_a, norm_b, identical
void qn_compare_add_figures(json_t *o, const qn_diff *d);
// Lists values that are not finite; cols tells where an index lies. Position is row0 + its row.
void qn_compare_add_nonfinite(qn_comparison *c, int side, const char *tensor, const qn_side *s,
                              size_t row0, size_t cols);
bool qn_compare_progress(qn_comparison *c, uint64_t done, uint64_t total, qn_err *err);
// A histogram for the page.
bool qn_compare_add_histogram(qn_comparison *c, const char *name, const qn_array *a,
                              const qn_array *b, qn_err *err);

// Lays two tensors of a dump over each other: [positions, values], a last position alone on the last
// of many, logits without the padding of one side. Says what is left out.
bool qn_compare_pair(qn_comparison *c, const qn_tensor *a, const qn_tensor *b, qn_array v[2],
                     qn_err *err);

bool qn_compare_is_logits(const char *name); // logits, mtp.logits
enum { QN_N_TOP = 3 };
typedef struct qn_means { // sums over positions
    qn_diff diff;
    double kl, kl_max, top[QN_N_TOP];
    size_t n, n_kl;
} qn_means;
void qn_compare_add_means(json_t *o, const qn_means *m); // kl, kl_max, top1, top5, top10

typedef struct qn_logits {
    qn_means means;
    qn_side side[2];
    json_t *found; // gets first_position, first_position_beyond, positions
} qn_logits;
bool qn_compare_logits(qn_comparison *c, const qn_array v[2], qn_logits *out, qn_err *err);
// Reasons for each threshold that is broken; what names the logits, "" those of the model.
void qn_compare_judge(qn_comparison *c, const char *what, const qn_means *m);

bool qn_compare_dumps(qn_comparison *c, qn_err *err);
bool qn_compare_weights(qn_comparison *c, qn_err *err);

#endif
