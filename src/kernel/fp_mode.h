// The floating-point mode of all computing: round to nearest even, subnormals read and written as
// zero (what AMX and bf16 dot instructions do anyway, and what keeps subnormals from costing a
// hundred cycles each). Pinned on entering a task and restored on leaving it, so that the rest of
// the process (check, convert) keeps its subnormals.
#ifndef QN_KERNEL_FP_MODE_H
#define QN_KERNEL_FP_MODE_H

#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
static inline uint64_t qn_fp_pin(void) {
    unsigned old = _mm_getcsr();
    _mm_setcsr(0x9FC0); // FTZ, DAZ, every exception masked, nearest
    return old;
}
static inline void qn_fp_restore(uint64_t old) { _mm_setcsr((unsigned)old); }
#elif defined(__aarch64__)
static inline uint64_t qn_fp_pin(void) {
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" ::"r"((uint64_t)1 << 24) : "memory"); // FZ, nearest
    return old;
}
static inline void qn_fp_restore(uint64_t old) {
    __asm__ volatile("msr fpcr, %0" ::"r"(old) : "memory");
}
#else
static inline uint64_t qn_fp_pin(void) { return 0; }
static inline void qn_fp_restore(uint64_t old) { (void)old; }
#endif

#endif
