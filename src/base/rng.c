// Stateless random numbers.
#include "base/rng.h"

#include <math.h>
#include <sys/random.h>
#include <time.h>

static uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

uint64_t qn_rng_u64(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint64_t key = mix(seed + 0x9E3779B97F4A7C15u);
    key = mix(key ^ (stream + 0x9E3779B97F4A7C15u) * 0xD1342543DE82EF95u);
    return mix(key + (counter + 1) * 0x9E3779B97F4A7C15u);
}

double qn_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter) {
    return (double)(qn_rng_u64(seed, stream, counter) >> 11) * 0x1p-53;
}

double qn_rng_normal(uint64_t seed, uint64_t stream, uint64_t counter) {
    double u = 1 - qn_rng_uniform(seed, stream, 2 * counter);
    double v = qn_rng_uniform(seed, stream, 2 * counter + 1);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

uint64_t qn_rng_system(void) {
    uint64_t x;
    if (getrandom(&x, sizeof x, 0) == (ssize_t)sizeof x) return x;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return mix((uint64_t)t.tv_nsec ^ (uint64_t)t.tv_sec << 20);
}
