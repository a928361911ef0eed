// What the processor can do, capped by QUERN_CPU, and how many cores this process may use.
#ifndef QN_BASE_CPU_H
#define QN_BASE_CPU_H

#include "quern.h"

// Instruction-set levels in rising order within each family. QUERN_CPU names the highest allowed.
typedef enum qn_isa {
    QN_ISA_SCALAR,
    QN_ISA_AVX2,       // AVX2 + FMA + F16C
    QN_ISA_AVX512,     // F, BW, VL, DQ
    QN_ISA_AVX512VNNI, // + VNNI
    QN_ISA_AVX512BF16, // + BF16
    QN_ISA_AMX,        // + AMX tile, int8, bf16, with the system's permission
    QN_ISA_NEON,
    QN_ISA_DOTPROD,
    QN_ISA_I8MM,
    QN_N_ISA
} qn_isa;

bool qn_cpu_has(qn_isa isa);       // found and allowed
bool qn_cpu_found(qn_isa isa);     // found on this machine, whatever QUERN_CPU says
const char *qn_isa_name(qn_isa isa); // "scalar", "avx2", "avx512", "vnni", "bf16", "amx", …
// Reads QUERN_CPU; an unknown name is QN_USAGE with the list of known ones. Called at start-up by
// programs; without it the environment is honoured silently.
bool qn_cpu_init(qn_err *err);
// Lowers the allowed level for this process (tests force every level one after the other).
void qn_cpu_cap(qn_isa isa);
int qn_cpu_cores(void);            // usable: affinity and cgroup quota respected, at least 1
const char *qn_cpu_model(void);    // "Intel(R) Xeon(R) …"
size_t qn_cpu_cache_bytes(int level); // data or unified cache of level 1, 2, 3; 0 unknown

#endif
