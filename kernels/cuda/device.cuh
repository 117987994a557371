/* What the .cu files share: loads and stores of any float dtype as f32, sums over a block in a fixed order, and the
 * shape of a launch. Private to kernels/cuda. */
#ifndef MF_KERNELS_CUDA_DEVICE_CUH
#define MF_KERNELS_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" {
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/state.h"
}

namespace mf {

enum { WARP = 32, BLOCK = 256, MOST_BLOCKS = 65535 };

template <typename T> __device__ inline float as_f32(T value) { return value; }
template <> __device__ inline float as_f32(__nv_bfloat16 value) { return __bfloat162float(value); }
template <> __device__ inline float as_f32(__half value) { return __half2float(value); }

template <typename T> __device__ inline T from_f32(float value) { return value; }
template <> __device__ inline __nv_bfloat16 from_f32(float value) { return __float2bfloat16_rn(value); }
template <> __device__ inline __half from_f32(float value) { return __float2half_rn(value); }

/* What storing `value` as T keeps of it. */
template <typename T> __device__ inline float rounded(float value) { return as_f32(from_f32<T>(value)); }

/* An element of an array whose dtype is known at run time only; the branch is the same for all threads. */
__device__ inline float load_any(const void *data, uint8_t dtype, int64_t at) {
    if (dtype == MF_F32)
        return ((const float *)data)[at];
    if (dtype == MF_BF16)
        return as_f32(((const __nv_bfloat16 *)data)[at]);
    return as_f32(((const __half *)data)[at]);
}

/* W elements in one access; `from` is aligned to all of them. */
template <typename T, int W> struct alignas(sizeof(T) * W) pack {
    T value[W];
};
template <typename T, int W> __device__ inline void load(const T *from, float (&to)[W]) {
    const pack<T, W> all = *(const pack<T, W> *)from;
#pragma unroll
    for (int i = 0; i < W; i++)
        to[i] = as_f32(all.value[i]);
}
template <typename T, int W> __device__ inline void store(T *to, const float (&from)[W]) {
    pack<T, W> all;
#pragma unroll
    for (int i = 0; i < W; i++)
        all.value[i] = from_f32<T>(from[i]);
    *(pack<T, W> *)to = all;
}

template <typename V> __device__ inline V warp_sum(V value) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}
__device__ inline float warp_max(float value) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    return value;
}

/* The sum over a block of whole warps, the same bits in every thread. May be called again at once. */
template <typename V> __device__ inline V block_sum(V value) {
    __shared__ V part[WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_sum(value);
    __syncthreads();
    if (lane == 0)
        part[warp] = value;
    __syncthreads();
    value = part[0];
    for (int i = 1; i < warps; i++)
        value += part[i];
    return value;
}
__device__ inline float block_max(float value) {
    __shared__ float part[WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_max(value);
    __syncthreads();
    if (lane == 0)
        part[warp] = value;
    __syncthreads();
    value = part[0];
    for (int i = 1; i < warps; i++)
        value = fmaxf(value, part[i]);
    return value;
}

/* Keeps the first fault of a run. */
__device__ inline void note_fault(mf_cuda_fault *fault, int32_t op, int32_t value, int64_t at, int64_t limit) {
    if (atomicCAS(&fault->op, 0, op + 1) == 0) {
        fault->value = value;
        fault->at = (int32_t)at;
        fault->limit = (int32_t)limit;
    }
}

/* Blocks for `work` items of which one block does `each`; kernels stride over what is beyond the grid. */
inline unsigned blocks_for(int64_t work, int64_t each) {
    const int64_t blocks = (work + each - 1) / each;
    return (unsigned)(blocks < MOST_BLOCKS * 16 ? blocks : MOST_BLOCKS * 16);
}

/* All rows of an array of rank 1 to 4, its last dimension apart: where row i begins. */
struct rows {
    int64_t dim[2], stride[3]; /* leading dimensions 1 and 2 of three, and strides of all three */
    int64_t count, width;
};
inline rows rows_of(const mf_array &array) {
    rows made = {{1, 1}, {0, 0, 0}, 1, array.dim[array.rank - 1]};
    const int leading = array.rank - 1;
    for (int axis = 0; axis < leading; axis++) {
        const int place = 3 - leading + axis;
        made.stride[place] = array.stride[axis];
        if (place > 0)
            made.dim[place - 1] = array.dim[axis];
        made.count *= array.dim[axis];
    }
    return made;
}
__device__ inline int64_t row_start(const rows &r, int64_t i) {
    const int64_t last = i % r.dim[1], rest = i / r.dim[1];
    return rest / r.dim[0] * r.stride[0] + rest % r.dim[0] * r.stride[1] + last * r.stride[2];
}

/* Can rows of this array be walked in packs of W elements? */
template <int W> inline bool packs(const mf_array &array) {
    const size_t width = mf_dtype_bytes((mf_dtype)array.dtype) * W;
    bool fits = (uintptr_t)array.data % width == 0 && array.dim[array.rank - 1] % W == 0;
    for (int axis = 0; axis < array.rank - 1; axis++)
        fits = fits && array.stride[axis] % W == 0;
    return fits;
}

} // namespace mf

/* Runs `statement` with T the C++ type of the activations' dtype. */
#define MF_WITH_TYPE(dtype, T, ...)      \
    do {                                 \
        if ((dtype) == MF_F32) {         \
            using T = float;             \
            __VA_ARGS__;                 \
        } else {                         \
            using T = __nv_bfloat16;     \
            __VA_ARGS__;                 \
        }                                \
    } while (0)

#endif
