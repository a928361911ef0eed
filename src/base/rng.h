// Counter-based random numbers: the value depends on (seed, stream, counter) alone, so a draw is
// the same whatever the batch or thread count. splitmix64's finaliser over a mixed key.
#ifndef QN_BASE_RNG_H
#define QN_BASE_RNG_H

#include <stdint.h>

uint64_t qn_rng_u64(uint64_t seed, uint64_t stream, uint64_t counter);
double qn_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter); // [0, 1), 53 bits
double qn_rng_normal(uint64_t seed, uint64_t stream, uint64_t counter);  // mean 0, variance 1
uint64_t qn_rng_system(void); // a seed from the system

#endif
