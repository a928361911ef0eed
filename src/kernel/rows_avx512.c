// The row operations of row_math.h, compiled for AVX-512.
#if defined(__AVX512F__)
#include <immintrin.h>

#include "kernel/row_math.h"

// The delta rule's full slices by hand: the compiler would keep the sums in memory.
static void delta(const qn_delta_slice *d) {
    if (d->n != QN_DELTA_COLUMNS) {
        delta_columns(d);
        return;
    }
    // By value: behind a vector's store the compiler would read the fields again.
    const float *k = d->k, *q = d->q;
    const size_t dk = d->dk, dv = d->dv;
    __m512 a[4], b[4], decay = _mm512_set1_ps(d->decay);
    for (int j = 0; j < 4; j++) a[j] = b[j] = _mm512_setzero_ps();
    for (size_t i = 0; i < dk; i++) {
        __m512 ki = _mm512_set1_ps(k[i]), qi = _mm512_set1_ps(q[i]);
        for (int j = 0; j < 4; j++) {
            __m512 s = _mm512_loadu_ps(d->state + i * dv + 16 * j);
            a[j] = _mm512_fmadd_ps(ki, s, a[j]);
            b[j] = _mm512_fmadd_ps(qi, s, b[j]);
        }
    }
    for (int j = 0; j < 4; j++) {
        __m512 rest = _mm512_fnmadd_ps(decay, a[j], _mm512_loadu_ps(d->v + 16 * j));
        a[j] = _mm512_mul_ps(_mm512_set1_ps(d->beta), rest);
        __m512 out = _mm512_fmadd_ps(a[j], _mm512_set1_ps(d->kq), _mm512_mul_ps(decay, b[j]));
        _mm512_storeu_ps(d->out + 16 * j, out);
    }
    float *s = d->state;
    for (size_t i = 0; i < dk; i++, s += dv) {
        __m512 ki = _mm512_set1_ps(k[i]);
        for (int j = 0; j < 4; j++) {
            __m512 old = _mm512_mul_ps(decay, _mm512_loadu_ps(s + 16 * j));
            _mm512_storeu_ps(s + 16 * j, _mm512_fmadd_ps(ki, a[j], old));
        }
    }
}

void qn_rows_avx512(qn_table *t) {
    fill_rows(t);
    t->delta = delta;
}
#else
typedef int nothing_here; // another architecture
#endif
