// Fills the table of leaves: one per level of instruction sets, made on first use. Tests cap the
// level while running, so several tables may exist in one process.
#include "kernel/table.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/cpu.h"

static const char *const slot_names[] = {
    "dot_f32",     "dot_bf16",   "dot_q8",    "dot_q4",     "unpack_bf16", "unpack_f16",
    "unpack_q8",   "unpack_q4",  "unpack_f8", "f8_to_bf16", "round_bf16",  "quantize_s8",
    "rmsnorm",     "layernorm",  "rope",      "silu_mul",   "add",         "sigmoid_mul",
    "gelu_tanh",   "gelu_erf",   "softmax",   "softmax_step", "scale",     "add_scaled",
    "dot_lanes",   "delta",      "peak_f32",  "peak_int8",  "read",
};
_Static_assert(sizeof slot_names / sizeof *slot_names == QN_N_SLOTS, "a name for every slot");

// In rising order; a later one overwrites what it does better.
static const struct {
    qn_isa isa;
    void (*fill)(qn_table *t);
} levels[] = {
    {QN_ISA_SCALAR, qn_table_scalar},
#if defined(__x86_64__)
    {QN_ISA_AVX2, qn_table_avx2},
    {QN_ISA_AVX512, qn_table_avx512},
    {QN_ISA_AVX512VNNI, qn_table_vnni},
#endif
};
#define N_LEVELS (sizeof levels / sizeof *levels)

typedef struct filled {
    atomic_bool ready;
    qn_table table;
    qn_isa isa[QN_N_SLOTS];
} filled;

static filled tables[N_LEVELS];
static pthread_mutex_t filling = PTHREAD_MUTEX_INITIALIZER;

// Who set a slot shows by comparing the table before and after.
static void fill(filled *f, size_t top) {
    for (size_t i = 0; i <= top; i++) {
        if (!qn_cpu_found(levels[i].isa)) continue;
        qn_table before = f->table;
        levels[i].fill(&f->table);
        for (size_t s = 0; s < QN_N_SLOTS; s++) {
            size_t at = s * sizeof(void (*)(void));
            if (memcmp((char *)&before + at, (char *)&f->table + at, sizeof(void (*)(void))) != 0)
                f->isa[s] = levels[i].isa;
        }
    }
}

static filled *current(void) {
    size_t top = 0;
    for (size_t i = 1; i < N_LEVELS; i++)
        if (qn_cpu_has(levels[i].isa)) top = i;
    filled *f = &tables[top];
    if (atomic_load_explicit(&f->ready, memory_order_acquire)) return f;
    pthread_mutex_lock(&filling);
    if (!atomic_load_explicit(&f->ready, memory_order_relaxed)) fill(f, top);
    atomic_store_explicit(&f->ready, true, memory_order_release);
    pthread_mutex_unlock(&filling);
    return f;
}

const qn_table *qn_table_get(void) { return &current()->table; }

const char *qn_slot_name(size_t slot) { return slot_names[slot]; }

const char *qn_slot_isa(size_t slot) { return qn_isa_name(current()->isa[slot]); }
