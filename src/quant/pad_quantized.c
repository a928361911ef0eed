// Padding matrices that are quantized already. A padded unit must dequantize to 0 exactly: its codes
// are the zero point, its scale is 1, so nothing is quantized anew and no real code moves.
//   GPTQ  qweight [in b/32, out] streams down the columns; qzeros [groups, out b/32] along the rows
//   AWQ   gemm qweight [in, out/8], qzeros [groups, out/8], nibbles interleaved within a word
//         gemv qweight [out, in/8], qzeros [out, words], scales [out, 8 words], in natural order
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/f16.h"
#include "base/mem.h"
#include "quant/pad_plan.h"

// What one tensor of the matrix needs; used by the row callbacks.
typedef struct job {
    const qn_tensor *t, *zeros; // zeros: of the same matrix
    const qn_weight *w;
    size_t from, to; // units
    size_t group;    // inputs per group; all of them where there is one group
    uint32_t middle; // code that means 0 in padded groups
    size_t width;    // of the new tensor's rows (gemv)
} job;

// Word `index` of an endless stream of one b-bit code.
static uint32_t constant_word(uint32_t code, unsigned bits, size_t index) {
    uint32_t word = 0;
    for (unsigned i = 0; i < 32; i++) {
        size_t at = index * 32 + i;
        word |= (code >> at % bits & 1u) << i;
    }
    return word;
}

static uint32_t word_at(const qn_tensor *t, size_t index) {
    uint32_t v;
    memcpy(&v, t->data + 4 * index, 4);
    return v;
}

static void put(uint8_t **out, uint32_t v) {
    memcpy(*out, &v, 4);
    *out += 4;
}

// Rows of int32 words continued to the right. In qweight of GPTQ a column is a stream, so the new
// words of row r are word r of the constant stream; elsewhere the row itself is the stream.
static bool words_right(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err) {
    (void)err;
    const job *j = user;
    unsigned bits = (unsigned)j->w->bits;
    bool down = j->t != j->zeros && strncmp(j->w->layout, "gptq", 4) == 0;
    size_t cols = j->t->shape[1], more = j->to * cols / j->from;
    uint32_t code = j->t == j->zeros ? j->middle - (uint32_t)j->w->zero_offset : j->middle;
    for (size_t r = row0; r < row0 + n; r++) {
        memcpy(out, j->t->data + 4 * r * cols, 4 * cols);
        out += 4 * cols;
        for (size_t c = cols; c < more; c++) put(&out, constant_word(code, bits, down ? r : c));
    }
    return true;
}

static uint32_t one_as(qn_dtype d) {
    return d == QN_DT_F16 ? 0x3C00u : d == QN_DT_BF16 ? 0x3F80u : 0x3F800000u;
}

static bool scales_right(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err) {
    (void)err;
    const job *j = user;
    size_t width = qn_dtype_bytes(j->t->dtype);
    uint32_t one = one_as(j->t->dtype);
    for (size_t r = row0; r < row0 + n; r++) {
        memcpy(out, j->t->data + r * j->from * width, j->from * width);
        out += j->from * width;
        for (size_t c = j->from; c < j->to; c++, out += width) memcpy(out, &one, width);
    }
    return true;
}

// The zero point, as a code, of group g and output o.
static uint32_t zero_code(const job *j, size_t g, size_t o) {
    unsigned bits = (unsigned)j->w->bits;
    uint32_t mask = (1u << bits) - 1, v = 0;
    if (g >= j->w->n_groups) return j->middle;
    for (unsigned i = 0; i < bits; i++) {
        size_t at = o * bits + i;
        v |= (word_at(j->zeros, g * j->zeros->shape[1] + at / 32) >> at % 32 & 1u) << i;
    }
    return (v + (uint32_t)j->w->zero_offset) & mask;
}

// GPTQ down_proj: words of inputs past the end. The rest of a short last group takes that group's
// own zero points.
static bool gptq_rows_below(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err) {
    (void)err;
    const job *j = user;
    unsigned bits = (unsigned)j->w->bits;
    size_t cols = j->t->shape[1];
    for (size_t r = row0; r < row0 + n; r++) {
        if (r < j->t->shape[0]) {
            memcpy(out, j->t->data + 4 * r * cols, 4 * cols);
            out += 4 * cols;
            continue;
        }
        for (size_t o = 0; o < cols; o++) {
            uint32_t word = 0;
            for (unsigned i = 0; i < 32; i++) {
                size_t at = r * 32 + i;
                uint32_t code = zero_code(j, at / bits / j->group, o);
                word |= (code >> at % bits & 1u) << i;
            }
            put(&out, word);
        }
    }
    return true;
}

// AWQ down_proj: nibbles keep their places, so the zero words of the group are the code words.
static bool awq_rows_below(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err) {
    (void)err;
    const job *j = user;
    size_t cols = j->t->shape[1];
    for (size_t r = row0; r < row0 + n; r++)
        for (size_t c = 0; c < cols; c++) {
            size_t g = r / j->group;
            if (r < j->t->shape[0])
                put(&out, word_at(j->t, r * cols + c));
            else
                put(&out, g < j->w->n_groups ? word_at(j->zeros, g * cols + c)
                                             : constant_word(j->middle, 4, c));
        }
    return true;
}

// Zeros and scales of groups that did not exist.
static bool zeros_below(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err) {
    (void)err;
    const job *j = user;
    size_t cols = j->t->shape[1];
    uint32_t code = j->middle - (uint32_t)j->w->zero_offset;
    for (size_t r = row0; r < row0 + n; r++)
        for (size_t c = 0; c < cols; c++)
            put(&out, r < j->t->shape[0] ? word_at(j->t, r * cols + c)
                                         : constant_word(code, (unsigned)j->w->bits, c));
    return true;
}

static bool scales_below(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err) {
    (void)err;
    const job *j = user;
    size_t cols = j->t->shape[1], width = qn_dtype_bytes(j->t->dtype);
    uint32_t one = one_as(j->t->dtype);
    for (size_t r = row0; r < row0 + n; r++)
        for (size_t c = 0; c < cols; c++, out += width) {
            if (r < j->t->shape[0])
                memcpy(out, j->t->data + (r * cols + c) * width, width);
            else
                memcpy(out, &one, width);
        }
    return true;
}

// Groups of consecutive inputs; written anew, because some files hold zeros as a placeholder.
static bool index_further(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err) {
    (void)err;
    (void)row0; // a vector is one row
    (void)n;
    const job *j = user;
    for (size_t i = 0; i < j->to; i++) put(&out, (uint32_t)(i / j->group));
    return true;
}

// AWQ gemv. What a new nibble holds: the middle, or as the code of an input that joins an old group
// (one group over all inputs) that group's own zero point.
static uint32_t gemv_new(const job *j, size_t row, size_t k) {
    size_t g = k / j->group;
    if (j->t == j->zeros || row >= j->zeros->shape[0] || g >= j->w->n_groups) return j->middle;
    return word_at(j->zeros, row * j->zeros->shape[1] + g / 8) >> 4 * (g % 8) & 15u;
}

// Codes or zeros; words that were half empty are filled too.
static bool gemv_words(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err) {
    (void)err;
    const job *j = user;
    const size_t *old = j->t->shape;
    size_t real = j->t == j->zeros ? j->w->n_groups : j->w->cols;
    for (size_t r = row0; r < row0 + n; r++)
        for (size_t c = 0; c < j->width; c++) {
            uint32_t v = r < old[0] && c < old[1] ? word_at(j->t, r * old[1] + c) : 0;
            for (unsigned k = 0; k < 8; k++)
                if (r >= old[0] || 8 * c + k >= real)
                    v = (v & ~(15u << 4 * k)) | gemv_new(j, r, 8 * c + k) << 4 * k;
            put(&out, v);
        }
    return true;
}

static bool gemv_scales(void *user, size_t row0, size_t n, uint8_t *out, qn_err *err) {
    (void)err;
    const job *j = user;
    size_t width = qn_dtype_bytes(j->t->dtype), old = j->t->shape[1];
    uint32_t one = one_as(j->t->dtype);
    for (size_t r = row0; r < row0 + n; r++)
        for (size_t c = 0; c < j->width; c++, out += width) {
            bool real = r < j->t->shape[0] && c < j->w->n_groups;
            memcpy(out, real ? j->t->data + (r * old + c) * width : (const uint8_t *)&one, width);
        }
    return true;
}

// ---- putting it together ----

typedef bool (*raw_fn)(void *, size_t, size_t, uint8_t *, qn_err *);

static void add(qn_rewrite *r, const job *model, const qn_tensor *t, raw_fn fn, size_t d0,
                size_t d1) {
    job *j = QN_NEW(job);
    *j = *model;
    j->t = t;
    qn_out_tensor *o = qn_rewrite_copy(r, t);
    o->bytes = NULL;
    o->raw = fn;
    o->user = j;
    o->source = j->w;
    o->shape[0] = d0;
    if (t->n_dims > 1) o->shape[1] = d1;
}

static const qn_tensor *part(const qn_ckpt *c, const qn_weight *w, const char *suffix) {
    char *name = qn_strf("%.*s%s", (int)(strlen(w->name) - strlen("weight")), w->name, suffix);
    const qn_tensor *t = qn_ckpt_find(c, name);
    free(name);
    return t;
}

static bool refuse_layout(const qn_weight *w, qn_err *err) {
    return qn_fail(err, QN_UNSUPPORTED, "tensor %s: stored as %s; only float, GPTQ and AWQ "
                   "checkpoints can be padded (`quern convert` makes a float one)", w->name,
                   w->layout);
}

static bool copy_parts(qn_rewrite *r, const qn_ckpt *c, const qn_weight *w) {
    static const char *const suffixes[] = {"qweight", "qzeros", "scales", "g_idx", "weight",
                                           "weight_packed", "weight_scale", "weight_scale_inv",
                                           "weight_zero_point", "weight_shape", "weight_g_idx"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        const qn_tensor *t = part(c, w, suffixes[i]);
        if (t) qn_rewrite_copy(r, t);
    }
    return true;
}

// Codes are packed into words along the padded axis (3 bits: 32 codes in 3 words).
static bool whole_words(const qn_pad_matrix *m, qn_err *err) {
    size_t per = m->w->bits == 3 ? 32 : 32 / (unsigned)m->w->bits;
    size_t odd = m->size->from % per ? m->size->from : m->size->to;
    return odd % per == 0 ||
           qn_fail(err, QN_UNSUPPORTED, "tensor %s: %zu units do not fill whole words of %d-bit "
                   "codes, expected a multiple of %zu", m->w->name, odd, m->w->bits, per);
}

// AutoAWQ has words of zeros for a multiple of 8, 16 or 32 groups.
static bool add_gemv(qn_rewrite *r, const job *model, const qn_pad_matrix *m,
                     const qn_tensor *parts[3]) {
    bool down = m->axis == QN_PAD_COLS;
    size_t rows = down ? m->w->rows : m->size->to, group = down ? model->group : m->w->group;
    size_t cols = down ? m->size->to : m->w->cols, multiple = group >= 128 ? 1 : group >= 64 ? 2 : 4;
    size_t words = ((cols + group - 1) / group + 7) / 8;
    words = (words + multiple - 1) / multiple * multiple;
    const size_t widths[3] = {cols / 8, words, 8 * words};
    for (int i = 0; i < 3; i++) {
        job j = *model;
        j.group = group;
        j.width = widths[i];
        add(r, &j, parts[i], i < 2 ? gemv_words : gemv_scales, rows, widths[i]);
    }
    return true;
}

bool qn_pad_quantized(qn_rewrite *r, const qn_ckpt *c, const qn_pad_matrix *m, qn_err *err) {
    const qn_weight *w = m->w;
    if (m->axis == QN_PAD_NONE) return copy_parts(r, c, w);
    bool gptq = strncmp(w->layout, "gptq", 4) == 0, awq = strcmp(w->layout, "awq-gemm") == 0;
    const qn_tensor *q = part(c, w, "qweight"), *z = part(c, w, "qzeros");
    const qn_tensor *s = part(c, w, "scales"), *g = part(c, w, "g_idx");
    bool gemv = strcmp(w->layout, "awq-gemv") == 0;
    if ((!gptq && !awq && !gemv) || !q || !z || !s) return refuse_layout(w, err);
    if (m->axis == QN_PAD_COLS && w->act_order)
        return qn_fail(err, QN_UNSUPPORTED, "tensor %s: act-order groups span all devices, so "
                       "padding cannot make it divisible", w->name);
    if (!whole_words(m, err)) return false;
    size_t from = m->size->from, to = m->size->to, group = m->group ? m->group : to;
    job j = {.zeros = z, .w = w, .from = from, .to = to, .group = group,
             .middle = 1u << (w->bits - 1)};
    if (gemv) return add_gemv(r, &j, m, (const qn_tensor *[]){q, z, s});
    if (m->axis == QN_PAD_ROWS) { // outputs
        add(r, &j, q, words_right, q->shape[0], q->shape[1] * to / from);
        add(r, &j, z, words_right, z->shape[0], z->shape[1] * to / from);
        add(r, &j, s, scales_right, s->shape[0], to);
        if (g) qn_rewrite_copy(r, g);
        return true;
    }
    size_t groups = (to + group - 1) / group;
    add(r, &j, q, gptq ? gptq_rows_below : awq_rows_below, q->shape[0] * to / from, q->shape[1]);
    add(r, &j, z, zeros_below, groups, z->shape[1]);
    add(r, &j, s, scales_below, groups, s->shape[1]);
    if (g) add(r, &j, g, index_further, to, 1);
    return true;
}
