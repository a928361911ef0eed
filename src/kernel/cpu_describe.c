// What this machine has and what it can do at most: the JSON of `quern cpu`, and the limits that
// the bench holds its figures against.
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/progress.h"
#include "kernel/fp_mode.h"
#include "kernel/table.h"

// ---- measuring ----

typedef struct probe {
    const qn_table *table;
    uint64_t (*peak)(size_t turns);
    size_t turns;
    const char *data;
    size_t piece; // bytes per task
    atomic_uint_fast64_t sum;
} probe;

static void run_peak(void *ctx, size_t task, int thread) {
    (void)task;
    (void)thread;
    probe *p = ctx;
    uint64_t mode = qn_fp_pin();
    atomic_fetch_add(&p->sum, p->peak(p->turns));
    qn_fp_restore(mode);
}

// Billions of operations per second over all threads, the best of several rounds.
static double peak_gops(qn_pool *pool, uint64_t (*peak)(size_t turns)) {
    double best = 0;
    size_t n = (size_t)qn_pool_threads(pool), turns = 1000;
    for (int round = 0; round < 12; round++) {
        probe p = {.peak = peak, .turns = turns};
        double from = qn_now();
        qn_pool_run(pool, n, run_peak, &p);
        double took = qn_now() - from;
        if (took < 0.01) { // too short to time well
            turns *= 4;
            round--;
            continue;
        }
        best = fmax(best, (double)p.sum / took / 1e9);
    }
    return best;
}

static void run_fill(void *ctx, size_t task, int thread) {
    (void)thread;
    probe *p = ctx;
    memset((char *)(uintptr_t)p->data + task * p->piece, 1, p->piece);
}

static void run_read(void *ctx, size_t task, int thread) {
    (void)thread;
    probe *p = ctx;
    atomic_fetch_add(&p->sum, p->table->read(p->data + task * p->piece, p->piece));
}

// A streaming read over four times the last cache, by pieces that threads take as they come.
static bool read_gb_s(qn_pool *pool, double *gb_s, qn_err *err) {
    size_t n = 4 * qn_cpu_cache_bytes(3), least = (size_t)256 << 20;
    size_t most = qn_memory_available() / 4;
    if (n < least) n = least;
    if (n > most) n = most;
    probe p = {.table = qn_table_get(), .piece = (size_t)2 << 20};
    size_t pieces = n / p.piece ? n / p.piece : 1;
    void *data = qn_big_alloc(pieces * p.piece, "bandwidth measurement", err);
    if (!data) return false;
    p.data = data;
    qn_pool_run(pool, pieces, run_fill, &p);
    *gb_s = 0;
    double until = qn_now() + 0.5;
    for (int round = 0; round < 3 || qn_now() < until; round++) {
        double from = qn_now();
        qn_pool_run(pool, pieces, run_read, &p);
        *gb_s = fmax(*gb_s, (double)(pieces * p.piece) / (qn_now() - from) / 1e9);
    }
    qn_big_free(data, pieces * p.piece);
    return true;
}

static bool add_measures(json_t *o, int n_threads, qn_err *err) {
    qn_pool *pool = qn_pool_new(n_threads, err);
    double gb_s;
    if (!pool) return false;
    if (!read_gb_s(pool, &gb_s, err)) {
        qn_pool_free(pool);
        return false;
    }
    const qn_table *t = qn_table_get();
    double f32 = peak_gops(pool, t->peak_f32), int8 = peak_gops(pool, t->peak_int8);
    json_object_set_new(o, "threads", json_integer(qn_pool_threads(pool)));
    json_object_set_new(o, "read_gb_s", qn_json_number(gb_s));
    json_t *peak = json_object();
    json_object_set_new(peak, "int8", qn_json_number(int8));
    // bf16 products run on the f32 units (the order of sums is that of tiles, see numerics.md).
    json_object_set_new(peak, "bf16", qn_json_number(f32));
    json_object_set_new(peak, "f32", qn_json_number(f32));
    json_object_set_new(o, "peak_gops", peak);
    qn_pool_free(pool);
    return true;
}

// ---- describing ----

static json_t *caches(void) {
    json_t *o = json_object();
    json_object_set_new(o, "l1", json_integer((json_int_t)qn_cpu_cache_bytes(1)));
    json_object_set_new(o, "l2", json_integer((json_int_t)qn_cpu_cache_bytes(2)));
    json_object_set_new(o, "l3", json_integer((json_int_t)qn_cpu_cache_bytes(3)));
    return o;
}

static json_t *memory(void) {
    json_t *o = json_object();
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    json_object_set_new(o, "total", json_integer((json_int_t)pages * size));
    json_object_set_new(o, "available", json_integer((json_int_t)qn_memory_available()));
    return o;
}

static json_t *isa_list(bool (*has)(qn_isa isa)) {
    json_t *a = json_array();
    for (int i = 0; i < QN_N_ISA; i++)
        if (has((qn_isa)i)) json_array_append_new(a, json_string(qn_isa_name((qn_isa)i)));
    return a;
}

static json_t *kernels(void) {
    json_t *o = json_object();
    for (size_t i = 0; i < QN_N_SLOTS; i++)
        if (strncmp(qn_slot_name(i), "peak_", 5) != 0 && strcmp(qn_slot_name(i), "read") != 0)
            json_object_set_new(o, qn_slot_name(i), json_string(qn_slot_isa(i)));
    return o;
}

bool qn_cpu_describe(bool measure, int n_threads, char **json, qn_err *err) {
    json_t *o = json_object(), *isa = json_object();
    json_object_set_new(o, "model", json_string(qn_cpu_model()));
    json_object_set_new(o, "cores", json_integer(qn_cpu_cores()));
    json_object_set_new(o, "caches", caches());
    json_object_set_new(o, "memory", memory());
    json_object_set_new(isa, "found", isa_list(qn_cpu_found));
    json_object_set_new(isa, "used", isa_list(qn_cpu_has));
    json_object_set_new(o, "isa", isa);
    json_object_set_new(o, "kernels", kernels());
    bool ok = !measure || add_measures(o, n_threads, err);
    if (ok) *json = qn_json_text(o, true);
    json_decref(o);
    return ok;
}
