// The second decoder: every layout as its description says it, one element at a time, in plain
// arithmetic. Nothing here is shared with store's schemes, not even the float conversions; speed
// does not matter. Sources: AutoGPTQ and GPTQModel (gptq, gptq_v2), AutoAWQ (gemm, gemv),
// compressed-tensors (pack-quantized, int- and float-quantized), DeepSeek's block fp8.
#include "quant/second_decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

typedef float (*value_fn)(const qn_second *s, size_t row, size_t col);

struct qn_second {
    value_fn value;
    const qn_tensor *w, *scales, *zeros, *g_idx;
    size_t rows, cols, n_groups, group;
    size_t block_rows, block_cols; // of scales that cover rectangles
    unsigned bits;
    int zero_offset; // added to a stored GPTQ zero
    int fixed_zero;  // used instead of stored zeros; -1: none
};

// ---- numbers from bytes ----

static uint64_t bytes_at(const qn_tensor *t, size_t index, size_t width) {
    const uint8_t *p = t->data + index * width;
    uint64_t v = 0;
    for (size_t i = 0; i < width; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

// sign, exponent and fraction of a small float format, spelled out: (-1)^s 1.f 2^(e - bias).
static double small_float(uint32_t v, int e_bits, int f_bits) {
    uint32_t f = v & ((1u << f_bits) - 1), e = v >> f_bits & ((1u << e_bits) - 1);
    double sign = v >> (e_bits + f_bits) & 1 ? -1 : 1;
    int bias = (1 << (e_bits - 1)) - 1;
    double fraction = (double)f / (double)(1u << f_bits);
    if (e == 0) return sign * ldexp(fraction, 1 - bias);
    return sign * ldexp(1 + fraction, (int)e - bias);
}

static float f16_value(uint32_t v) {
    if ((v & 0x7C00) == 0x7C00) return (v & 0x3FF) ? NAN : v >> 15 ? -INFINITY : INFINITY;
    return (float)small_float(v, 5, 10);
}

static float e4m3_value(uint32_t v) { return (v & 0x7F) == 0x7F ? NAN : (float)small_float(v, 4, 3); }

static float e5m2_value(uint32_t v) {
    if ((v & 0x7C) == 0x7C) return (v & 3) ? NAN : v >> 7 ? -INFINITY : INFINITY;
    return (float)small_float(v, 5, 2);
}

static float bits_as_float(uint32_t v) {
    float f;
    memcpy(&f, &v, sizeof f);
    return f;
}

// Element `index` of a tensor as stored.
static float number(const qn_tensor *t, size_t index) {
    switch (t->dtype) {
    case QN_DT_F32: return bits_as_float((uint32_t)bytes_at(t, index, 4));
    case QN_DT_BF16: return bits_as_float((uint32_t)bytes_at(t, index, 2) << 16);
    case QN_DT_F16: return f16_value((uint32_t)bytes_at(t, index, 2));
    case QN_DT_F8_E4M3: return e4m3_value((uint32_t)bytes_at(t, index, 1));
    case QN_DT_F8_E5M2: return e5m2_value((uint32_t)bytes_at(t, index, 1));
    case QN_DT_I8: return (float)(int8_t)bytes_at(t, index, 1);
    case QN_DT_U8:
    case QN_DT_BOOL: return (float)bytes_at(t, index, 1);
    case QN_DT_I16: return (float)(int16_t)bytes_at(t, index, 2);
    case QN_DT_I32: return (float)(int32_t)bytes_at(t, index, 4);
    case QN_DT_I64: return (float)(int64_t)bytes_at(t, index, 8);
    case QN_DT_F64: {
        uint64_t v = bytes_at(t, index, 8);
        double d;
        memcpy(&d, &v, sizeof d);
        return (float)d;
    }
    default: return NAN;
    }
}

// Field k of a dense bit stream, lowest bit first, bit by bit. The stream's 32-bit words begin at word
// `first` and go on every `stride` words.
static int field(const qn_tensor *t, size_t first, size_t stride, size_t k, unsigned bits) {
    size_t at = k * bits;
    uint64_t word = bytes_at(t, first + at / 32 * stride, 4);
    int v = 0;
    for (unsigned i = 0; i < bits; i++, at++) {
        if (i && at % 32 == 0) word = bytes_at(t, first + at / 32 * stride, 4);
        v |= (int)(word >> at % 32 & 1) << i;
    }
    return v;
}

// scale * integer, rounded once to float: both are floats, the double product of a 24-bit and a
// 9-bit number is exact.
static float scaled(float scale, int code, int zero) {
    return (float)((double)scale * (double)(code - zero));
}

// ---- layouts ----

static float plain_value(const qn_second *s, size_t row, size_t col) {
    return number(s->w, row * s->cols + col);
}

// GPTQ: qweight [in * bits / 32, out], a bit stream down each column; qzeros [groups, out * bits /
// 32], a bit stream along each row; W[i, o] = scales[g, o] * (q - zero), stored transposed to us.
static float gptq_value(const qn_second *s, size_t row, size_t col) {
    size_t out = s->rows;
    size_t g = s->g_idx ? (size_t)number(s->g_idx, col) : col / s->group;
    int code = field(s->w, row, out, col, s->bits), zero = s->fixed_zero;
    if (zero < 0) {
        int stored = field(s->zeros, g * s->zeros->shape[1], 1, row, s->bits);
        zero = (stored + s->zero_offset) & ((1 << s->bits) - 1);
    }
    return scaled(number(s->scales, g * out + row), code, zero);
}

// AWQ gemm: eight outputs a word, nibble i holds output order[i] of the eight.
static float awq_gemm_value(const qn_second *s, size_t row, size_t col) {
    static const unsigned order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    unsigned nibble = 0;
    while (order[nibble] != row % 8) nibble++;
    size_t words = s->rows / 8, g = col / s->group;
    int code = (int)(bytes_at(s->w, col * words + row / 8, 4) >> 4 * nibble & 15);
    int zero = (int)(bytes_at(s->zeros, g * words + row / 8, 4) >> 4 * nibble & 15);
    return scaled(number(s->scales, g * s->rows + row), code, zero);
}

// AWQ gemv: qweight [out, in / 8] in natural order, zeros and scales per output padded to words.
static float awq_gemv_value(const qn_second *s, size_t row, size_t col) {
    size_t g = col / s->group;
    int code = field(s->w, row * s->w->shape[1], 1, col, 4);
    int zero = field(s->zeros, row * s->zeros->shape[1], 1, g, 4);
    return scaled(number(s->scales, row * s->scales->shape[1] + g), code, zero);
}

// compressed-tensors pack-quantized: codes offset by half the range, a bit stream along each row;
// zero points likewise, but packed down the outputs.
static float packed_value(const qn_second *s, size_t row, size_t col) {
    size_t g = s->g_idx ? (size_t)number(s->g_idx, col) : col / s->group;
    int half = 1 << (s->bits - 1), zero = 0;
    int code = field(s->w, row * s->w->shape[1], 1, col, s->bits) - half;
    if (s->zeros) zero = field(s->zeros, g, s->zeros->shape[1], row, s->bits) - half;
    return scaled(number(s->scales, row * s->n_groups + g), code, zero);
}

// One byte an element, scales over rectangles (blocks, rows, groups of a row or the whole matrix).
static float byte_value(const qn_second *s, size_t row, size_t col) {
    size_t across = (s->cols + s->block_cols - 1) / s->block_cols;
    size_t at = row / s->block_rows * across + col / s->block_cols;
    float w = number(s->w, row * s->cols + col), scale = number(s->scales, at);
    float zero = s->zeros ? number(s->zeros, at) : 0;
    return (float)((double)scale * ((double)w - (double)zero));
}

// ---- recognising ----

// What a config may say about sizes: one description for all, or one per group of modules, which
// the tensors then choose between.
enum { MOST_SAID = 16 };

typedef struct said {
    const json_t *list[MOST_SAID];
    size_t n;
} said;

static void hear(said *s, const json_t *o) {
    if (json_is_object(o) && s->n < MOST_SAID) s->list[s->n++] = o;
}

// The config itself; compressed-tensors' config_groups.*.weights; overrides of GPTQModel (dynamic)
// and AutoRound (extra_config).
static said listen(const qn_ckpt *c) {
    static const char *const nests[] = {"config_groups", "dynamic", "extra_config"};
    const json_t *q = qn_ckpt_quant_config(c);
    said s = {.n = 0};
    const char *key;
    json_t *v;
    hear(&s, q);
    for (size_t i = 0; i < sizeof nests / sizeof *nests; i++)
        json_object_foreach(json_object_get(q, nests[i]), key, v)
            hear(&s, i ? v : json_object_get(v, "weights"));
    return s;
}

// The first of some keys that an object has.
static const json_t *key_of(const json_t *o, const char *const *keys) {
    for (; *keys; keys++) {
        const json_t *v = json_object_get(o, *keys);
        if (v && !json_is_null(v)) return v;
    }
    return NULL;
}

static const json_t *config_key(const qn_ckpt *c, const char *const *keys) {
    return key_of(qn_ckpt_quant_config(c), keys);
}

// The i-th number said under one of the keys, 0 when there is none.
static int64_t said_number(const said *s, size_t i, const char *const *keys) {
    const json_t *v = key_of(s->list[i], keys);
    return json_is_integer(v) ? (int64_t)json_integer_value(v) : 0;
}

static const char *const group_keys[] = {"group_size", "q_group_size", NULL};
static const char *const bit_keys[] = {"bits", "w_bit", "wbits", "num_bits", NULL};
static const char *const block_keys[] = {"weight_block_size", "block_structure", NULL};

static bool covers(size_t cols, size_t group, size_t n_groups) {
    return group > 0 && (cols + group - 1) / group == n_groups;
}

// Inputs per group: what the config says if that gives the groups there are, else an even split,
// else the power of two that does (a short last group).
static size_t group_of(const qn_ckpt *c, size_t cols, size_t n_groups) {
    said s = listen(c);
    if (n_groups <= 1) return cols ? cols : 1;
    for (size_t i = 0; i < s.n; i++) {
        int64_t g = said_number(&s, i, group_keys);
        if (g > 0 && covers(cols, (size_t)g, n_groups)) return (size_t)g;
    }
    if (cols % n_groups == 0) return cols / n_groups;
    for (size_t g = 8; g < cols; g *= 2)
        if (covers(cols, g, n_groups)) return g;
    return 0;
}

static const qn_tensor *part(const qn_ckpt *c, const char *prefix, const char *suffix) {
    char *name = qn_strf("%s.%s", prefix, suffix);
    const qn_tensor *t = qn_ckpt_find(c, name);
    free(name);
    return t && t->data ? t : NULL;
}

static bool flat_index(const qn_tensor *t) { // all 0 or all -1: a placeholder, or absent
    for (size_t i = 0; t && i < t->n; i++)
        if (number(t, i) != number(t, 0) || number(t, i) > 0) return false;
    return true;
}

static bool index_fits(const qn_second *s) {
    for (size_t i = 0; s->g_idx && i < s->g_idx->n; i++)
        if (!(number(s->g_idx, i) >= 0 && number(s->g_idx, i) < (float)s->n_groups)) return false;
    return true;
}

// The one value of all stored zeros, or -1.
static int constant_zero(const qn_second *s) {
    int first = field(s->zeros, 0, 1, 0, s->bits);
    for (size_t g = 0; g < s->n_groups; g++)
        for (size_t o = 0; o < s->rows; o++)
            if (field(s->zeros, g * s->zeros->shape[1], 1, o, s->bits) != first) return -1;
    return first;
}

// Symmetric files store one zero throughout: 2^(b-1) - 1 means "plus one on reading" (v1), 2^(b-1)
// is the zero itself (v2). Where the zeros vary the codes are asked (qn_second_zero_offset), and
// the label when they cannot tell.
static void gptq_zeros(const qn_ckpt *c, int zero_offset, qn_second *s) {
    static const char *const formats[] = {"checkpoint_format", "format", NULL};
    static const char *const syms[] = {"sym", "symmetric", NULL};
    const json_t *label = config_key(c, formats), *sym = config_key(c, syms);
    bool v2 = json_is_string(label) && strcmp(json_string_value(label), "gptq_v2") == 0;
    int middle = 1 << (s->bits - 1), zero = constant_zero(s);
    s->zero_offset = zero_offset >= 0 ? zero_offset : v2 ? 0 : 1;
    s->fixed_zero = -1;
    if ((zero == middle - 1 || zero == middle) && !json_is_false(sym)) s->fixed_zero = middle;
}

static bool set_gptq(const qn_ckpt *c, const char *prefix, qn_second *s) {
    size_t out = s->scales->shape[1];
    s->value = gptq_value;
    s->rows = out;
    s->n_groups = s->scales->shape[0];
    s->bits = out ? (unsigned)(32 * s->zeros->shape[1] / out) : 0;
    if (s->bits < 2 || s->bits > 8) return false;
    s->cols = s->w->shape[0] * 32 / s->bits;
    s->group = group_of(c, s->cols, s->n_groups);
    s->g_idx = part(c, prefix, "g_idx");
    if (s->n_groups <= 1 || flat_index(s->g_idx)) s->g_idx = NULL;
    if (s->g_idx && (s->g_idx->n != s->cols || !index_fits(s))) return false;
    return s->zeros->shape[0] == s->n_groups && s->w->shape[1] == out && s->group && s->cols &&
           s->n_groups;
}

static bool set_awq_gemm(const qn_ckpt *c, qn_second *s) {
    s->value = awq_gemm_value;
    s->rows = s->scales->shape[1];
    s->cols = s->w->shape[0];
    s->n_groups = s->scales->shape[0];
    s->group = group_of(c, s->cols, s->n_groups);
    return s->group && s->zeros->shape[0] == s->n_groups && s->zeros->shape[1] * 8 == s->rows;
}

// AutoAWQ pads the words of zeros to a multiple of 1, 2 or 4.
static bool pads_to(size_t cols, size_t group, size_t words) {
    if (!group || cols % group) return false;
    size_t multiple = group >= 128 ? 1 : group >= 64 ? 2 : 4, n = (cols / group + 7) / 8;
    return (n + multiple - 1) / multiple * multiple == words;
}

// The number of groups is padded, so the size comes from the config, or is one of the usual.
static bool set_awq_gemv(const qn_ckpt *c, qn_second *s) {
    const json_t *v = config_key(c, group_keys);
    s->value = awq_gemv_value;
    s->rows = s->w->shape[0];
    s->cols = s->w->shape[1] * 8;
    size_t first = json_is_integer(v) && json_integer_value(v) > 0 ? (size_t)json_integer_value(v)
                                                                   : s->cols;
    const size_t usual[] = {first, 128, 64, 32, s->cols};
    for (size_t i = 0; i < 5 && !s->group; i++)
        if (pads_to(s->cols, usual[i], s->zeros->shape[1])) s->group = usual[i];
    s->n_groups = s->group ? s->cols / s->group : 0;
    return s->group && s->n_groups <= s->scales->shape[1] && s->zeros->shape[0] == s->rows &&
           s->zeros->shape[1] * 8 >= s->n_groups;
}

static bool is_words(const qn_tensor *t) {
    return t->n_dims == 2 && (t->dtype == QN_DT_I32 || t->dtype == QN_DT_U32);
}

// Small matrices can have the shape of a GPTQ one in groups of 8 as well; those must say "gptq".
static bool is_gemv(const qn_ckpt *c, const qn_second *s) {
    static const char *const keys[] = {"quant_method", NULL};
    const json_t *method = config_key(c, keys);
    bool gptq = json_is_string(method) && strcmp(json_string_value(method), "gptq") == 0;
    return s->zeros->shape[0] == s->w->shape[0] && s->scales->shape[0] == s->w->shape[0] &&
           s->scales->shape[1] == 8 * s->zeros->shape[1] && !gptq;
}

static bool set_qweight(const qn_ckpt *c, int zero_offset, const char *prefix, qn_second *s) {
    s->w = part(c, prefix, "qweight");
    s->scales = part(c, prefix, "scales");
    s->zeros = part(c, prefix, "qzeros");
    if (!s->scales || !s->zeros || !is_words(s->w) || !is_words(s->zeros) ||
        s->scales->n_dims != 2)
        return false;
    if (is_gemv(c, s)) return set_awq_gemv(c, s);
    if (s->w->shape[1] == s->scales->shape[1]) {
        if (!set_gptq(c, prefix, s)) return false;
        gptq_zeros(c, zero_offset, s);
        return true;
    }
    if (s->w->shape[1] * 8 == s->scales->shape[1]) return set_awq_gemm(c, s);
    return false;
}

// Bits from the number of words; where a narrow matrix leaves several widths, the config's.
static unsigned packed_bits(const qn_ckpt *c, size_t cols, size_t words) {
    said s = listen(c);
    unsigned bits = 8;
    for (size_t i = 0; i < s.n; i++) {
        int64_t b = said_number(&s, i, bit_keys);
        if (b >= 1 && b <= 8 && (cols * (size_t)b + 31) / 32 == words) return (unsigned)b;
    }
    while (bits > 0 && (cols * bits + 31) / 32 != words) bits--;
    return bits;
}

static bool set_packed(const qn_ckpt *c, const char *prefix, qn_second *s) {
    const qn_tensor *shape = part(c, prefix, "weight_shape");
    s->w = part(c, prefix, "weight_packed");
    s->scales = part(c, prefix, "weight_scale");
    s->zeros = part(c, prefix, "weight_zero_point");
    s->g_idx = part(c, prefix, "weight_g_idx");
    if (!shape || !s->scales || shape->n != 2 || s->w->n_dims != 2 || s->w->dtype != QN_DT_I32)
        return false;
    s->value = packed_value;
    s->rows = (size_t)number(shape, 0);
    s->cols = (size_t)number(shape, 1);
    s->bits = packed_bits(c, s->cols, s->w->shape[1]);
    s->n_groups = s->rows ? s->scales->n / s->rows : 0;
    s->group = group_of(c, s->cols, s->n_groups);
    if (s->g_idx && (s->g_idx->n != s->cols || flat_index(s->g_idx))) s->g_idx = NULL;
    return s->bits && s->group && s->w->shape[0] == s->rows && index_fits(s) &&
           (!s->zeros || (s->zeros->n_dims == 2 && s->zeros->shape[1] == s->n_groups));
}

// Edges of the blocks that scales [down, across] belong to: the config's, else 128.
static bool find_block(const qn_ckpt *c, qn_second *s) {
    said all = listen(c);
    const size_t *n = s->scales->shape;
    for (size_t i = 0; i <= all.n; i++) {
        const json_t *pair = i < all.n ? key_of(all.list[i], block_keys) : NULL;
        json_int_t down = json_integer_value(json_array_get(pair, 0));
        json_int_t across = json_integer_value(json_array_get(pair, 1));
        s->block_rows = down > 0 ? (size_t)down : 128;
        s->block_cols = across > 0 ? (size_t)across : 128;
        if (covers(s->rows, s->block_rows, n[0]) && covers(s->cols, s->block_cols, n[1]))
            return true;
    }
    return false;
}

static bool set_bytes(const qn_ckpt *c, const char *prefix, qn_second *s) {
    size_t n = s->scales->n;
    s->value = byte_value;
    s->zeros = part(c, prefix, "weight_zero_point");
    s->block_rows = s->rows;
    s->block_cols = s->cols;
    if (n == 1) return true;
    if (s->scales->n_dims < 2 || s->scales->shape[1] == 1) {
        s->block_rows = 1;
        if (n == s->rows) return true;
    }
    if (s->scales->n_dims != 2) return false;
    if (s->scales->shape[0] == s->rows && s->cols % s->scales->shape[1] == 0) {
        s->block_rows = 1; // groups of a row
        s->block_cols = s->cols / s->scales->shape[1];
        return true;
    }
    return find_block(c, s);
}

static bool set_plain(const qn_ckpt *c, const char *name, const char *prefix, qn_second *s) {
    const qn_tensor *t = s->w = qn_ckpt_find(c, name);
    if (!t || !t->data || t->n_dims < 1 || t->n == 0) return false;
    s->value = plain_value;
    s->cols = t->shape[t->n_dims - 1];
    s->rows = t->n / s->cols;
    s->scales = part(c, prefix, "weight_scale_inv");
    if (!s->scales) s->scales = part(c, prefix, "weight_scale");
    return s->scales ? set_bytes(c, prefix, s) : true;
}

// ---- v1 or v2 ----

typedef struct sample {
    double n, sum, squares; // of code - stored zero
} sample;

static void add_sample(sample *a, const qn_second *s) {
    size_t down = 1 + s->rows / 61, along = 1 + s->cols / 251;
    for (size_t row = 0; row < s->rows; row += down)
        for (size_t col = 0; col < s->cols; col += along) {
            size_t g = s->g_idx ? (size_t)number(s->g_idx, col) : col / s->group;
            int stored = field(s->zeros, g * s->zeros->shape[1], 1, row, s->bits);
            // The ends of the range: groups of one sign; all ones is also v1's way to write 0.
            int most = (1 << s->bits) - 1;
            if (stored == most || (s->bits > 2 && (stored == 0 || stored == most - 1))) continue;
            double d = field(s->w, row, s->rows, col, s->bits) - stored;
            a->n++;
            a->sum += d;
            a->squares += d * d;
        }
}

static bool is_packed(const qn_tensor *t) { return qn_str_ends(t->name, ".qweight"); }

// The GPTQ matrix that `t` (….qweight) belongs to, if its zeros vary.
static bool varies(const qn_ckpt *c, const qn_tensor *t, qn_second *s) {
    char *prefix = qn_strndup(t->name, strlen(t->name) - strlen(".qweight"));
    *s = (qn_second){.w = part(c, prefix, "qweight"), .scales = part(c, prefix, "scales"),
                     .zeros = part(c, prefix, "qzeros")};
    bool ok = s->w && s->scales && s->zeros && is_words(s->w) && is_words(s->zeros) &&
              s->scales->n_dims == 2 && s->w->shape[1] == s->scales->shape[1] &&
              set_gptq(c, prefix, s) && constant_zero(s) < 0;
    free(prefix);
    return ok;
}

// Weights are centred on zero, so the mean of code - stored is 0 where the zeros themselves are
// stored and 1 where one was taken off.
int qn_second_zero_offset(const qn_ckpt *c) {
    size_t n = qn_ckpt_n_tensors(c), packed = 0, k = 0;
    for (size_t i = 0; i < n; i++) packed += is_packed(qn_ckpt_tensor(c, i));
    sample a = {0};
    for (size_t i = 0; i < n; i++) { // some 64 matrices of a large model
        qn_second s;
        if (!is_packed(qn_ckpt_tensor(c, i)) || k++ % (1 + packed / 64)) continue;
        if (varies(c, qn_ckpt_tensor(c, i), &s)) add_sample(&a, &s);
    }
    if (a.n < 4096) return -1;
    double mean = a.sum / a.n, error = sqrt((a.squares / a.n - mean * mean) / a.n);
    if (error > 0.04) return -1;
    return fabs(mean) < 0.25 ? 0 : fabs(mean - 1) < 0.25 ? 1 : -1;
}

qn_second *qn_second_new(const qn_ckpt *c, int zero_offset, const char *name, qn_err *err) {
    qn_second *s = QN_NEW(qn_second);
    size_t n = strlen(name);
    char *prefix = qn_str_ends(name, ".weight") ? qn_strndup(name, n - 7) : qn_strdup(name);
    bool ok;
    if (part(c, prefix, "qweight"))
        ok = set_qweight(c, zero_offset, prefix, s);
    else if ((s->w = part(c, prefix, "weight_packed")))
        ok = set_packed(c, prefix, s);
    else
        ok = set_plain(c, name, prefix, s);
    free(prefix);
    if (ok) return s;
    bool there = s->w != NULL;
    free(s);
    return qn_fail_null(err, there ? QN_UNSUPPORTED : QN_NOT_FOUND,
                        there ? "weight %s: the second decoder does not know this layout"
                              : "weight %s: no tensors of that name", name);
}

void qn_second_free(qn_second *s) { free(s); }

float qn_second_value(const qn_second *s, size_t row, size_t col) { return s->value(s, row, col); }
