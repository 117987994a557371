/* Weights back from 4 and 8 bits, with the values of quantize.h: every product and sum is rounded by itself, so that
 * nothing is contracted. A thread makes eight values, which lie in one block of 64 or one row where they can. */
#include "kernels/cuda/device.cuh"

extern "C" {
#include "kernels/quantize.h"
}
#define MF_DYNAMIC_MAP static __device__ const
#include "kernels/dynamic_map.h"

namespace {

enum { EACH = 8, BLOCK_VALUES = MF_QUANTIZATION_BLOCK, NESTED = MF_QUANTIZATION_NESTED_BLOCK };

/* What each nibble stands for. */
__device__ const float nf4_values[16] = {-1.0f,
                                         -0.6961928009986877f,
                                         -0.5250730514526367f,
                                         -0.39491748809814453f,
                                         -0.28444138169288635f,
                                         -0.18477343022823334f,
                                         -0.09105003625154495f,
                                         0.0f,
                                         0.07958029955625534f,
                                         0.16093020141124725f,
                                         0.24611230194568634f,
                                         0.33791524171829224f,
                                         0.44070982933044434f,
                                         0.5626170039176941f,
                                         0.7229568362236023f,
                                         1.0f};
__device__ const float fp4_values[16] = {0.0f,       0.0625f / 12, 8.0f / 12,  1.0f,       4.0f / 12,  6.0f / 12,
                                         2.0f / 12,  3.0f / 12,    0.0f,       -0.0625f / 12, -8.0f / 12, -1.0f,
                                         -4.0f / 12, -6.0f / 12,   -2.0f / 12, -3.0f / 12};

/* The scale of block `block`: as it is kept, or nested: its map value times its own block's scale, plus the mean. */
__device__ inline float block_scale(const float *scales, const uint8_t *scale_codes, float mean, int64_t block) {
    if (!scale_codes)
        return scales[block];
    return __fadd_rn(__fmul_rn(mf_dynamic_map_signed[scale_codes[block]], scales[block / NESTED]), mean);
}

template <typename T>
__global__ void four_bits(const uint8_t *codes, const float *scales, const uint8_t *scale_codes, int64_t means,
                          bool fp4, int64_t elements, T *to) {
    __shared__ float values[16];
    if (threadIdx.x < 16)
        values[threadIdx.x] = fp4 ? fp4_values[threadIdx.x] : nf4_values[threadIdx.x];
    __syncthreads();
    const float mean = scale_codes ? scales[means] : 0;
    const int64_t step = (int64_t)gridDim.x * blockDim.x * EACH;
    for (int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH; first < elements; first += step) {
        const float scale = block_scale(scales, scale_codes, mean, first / BLOCK_VALUES);
        if (first + EACH <= elements && (uintptr_t)(to + first) % (EACH * sizeof(T)) == 0) {
            const uint32_t word = *(const uint32_t *)(codes + first / 2);
            float value[EACH];
#pragma unroll
            for (int i = 0; i < EACH; i++) /* the first of two is in the high nibble */
                value[i] = __fmul_rn(values[word >> (i / 2 * 8 + (i % 2 ? 0 : 4)) & 15], scale);
            mf::store<T, EACH>(to + first, value);
            continue;
        }
        for (int64_t i = first; i < first + EACH && i < elements; i++)
            to[i] = mf::from_f32<T>(__fmul_rn(values[codes[i / 2] >> (i % 2 ? 0 : 4) & 15], scale));
    }
}

template <typename T>
__global__ void eight_bits(const uint8_t *codes, const float *scales, int64_t columns, int64_t elements, T *to) {
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < elements; i += step)
        to[i] = mf::from_f32<T>(
            __fmul_rn(__fmul_rn((float)(int8_t)codes[i], scales[i / columns]), 7.874015718698502e-3f));
}

enum mf_status run_dequantize(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &weight = call->out[0]; // (N, K), contiguous
    const mf_dequantize_attributes &a = call->node->a.dequantize;
    const mf_quantization quantization = (mf_quantization)a.quantization;
    const uint8_t *codes = (const uint8_t *)call->in[0].data, *scale_codes = (const uint8_t *)call->in[2].data;
    const float *scales = (const float *)call->in[1].data;
    char *to = (char *)weight.data;
    for (int part = 0; part < MF_QUANTIZED_PARTS && a.rows[part]; part++) {
        const struct mf_quantized_layout size = mf_quantized_layout(quantization, a.nested, a.rows[part], a.columns);
        const int64_t elements = (int64_t)a.rows[part] * a.columns;
        MF_WITH_TYPE(weight.dtype, T, {
            if (quantization == MF_QUANTIZATION_INT8)
                eight_bits<T><<<mf::blocks_for(elements, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                    codes, scales, a.columns, elements, (T *)to);
            else
                four_bits<T><<<mf::blocks_for((elements + EACH - 1) / EACH, mf::BLOCK), mf::BLOCK, 0,
                               backend->stream>>>(codes, scales, scale_codes, size.scales - 1,
                                                  quantization == MF_QUANTIZATION_FP4, elements, (T *)to);
        });
        to += (size_t)elements * mf_dtype_bytes((mf_dtype)weight.dtype);
        codes += size.codes;
        scales += size.scales;
        scale_codes += scale_codes ? size.scale_codes : 0;
    }
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
const struct mf_kernel mf_cuda_dequantize[1] = {{run_dequantize, NULL, 0}};
}
