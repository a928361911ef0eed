// The inner loop of the operator norm's search: W^T (W v) for a matrix kept in 7 bits and a vector in
// 8. Rows come in groups of 16; a byte is 64 + code, rows are padded with 64 to a multiple of 64
// columns. Integer sums are exact (and fit 16 bits in pairs, as AVX2 wants), floats are never fused:
// all builds give the same bits.
#ifndef QN_QUANT_SEVEN_BIT_ROWS_H
#define QN_QUANT_SEVEN_BIT_ROWS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { QN_SEVEN_ROWS = 16, QN_SEVEN_COLUMNS = 64, QN_SEVEN_ZERO = 64 };

typedef struct qn_seven_bit_rows {
    const uint8_t *codes; // [16 n_groups][pitch]
    size_t n_groups, pitch;
    const float *scales;  // [16 n_groups]
    const int8_t *v;      // [pitch], −127 … 127, 0 beyond the columns
    float *y;             // [16 n_groups]: W v
    float *z;             // [pitch]: W^T (W v) is added, W v rounded to 8 bits by groups
} qn_seven_bit_rows;

void qn_seven_bit_rows_plain(const qn_seven_bit_rows *s);
void qn_seven_bit_rows_avx2(const qn_seven_bit_rows *s);
void qn_seven_bit_rows_vnni(const qn_seven_bit_rows *s);

// What goes back: t = scale y of 16 rows as 8-bit integers, their sum and unit.
typedef struct qn_seven_back {
    int8_t t[QN_SEVEN_ROWS];
    int32_t sum;
    float unit;
} qn_seven_back;

static inline int32_t seven_sum(const int8_t *v, size_t n) {
    int32_t s = 0;
    for (size_t i = 0; i < n; i++) s += v[i];
    return s;
}

static inline void seven_back(const float *y, const float *scales, qn_seven_back *b) {
    float t[QN_SEVEN_ROWS], max = 0;
    for (int r = 0; r < QN_SEVEN_ROWS; r++) {
        t[r] = y[r] * scales[r];
        max = fabsf(t[r]) > max ? fabsf(t[r]) : max;
    }
    b->unit = max / 127;
    b->sum = 0;
    float by = max > 1e-30f ? 127 / max : 0;
    for (int r = 0; r < QN_SEVEN_ROWS; r++) {
        b->t[r] = (int8_t)lrintf(t[r] * by);
        b->sum += b->t[r];
    }
}

// Vector builds leave z in the order in which interleaving four rows by bytes brings the columns:
// of a block of 16 n columns, n lanes of 128 bits, value [j][k][i] belongs to column 16 k + 4 j + i.
static inline void seven_unscramble(float *z, size_t pitch, size_t lanes) {
    float block[QN_SEVEN_COLUMNS];
    for (size_t c = 0; c < pitch; c += 16 * lanes) {
        for (size_t j = 0; j < 4; j++)
            for (size_t k = 0; k < lanes; k++)
                for (size_t i = 0; i < 4; i++)
                    block[16 * k + 4 * j + i] = z[c + 4 * lanes * j + 4 * k + i];
        for (size_t i = 0; i < 16 * lanes; i++) z[c + i] = block[i];
    }
}

#endif
