/* Arithmetic shared by the vectorised kernels. Private to kernels/cpu; every file that includes it is
 * compiled once for each instruction set (MF_CPU_ISA_NAME), so nothing here may have external linkage.
 *
 * Everything is written so that the compiler vectorises it: no branches, no errno, no calls. */
#ifndef MF_KERNELS_CPU_SIMD_H
#define MF_KERNELS_CPU_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#    include <immintrin.h>
#endif

/* Floats in the widest register of this instruction set; kernels use the compilers' vector extension where a
 * loop alone would not keep an accumulator in a register. */
#if defined(__AVX512F__)
enum { MF_LANES = 16 };
#elif defined(__AVX2__)
enum { MF_LANES = 8 };
#else
enum { MF_LANES = 4 };
#endif
typedef float mf_lanes __attribute__((vector_size(MF_LANES * sizeof(float))));

/* The same of words, and of their pairs. */
typedef uint32_t mf_words __attribute__((vector_size(MF_LANES * sizeof(uint32_t))));
typedef uint64_t mf_word_pairs __attribute__((vector_size(MF_LANES * sizeof(uint32_t))));

/* Products of the lower words of pairs. Compilers do not see that one instruction does it. */
static inline mf_word_pairs mf_multiply_lower(mf_word_pairs a, mf_word_pairs b) {
#if defined(__AVX512F__)
    return (mf_word_pairs)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (mf_word_pairs)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (mf_word_pairs)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

static inline mf_lanes mf_lanes_load(const float *p) {
    mf_lanes v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void mf_lanes_store(float *p, mf_lanes v) {
    memcpy(p, &v, sizeof v);
}
static inline mf_lanes mf_lanes_all(float x) {
    return x - (mf_lanes){0};
}

/* Unrolls the next loop, whose count is a small constant after inlining. Not under sanitizers: their checks
 * in every copy make compilers take minutes. */
#ifdef MF_SANITIZED
#    define MF_UNROLL
#elif defined(__clang__)
#    define MF_UNROLL _Pragma("clang loop unroll(full)")
#else
#    define MF_UNROLL _Pragma("GCC unroll 8")
#endif

static inline float mf_bf16_widen(uint16_t b) {
    uint32_t bits = (uint32_t)b << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Round to nearest, ties to even; a NaN stays a (quiet) NaN. */
static inline uint16_t mf_bf16_round(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t quiet = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

/* exp(x) to 2 units in the last place over the whole range; 0 below -87.4, +inf above 88.7, NaN for NaN.
 * Range reduction by n·ln 2 in two parts and a polynomial of degree 6 (Cephes' expf). */
static inline float mf_exp(float x) {
    float clamped = x > -87.4f ? (x < 88.8f ? x : 88.8f) : -87.4f; /* NaN: -87.4, put right at the end */
    float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float shifted = clamped * 1.44269504088896341f + magic;
    float n = shifted - magic;
    float r = clamped - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    /* 2^n in two factors, so that n = 128 overflows to +inf and not to a wrong exponent. */
    int32_t whole = (int32_t)n;
    int32_t half = whole >> 1;
    uint32_t bits_first = (uint32_t)(half + 127) << 23, bits_second = (uint32_t)(whole - half + 127) << 23;
    float first, second;
    memcpy(&first, &bits_first, sizeof first);
    memcpy(&second, &bits_second, sizeof second);
    float result = p * first * second;
    return x < -87.4f ? 0.0f : x != x ? x : result;
}

/* Within 2e-7. */
static inline float mf_tanh(float x) {
    float e = mf_exp(-2.0f * (x < 0 ? -x : x)), t = (1.0f - e) / (1.0f + e);
    return x < 0 ? -t : t;
}

#endif
