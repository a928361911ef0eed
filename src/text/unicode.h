// Character properties as the tokenizers' authors' library has them (regex classes of Unicode 16.0,
// normalization of Unicode 9.0). The tables are generated: tools/unicode_tables.py.
#ifndef QN_TEXT_UNICODE_H
#define QN_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum {
    QN_UNI_L = 1,         // \p{L}
    QN_UNI_N = 2,         // \p{N}
    QN_UNI_M = 4,         // \p{M}
    QN_UNI_SPACE = 8,     // \s
    QN_UNI_COMBINES = 16, // canonical combining class other than 0
    QN_UNI_UNSTABLE = 32, // NFC may change it, or join it to what stands before it
};

#define QN_UNI_BLOCK 128

typedef struct qn_uni_ccc_run { // characters of one combining class
    uint32_t first, last;
    uint8_t ccc;
} qn_uni_ccc_run;

typedef struct qn_uni_pair { // whole = first + second; second is 0 in a singleton decomposition
    uint32_t whole, first, second;
} qn_uni_pair;

extern const uint8_t qn_uni_index[0x110000 / QN_UNI_BLOCK];
extern const uint8_t qn_uni_flags[];
extern const qn_uni_ccc_run qn_uni_ccc_runs[]; // ascending
extern const size_t qn_uni_n_ccc_runs;
extern const qn_uni_pair qn_uni_decomp[]; // ascending by whole; Hangul is computed instead
extern const size_t qn_uni_n_decomp;
extern const qn_uni_pair qn_uni_comp[]; // ascending by (first, second)
extern const size_t qn_uni_n_comp;

static inline unsigned qn_uni(uint32_t c) {
    return qn_uni_flags[(size_t)qn_uni_index[c / QN_UNI_BLOCK] * QN_UNI_BLOCK + c % QN_UNI_BLOCK];
}

// Decodes one character of text known to be valid UTF-8; *len gets its bytes.
static inline uint32_t qn_uni_decode(const char *s, size_t *len) {
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) return *len = 1, p[0];
    if (p[0] < 0xE0) return *len = 2, (p[0] & 31u) << 6 | (p[1] & 63u);
    if (p[0] < 0xF0) return *len = 3, (p[0] & 15u) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
    *len = 4;
    return (p[0] & 7u) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
}

#endif
