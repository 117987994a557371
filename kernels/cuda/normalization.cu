#include "kernels/cuda/device.cuh"

namespace {

/* A row's threads: whole warps, no more than the row has packs. */
unsigned threads_for(int64_t packs) {
    const int64_t warps = (packs + mf::WARP - 1) / mf::WARP;
    return (unsigned)(warps < 8 ? warps : 8) * mf::WARP;
}

/* A block a row. */
template <typename T, int W>
__global__ void rms_norm(const T *x, int64_t x_row, const void *weight, uint8_t weight_dtype, int64_t D,
                         float epsilon, bool unit_offset, T *y, int64_t y_row, float *rstd) {
    const int64_t r = blockIdx.x;
    const T *from = x + r * x_row;
    float squares = 0;
    for (int64_t d = threadIdx.x * W; d < D; d += blockDim.x * W) {
        float value[W];
        mf::load<T, W>(from + d, value);
#pragma unroll
        for (int i = 0; i < W; i++)
            squares += value[i] * value[i];
    }
    const float scale = 1.0f / sqrtf(mf::block_sum(squares) / (float)D + epsilon);
    if (threadIdx.x == 0)
        rstd[r] = scale;
    for (int64_t d = threadIdx.x * W; d < D; d += blockDim.x * W) {
        float value[W];
        mf::load<T, W>(from + d, value);
#pragma unroll
        for (int i = 0; i < W; i++) {
            const float w = mf::load_any(weight, weight_dtype, d + i), normal = value[i] * scale;
            value[i] = unit_offset ? normal * (1.0f + w) : w * mf::rounded<T>(normal);
        }
        mf::store<T, W>(y + r * y_row + d, value);
    }
}

enum mf_status run_rms_norm(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &x = call->in[0];      // (R, D)
    const mf_array &weight = call->in[1]; // (D)
    const mf_array &y = call->out[0];     // (R, D)
    const mf_norm_attributes &a = call->node->a.norm;
    const int64_t R = x.dim[0], D = x.dim[1];
    const bool unit_offset = a.variant == MF_NORM_UNIT_OFFSET;
    if (R == 0)
        return MF_OK;
    MF_WITH_TYPE(x.dtype, T, {
        constexpr int W = 16 / sizeof(T);
        if (mf::packs<W>(x) && mf::packs<W>(y))
            rms_norm<T, W><<<(unsigned)R, threads_for(D / W), 0, backend->stream>>>(
                (const T *)x.data, x.stride[0], weight.data, weight.dtype, D, a.epsilon, unit_offset,
                (T *)y.data, y.stride[0], (float *)call->out[1].data);
        else
            rms_norm<T, 1><<<(unsigned)R, threads_for(D), 0, backend->stream>>>(
                (const T *)x.data, x.stride[0], weight.data, weight.dtype, D, a.epsilon, unit_offset,
                (T *)y.data, y.stride[0], (float *)call->out[1].data);
    });
    return mf_cuda_launched(call, error);
}

/* dx may be addend: each thread reads an element of it before it writes the same one. */
template <typename T, int W>
__global__ void rms_norm_gradient(const T *x, int64_t x_row, const void *weight, uint8_t weight_dtype, int64_t D,
                                  float offset, const float *rstd, const T *dy, int64_t dy_row,
                                  const T *addend, int64_t addend_row, T *dx, int64_t dx_row) {
    const int64_t r = blockIdx.x;
    const float scale = rstd[r];
    float sum = 0;
    for (int64_t d = threadIdx.x * W; d < D; d += blockDim.x * W) {
        float value[W], slope[W];
        mf::load<T, W>(x + r * x_row + d, value);
        mf::load<T, W>(dy + r * dy_row + d, slope);
#pragma unroll
        for (int i = 0; i < W; i++)
            sum += (offset + mf::load_any(weight, weight_dtype, d + i)) * slope[i] * (value[i] * scale);
    }
    const float mean = mf::block_sum(sum) / (float)D;
    for (int64_t d = threadIdx.x * W; d < D; d += blockDim.x * W) {
        float value[W], slope[W], base[W];
        mf::load<T, W>(x + r * x_row + d, value);
        mf::load<T, W>(dy + r * dy_row + d, slope);
        if (addend)
            mf::load<T, W>(addend + r * addend_row + d, base);
#pragma unroll
        for (int i = 0; i < W; i++) {
            const float w = offset + mf::load_any(weight, weight_dtype, d + i);
            value[i] = (addend ? base[i] : 0.0f) + scale * (w * slope[i] - value[i] * scale * mean);
        }
        mf::store<T, W>(dx + r * dx_row + d, value);
    }
}

enum mf_status run_rms_norm_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &x = call->in[0];      // (R, D)
    const mf_array &weight = call->in[1]; // (D)
    const mf_array &dy = call->in[3];     // (R, D)
    const mf_array &addend = call->in[4]; // (R, D) or none
    const mf_array &dx = call->out[0];    // (R, D), may be addend
    const float *rstd = (const float *)call->in[2].data;
    const float offset = call->node->a.norm.variant == MF_NORM_UNIT_OFFSET ? 1.0f : 0.0f;
    const int64_t R = x.dim[0], D = x.dim[1];
    if (R == 0)
        return MF_OK;
    MF_WITH_TYPE(x.dtype, T, {
        constexpr int W = 16 / sizeof(T);
        if (mf::packs<W>(x) && mf::packs<W>(dy) && mf::packs<W>(dx) && (!addend.data || mf::packs<W>(addend)))
            rms_norm_gradient<T, W><<<(unsigned)R, threads_for(D / W), 0, backend->stream>>>(
                (const T *)x.data, x.stride[0], weight.data, weight.dtype, D, offset, rstd, (const T *)dy.data,
                dy.stride[0], (const T *)addend.data, addend.stride[0], (T *)dx.data, dx.stride[0]);
        else
            rms_norm_gradient<T, 1><<<(unsigned)R, threads_for(D), 0, backend->stream>>>(
                (const T *)x.data, x.stride[0], weight.data, weight.dtype, D, offset, rstd, (const T *)dy.data,
                dy.stride[0], (const T *)addend.data, addend.stride[0], (T *)dx.data, dx.stride[0]);
    });
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
const struct mf_kernel mf_cuda_rms_norm[1] = {{run_rms_norm, NULL, 0}};
const struct mf_kernel mf_cuda_rms_norm_gradient[1] = {{run_rms_norm_gradient, NULL, 0}};
}
