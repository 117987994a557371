/* Sums down the rows of activations: gradients of biases and of the weights of norms. */
#include "kernels/cuda/device.cuh"
extern "C" {
#include "kernels/cuda/column_sums.h"
}

namespace {

enum { COLUMNS = 32, LANES = 16 };

/* What row r adds to column c. */
template <typename T> struct plain {
    const T *dy;
    int64_t dy_row;
    __device__ float operator()(int64_t r, int64_t c) const { return mf::as_f32(dy[r * dy_row + c]); }
};

/* dy times the normalised x; mean NULL: 0. */
template <typename T> struct normalized {
    const T *x, *dy;
    int64_t x_row, dy_row;
    const float *mean, *rstd;
    bool rounded;
    __device__ float operator()(int64_t r, int64_t c) const {
        const float value = (mf::as_f32(x[r * x_row + c]) - (mean ? mean[r] : 0.0f)) * rstd[r];
        return mf::as_f32(dy[r * dy_row + c]) * (rounded ? mf::rounded<T>(value) : value);
    }
};

/* gradient[c] += factor * Σ_r part(r, c): a block 32 columns. Its lanes take every LANES-th row, in order, and are added
 * in order. */
template <typename P> __global__ void sum_columns(P part, int64_t R, int64_t C, float factor, float *gradient) {
    __shared__ float partial[LANES][COLUMNS];
    const int64_t c = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    float sum = 0;
    for (int64_t r = threadIdx.y; c < C && r < R; r += LANES)
        sum += part(r, c);
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || c >= C)
        return;
    for (int lane = 1; lane < LANES; lane++)
        sum += partial[lane][threadIdx.x];
    gradient[c] += factor * sum;
}

template <typename P>
void launch(const mf_cuda_backend *backend, const P &part, int64_t R, int64_t C, float factor, void *gradient) {
    if (R > 0 && C > 0)
        sum_columns<<<(unsigned)((C + COLUMNS - 1) / COLUMNS), dim3(COLUMNS, LANES), 0, backend->stream>>>(
            part, R, C, factor, (float *)gradient);
}

enum mf_status run_linear_bias_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_linear_attributes &a = call->node->a.linear;
    const mf_array &dy = call->in[0]; // (T, M)
    mf_array columns = dy;            // (T, N)
    columns.data = (char *)dy.data + (size_t)a.first * mf_dtype_bytes((mf_dtype)dy.dtype);
    columns.dim[1] = call->out[0].dim[0];
    mf_cuda_add_column_sums(mf_cuda_backend_of(call), &columns, a.alpha, call->out[0].data);
    return mf_cuda_launched(call, error);
}

enum mf_status run_rms_norm_weight_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_array &x = call->in[0], &dy = call->in[2]; // (R, D)
    MF_WITH_TYPE(x.dtype, T,
                 launch(mf_cuda_backend_of(call),
                        normalized<T>{(const T *)x.data, (const T *)dy.data, x.stride[0], dy.stride[0], NULL,
                                      (const float *)call->in[1].data,
                                      call->node->a.norm.variant == MF_NORM_CAST_THEN_SCALE},
                        x.dim[0], x.dim[1], 1.0f, call->out[0].data));
    return mf_cuda_launched(call, error);
}

enum mf_status run_layer_norm_weight_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_array &x = call->in[0], &dy = call->in[3]; // (R, D)
    MF_WITH_TYPE(x.dtype, T,
                 launch(mf_cuda_backend_of(call),
                        normalized<T>{(const T *)x.data, (const T *)dy.data, x.stride[0], dy.stride[0],
                                      (const float *)call->in[1].data, (const float *)call->in[2].data, false},
                        x.dim[0], x.dim[1], 1.0f, call->out[0].data));
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
void mf_cuda_add_column_sums(const struct mf_cuda_backend *backend, const struct mf_array *array, float factor,
                             void *sums) {
    MF_WITH_TYPE(array->dtype, T,
                 launch(backend, plain<T>{(const T *)array->data, array->stride[0]}, array->dim[0],
                        array->dim[1], factor, sums));
}

const struct mf_kernel mf_cuda_linear_bias_gradient[1] = {{run_linear_bias_gradient, NULL, 0}};
const struct mf_kernel mf_cuda_rms_norm_weight_gradient[1] = {{run_rms_norm_weight_gradient, NULL, 0}};
const struct mf_kernel mf_cuda_layer_norm_weight_gradient[1] = {{run_layer_norm_weight_gradient, NULL, 0}};
}
