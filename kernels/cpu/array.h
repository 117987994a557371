/* Elements of an array as f32, whatever its dtype. Private to kernels/cpu. */
#ifndef MF_KERNELS_CPU_ARRAY_H
#define MF_KERNELS_CPU_ARRAY_H

#include "kernels/kernel.h"

/* `at`: elements from the array's first. Float dtypes only. */
static inline float mf_array_get(const struct mf_array *array, int64_t at) {
    if (array->dtype == MF_F32)
        return ((const float *)array->data)[at];
    uint16_t bits = ((const uint16_t *)array->data)[at];
    return array->dtype == MF_BF16 ? mf_bf16_to_f32(bits) : mf_f16_to_f32(bits);
}

static inline void mf_array_set(const struct mf_array *array, int64_t at, float value) {
    if (array->dtype == MF_F32)
        ((float *)array->data)[at] = value;
    else
        ((uint16_t *)array->data)[at] =
            array->dtype == MF_BF16 ? mf_f32_to_bf16(value) : mf_f32_to_f16(value);
}

/* What storing `value` in `dtype` keeps of it. */
static inline float mf_array_rounded(enum mf_dtype dtype, float value) {
    if (dtype == MF_BF16)
        return mf_bf16_to_f32(mf_f32_to_bf16(value));
    return dtype == MF_F16 ? mf_f16_to_f32(mf_f32_to_f16(value)) : value;
}

static inline int32_t mf_array_integer(const struct mf_array *array, int64_t at) {
    return ((const int32_t *)array->data)[at];
}

/* The index of the last row of sequences: rows at or beyond it are tail. offsets (S + 1). */
static inline int64_t mf_array_last_offset(const struct mf_array *offsets) {
    return mf_array_integer(offsets, offsets->dim[0] - 1);
}

#endif
