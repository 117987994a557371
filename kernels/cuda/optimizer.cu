#include "kernels/cuda/device.cuh"

#define MF_DYNAMIC_MAP static __device__ const
#include "kernels/dynamic_map.h"

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

/* How many of the values midway between two of a map a value is above, by halves. */
__device__ int encode(const float *threshold, float value) {
    int code = 0;
    for (int half = MF_DYNAMIC_MAP_CODES / 2; half > 0; half /= 2)
        code += value > threshold[code + half - 1] ? half : 0;
    return code;
}

/* One block of threads a block of elements. Products and sums are rounded one by one, as on the CPU, so that a
 * moment midway between two codes gets the same one. */
__global__ void adamw_8bit(float *parameter, uint8_t *first, uint8_t *second, float *scales,
                           const float *gradient, const float *coefficient, const mf_step *step,
                           mf_adamw_attributes a) {
    __shared__ float above_first[MF_DYNAMIC_MAP_CODES], above_second[MF_DYNAMIC_MAP_CODES];
    __shared__ float decay, step_size, epsilon;
    const int at = threadIdx.x, next = at + 1 < MF_DYNAMIC_MAP_CODES ? at + 1 : at;
    const int64_t i = (int64_t)blockIdx.x * MF_BUCKET_BLOCK + at;
    above_first[at] = (mf_dynamic_map_signed[at] + mf_dynamic_map_signed[next]) / 2;
    above_second[at] = (mf_dynamic_map_unsigned[at] + mf_dynamic_map_unsigned[next]) / 2;
    if (at == 0) {
        const double rate = step->learning_rate, t = step->optimizer_step;
        const double correction = sqrt(1 - pow((double)a.beta2, t));
        decay = (float)(1 - rate * a.weight_decay);
        step_size = (float)(rate * correction / (1 - pow((double)a.beta1, t)));
        epsilon = (float)(correction * a.epsilon);
    }
    __syncthreads();
    float *scale = scales + 2 * (int64_t)blockIdx.x;
    const float g = __fmul_rn(coefficient[0], gradient[i]);
    const float old_m = __fmul_rn(mf_dynamic_map_signed[first[i]], scale[0]);
    const float old_v = __fmul_rn(mf_dynamic_map_unsigned[second[i]], scale[1]);
    const float m = __fadd_rn(__fmul_rn(old_m, a.beta1), __fmul_rn(1 - a.beta1, g));
    const float v = __fadd_rn(__fmul_rn(old_v, a.beta2), __fmul_rn(__fmul_rn(1 - a.beta2, g), g));
    parameter[i] = (parameter[i] - step_size * (m / (sqrtf(v) + epsilon))) * decay;
    const float most_m = mf::block_max(fabsf(m)), most_v = mf::block_max(v);
    int code = encode(above_first, __fmul_rn(m, 1 / fmaxf(most_m, 1e-38f)));
    if (m < 0 && mf_dynamic_map_signed[code] == 0)
        code--;
    first[i] = (uint8_t)code;
    second[i] = (uint8_t)encode(above_second, __fmul_rn(v, 1 / fmaxf(most_v, 1e-38f)));
    if (at == 0) { /* all have read them: block_max waits for that */
        scale[0] = most_m;
        scale[1] = most_v;
    }
}

enum mf_status run_adamw_8bit(const struct mf_kernel_call *call, struct mf_error *error) {
    static_assert((int)MF_BUCKET_BLOCK == (int)MF_DYNAMIC_MAP_CODES, "a thread fills one threshold of each map");
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const int64_t blocks = call->out[0].dim[0] / MF_BUCKET_BLOCK;
    if (blocks)
        adamw_8bit<<<(unsigned)blocks, MF_BUCKET_BLOCK, 0, backend->stream>>>(
            (float *)call->out[0].data, (uint8_t *)call->out[1].data, (uint8_t *)call->out[2].data,
            (float *)call->out[3].data, (const float *)call->in[4].data, (const float *)call->in[5].data,
            backend->step, call->node->a.adamw);
    return mf_cuda_launched(call, error);
}

__global__ void sgd(float *parameter, const float *gradient, const float *coefficient, const mf_step *step,
                    float decay, int64_t n) {
    const float factor = coefficient[0], rate = step->learning_rate;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x)
        parameter[i] -= rate * (factor * gradient[i] + decay * parameter[i]);
}

enum mf_status run_sgd(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const int64_t n = call->out[0].dim[0];
    if (n == 0)
        return MF_OK;
    sgd<<<mf::blocks_for(n, mf::BLOCK * 4), mf::BLOCK, 0, backend->stream>>>(
        (float *)call->out[0].data, (const float *)call->in[1].data, (const float *)call->in[2].data,
        backend->step, call->node->a.sgd.weight_decay, n);
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
const struct mf_kernel mf_cuda_gradient_norm[1] = {{run_gradient_norm, gradient_norm_workspace, 0}};
const struct mf_kernel mf_cuda_adamw[1] = {{run_adamw, NULL, 0}};
const struct mf_kernel mf_cuda_adamw_8bit[1] = {{run_adamw_8bit, NULL, 0}};
const struct mf_kernel mf_cuda_sgd[1] = {{run_sgd, NULL, 0}};
}
