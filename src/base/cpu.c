// Instruction sets, cores, caches.
#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/err.h"
#include "base/str.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static const char *const names[QN_N_ISA] = {"scalar", "avx2", "avx512",  "vnni", "bf16",
                                            "amx",    "neon", "dotprod", "i8mm"};
static bool found[QN_N_ISA];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static qn_isa cap = QN_N_ISA;

#if defined(__x86_64__)
static uint64_t xgetbv0(void) {
    uint32_t a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (uint64_t)d << 32 | a;
}

// AMX needs the kernel's permission for its tile state (arch_prctl ARCH_REQ_XCOMP_PERM, 18).
static bool amx_permitted(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

static void probe(void) {
    unsigned a, b, c, d;
    found[QN_ISA_SCALAR] = true;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    bool fma = c >> 12 & 1, osxsave = c >> 27 & 1, f16c = c >> 29 & 1;
    if (!osxsave) return;
    uint64_t state = xgetbv0();
    bool ymm = (state & 6) == 6, zmm = (state & 0xE6) == 0xE6, tile = (state & 0x60000) == 0x60000;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    unsigned a1 = 0, b1, c1, d1;
    __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1);
    found[QN_ISA_AVX2] = ymm && fma && f16c && (b >> 5 & 1);
    bool f512 = (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1);
    found[QN_ISA_AVX512] = found[QN_ISA_AVX2] && zmm && f512;
    found[QN_ISA_AVX512VNNI] = found[QN_ISA_AVX512] && (c >> 11 & 1);
    found[QN_ISA_AVX512BF16] = found[QN_ISA_AVX512VNNI] && (a1 >> 5 & 1);
    bool amx = (d >> 24 & 1) && (d >> 25 & 1) && (d >> 22 & 1);
    found[QN_ISA_AMX] = found[QN_ISA_AVX512BF16] && tile && amx && amx_permitted();
}
#elif defined(__aarch64__)
static void probe(void) {
    unsigned long cap1 = getauxval(AT_HWCAP), cap2 = getauxval(AT_HWCAP2);
    found[QN_ISA_SCALAR] = found[QN_ISA_NEON] = true;
    found[QN_ISA_DOTPROD] = cap1 >> 20 & 1;
    found[QN_ISA_I8MM] = found[QN_ISA_DOTPROD] && (cap2 >> 13 & 1);
}
#else
static void probe(void) { found[QN_ISA_SCALAR] = true; }
#endif

static bool cap_from(const char *name) {
    for (int i = 0; i < QN_N_ISA; i++)
        if (strcmp(name, names[i]) == 0) {
            cap = (qn_isa)i;
            return true;
        }
    return false;
}

static void probe_and_cap(void) {
    probe();
    const char *name = getenv("QUERN_CPU");
    if (name && *name) cap_from(name);
}

static void probe_once(void) { pthread_once(&once, probe_and_cap); }

bool qn_cpu_init(qn_err *err) {
    const char *name = getenv("QUERN_CPU");
    probe_once();
    if (name && *name && !cap_from(name))
        return qn_fail(err, QN_USAGE, "QUERN_CPU is %s, expected one of scalar avx2 avx512 vnni "
                       "bf16 amx neon dotprod i8mm", name);
    return true;
}

void qn_cpu_cap(qn_isa isa) {
    probe_once();
    cap = isa;
}

bool qn_cpu_found(qn_isa isa) {
    probe_once();
    return found[isa];
}

bool qn_cpu_has(qn_isa isa) {
    probe_once();
    return found[isa] && isa <= cap;
}

const char *qn_isa_name(qn_isa isa) { return names[isa]; }

int qn_cpu_cores(void) {
    cpu_set_t set;
    long n = sysconf(_SC_NPROCESSORS_ONLN); // what remains when there are more than 1024
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
    int quota = qn_cgroup_cores("");
    if (n < 1) n = 1;
    return n < quota ? (int)n : quota;
}

const char *qn_cpu_model(void) {
    static char model[128];
    if (model[0]) return model;
    snprintf(model, sizeof model, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (!f) return model;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (!qn_str_starts(line, "model name") || !colon) continue;
        colon[strcspn(colon, "\n")] = 0;
        snprintf(model, sizeof model, "%s", colon + 2);
        break;
    }
    fclose(f);
    return model;
}

size_t qn_cpu_cache_bytes(int level) {
    for (int i = 0; i < 8; i++) {
        char path[96], text[32] = "", kind[32] = "";
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        FILE *f = fopen(path, "re");
        if (!f) break;
        bool same = fgets(text, sizeof text, f) && atoi(text) == level;
        fclose(f);
        if (!same) continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
        f = fopen(path, "re");
        if (f && !fgets(kind, sizeof kind, f)) kind[0] = 0;
        if (f) fclose(f);
        if (qn_str_starts(kind, "Instruction")) continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        f = fopen(path, "re");
        if (!f) break;
        size_t kb = fgets(text, sizeof text, f) ? strtoull(text, NULL, 10) : 0;
        fclose(f);
        return kb * 1024;
    }
    return 0;
}
