/* Sums down the rows of an array. column_sums.cu; private to kernels/cuda. */
#ifndef MF_KERNELS_CUDA_COLUMN_SUMS_H
#define MF_KERNELS_CUDA_COLUMN_SUMS_H

#include "kernels/cuda/state.h"

/* sums (columns) f32 += factor * the sum of the rows of `array` (rows, columns), f32 or bf16, always in the
 * same order. */
void mf_cuda_add_column_sums(const struct mf_cuda_backend *backend, const struct mf_array *array,
                             float factor, void *sums);

#endif
