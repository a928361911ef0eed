// seven_bit_rows.h, plainly.
#include "quant/seven_bit_rows.h"

static void forth(const qn_seven_bit_rows *s, size_t row, int32_t v_sum) {
    for (size_t r = row; r < row + QN_SEVEN_ROWS; r++) {
        const uint8_t *q = s->codes + r * s->pitch;
        int32_t sum = 0;
        for (size_t c = 0; c < s->pitch; c++) sum += (int32_t)q[c] * s->v[c];
        s->y[r] = s->scales[r] * (float)(sum - QN_SEVEN_ZERO * v_sum);
    }
}

static void back(const qn_seven_bit_rows *s, size_t row, const qn_seven_back *b) {
    const uint8_t *q = s->codes + row * s->pitch;
    for (size_t c = 0; c < s->pitch; c++) {
        int32_t sum = -QN_SEVEN_ZERO * b->sum;
        for (size_t r = 0; r < QN_SEVEN_ROWS; r++) sum += (int32_t)q[r * s->pitch + c] * b->t[r];
        s->z[c] += b->unit * (float)sum;
    }
}

void qn_seven_bit_rows_plain(const qn_seven_bit_rows *s) {
    int32_t v_sum = seven_sum(s->v, s->pitch);
    for (size_t g = 0; g < s->n_groups; g++) {
        size_t row = g * QN_SEVEN_ROWS;
        qn_seven_back b;
        forth(s, row, v_sum);
        seven_back(s->y + row, s->scales + row, &b);
        back(s, row, &b);
    }
}
