// What happened to a matrix beside its reference is named, in place and after quantizing; what its bit
// width explains is no problem, and damage to a few rows is not lost in the whole.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/rng.h"
#include "quant/check_tensor.h"

enum { MAX = 256 * 384 };

typedef struct pair {
    float a[MAX], b[MAX], codes[MAX], scale[MAX]; // codes, scale: of a, when quantized
    size_t rows, cols;
    int bits; // 0: a starts out equal to b
    const char *name;
} pair;

#define Q_PROJ "model.layers.1.self_attn.q_proj.weight"
#define UP_PROJ "model.layers.1.mlp.up_proj.weight"

static void start(pair *p, size_t rows, size_t cols, int bits) {
    p->rows = rows;
    p->cols = cols;
    p->bits = bits;
    p->name = Q_PROJ;
    for (size_t i = 0; i < rows * cols; i++) p->b[i] = 0.03f * (float)qn_rng_normal(5, 1, i);
    memcpy(p->a, p->b, rows * cols * sizeof *p->a);
    for (size_t g = 0; bits && g < rows * cols; g += 128) {
        float top = 0, half = (float)(1 << (bits - 1));
        for (size_t i = g; i < g + 128; i++) top = fmaxf(top, fabsf(p->b[i]));
        for (size_t i = g; i < g + 128; i++) {
            p->scale[i] = 2 * top / (2 * half - 1);
            p->codes[i] = fmaxf(-half, fminf(half - 1, rintf(p->b[i] / p->scale[i])));
            p->a[i] = p->codes[i] * p->scale[i];
        }
    }
}

typedef void (*spoil_fn)(pair *p);

static void rows_from(pair *p, size_t (*from)(size_t row, size_t rows)) {
    float *copy = malloc(MAX * sizeof *copy);
    memcpy(copy, p->a, p->rows * p->cols * sizeof *copy);
    for (size_t r = 0; r < p->rows; r++)
        memcpy(p->a + r * p->cols, copy + from(r, p->rows) * p->cols, p->cols * sizeof *copy);
    free(copy);
}

static size_t shuffled(size_t r, size_t rows) { return r * 77 % rows; }
static size_t five_up(size_t r, size_t rows) { return (r + rows - 5) % rows; }
static size_t heads_swapped(size_t r, size_t rows) {
    return r < 64 ? r + 64 : r < 128 ? r - 64 : r % rows;
}
static size_t in_pairs(size_t r, size_t rows) {
    (void)rows;
    return r / 64 * 64 + r % 2 * 32 + r % 64 / 2;
}
static size_t in_halves(size_t r, size_t rows) {
    (void)rows;
    return r / 64 * 64 + r % 32 * 2 + r % 64 / 32;
}

static void leave(pair *p) { (void)p; }
static void shuffle(pair *p) { rows_from(p, shuffled); }
static void shift_rows(pair *p) { rows_from(p, five_up); }
static void swap_heads(pair *p) { rows_from(p, heads_swapped); }
static void pair_rotary(pair *p) { rows_from(p, in_pairs); }
static void halve_rotary(pair *p) { rows_from(p, in_halves); }

static void columns_from(pair *p, size_t step, size_t add) {
    float *row = malloc(p->cols * sizeof *row);
    for (size_t r = 0; r < p->rows; r++) {
        memcpy(row, p->a + r * p->cols, p->cols * sizeof *row);
        for (size_t c = 0; c < p->cols; c++)
            p->a[r * p->cols + (c * step + add) % p->cols] = row[c];
    }
    free(row);
}
// Within every eight columns.
static void eights(pair *p, const size_t order[8]) {
    float some[8];
    for (size_t i = 0; i < p->rows * p->cols; i += 8) {
        memcpy(some, p->a + i, sizeof some);
        for (size_t k = 0; k < 8; k++) p->a[i + k] = some[order[k]];
    }
}
static void swap_bytes(pair *p) { eights(p, (const size_t[]){6, 7, 4, 5, 2, 3, 0, 1}); }
static void awq_order(pair *p) { eights(p, (const size_t[]){0, 2, 4, 6, 1, 3, 5, 7}); }
static void other_eights(pair *p) { eights(p, (const size_t[]){1, 0, 3, 2, 4, 5, 7, 6}); }
static void mlp_pairs(pair *p) {
    p->name = UP_PROJ; // has no heads
    rows_from(p, in_pairs);
}
static size_t backwards(size_t r, size_t rows) { return rows - 1 - r; }
static void reverse(pair *p) { rows_from(p, backwards); }
static void shift_flat(pair *p) {
    size_t n = p->rows * p->cols;
    float last = p->a[n - 1];
    memmove(p->a + 1, p->a, (n - 1) * sizeof *p->a);
    p->a[0] = last;
}
static void permute(pair *p) { columns_from(p, 77, 0); }
static void shift_columns(pair *p) { columns_from(p, 1, 7); }

static void transpose(pair *p) {
    for (size_t r = 0; r < p->rows; r++)
        for (size_t c = 0; c < r; c++) {
            float x = p->a[r * p->cols + c];
            p->a[r * p->cols + c] = p->a[c * p->cols + r];
            p->a[c * p->cols + r] = x;
        }
}

static void times(pair *p, size_t row0, size_t row1, float by) {
    for (size_t i = row0 * p->cols; i < row1 * p->cols; i++) p->a[i] *= by;
}
static void flip(pair *p) { times(p, 0, p->rows, -1); }
static void flip_rows(pair *p) { times(p, 20, 24, -1); }
static void zero_rows(pair *p) { times(p, 10, 14, 0); }
static void half_size(pair *p) { times(p, 0, p->rows, 0.5f); }
static void zero_block(pair *p) {
    for (size_t r = 32; r < 64; r++) memset(p->a + r * p->cols + 64, 0, 64 * sizeof *p->a);
}
static void zero_off(pair *p) {
    for (size_t i = 0; i < p->rows * p->cols; i++) p->a[i] = (p->codes[i] - 1) * p->scale[i];
}
static void view_signed(pair *p) {
    for (size_t i = 0; i < p->rows * p->cols; i++)
        p->a[i] = (p->codes[i] + (p->codes[i] < 0 ? 128.0f : -128.0f)) * p->scale[i];
}

static qn_weight weight_of(const char *name, qn_tensor *t, const float *x, size_t rows,
                           size_t cols) {
    *t = (qn_tensor){.name = (char *)(uintptr_t)name, .dtype = QN_DT_F32, .n_dims = 2,
                     .shape = {rows, cols}, .n = rows * cols, .data = (const uint8_t *)x,
                     .bytes = rows * cols * 4};
    return (qn_weight){.name = t->name, .parts = {t}, .rows = rows, .cols = cols};
}

// The message of the one problem, or "".
static void message(const pair *p, char *text, size_t size) {
    qn_err err = {0};
    qn_tensor ta, tb;
    qn_weight a = weight_of(p->name, &ta, p->a, p->rows, p->cols);
    qn_weight b = weight_of(p->name, &tb, p->b, p->rows, p->cols);
    qn_check_tensor t = {.w = &a, .reference = &b};
    qn_problems problems;
    qn_problems_init(&problems);
    qn_pool *pool = qn_pool_new(2, &err);
    json_t *entry = json_object();
    assert_true(qn_check_against(pool, &t, entry, &problems, &err));
    json_t *list = qn_problems_json(&problems);
    const char *said = json_string_value(json_object_get(json_array_get(list, 0), "message"));
    snprintf(text, size, "%s", said ? said : "");
    json_decref(list);
    json_decref(entry);
    qn_pool_free(pool);
    qn_problems_done(&problems);
}

static void differences_are_named(void **state) {
    (void)state;
    static const struct {
        spoil_fn spoil;
        const char *name;
        int bits; // 0: with every bit width; else these only (negative: no others have it)
        bool square;
    } cases[] = {
        {leave, NULL, 0, false},
        {shuffle, "row-shuffled", 0, false},
        {permute, "permuted", 0, false},
        {shift_rows, "shifted down by 5 rows", 0, false},
        {shift_columns, "shifted right by 7 columns", 0, false},
        {swap_heads, "another order (permuted: ", 0, false},
        {pair_rotary, "rope-permuted within heads of 64 (pairs", 0, false},
        {halve_rotary, "rope-permuted within heads of 64 (halves", 0, false},
        {transpose, "transposed", 0, true},
        {swap_bytes, "permuted within every 8: the bytes of every word swapped", 0, false},
        {awq_order, "permuted within every 8: AWQ's order", 0, false},
        {other_eights, "permuted within every 8: 1 0 3 2 4 5 7 6", 0, false},
        {mlp_pairs, "row-shuffled", 0, false},
        {reverse, "rows are the reference's in reverse order", 0, false},
        {shift_flat, "values shifted right by 1, across the ends of rows", 0, false},
        {flip, "sign flipped", 0, false},
        {flip_rows, "4 of its rows, from 20 to 23, are the reference's with the sign flipped", 0,
         false},
        {zero_rows, "4 of its rows, from 10 to 13, are zero", 0, false},
        {half_size, "scaled by 0.5", 0, false},
        {zero_block, "rows 32 to 63, columns 64 to 127, are zero", 8, false},
        {zero_off, "shifted down by one number in every group", 8, false},
        {zero_off, "shifted down by one number in every group", 4, false},
        {view_signed, "codes viewed as signed", 8, false},
    };
    static const int widths[] = {0, 8, 4, 3};
    static const size_t shapes[][2] = {{256, 256}, {256, 384}, {384, 256}};
    pair *p = malloc(sizeof *p);
    char text[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < 12; k++) {
            int bits = widths[k % 4];
            const size_t *shape = shapes[k / 4];
            if ((cases[i].bits && cases[i].bits != bits) || (cases[i].square && k / 4)) continue;
            start(p, shape[0], shape[1], bits);
            cases[i].spoil(p);
            message(p, text, sizeof text);
            const char *name = cases[i].name;
            if (bits && cases[i].spoil == half_size) name = "scaled by 0.";
            if (name ? !strstr(text, name) : text[0])
                fail_msg("case %zu, %zux%zu, %d bits: \"%s\" is not \"%s\"", i, shape[0], shape[1],
                         bits, text, name ? name : "");
        }
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(differences_are_named)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
