// The whole proof of padding, where memory allows it: both checkpoints run a text in exact precision,
// and their logits are compared. One model is in memory at a time; the first one's logits are kept.
// In exact precision an output is one chain of fused multiply-adds in input order, and a padded unit
// adds 0 times something: no layout has to change a bit.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/interrupt.h"
#include "quant/forward_text.h"
#include "quant/pad_plan.h"
#include "store/schemes.h"

#define ROUNDING 1e-5     // of the largest logit
#define SPARE ((size_t)256000000) // beside the largest tensor as float: what pad may use
#define OWN ((size_t)96000000)    // of that, what a pass needs beside weights and logits

// ---- whether it fits ----

// A weight as exact precision holds it: floats as they are stored, codes in 4 or 8 bits with a
// scale for each group. Panels of 16 rows are filled up.
static size_t bytes_in_memory(const qn_weight *w) {
    size_t rows = (w->rows + 15) / 16 * 16, cells = rows * w->cols;
    if (!w->scheme) return cells * qn_dtype_bytes(w->parts[0]->dtype);
    size_t codes = w->scheme->floats ? 2 * cells : w->bits <= 4 ? cells / 2 : cells;
    return codes + rows * w->n_groups * (sizeof(float) + 1);
}

bool qn_pad_forward_fits(const qn_weight *list, size_t n, size_t vocab) {
    size_t all = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        size_t values = list[i].rows * list[i].cols;
        all += bytes_in_memory(&list[i]);
        if (values > largest) largest = values;
    }
    size_t logits = QN_FORWARD_TOKENS * vocab * sizeof(float);
    return all + logits + OWN <= largest * sizeof(float) + SPARE;
}

// ---- the two passes ----

typedef struct logits {
    float *kept; // of the first pass
    size_t n, cap;
    size_t seen;  // by the second
    size_t apart; // values whose bits differ
    double largest, off;
    bool lost; // a NaN or infinity on one side only
} logits;

static void keep(void *user, const char *name, size_t position, const float *data, size_t n) {
    logits *l = user;
    (void)name;
    (void)position;
    if (l->n + n > l->cap) {
        l->cap = l->n ? 2 * (l->n + n) : QN_FORWARD_TOKENS * n;
        l->kept = qn_realloc(l->kept, l->cap * sizeof *l->kept);
    }
    memcpy(l->kept + l->n, data, n * sizeof *data);
    l->n += n;
}

static void compare(void *user, const char *name, size_t position, const float *data, size_t n) {
    logits *l = user;
    (void)name;
    (void)position;
    size_t known = l->n - l->seen < n ? l->n - l->seen : n;
    const float *kept = l->kept + l->seen;
    for (size_t i = 0; i < known; i++) {
        if (isfinite(kept[i])) l->largest = fmax(l->largest, fabs((double)kept[i]));
        if (memcmp(&kept[i], &data[i], sizeof *data) == 0) continue;
        double off = fabs((double)kept[i] - (double)data[i]);
        l->apart++;
        l->lost |= !isfinite(off);
        l->off = fmax(l->off, off);
    }
    l->seen += n;
}

static bool pass(const char *path, const qn_pad_subject *s, qn_forward *f, qn_err *err) {
    qn_model_options o = {.precision = QN_EXACT, .n_threads = s->n_threads, .no_vision = true,
                          .no_mtp = true, .progress = s->progress, .user = s->user};
    qn_model *m = qn_model_load(path, &o, err);
    bool ok = m && qn_forward_text(m, f, err);
    qn_model_free(m);
    if (ok && f->failed.code) {
        *err = f->failed;
        ok = false;
    }
    if (qn_interrupted()) {
        *err = (qn_err){0};
        ok = qn_fail(err, QN_CANCELLED, "interrupted");
    }
    return ok;
}

// ---- the verdict ----

static json_t *told(const logits *l, size_t n_tokens) {
    json_t *o = json_object();
    json_object_set_new(o, "tokens", json_integer((json_int_t)n_tokens));
    json_object_set_new(o, "logits_bit_equal", json_boolean(l->apart == 0));
    json_object_set_new(o, "max_abs_difference", qn_json_number(l->off));
    json_object_set_new(o, "max_relative_difference",
                        qn_json_number(l->largest > 0 ? l->off / l->largest : l->off));
    return o;
}

static bool judge(const logits *l, bool strict, qn_err *err) {
    if (l->seen != l->n)
        return qn_fail(err, QN_INPUT, "proof: the padded model has %zu logits, expected %zu",
                       l->seen, l->n);
    if (l->lost)
        return qn_fail(err, QN_INPUT, "proof: logits of the padded model are not finite where the "
                       "source's are, or the other way round");
    if (l->off > ROUNDING * l->largest)
        return qn_fail(err, QN_INPUT, "proof: the padded model's logits differ by %g of their "
                       "largest value", l->off / l->largest);
    if (strict && l->apart)
        return qn_fail(err, QN_INPUT, "proof: %zu of %zu logits of the padded model differ in "
                       "some bit", l->apart, l->n);
    return true;
}

bool qn_pad_forward(const qn_pad_subject *s, const char *dir, json_t **result, qn_err *err) {
    logits l = {0};
    qn_forward first = {.probe = QN_PROBE_LOGITS, .on_probe = keep, .user = &l};
    qn_forward second = {.probe = QN_PROBE_LOGITS, .on_probe = compare, .user = &l};
    qn_err why = {0};
    bool strict = s->sizes[0].layout == QN_PAD_TAIL && s->n_quantized == 0, ok = true;
    *result = NULL;
    if (!pass(qn_ckpt_path(s->source->ckpt), s, &first, &why)) {
        ok = why.code != QN_CANCELLED;
        if (!ok) *err = why;
        else *result = json_sprintf("not made: the source cannot be run: %s", why.text);
    } else if (pass(dir, s, &second, err) && judge(&l, strict, err)) {
        *result = told(&l, first.n_tokens);
    } else {
        ok = false;
    }
    free(l.kept);
    return ok;
}
