#include "kernels/cuda/device.cuh"
extern "C" {
#include "kernels/cuda/convert.h"
}

namespace {

template <typename T>
__global__ void convert(const void *from, uint8_t dtype, int64_t from_row, int64_t rows, int64_t columns,
                        float factor, T *to, int64_t to_row) {
    const int64_t all = rows * columns, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += step) {
        const int64_t row = i / columns, column = i % columns;
        to[row * to_row + column] =
            mf::from_f32<T>(factor * mf::load_any(from, dtype, row * from_row + column));
    }
}

template <typename T>
__global__ void gather(int32_t op, const T *from, int64_t from_row, int64_t from_rows, int64_t columns,
                       const int32_t *row, int64_t first, T *to, mf_cuda_fault *fault) {
    const int64_t i = blockIdx.x;
    const int32_t wanted = row[first + i];
    const bool known = wanted >= 0 && wanted < from_rows;
    if (!known && threadIdx.x == 0)
        mf::note_fault(fault, op, wanted, first + i, from_rows);
    for (int64_t c = threadIdx.x; c < columns; c += blockDim.x)
        to[i * columns + c] = known ? from[wanted * from_row + c] : mf::from_f32<T>(0.0f);
}

} // namespace

extern "C" enum mf_status mf_cuda_convert(const struct mf_cuda_backend *backend, const struct mf_array *from,
                                          int64_t rows, int64_t columns, float factor, void *to,
                                          int64_t to_row, uint8_t to_dtype, struct mf_error *error) {
    if (rows * columns == 0)
        return MF_OK;
    MF_WITH_TYPE(to_dtype, T,
                 convert<T><<<mf::blocks_for(rows * columns, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                     from->data, from->dtype, from->stride[0], rows, columns, factor, (T *)to, to_row));
    return mf_cuda_check(cudaGetLastError(), "a conversion", error);
}

extern "C" enum mf_status mf_cuda_gather(const struct mf_cuda_backend *backend, int32_t op,
                                         const struct mf_array *from, const int32_t *row, int64_t first,
                                         int64_t count, void *to, struct mf_error *error) {
    if (count == 0)
        return MF_OK;
    MF_WITH_TYPE(from->dtype, T,
                 gather<T><<<(unsigned)count, mf::BLOCK, 0, backend->stream>>>(
                     op, (const T *)from->data, from->stride[0], from->dim[0], from->dim[1], row, first, (T *)to,
                     backend->fault));
    return mf_cuda_check(cudaGetLastError(), "gathering rows", error);
}
