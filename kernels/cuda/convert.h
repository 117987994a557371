/* Copies that change an array's dtype or rows. convert.cu; private to kernels/cuda. */
#ifndef MF_KERNELS_CUDA_CONVERT_H
#define MF_KERNELS_CUDA_CONVERT_H

#include "kernels/cuda/state.h"

/* to (rows, columns), rows `to_row` elements apart, of `to_dtype` = factor * from; float dtypes. */
enum mf_status mf_cuda_convert(const struct mf_cuda_backend *backend, const struct mf_array *from,
                               int64_t rows, int64_t columns, float factor, void *to, int64_t to_row,
                               uint8_t to_dtype, struct mf_error *error);

/* to[i] (count, columns) = from[row[i]], dense, the dtype kept. A row that `from` does not have is `op`'s
 * fault. */
enum mf_status mf_cuda_gather(const struct mf_cuda_backend *backend, int32_t op, const struct mf_array *from,
                              const int32_t *row, int64_t first, int64_t count, void *to,
                              struct mf_error *error);

#endif
