/* The counter-based generator of every random op, bit for bit the same on every backend.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * A value is a pure function of (seed, step, module stream, dataset row, position in the row, column): never
 * of the place in the batch, the rank or a bucket. So merging micro-batches or resuming changes no mask.
 *
 *     key     = (low, high) 32 bits of mf_random_key(seed, step)
 *     counter = (column / 4, position, dataset row, stream)
 *     word    = philox4x32_10(counter, key)[column % 4]
 *     dropout keeps an element when word >= threshold, threshold = floor(rate * 2^32) in double;
 *     a kept element is multiplied by the f32 nearest to 1 / (1 - rate) computed in double. */
#ifndef MF_KERNELS_RANDOM_H
#define MF_KERNELS_RANDOM_H

#include <stdint.h>

/* splitmix64's finaliser. */
static inline uint64_t mf_random_mix(uint64_t value) {
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static inline uint64_t mf_random_key(uint64_t seed, uint32_t step) {
    return mf_random_mix(mf_random_mix(seed) ^ step);
}

/* The stream of a mask: 32-bit FNV-1a of what it belongs to. */
static inline uint32_t mf_random_stream(const char *name) {
    uint32_t hash = 2166136261u;
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return hash;
}

#define MF_PHILOX_MULTIPLIER_0 0xd2511f53u
#define MF_PHILOX_MULTIPLIER_1 0xcd9e8d57u
#define MF_PHILOX_WEYL_0       0x9e3779b9u
#define MF_PHILOX_WEYL_1       0xbb67ae85u
enum { MF_PHILOX_ROUNDS = 10 };

static inline void mf_random_philox(const uint32_t counter[4], uint64_t key, uint32_t word[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < MF_PHILOX_ROUNDS; round++) {
        uint64_t product0 = (uint64_t)MF_PHILOX_MULTIPLIER_0 * c0,
                 product1 = (uint64_t)MF_PHILOX_MULTIPLIER_1 * c2;
        uint32_t n0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)product1;
        c3 = (uint32_t)product0;
        c0 = n0;
        c2 = n2;
        k0 += MF_PHILOX_WEYL_0;
        k1 += MF_PHILOX_WEYL_1;
    }
    word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

/* Words of columns 4 * `quad` .. 4 * quad + 3. */
static inline void mf_random_words(uint64_t key, uint32_t stream, uint32_t row, uint32_t position,
                                   uint32_t quad, uint32_t word[4]) {
    const uint32_t counter[4] = {quad, position, row, stream};
    mf_random_philox(counter, key, word);
}

/* 0 <= rate < 1. */
static inline uint32_t mf_dropout_threshold(float rate) {
    return (uint32_t)((double)rate * 4294967296.0);
}
static inline float mf_dropout_scale(float rate) {
    return (float)(1.0 / (1.0 - (double)rate));
}

#endif
