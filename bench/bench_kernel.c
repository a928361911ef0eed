// Speed of the matrix kernels beside what the machine can do at most: weights read per second and
// operations per second for each format and number of rows. The matrices together are larger than
// the caches, as a model's are.
//   bench_kernel [THREADS [ROWS COLS]]
#include <stdio.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/progress.h"
#include "base/rng.h"
#include "kernel/matmul.h"
#include "kernel/ops.h"

#define TOTAL ((size_t)256 << 20) // bytes of weights of one format
#define MOST_ROWS 512

typedef struct kind {
    const char *name;
    qn_format_id format;
    qn_precision precision;
    size_t group; // 0: one per row
    bool zeros;
} kind;

static const kind kinds[] = {
    {"f32", QN_FORMAT_F32, QN_FAST, 0, false},
    {"bf16", QN_FORMAT_BF16, QN_FAST, 0, false},
    {"bf16 exact", QN_FORMAT_BF16, QN_EXACT, 0, false},
    {"f16", QN_FORMAT_F16, QN_FAST, 0, false},
    {"q8 g128", QN_FORMAT_Q8, QN_FAST, 128, false},
    {"q8 g32", QN_FORMAT_Q8, QN_FAST, 32, false},
    {"q8 channel", QN_FORMAT_Q8, QN_FAST, 0, false},
    {"q8 exact", QN_FORMAT_Q8, QN_EXACT, 128, false},
    {"q4 g128", QN_FORMAT_Q4, QN_FAST, 128, false},
    {"q4 g128 zeros", QN_FORMAT_Q4, QN_FAST, 128, true},
    {"q4 exact", QN_FORMAT_Q4, QN_EXACT, 128, true},
    {"f8 g128", QN_FORMAT_F8, QN_FAST, 128, false},
};

typedef struct limits {
    double read_gb_s, int8, f32;
} limits;

static void stop(const qn_err *err) {
    fprintf(stderr, "bench_kernel: %s\n", err->text);
    exit(qn_exit_status(err->code));
}

static limits measure(int threads) {
    qn_err err = {0};
    char *text;
    if (!qn_cpu_describe(true, threads, &text, &err)) stop(&err);
    json_t *j = json_loads(text, 0, NULL), *peak = json_object_get(j, "peak_gops");
    limits l = {json_number_value(json_object_get(j, "read_gb_s")),
                json_number_value(json_object_get(peak, "int8")),
                json_number_value(json_object_get(peak, "f32"))};
    json_decref(j);
    qn_free(text);
    return l;
}

// What the rows of all matrices are: one made-up row, over and over.
typedef struct filling {
    qn_mat *m;
    qn_rows row;
} filling;

static void fill_panel(void *ctx, size_t task, int thread) {
    (void)thread;
    const filling *f = ctx;
    qn_rows one = f->row;
    for (size_t i = task * QN_PANEL; i < f->m->rows && i < (task + 1) * QN_PANEL; i++) {
        one.row0 = i;
        qn_mat_put(f->m, &one);
    }
}

static void make(qn_mat *m, const kind *k, size_t rows, size_t cols, qn_pool *pool) {
    qn_err err = {0};
    size_t group = k->format < QN_FORMAT_Q8 ? 0 : k->group ? k->group : cols;
    qn_mat_spec spec = {k->format, rows, cols, group, k->zeros, 16, false, NULL, k->name};
    if (!qn_mat_init(m, &spec, &err)) stop(&err);
    float *x = QN_NEW_ARRAY(float, cols), *scales = QN_NEW_ARRAY(float, cols);
    uint8_t *codes = QN_NEW_ARRAY(uint8_t, cols);
    for (size_t i = 0; i < cols; i++) {
        x[i] = (float)qn_rng_normal(1, 2, i);
        codes[i] = (uint8_t)(qn_rng_u64(1, 3, i) & (k->format == QN_FORMAT_F8 ? 0x77 : 0xFF));
        scales[i] = 0.01f;
    }
    filling f = {m, {.n = 1}};
    if (k->format < QN_FORMAT_Q8) {
        f.row.f32 = x;
    } else {
        f.row.codes = codes;
        f.row.scales = scales;
        f.row.zeros = codes;
    }
    qn_pool_run(pool, (rows + QN_PANEL - 1) / QN_PANEL, fill_panel, &f);
    qn_free(x);
    qn_free(scales);
    qn_free(codes);
}

// Seconds of one pass over all matrices with m rows: the best of some.
static double time_pass(const qn_mat *mats, size_t n, size_t m, const kind *k, qn_pool *pool) {
    qn_compute *c = qn_compute_new(pool, k->precision);
    qn_acts *a = qn_acts_new(c);
    float *x = QN_NEW_ARRAY(float, m * mats->cols), *y = QN_NEW_ARRAY(float, m * mats->rows);
    for (size_t i = 0; i < m * mats->cols; i++) x[i] = (float)qn_rng_normal(5, 6, i);
    double best = 1e9, until = qn_now() + 0.7;
    for (int round = 0; round < 2 || qn_now() < until; round++) {
        double from = qn_now();
        for (size_t i = 0; i < n; i++) {
            qn_acts_set(a, x, m, mats->cols, mats->cols);
            qn_matmul(a, mats + i, y, mats->rows);
        }
        double took = qn_now() - from;
        if (took < best) best = took;
    }
    qn_acts_free(a);
    qn_compute_free(c);
    qn_free(x);
    qn_free(y);
    return best;
}

static void bench(const kind *k, size_t rows, size_t cols, qn_pool *pool, const limits *l) {
    qn_mat first;
    make(&first, k, rows, cols, pool);
    size_t n = TOTAL / qn_mat_bytes(&first) + 1;
    qn_mat *mats = QN_NEW_ARRAY(qn_mat, n);
    mats[0] = first;
    for (size_t i = 1; i < n; i++) make(mats + i, k, rows, cols, pool);
    bool integer = k->precision == QN_FAST &&
                   (k->format == QN_FORMAT_Q8 || k->format == QN_FORMAT_Q4);
    static const size_t counts[] = {1, 2, 4, 8, 16, 64, MOST_ROWS};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        size_t m = counts[i], used = m > 16 ? (n + m / 16 - 1) / (m / 16) : n;
        double s = time_pass(mats, used, m, k, pool);
        double gb = (double)(used * qn_mat_bytes(mats)) / s / 1e9;
        double gops = 2.0 * (double)(used * rows * cols * m) / s / 1e9;
        double peak = integer ? l->int8 : l->f32;
        printf("%-14s M %4zu  %7.2f GB/s (%3.0f %%)  %8.1f GOPS (%3.0f %%)\n", k->name, m, gb,
               100 * gb / l->read_gb_s, gops, 100 * gops / peak);
        fflush(stdout);
    }
    for (size_t i = 0; i < n; i++) qn_mat_done(mats + i);
    qn_free(mats);
}

int main(int argc, char **argv) {
    qn_err err = {0};
    if (!qn_cpu_init(&err)) stop(&err);
    qn_pool *pool = qn_pool_new(argc > 1 ? atoi(argv[1]) : 0, &err);
    if (!pool) stop(&err);
    size_t rows = argc > 3 ? strtoull(argv[2], NULL, 10) : 4096;
    size_t cols = argc > 3 ? strtoull(argv[3], NULL, 10) : 2048;
    if (!rows || !cols) return 2;
    limits l = measure(qn_pool_threads(pool));
    printf("%d threads: read %.1f GB/s, int8 %.0f GOPS, f32 %.0f GFLOPS\n", qn_pool_threads(pool),
           l.read_gb_s, l.int8, l.f32);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        bench(kinds + i, rows, cols, pool, &l);
    qn_pool_free(pool);
    return 0;
}
