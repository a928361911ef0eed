// The bodies of code_loops.h, in plain C for the compiler to widen as far as the including file's
// flags go; by hand only what it does not find: turning words that lie a matrix row apart into rows,
// and f16. Such words are limited by memory, not by instructions: wider ones gain nothing.
#ifndef QN_STORE_CODE_LOOPS_BODY_H
#define QN_STORE_CODE_LOOPS_BODY_H

#include "base/f16.h"
#include "store/code_loops.h"
#ifdef __F16C__
#include <immintrin.h>
#endif

enum { CHUNK = 64, LINES = 16 }; // codes of 2 * bits words; words taken at once

// ---- words to codes ----

// What lies `by` bits above `low` in x moves up to where `low` is, `to` bits higher.
static inline uint64_t apart(uint64_t x, uint64_t low, int by, int to) {
    return (x & low) | (x >> by & low) << to;
}

// Eight fields take as many bytes as one has bits. Halves are moved apart, then quarters, then
// the fields.
static inline void spread(const uint8_t *words, const int bits, uint8_t *out) {
    const uint64_t four = ((uint64_t)1 << 4 * bits) - 1, two = (1u << 2 * bits) - 1;
    const uint64_t one = (1u << bits) - 1;
    for (int i = 0; i < CHUNK / 8; i++) {
        uint64_t x = 0;
        for (int k = 0; k < bits; k++) x |= (uint64_t)words[i * bits + k] << 8 * k;
        x = apart(x, four, 4 * bits, 32);
        x = apart(x, two * 0x0000000100000001u, 2 * bits, 16);
        x = apart(x, one * 0x0001000100010001u, bits, 8);
        memcpy(out + 8 * i, &x, 8);
    }
}

static void spread4(const uint8_t *words, uint8_t *out) { // both halves of a byte, in order
    for (int i = 0; i < CHUNK / 2; i++) {
        uint16_t x = words[i];
        x = (uint16_t)((x | x << 4) & 0x0F0F);
        memcpy(out + 2 * i, &x, 2);
    }
}

static void unpack_chunk(const uint8_t *words, int bits, uint8_t *out) {
    switch (bits) {
    case 1: spread(words, 1, out); break;
    case 2: spread(words, 2, out); break;
    case 3: spread(words, 3, out); break;
    case 4: spread4(words, out); break;
    case 5: spread(words, 5, out); break;
    case 6: spread(words, 6, out); break;
    case 7: spread(words, 7, out); break;
    default: memcpy(out, words, CHUNK);
    }
}

static void unpack_codes(const uint8_t *words, int bits, size_t n, uint8_t *out) {
    uint8_t last[CHUNK];
    for (; n >= CHUNK; n -= CHUNK, words += 8 * bits, out += CHUNK) unpack_chunk(words, bits, out);
    if (n == 0) return;
    unpack_chunk(words, bits, last);
    memcpy(out, last, n);
}

// ---- words that lie apart ----

// Up to 16 words of up to four rows; those of one row are `stride` bytes apart, rows side by side.
enum { ROWS = 4 };
typedef uint32_t tile[ROWS][LINES];
typedef uint32_t words4 __attribute__((vector_size(16)));

static inline words4 four_at(const uint8_t *p) {
    words4 x;
    memcpy(&x, p, 16);
    return x;
}

static inline void turn_four(const uint8_t *from, size_t stride, tile w, size_t k) {
    words4 a = four_at(from), b = four_at(from + stride), c = four_at(from + 2 * stride),
           d = four_at(from + 3 * stride);
    words4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    words4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    words4 r0 = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    words4 r1 = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    words4 r2 = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    words4 r3 = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    memcpy(w[0] + k, &r0, 16), memcpy(w[1] + k, &r1, 16);
    memcpy(w[2] + k, &r2, 16), memcpy(w[3] + k, &r3, 16);
}

static inline void turn(const uint8_t *from, size_t stride, size_t words, size_t rows, tile w) {
    size_t k = 0;
    for (; rows == ROWS && k + 4 <= words; k += 4) turn_four(from + k * stride, stride, w, k);
    for (; k < words; k++)
        for (size_t r = 0; r < rows; r++) w[r][k] = qn_word_at(from + k * stride + 4 * r);
    for (; k < LINES; k++)
        for (size_t r = 0; r < rows; r++) w[r][k] = 0;
}

// The words after these lie matrix rows apart, where no processor looks ahead by itself.
static void fetch_next(const uint8_t *next, size_t stride, size_t words, size_t n) {
    for (size_t k = 0; k < words; k++)
        for (size_t at = 0; at < 4 * n + 60; at += 64) __builtin_prefetch(next + k * stride + at);
}

// Rows side by side: their words lie in lines, one line a word.
static void unpack_lines(const qn_bitrows *b, size_t row0, size_t n, uint8_t *out) {
    size_t step = 2 * (size_t)b->bits, chunks = LINES / step; // all widths fit 16 words
    size_t most = chunks * step;
    tile w;
    for (size_t c0 = 0, w0 = 0; c0 < b->cols; c0 += chunks * CHUNK, w0 += most) {
        size_t codes = b->cols - c0 < chunks * CHUNK ? b->cols - c0 : chunks * CHUNK;
        size_t left = w0 < b->words ? b->words - w0 : 0, words = left < most ? left : most;
        const uint8_t *first = b->base + row0 * 4 + w0 * b->word_stride;
        left -= words;
        fetch_next(first + words * b->word_stride, b->word_stride, left < most ? left : most, n);
        for (size_t r = 0; r < n; r += ROWS) {
            size_t rows = n - r < ROWS ? n - r : ROWS;
            turn(first + 4 * r, b->word_stride, words, rows, w);
            for (size_t i = 0; i < rows; i++)
                unpack_codes((const uint8_t *)w[i], b->bits, codes, out + (r + i) * b->cols + c0);
        }
    }
}

static void loop_unpack(const qn_bitrows *b, size_t row0, size_t n, uint8_t *out) {
    if (b->row_stride == 4 && b->word_stride != 4) {
        unpack_lines(b, row0, n, out);
        return;
    }
    size_t step = 2 * (size_t)b->bits, whole = b->words / step;
    if (b->word_stride != 4) whole = 0;
    if (whole > b->cols / CHUNK) whole = b->cols / CHUNK;
    for (size_t r = 0; r < n; r++, out += b->cols) {
        const uint8_t *from = b->base + (row0 + r) * b->row_stride;
        unpack_codes(from, b->bits, whole * CHUNK, out);
        for (size_t c = whole * CHUNK, w0 = whole * step; c < b->cols; c += CHUNK, w0 += step) {
            uint32_t w[LINES] = {0};
            for (size_t k = 0; k < step && w0 + k < b->words; k++)
                w[k] = qn_word_at(from + (w0 + k) * b->word_stride);
            unpack_codes((const uint8_t *)w, b->bits, b->cols - c < CHUNK ? b->cols - c : CHUNK,
                         out + c);
        }
    }
}

// ---- codes ----

static void loop_range(const uint8_t *codes, size_t n, uint8_t *lo, uint8_t *hi) {
    uint8_t least = *lo, most = *hi;
    for (size_t i = 0; i < n; i++) {
        least = codes[i] < least ? codes[i] : least;
        most = codes[i] > most ? codes[i] : most;
    }
    *lo = least, *hi = most;
}

static void loop_scale(const uint8_t *codes, size_t n, float scale, int zero, float *out) {
    for (size_t i = 0; i < n; i++) out[i] = scale * (float)(codes[i] - zero);
}

// ---- half floats ----

enum { AHEAD = 8192 }; // bytes: the next rows arrive while these are widened

static void loop_widen_bf16(const uint8_t *x, size_t n, float *out) {
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __builtin_prefetch(x + 2 * i + AHEAD);
        for (size_t k = i; k < i + 32; k++) {
            uint16_t h;
            memcpy(&h, x + 2 * k, 2);
            out[k] = qn_bf16_to_f32(h);
        }
    }
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, x + 2 * i, 2);
        out[i] = qn_bf16_to_f32(h);
    }
}

// base's qn_f16_to_f32 without branches, so that the loop becomes vector code. A subnormal gets its
// leading bit by an exact subtraction; no float subnormal occurs on the way.
static inline float widen_one(const uint8_t *x) {
    uint16_t h;
    memcpy(&h, x, 2);
    uint32_t bits = (uint32_t)(h & 0x7FFFu) << 13, top = bits & (31u << 23);
    uint32_t infinite = 0u - (top == 31u << 23), shift = 112u << 23;
    uint32_t normal = bits + shift + (infinite & shift);
    float small = qn_f32_from_bits(bits + (113u << 23)) - qn_f32_from_bits(113u << 23);
    uint32_t choose = 0u - (top != 0);
    uint32_t out = (normal & choose) | (qn_f32_bits(small) & ~choose);
    return qn_f32_from_bits(out | (uint32_t)(h & 0x8000u) << 16);
}

static void loop_widen_f16(const uint8_t *x, size_t n, float *out) {
    size_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8) {
        if (i % 32 == 0) __builtin_prefetch(x + 2 * i + AHEAD);
        __m256 v = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + 2 * i)));
        // The instruction makes signalling NaNs quiet; bits are kept here.
        if (_mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)))
            for (size_t k = i; k < i + 8; k++) out[k] = widen_one(x + 2 * k);
        else
            _mm256_storeu_ps(out + i, v);
    }
#endif
    for (; i < n; i++) out[i] = widen_one(x + 2 * i);
}

#define LOOPS {loop_unpack, loop_range, loop_scale, loop_widen_bf16, loop_widen_f16}

#endif
