// Owns unpacking of bit streams: 64 codes at a time, which is 2 * bits words for every width.
#include "store/bitfields.h"

#define CHUNK 64

typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint32_t words4 __attribute__((vector_size(16)));

// 32 fields of 4 bits: low and high halves of the bytes take turns.
static void spread4(const uint32_t *words, uint8_t *out) {
    bytes16 x;
    memcpy(&x, words, sizeof x);
    bytes16 lo = x & 15, hi = x >> 4;
    bytes16 first = __builtin_shufflevector(lo, hi, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6,
                                            22, 7, 23);
    bytes16 second = __builtin_shufflevector(lo, hi, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                             14, 30, 15, 31);
    memcpy(out, &first, sizeof first);
    memcpy(out + 16, &second, sizeof second);
}

// Fields of 2 bits are spread over bytes by shifting halves apart.
static uint64_t spread2(uint32_t half) { // 16 bits
    uint64_t x = half;
    x = (x | x << 24) & 0x000000FF000000FFu;
    x = (x | x << 12) & 0x000F000F000F000Fu;
    return (x | x << 6) & 0x0303030303030303u;
}

static void unpack_stream(const uint32_t *words, int bits, uint8_t *out) {
    uint64_t held = 0;
    uint8_t mask = (uint8_t)((1u << bits) - 1);
    for (int i = 0, have = 0; i < CHUNK; i++, have -= bits) {
        if (have < bits) {
            held |= (uint64_t)*words++ << have;
            have += 32;
        }
        out[i] = (uint8_t)held & mask;
        held >>= bits;
    }
}

static void unpack_chunk(const uint32_t *words, int bits, uint8_t *out) {
    uint64_t x;
    switch (bits) {
    case 8: memcpy(out, words, CHUNK); break;
    case 4:
        spread4(words, out);
        spread4(words + 4, out + 32);
        break;
    case 2:
        for (int i = 0; i < 8; i++) {
            x = spread2(words[i / 2] >> (i % 2 * 16) & 0xFFFFu);
            memcpy(out + 8 * i, &x, 8);
        }
        break;
    default: unpack_stream(words, bits, out);
    }
}

// Words of four rows that lie side by side (row_stride 4), four words of each at a time.
static void gather_four(const uint8_t *from, size_t word_stride, size_t words, uint32_t w[4][16]) {
    for (size_t k = 0; k < words; k += 4, from += 4 * word_stride) {
        words4 a, b, c, d;
        memcpy(&a, from, 16), memcpy(&b, from + word_stride, 16);
        memcpy(&c, from + 2 * word_stride, 16), memcpy(&d, from + 3 * word_stride, 16);
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
}

// The words after these lie matrix rows apart, where no processor looks ahead by itself.
static void fetch_next(const uint8_t *next, size_t word_stride, size_t words, size_t n) {
    for (size_t k = 0; k < words; k++)
        for (size_t at = 0; at < 4 * n + 60; at += 64) __builtin_prefetch(next + k * word_stride + at);
}

static void unpack_row(const qn_bitrows *b, const uint32_t *w, size_t codes, uint8_t *to) {
    uint8_t last[CHUNK];
    unpack_chunk(w, b->bits, codes == CHUNK ? to : last);
    if (codes < CHUNK) memcpy(to, last, codes);
}

void qn_bitrows_unpack(const qn_bitrows *b, size_t row0, size_t n, uint8_t *out) {
    size_t step = 2 * (size_t)b->bits;
    for (size_t c0 = 0, w0 = 0; c0 < b->cols; c0 += CHUNK, w0 += step) {
        size_t codes = b->cols - c0 < CHUNK ? b->cols - c0 : CHUNK;
        size_t words = w0 >= b->words ? 0 : b->words - w0 < step ? b->words - w0 : step, r = 0;
        const uint8_t *first = b->base + row0 * b->row_stride + w0 * b->word_stride;
        uint8_t *to = out + c0;
        if (b->row_stride == 4 && w0 + words < b->words)
            fetch_next(first + words * b->word_stride, b->word_stride,
                       b->words - w0 - words < step ? b->words - w0 - words : step, n);
        for (; b->row_stride == 4 && words % 4 == 0 && words > 0 && r + 4 <= n; r += 4) {
            uint32_t w[4][16] = {{0}};
            gather_four(first + 4 * r, b->word_stride, words, w);
            for (size_t k = 0; k < 4; k++) unpack_row(b, w[k], codes, to + (r + k) * b->cols);
        }
        for (; r < n; r++) {
            const uint8_t *from = first + r * b->row_stride;
            uint32_t w[16] = {0};
            for (size_t k = 0; k < words; k++) w[k] = qn_word_at(from + k * b->word_stride);
            unpack_row(b, w, codes, to + r * b->cols);
        }
    }
}
