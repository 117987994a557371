#include "kernels/cuda/activate.cuh"
#include "kernels/cuda/device.cuh"

namespace {

/* y = activation(x), or with dy: y = dy * slope. */
template <typename T, int W>
__global__ void activation(mf_activation kind, const T *x, int64_t x_row, const T *dy, int64_t dy_row,
                           int64_t tokens, int64_t F, T *y, int64_t y_row) {
    const int64_t packs = F / W, all = tokens * packs;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t t = i / packs, f = i % packs * W;
        float value[W], out[W], slope;
        mf::load<T, W>(x + t * x_row + f, value);
        if (dy)
            mf::load<T, W>(dy + t * dy_row + f, out);
#pragma unroll
        for (int c = 0; c < W; c++) {
            value[c] = mf::activate(kind, value[c], &slope);
            if (dy)
                value[c] = out[c] * slope;
        }
        mf::store<T, W>(y + t * y_row + f, value);
    }
}

enum mf_status run(const struct mf_kernel_call *call, const mf_array *dy, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &x = call->in[0], &y = call->out[0]; // (T, F), y may be x
    const mf_activation kind = call->node->a.gated.activation;
    const int64_t tokens = x.dim[0], F = x.dim[1];
    if (tokens * F == 0)
        return MF_OK;
    MF_WITH_TYPE(x.dtype, T, {
        constexpr int W = 16 / sizeof(T);
        const T *slope = dy ? (const T *)dy->data : NULL;
        const int64_t slope_row = dy ? dy->stride[0] : 0;
        if (mf::packs<W>(x) && mf::packs<W>(y) && (!dy || mf::packs<W>(*dy)))
            activation<T, W><<<mf::blocks_for(tokens * F / W, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                kind, (const T *)x.data, x.stride[0], slope, slope_row, tokens, F, (T *)y.data, y.stride[0]);
        else
            activation<T, 1><<<mf::blocks_for(tokens * F, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
                kind, (const T *)x.data, x.stride[0], slope, slope_row, tokens, F, (T *)y.data, y.stride[0]);
    });
    return mf_cuda_launched(call, error);
}

enum mf_status run_activation(const struct mf_kernel_call *call, struct mf_error *error) {
    return run(call, NULL, error);
}

enum mf_status run_activation_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    return run(call, &call->in[1], error);
}

} // namespace

extern "C" {
const struct mf_kernel mf_cuda_activation[1] = {{run_activation, NULL, 0}};
const struct mf_kernel mf_cuda_activation_gradient[1] = {{run_activation_gradient, NULL, 0}};
}
