// How a leaf walks a tile: register blocks of a few rows by a few panels. The widths are each
// leaf's; the block bodies are inlined with constant sizes, so that their accumulators live in
// registers.
#ifndef QN_KERNEL_REGISTER_BLOCKS_H
#define QN_KERNEL_REGISTER_BLOCKS_H

#include "kernel/table.h"

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

// rows and panels of the block at (row, panel). Only sizes that the walk below asks for occur.
typedef void (*qn_block_fn)(const qn_tile *t, size_t row, size_t panel, size_t rows, size_t panels);

// few rows (at most few_rows): `wide` panels; more: at most max_rows rows by `panels`. Where less
// is left: two panels at a time if the leaf has such blocks, else one.
typedef struct widths {
    size_t few_rows, wide, max_rows, panels;
    bool twos;
} widths;

INLINE void walk(const qn_tile *t, qn_block_fn block, widths w) {
    size_t step = t->m <= w.few_rows ? w.wide : w.panels, p = 0, max_rows = w.max_rows;
    // Rows are spread evenly over the blocks: 13 becomes 7 + 6 rather than 12 + 1.
    size_t blocks = (t->m + max_rows - 1) / max_rows;
    while (p < t->n_panels) {
        size_t left = t->n_panels - p;
        size_t take = left >= step ? step : left >= 2 && w.twos ? 2 : 1;
        for (size_t b = 0, row = 0; b < blocks; b++) {
            size_t rows = (t->m - row + blocks - b - 1) / (blocks - b);
            block(t, row, p, rows, take);
            row += rows;
        }
        p += take;
    }
}

// Up to eight streams a constant distance apart, addressed with four registers: base + {0, 1, 2, 3}
// times the distance, twice. Left to itself the compiler keeps a pointer per stream and runs out.
typedef struct streams {
    const char *a, *b;
    size_t ld, ld3;
} streams;

INLINE streams streams_of(const void *p, size_t ld) {
    const char *at = p;
    return (streams){at, at + 4 * ld, ld, 3 * ld};
}

INLINE const char *stream(const streams *s, int i) {
    const char *p = i & 4 ? s->b : s->a;
    return (i & 3) == 0 ? p : (i & 3) == 1 ? p + s->ld : (i & 3) == 2 ? p + 2 * s->ld : p + s->ld3;
}

INLINE void advance(streams *s, size_t bytes) {
    s->a += bytes;
    s->b += bytes;
}

INLINE float float_at(const char *p) { return *(const float *)(const void *)p; }

INLINE const float *x_row(const qn_tile *t, size_t row) {
    return (const float *)t->x + row * t->ldx;
}

INLINE const int8_t *codes_row(const qn_tile *t, size_t row) {
    return (const int8_t *)t->x + row * t->ldx;
}

INLINE const char *w_panel(const qn_tile *t, size_t panel) {
    return (const char *)t->w + panel * t->ldw;
}

INLINE float *acc_at(const qn_tile *t, size_t row, size_t panel) {
    return t->acc + row * t->ldacc + panel * 16;
}

#endif
