#include "kernels/cuda/device.cuh"

namespace {

enum { NORM_BLOCK = 4096 };

/* Sums of squares of blocks of 4,096 elements, in double. */
__global__ void square_blocks(const float *gradient, int64_t n, double *sum) {
    double squares = 0;
    for (int64_t i = (int64_t)blockIdx.x * NORM_BLOCK + threadIdx.x;
         i < n && i < ((int64_t)blockIdx.x + 1) * NORM_BLOCK; i += blockDim.x)
        squares += (double)gradient[i] * gradient[i];
    squares = mf::block_sum(squares);
    if (threadIdx.x == 0)
        sum[blockIdx.x] = squares;
}

/* One block adds them in order: each thread a stretch, then the stretches. */
__global__ void finish_norm(const double *sum, int64_t blocks, const mf_step *step, float *norm,
                            float *coefficient) {
    const int64_t stretch = (blocks + blockDim.x - 1) / blockDim.x;
    double total = 0;
    for (int64_t i = threadIdx.x * stretch; i < blocks && i < (threadIdx.x + 1) * stretch; i++)
        total += sum[i];
    total = mf::block_sum(total);
    if (threadIdx.x != 0)
        return;
    norm[0] = (float)sqrt(total);
    coefficient[0] = step->clip > 0 ? fminf(1.0f, step->clip / (norm[0] + 1e-6f)) : 1.0f;
}

int64_t norm_blocks(const mf_array &gradient) {
    return (gradient.dim[0] + NORM_BLOCK - 1) / NORM_BLOCK;
}

enum mf_status run_gradient_norm(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &gradient = call->in[0]; // (n) f32
    double *sum = (double *)call->workspace[1].data;
    const int64_t blocks = norm_blocks(gradient);
    if (blocks)
        square_blocks<<<(unsigned)blocks, mf::BLOCK, 0, backend->stream>>>((const float *)gradient.data,
                                                                           gradient.dim[0], sum);
    finish_norm<<<1, mf::BLOCK, 0, backend->stream>>>(sum, blocks, backend->step, (float *)call->out[0].data,
                                                      (float *)call->out[1].data);
    return mf_cuda_launched(call, error);
}

size_t gradient_norm_workspace(const struct mf_kernel_call *call) {
    return (size_t)norm_blocks(call->in[0]) * sizeof(double);
}

__global__ void adamw(float *parameter, float *first, float *second, const float *gradient,
                      const float *coefficient, const mf_step *step, mf_adamw_attributes a, int64_t n) {
    __shared__ float decay, step_size, root_correction;
    if (threadIdx.x == 0) {
        const double rate = step->learning_rate, t = step->optimizer_step;
        decay = (float)(1 - rate * a.weight_decay);
        step_size = (float)(rate / (1 - pow((double)a.beta1, t)));
        root_correction = (float)sqrt(1 - pow((double)a.beta2, t));
    }
    __syncthreads();
    const float factor = coefficient[0];
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        const float g = factor * gradient[i];
        const float p = parameter[i] * decay;
        const float m = first[i] + (1 - a.beta1) * (g - first[i]);
        const float v = a.beta2 * second[i] + (1 - a.beta2) * g * g;
        first[i] = m;
        second[i] = v;
        parameter[i] = p - step_size * m / (sqrtf(v) / root_correction + a.epsilon);
    }
}

enum mf_status run_adamw(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const int64_t n = call->out[0].dim[0];
    if (n == 0)
        return MF_OK;
    const unsigned blocks = mf::blocks_for(n, mf::BLOCK * 4); /* few: each computes two powers first */
    adamw<<<blocks, mf::BLOCK, 0, backend->stream>>>(
        (float *)call->out[0].data, (float *)call->out[1].data, (float *)call->out[2].data,
        (const float *)call->in[3].data, (const float *)call->in[4].data, backend->step, call->node->a.adamw, n);
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
const struct mf_kernel mf_cuda_gradient_norm[1] = {{run_gradient_norm, gradient_norm_workspace, 0}};
const struct mf_kernel mf_cuda_adamw[1] = {{run_adamw, NULL, 0}};
}
