// Owns activations and their derived forms: bf16-rounded, int8 by group, columns permuted for
// act-order. A form is found by its key; its memory is reused from step to step.
#include "kernel/acts.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/fp_mode.h"

struct qn_acts {
    qn_compute *compute;
    const float *x;
    size_t m, k, ld;
    qn_form **forms;
    size_t n_forms, cap;
};

qn_acts *qn_acts_new(qn_compute *c) {
    qn_acts *a = QN_NEW(qn_acts);
    a->compute = c;
    return a;
}

void qn_acts_free(qn_acts *a) {
    if (!a) return;
    for (size_t i = 0; i < a->n_forms; i++) {
        qn_free(a->forms[i]->memory);
        qn_free(a->forms[i]);
    }
    qn_free(a->forms);
    qn_free(a);
}

void qn_acts_set(qn_acts *a, const float *x, size_t m, size_t k, size_t ld) {
    a->x = x;
    a->m = m;
    a->k = k;
    a->ld = ld;
    for (size_t i = 0; i < a->n_forms; i++) a->forms[i]->valid = false;
}

qn_compute *qn_acts_compute(const qn_acts *a) { return a->compute; }
size_t qn_acts_rows(const qn_acts *a) { return a->m; }

static bool same_perm(const int32_t *a, const int32_t *b, size_t n) {
    return a == b || (a && b && memcmp(a, b, n * sizeof *a) == 0);
}

static qn_form *find(const qn_acts *a, const qn_form *key) {
    for (size_t i = 0; i < a->n_forms; i++) {
        qn_form *f = a->forms[i];
        if (f->valid && f->kind == key->kind && f->group == key->group &&
            f->padded == key->padded && f->row == key->row && f->n == key->n &&
            same_perm(f->perm, key->perm, a->k))
            return f;
    }
    return NULL;
}

// A form that is out of date, or a new one. The key is copied, memory kept.
static qn_form *take(qn_acts *a, const qn_form *key) {
    qn_form *f = NULL;
    for (size_t i = 0; i < a->n_forms && !f; i++)
        if (!a->forms[i]->valid) f = a->forms[i];
    if (!f) {
        if (a->n_forms == a->cap) {
            a->cap = a->cap ? 2 * a->cap : 8;
            a->forms = qn_realloc(a->forms, a->cap * sizeof(qn_form *));
        }
        f = a->forms[a->n_forms++] = QN_NEW(qn_form);
    }
    void *memory = f->memory;
    size_t cap = f->cap;
    *f = *key;
    f->memory = memory;
    f->cap = cap;
    f->valid = true;
    return f;
}

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// A stride that is an odd number of cache lines: rows a power of two apart would all fall on the
// same few sets of the nearest cache.
static size_t spread(size_t n, size_t width) {
    size_t lines = round_up(n * width, 64) / 64;
    return (lines + !(lines & 1)) * 64 / width;
}

// One block of memory: data, then scales, then sums, each on a cache line of its own.
static void reserve(qn_form *f, size_t n_groups) {
    size_t width = f->kind == QN_ACT_S8 ? 1 : sizeof(float);
    size_t data = round_up(f->n * f->ld * width, 64);
    size_t each = f->kind == QN_ACT_S8 ? round_up(f->n * n_groups * 4, 64) : 0;
    size_t need = data + 2 * each + 64;
    if (f->cap < need) {
        qn_free(f->memory);
        f->cap = need + need / 4;
        f->memory = qn_alloc(f->cap);
    }
    char *at = (char *)round_up((size_t)f->memory, 64);
    f->data = at;
    f->scale = (float *)(void *)(at + data);
    f->sum = (int32_t *)(void *)(at + data + each);
}

typedef struct making {
    const qn_table *table;
    const qn_acts *acts;
    qn_form *form;
    size_t n_groups;
} making;

#define PIECE 256 // inputs gathered at once when columns are permuted

static const float *gather(const making *mk, const float *x, size_t k, size_t n, float *into) {
    const int32_t *perm = mk->form->perm;
    if (!perm) return x + k;
    for (size_t j = 0; j < n; j++) into[j] = x[perm[k + j]];
    return into;
}

static void make_floats(const making *mk, const float *x, float *to, size_t g) {
    const qn_form *f = mk->form;
    float piece[PIECE];
    size_t k0 = g * f->group, n = mk->acts->k - k0 < f->group ? mk->acts->k - k0 : f->group;
    to += g * f->padded;
    for (size_t k = 0; k < n; k += PIECE) {
        size_t len = n - k < PIECE ? n - k : PIECE;
        const float *from = gather(mk, x, k0 + k, len, piece);
        if (f->kind == QN_ACT_BF16)
            mk->table->round_bf16(from, to + k, len);
        else
            memcpy(to + k, from, len * sizeof *to);
    }
    if (f->padded > n) memset(to + n, 0, (f->padded - n) * sizeof *to);
}

// A group is quantized in one go, so it is gathered whole. Groups longer than PIECE with permuted
// columns do not occur in practice (act-order with one group needs no order).
static void make_codes(const making *mk, size_t r, const float *x, size_t g) {
    const qn_form *f = mk->form;
    size_t k0 = g * f->group, n = mk->acts->k - k0 < f->group ? mk->acts->k - k0 : f->group;
    float small[PIECE], *big = NULL, *piece = small;
    if (f->perm && n > PIECE) piece = big = qn_alloc(n * sizeof *big);
    mk->table->quantize_s8(gather(mk, x, k0, n, piece), n, f->padded,
                           (int8_t *)f->data + r * f->ld + g * f->padded,
                           f->scale + r * mk->n_groups + g, f->sum + r * mk->n_groups + g);
    qn_free(big);
}

static void make_row(void *ctx, size_t r, int thread) {
    (void)thread;
    const making *mk = ctx;
    const qn_form *f = mk->form;
    const float *x = mk->acts->x + (f->row + r) * mk->acts->ld;
    uint64_t mode = qn_fp_pin();
    for (size_t g = 0; g < mk->n_groups; g++)
        if (f->kind == QN_ACT_S8)
            make_codes(mk, r, x, g);
        else
            make_floats(mk, x, (float *)f->data + r * f->ld, g);
    qn_fp_restore(mode);
}

const qn_form *qn_acts_form(qn_acts *a, const qn_mat *w, size_t row, size_t n) {
    bool exact = qn_compute_precision(a->compute) == QN_EXACT;
    qn_act_kind kind = exact ? QN_ACT_F32 : w->format->act;
    size_t group = kind == QN_ACT_F32 ? a->k : qn_mat_group(w);
    qn_form key = {.kind = kind, .group = group, .perm = w->perm, .row = row, .n = n,
                   .padded = kind == QN_ACT_F32 ? a->k : qn_mat_padded_group(w)};
    if (!w->perm) { // shared by all jobs
        key.row = 0;
        key.n = a->m;
    }
    qn_form *f = find(a, &key);
    if (f) return f;
    f = take(a, &key);
    // A few rows are read where they are; for more a copy with the stride below pays.
    if (kind == QN_ACT_F32 && !w->perm && f->n < 4) {
        f->data = (void *)(uintptr_t)a->x; // read only; forms are const outside this file
        f->ld = a->ld;
        return f;
    }
    making mk = {qn_table_get(), a, f, (a->k + group - 1) / group};
    f->ld = spread(mk.n_groups * f->padded, kind == QN_ACT_S8 ? 1 : sizeof(float));
    reserve(f, mk.n_groups);
    if (f->n < 4 || f->n * a->k < 16384)
        for (size_t r = 0; r < f->n; r++) make_row(&mk, r, 0);
    else
        qn_pool_run(qn_compute_pool(a->compute), f->n, make_row, &mk);
    return f;
}
