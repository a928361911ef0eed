// The inner loops over codes and over stored values: unpacking bit streams, the range of codes,
// codes times scale, half floats as floats. Written once (code_loops_body.h) and compiled plainly,
// for AVX2 and for AVX-512: all give the same bits.
#ifndef QN_STORE_CODE_LOOPS_H
#define QN_STORE_CODE_LOOPS_H

#include "store/bitfields.h"

typedef struct qn_code_loops {
    void (*unpack)(const qn_bitrows *b, size_t row0, size_t n, uint8_t *out);
    // Lowers *lo and raises *hi to what n codes reach.
    void (*range)(const uint8_t *codes, size_t n, uint8_t *lo, uint8_t *hi);
    void (*scale)(const uint8_t *codes, size_t n, float scale, int zero, float *out);
    void (*widen_bf16)(const uint8_t *x, size_t n, float *out);
    void (*widen_f16)(const uint8_t *x, size_t n, float *out);
} qn_code_loops;

extern const qn_code_loops qn_code_loops_plain, qn_code_loops_avx2, qn_code_loops_avx512;
const qn_code_loops *qn_code_loops_best(void);

#endif
