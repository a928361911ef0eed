// Codes packed into 32-bit words, LSB first, as a dense bit stream: a field may straddle two words.
// One reader serves 1 … 8 bits, words in a row or a matrix row apart.
#ifndef QN_STORE_BITFIELDS_H
#define QN_STORE_BITFIELDS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t qn_word_at(const uint8_t *p) { // not aligned
    uint32_t w;
    memcpy(&w, p, 4);
    return w;
}

// Field i of the stream whose words are stride bytes apart.
static inline uint8_t qn_field(const uint8_t *words, size_t stride, size_t i, int bits) {
    size_t at = i * (size_t)bits, word = at / 32, shift = at % 32;
    uint64_t w = qn_word_at(words + word * stride);
    if (shift + (size_t)bits > 32) w |= (uint64_t)qn_word_at(words + (word + 1) * stride) << 32;
    return (uint8_t)(w >> shift & ((1u << bits) - 1));
}

// A matrix of codes: row r is the stream of `words` words that starts at base + r * row_stride.
typedef struct qn_bitrows {
    const uint8_t *base;
    size_t row_stride, word_stride, words, cols;
    int bits;
} qn_bitrows;

// Rows row0 … row0 + n - 1, one code a byte, out[n][cols].
void qn_bitrows_unpack(const qn_bitrows *b, size_t row0, size_t n, uint8_t *out);

#endif
