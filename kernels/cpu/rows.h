/* Stretches of an array as f32, and back: loads and stores of the fast kernels. Private to kernels/cpu. */
#ifndef MF_KERNELS_CPU_ROWS_H
#define MF_KERNELS_CPU_ROWS_H

#include "kernels/cpu/array.h"
#include "kernels/cpu/simd.h"

/* Element-wise kernels walk a row in stretches of this many elements, which stay in the first-level cache. */
enum { MF_STRETCH = 512 };

/* Kernels that sum down the columns walk so many at a time, which a vector register or a few hold. */
enum { MF_COLUMNS = 64 };

/* n elements from `at` on (elements from the array's first), as f32. */
static inline void mf_load(const struct mf_array *array, int64_t at, float *restrict to, int64_t n) {
    if (array->dtype == MF_F32) {
        memcpy(to, (const float *)array->data + at, (size_t)n * sizeof *to);
    } else if (array->dtype == MF_BF16) {
        const uint16_t *restrict from = (const uint16_t *)array->data + at;
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = mf_bf16_to_f32(from[i]);
    } else {
        for (int64_t i = 0; i < n; i++)
            to[i] = mf_array_get(array, at + i);
    }
}

/* f32 and bf16 arrays only. */
static inline void mf_store(const struct mf_array *array, int64_t at, const float *restrict from, int64_t n) {
    if (array->dtype == MF_F32) {
        memcpy((float *)array->data + at, from, (size_t)n * sizeof *from);
    } else {
        uint16_t *restrict to = (uint16_t *)array->data + at;
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            to[i] = mf_bf16_round(from[i]);
    }
}

/* What storing these values in the array's dtype keeps of them. */
static inline void mf_round_to(const struct mf_array *array, float *restrict value, int64_t n) {
    if (array->dtype == MF_BF16)
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            value[i] = mf_bf16_to_f32(mf_bf16_round(value[i]));
}

static inline int64_t mf_stretch_length(int64_t start, int64_t n) {
    return n - start < MF_STRETCH ? n - start : MF_STRETCH;
}

#endif
