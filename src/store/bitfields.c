// Owns unpacking of bit streams: 64 codes at a time, which is 2 * bits words for every width.
#include "store/bitfields.h"

#define CHUNK 64

// Fields of 2, 4 and 8 bits are spread over bytes by shifting halves apart.
static uint64_t spread4(uint32_t w) {
    uint64_t x = w;
    x = (x | x << 16) & 0x0000FFFF0000FFFFu;
    x = (x | x << 8) & 0x00FF00FF00FF00FFu;
    return (x | x << 4) & 0x0F0F0F0F0F0F0F0Fu;
}

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
        for (int i = 0; i < 8; i++) {
            x = spread4(words[i]);
            memcpy(out + 8 * i, &x, 8);
        }
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

void qn_bitrows_unpack(const qn_bitrows *b, size_t row0, size_t n, uint8_t *out) {
    size_t step = 2 * (size_t)b->bits;
    for (size_t c0 = 0, w0 = 0; c0 < b->cols; c0 += CHUNK, w0 += step) {
        size_t codes = b->cols - c0 < CHUNK ? b->cols - c0 : CHUNK;
        size_t words = w0 >= b->words ? 0 : b->words - w0 < step ? b->words - w0 : step;
        for (size_t r = 0; r < n; r++) {
            const uint8_t *from = b->base + (row0 + r) * b->row_stride + w0 * b->word_stride;
            uint8_t *to = out + r * b->cols + c0, last[CHUNK];
            uint32_t w[16] = {0};
            for (size_t k = 0; k < words; k++) w[k] = qn_word_at(from + k * b->word_stride);
            unpack_chunk(w, b->bits, codes == CHUNK ? to : last);
            if (codes < CHUNK) memcpy(to, last, codes);
        }
    }
}
