// The row operations of row_math.h, compiled for AVX2 and FMA.
#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#include "kernel/row_math.h"

// The delta rule's full slices by hand: the compiler would keep the sums in memory.
static void delta_half(const qn_delta_slice *d, size_t at) {
    // By value: behind a vector's store the compiler would read the fields again.
    const float *k = d->k, *q = d->q;
    const size_t dk = d->dk, dv = d->dv;
    __m256 a[4], b[4], decay = _mm256_set1_ps(d->decay);
    for (int j = 0; j < 4; j++) a[j] = b[j] = _mm256_setzero_ps();
    for (size_t i = 0; i < dk; i++) {
        __m256 ki = _mm256_set1_ps(k[i]), qi = _mm256_set1_ps(q[i]);
        for (int j = 0; j < 4; j++) {
            __m256 s = _mm256_loadu_ps(d->state + at + i * dv + 8 * j);
            a[j] = _mm256_fmadd_ps(ki, s, a[j]);
            b[j] = _mm256_fmadd_ps(qi, s, b[j]);
        }
    }
    for (int j = 0; j < 4; j++) {
        __m256 rest = _mm256_fnmadd_ps(decay, a[j], _mm256_loadu_ps(d->v + at + 8 * j));
        a[j] = _mm256_mul_ps(_mm256_set1_ps(d->beta), rest);
        __m256 out = _mm256_fmadd_ps(a[j], _mm256_set1_ps(d->kq), _mm256_mul_ps(decay, b[j]));
        _mm256_storeu_ps(d->out + at + 8 * j, out);
    }
    float *s = d->state + at;
    for (size_t i = 0; i < dk; i++, s += dv) {
        __m256 ki = _mm256_set1_ps(k[i]);
        for (int j = 0; j < 4; j++) {
            __m256 old = _mm256_mul_ps(decay, _mm256_loadu_ps(s + 8 * j));
            _mm256_storeu_ps(s + 8 * j, _mm256_fmadd_ps(ki, a[j], old));
        }
    }
}

static void delta(const qn_delta_slice *d) {
    if (d->n != QN_DELTA_COLUMNS) {
        delta_columns(d);
        return;
    }
    for (size_t at = 0; at < QN_DELTA_COLUMNS; at += 32) delta_half(d, at); // registers for so many
}

void qn_rows_avx2(qn_table *t) {
    fill_rows(t);
    t->delta = delta;
}
#else
typedef int nothing_here; // another architecture
#endif
