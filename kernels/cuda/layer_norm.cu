#include "kernels/cuda/device.cuh"

namespace {

/* A row's threads: whole warps, no more than the row has elements. */
unsigned threads_for(int64_t D) {
    const int64_t warps = (D + mf::WARP - 1) / mf::WARP;
    return (unsigned)(warps < 8 ? warps : 8) * mf::WARP;
}

/* A block a row. */
template <typename T>
__global__ void layer_norm(const T *x, int64_t x_row, const void *weight, uint8_t weight_dtype, const void *bias,
                           uint8_t bias_dtype, int64_t D, float epsilon, T *y, int64_t y_row, float *mean,
                           float *rstd) {
    const int64_t r = blockIdx.x;
    const T *from = x + r * x_row;
    float sum = 0, left = 0, squares = 0;
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
        sum += mf::as_f32(from[d]);
    float middle = mf::block_sum(sum) / (float)D;
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x) /* what rounding left, where the mean is large */
        left += mf::as_f32(from[d]) - middle;
    middle += mf::block_sum(left) / (float)D;
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x) {
        const float distance = mf::as_f32(from[d]) - middle;
        squares += distance * distance;
    }
    const float scale = 1.0f / sqrtf(mf::block_sum(squares) / (float)D + epsilon);
    if (threadIdx.x == 0) {
        mean[r] = middle;
        rstd[r] = scale;
    }
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
        y[r * y_row + d] = mf::from_f32<T>((mf::as_f32(from[d]) - middle) * scale *
                                               mf::load_any(weight, weight_dtype, d) +
                                           mf::load_any(bias, bias_dtype, d));
}

enum mf_status run_layer_norm(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &x = call->in[0];                            // (R, D)
    const mf_array &weight = call->in[1], &bias = call->in[2]; // (D)
    const mf_array &y = call->out[0];                           // (R, D)
    const int64_t R = x.dim[0], D = x.dim[1];
    if (R == 0)
        return MF_OK;
    MF_WITH_TYPE(x.dtype, T,
                 layer_norm<T><<<(unsigned)R, threads_for(D), 0, backend->stream>>>(
                     (const T *)x.data, x.stride[0], weight.data, weight.dtype, bias.data, bias.dtype, D,
                     call->node->a.layer_norm.epsilon, (T *)y.data, y.stride[0], (float *)call->out[1].data,
                     (float *)call->out[2].data));
    return mf_cuda_launched(call, error);
}

/* dx may be addend: each thread reads an element of it before it writes the same one. */
template <typename T>
__global__ void layer_norm_gradient(const T *x, int64_t x_row, const void *weight, uint8_t weight_dtype, int64_t D,
                                    const float *mean, const float *rstd, const T *dy, int64_t dy_row,
                                    const T *addend, int64_t addend_row, T *dx, int64_t dx_row) {
    const int64_t r = blockIdx.x;
    const float middle = mean[r], scale = rstd[r];
    float plain = 0, normal = 0;
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x) {
        const float slope = mf::load_any(weight, weight_dtype, d) * mf::as_f32(dy[r * dy_row + d]);
        plain += slope;
        normal += slope * (mf::as_f32(x[r * x_row + d]) - middle) * scale;
    }
    plain = mf::block_sum(plain) / (float)D;
    normal = mf::block_sum(normal) / (float)D;
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x) {
        const float slope = mf::load_any(weight, weight_dtype, d) * mf::as_f32(dy[r * dy_row + d]);
        const float value = (mf::as_f32(x[r * x_row + d]) - middle) * scale;
        const float base = addend ? mf::as_f32(addend[r * addend_row + d]) : 0.0f;
        dx[r * dx_row + d] = mf::from_f32<T>(base + scale * (slope - plain - value * normal));
    }
}

enum mf_status run_layer_norm_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &x = call->in[0];      // (R, D)
    const mf_array &weight = call->in[1]; // (D)
    const mf_array &dy = call->in[4];     // (R, D)
    const mf_array &addend = call->in[5]; // (R, D) or none
    const mf_array &dx = call->out[0];    // (R, D), may be addend
    const int64_t R = x.dim[0], D = x.dim[1];
    if (R == 0)
        return MF_OK;
    MF_WITH_TYPE(x.dtype, T,
                 layer_norm_gradient<T><<<(unsigned)R, threads_for(D), 0, backend->stream>>>(
                     (const T *)x.data, x.stride[0], weight.data, weight.dtype, D,
                     (const float *)call->in[2].data, (const float *)call->in[3].data, (const T *)dy.data,
                     dy.stride[0], (const T *)addend.data, addend.stride[0], (T *)dx.data, dx.stride[0]));
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
const struct mf_kernel mf_cuda_layer_norm[1] = {{run_layer_norm, NULL, 0}};
const struct mf_kernel mf_cuda_layer_norm_gradient[1] = {{run_layer_norm_gradient, NULL, 0}};
}
