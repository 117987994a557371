/* The output layer: chunks of labelled rows are gathered, multiplied by cuBLASLt, and turned in one pass over each row
 * of logits into its log-sum-exp, the label's log-probability and d/dlogits, which a second product takes back. */
#include "kernels/cuda/device.cuh"
extern "C" {
#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/convert.h"
#include "kernels/cuda/gemm.h"
}

namespace {

size_t aligned(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

__device__ inline float capped(float z, float logit_scale, float soft_cap, float *slope) {
    *slope = logit_scale;
    z *= logit_scale;
    if (soft_cap > 0) {
        const float t = tanhf(z / soft_cap);
        *slope *= 1.0f - t * t;
        z = soft_cap * t;
    }
    return z;
}

/* A block a row of products (rows, V) f32. The maximum and the sum of e^(z - maximum) are found together. */
template <typename T>
__global__ void softmax_row(const float *product, int64_t V, const int32_t *labels, int64_t first,
                            float logit_scale, float soft_cap, float *log_probability, float *lse, T *dz,
                            mf_cuda_fault *fault) {
    const int64_t row = blockIdx.x, i = first + row;
    const float *z = product + row * V;
    const int32_t label = labels[i];
    if ((label < 0 || label >= V) && threadIdx.x == 0)
        mf::note_fault(fault, MF_OP_HEAD, label, i, V);
    float greatest = -INFINITY, slope;
    for (int64_t v = threadIdx.x; v < V; v += blockDim.x)
        greatest = fmaxf(greatest, capped(z[v], logit_scale, soft_cap, &slope));
    greatest = mf::block_max(greatest);
    float sum = 0;
    for (int64_t v = threadIdx.x; v < V; v += blockDim.x)
        sum += expf(capped(z[v], logit_scale, soft_cap, &slope) - greatest);
    const float total = greatest + logf(mf::block_sum(sum));
    if (threadIdx.x == 0) {
        lse[i] = total;
        log_probability[i] =
            label >= 0 && label < V ? capped(z[label], logit_scale, soft_cap, &slope) - total : NAN;
    }
    if (!dz)
        return;
    for (int64_t v = threadIdx.x; v < V; v += blockDim.x) {
        const float value = capped(z[v], logit_scale, soft_cap, &slope);
        dz[row * V + v] = mf::from_f32<T>(((v == label) - expf(value - total)) * slope);
    }
}

/* Workspace: of cuBLASLt, the bias in f32, the weight in the activations' dtype where it has another, the chunk's
 * hidden rows (rows, D), and its d/dlogits (rows, V). */
struct rooms {
    size_t bias, weight, hidden, slopes, all;
};

/* (V) or none: the last input. */
const mf_array &bias_of(const struct mf_kernel_call *call) {
    return call->in[call->node->op == MF_OP_HEAD ? 4 : call->node->op == MF_OP_LOGITS ? 3 : 7];
}

rooms rooms_of(const struct mf_kernel_call *call, int64_t rows, bool with_gradient) {
    const mf_array &hidden = call->in[0], &weight = call->in[1];
    const size_t width = mf_dtype_bytes((mf_dtype)hidden.dtype);
    rooms made;
    const mf_array &bias = bias_of(call);
    made.bias = MF_CUDA_GEMM_WORKSPACE;
    made.weight = made.bias + (bias.tensor < 0 ? 0 : aligned((size_t)bias.dim[0] * sizeof(float)));
    made.hidden = made.weight +
                  (weight.dtype == hidden.dtype ? 0 : aligned((size_t)mf_array_elements(&weight) * width));
    made.slopes = made.hidden + aligned((size_t)(rows * hidden.dim[1]) * width);
    made.all = made.slopes + (with_gradient ? aligned((size_t)(rows * weight.dim[0]) * width) : 0);
    return made;
}

/* The weight (V, D) in the activations' dtype. */
enum mf_status take_weight(const struct mf_kernel_call *call, const rooms &at, const void **data, int64_t *row,
                           struct mf_error *error) {
    const mf_array &weight = call->in[1];
    *data = weight.data;
    *row = weight.stride[0];
    if (weight.dtype == call->in[0].dtype)
        return MF_OK;
    void *copy = (char *)call->workspace[1].data + at.weight;
    *data = copy;
    *row = weight.dim[1];
    return mf_cuda_convert(mf_cuda_backend_of(call), &weight, weight.dim[0], weight.dim[1], 1, copy,
                           weight.dim[1], call->in[0].dtype, error);
}

enum mf_status take_bias(const struct mf_kernel_call *call, const rooms &at, struct mf_error *error) {
    const mf_array &bias = bias_of(call);
    if (!bias.data)
        return MF_OK;
    return mf_cuda_convert(mf_cuda_backend_of(call), &bias, 1, bias.dim[0], 1,
                           (char *)call->workspace[1].data + at.bias, bias.dim[0], MF_F32, error);
}

mf_cuda_product logits_product(const struct mf_kernel_call *call, const rooms &at, const void *weight,
                               int64_t weight_row, int64_t rows, float *z, int64_t z_row) {
    const mf_array &hidden = call->in[0];
    mf_cuda_product product = {};
    product.M = rows;
    product.N = call->in[1].dim[0];
    product.K = hidden.dim[1];
    product.a = (char *)call->workspace[1].data + at.hidden;
    product.a_row = hidden.dim[1];
    product.b = weight;
    product.b_row = weight_row;
    product.b_transposed = true;
    product.bias = bias_of(call).data ? (const char *)call->workspace[1].data + at.bias : NULL;
    product.c = z;
    product.c_row = z_row;
    product.alpha = 1;
    product.dtype = hidden.dtype;
    product.c_dtype = MF_F32;
    product.workspace = call->workspace[1].data;
    return product;
}

/* gradient[first .. first + rows) (L, D) = dz (rows, V) W (V, D). */
mf_cuda_product gradient_product(const struct mf_kernel_call *call, const rooms &at, const void *weight,
                                 int64_t weight_row, int64_t first, int64_t rows) {
    const mf_array &gradient = call->out[2];
    mf_cuda_product product = {};
    product.M = rows;
    product.N = call->in[1].dim[1];
    product.K = call->in[1].dim[0];
    product.a = (char *)call->workspace[1].data + at.slopes;
    product.a_row = call->in[1].dim[0];
    product.b = weight;
    product.b_row = weight_row;
    product.c = (char *)gradient.data +
                (size_t)(first * gradient.stride[0]) * mf_dtype_bytes((mf_dtype)gradient.dtype);
    product.c_row = gradient.stride[0];
    product.alpha = 1;
    product.dtype = gradient.dtype;
    product.c_dtype = gradient.dtype;
    product.workspace = call->workspace[1].data;
    return product;
}

enum mf_status head_chunk(const struct mf_kernel_call *call, const rooms &at, const void *weight,
                          int64_t weight_row, int64_t first, int64_t rows, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &hidden = call->in[0];
    const mf_head_attributes &a = call->node->a.head;
    const int64_t V = call->in[1].dim[0];
    char *workspace = (char *)call->workspace[1].data;
    float *z = (float *)call->workspace[0].data;
    enum mf_status status = mf_cuda_gather(backend, MF_OP_HEAD, &hidden, (const int32_t *)call->in[2].data,
                                           first, rows, workspace + at.hidden, error);
    const mf_cuda_product logits = logits_product(call, at, weight, weight_row, rows, z, V);
    if (status == MF_OK)
        status = mf_cuda_gemm_run(backend, &logits, error);
    if (status != MF_OK)
        return status;
    MF_WITH_TYPE(hidden.dtype, T,
                 softmax_row<T><<<(unsigned)rows, 512, 0, backend->stream>>>(
                     z, V, (const int32_t *)call->in[3].data, first, a.logit_scale, a.soft_cap,
                     (float *)call->out[0].data, (float *)call->out[1].data,
                     a.with_gradient ? (T *)(workspace + at.slopes) : NULL, backend->fault));
    status = mf_cuda_launched(call, error);
    if (status != MF_OK || !a.with_gradient)
        return status;
    const mf_cuda_product gradient = gradient_product(call, at, weight, weight_row, first, rows);
    return mf_cuda_gemm_run(backend, &gradient, error);
}

enum mf_status run_head(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_head_attributes &a = call->node->a.head;
    const int64_t L = call->in[3].dim[0], chunk = a.chunk_rows;
    const rooms at = rooms_of(call, chunk, a.with_gradient);
    const void *weight;
    int64_t weight_row;
    enum mf_status status = take_weight(call, at, &weight, &weight_row, error);
    if (status == MF_OK)
        status = take_bias(call, at, error);
    for (int64_t first = 0; first < L && status == MF_OK; first += chunk)
        status = head_chunk(call, at, weight, weight_row, first, L - first < chunk ? L - first : chunk, error);
    return status;
}

size_t head_workspace(const struct mf_kernel_call *call) {
    return rooms_of(call, call->node->a.head.chunk_rows, call->node->a.head.with_gradient).all;
}

/* ---- the second pass, where the layer is trained -------------------------------------------------------------- */

/* A block a row of products (rows, V) f32 whose log-sum-exp is known. */
template <typename T>
__global__ void slopes_of_row(const float *product, int64_t V, const int32_t *labels, const float *lse,
                              const float *dlog_probability, int64_t first, float logit_scale, float soft_cap,
                              T *dz) {
    const int64_t row = blockIdx.x, i = first + row;
    const float *z = product + row * V;
    const float total = lse[i], factor = dlog_probability[i];
    for (int64_t v = threadIdx.x; v < V; v += blockDim.x) {
        float slope;
        const float value = capped(z[v], logit_scale, soft_cap, &slope);
        dz[row * V + v] = mf::from_f32<T>(((v == labels[i]) - expf(value - total)) * slope * factor);
    }
}

/* gradient (V, D) f32 += dz (rows, V)ᵀ hidden (rows, D). */
mf_cuda_product weight_product(const struct mf_kernel_call *call, const rooms &at, int64_t rows) {
    const mf_array &gradient = call->out[0];
    mf_cuda_product product = {};
    product.M = gradient.dim[0];
    product.N = gradient.dim[1];
    product.K = rows;
    product.a = (char *)call->workspace[1].data + at.slopes;
    product.a_row = gradient.dim[0];
    product.a_transposed = true;
    product.b = (char *)call->workspace[1].data + at.hidden;
    product.b_row = gradient.dim[1];
    product.c = gradient.data;
    product.c_row = gradient.stride[0];
    product.c0 = gradient.data;
    product.c0_row = gradient.stride[0];
    product.alpha = 1;
    product.dtype = call->in[0].dtype;
    product.c_dtype = MF_F32;
    product.workspace = call->workspace[1].data;
    return product;
}

enum mf_status second_chunk(const struct mf_kernel_call *call, const rooms &at, const void *weight,
                            int64_t weight_row, int64_t first, int64_t rows, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &hidden = call->in[0];
    const mf_head_attributes &a = call->node->a.head;
    const int64_t V = call->in[1].dim[0];
    char *workspace = (char *)call->workspace[1].data;
    float *z = (float *)call->workspace[0].data;
    enum mf_status status = mf_cuda_gather(backend, call->node->op, &hidden, (const int32_t *)call->in[2].data,
                                           first, rows, workspace + at.hidden, error);
    const mf_cuda_product logits = logits_product(call, at, weight, weight_row, rows, z, V);
    if (status == MF_OK)
        status = mf_cuda_gemm_run(backend, &logits, error);
    if (status != MF_OK)
        return status;
    MF_WITH_TYPE(hidden.dtype, T,
                 slopes_of_row<T><<<(unsigned)rows, 512, 0, backend->stream>>>(
                     z, V, (const int32_t *)call->in[3].data, (const float *)call->in[4].data,
                     (const float *)call->in[5].data, first, a.logit_scale, a.soft_cap,
                     (T *)(workspace + at.slopes)));
    if (call->node->op == MF_OP_HEAD_BIAS_GRADIENT) {
        mf_array dz = {};
        dz.data = workspace + at.slopes;
        dz.dtype = hidden.dtype;
        dz.rank = 2;
        dz.dim[0] = rows;
        dz.dim[1] = V;
        dz.stride[0] = V;
        mf_cuda_add_column_sums(backend, &dz, 1, call->out[0].data);
        return mf_cuda_launched(call, error);
    }
    status = mf_cuda_launched(call, error);
    const mf_cuda_product product = weight_product(call, at, rows);
    return status == MF_OK ? mf_cuda_gemm_run(backend, &product, error) : status;
}

enum mf_status run_second_pass(const struct mf_kernel_call *call, struct mf_error *error) {
    const int64_t L = call->in[3].dim[0], chunk = call->node->a.head.chunk_rows;
    const rooms at = rooms_of(call, chunk, true);
    const void *weight;
    int64_t weight_row;
    enum mf_status status = take_weight(call, at, &weight, &weight_row, error);
    if (status == MF_OK)
        status = take_bias(call, at, error);
    for (int64_t first = 0; first < L && status == MF_OK; first += chunk)
        status =
            second_chunk(call, at, weight, weight_row, first, L - first < chunk ? L - first : chunk, error);
    return status;
}

size_t second_workspace(const struct mf_kernel_call *call) {
    return rooms_of(call, call->node->a.head.chunk_rows, true).all;
}

__global__ void cap_logits(float *z, int64_t all, float logit_scale, float soft_cap) {
    float slope;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < all;
         i += (int64_t)gridDim.x * blockDim.x)
        z[i] = capped(z[i], logit_scale, soft_cap, &slope);
}

enum mf_status run_logits(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &rows = call->in[2]; // (S)
    const mf_array &z = call->out[0];   // (S, V) f32
    const mf_head_attributes &a = call->node->a.head;
    const int64_t S = rows.dim[0];
    const rooms at = rooms_of(call, S, false);
    const void *weight;
    int64_t weight_row;
    if (S == 0)
        return MF_OK;
    enum mf_status status = take_weight(call, at, &weight, &weight_row, error);
    if (status == MF_OK)
        status = take_bias(call, at, error);
    if (status == MF_OK)
        status = mf_cuda_gather(backend, MF_OP_LOGITS, &call->in[0], (const int32_t *)rows.data, 0, S,
                                (char *)call->workspace[1].data + at.hidden, error);
    const mf_cuda_product product =
        logits_product(call, at, weight, weight_row, S, (float *)z.data, z.stride[0]);
    if (status == MF_OK)
        status = mf_cuda_gemm_run(backend, &product, error);
    if (status != MF_OK || (a.logit_scale == 1 && !(a.soft_cap > 0)))
        return status;
    cap_logits<<<mf::blocks_for(S * z.stride[0], mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
        (float *)z.data, (S - 1) * z.stride[0] + z.dim[1], a.logit_scale, a.soft_cap);
    return mf_cuda_launched(call, error);
}

size_t logits_workspace(const struct mf_kernel_call *call) {
    return rooms_of(call, call->in[2].dim[0], false).all;
}

/* ---- the way back, and the loss ------------------------------------------------------------------------------ */

template <typename T>
__global__ void scatter(const T *gradient, int64_t gradient_row, const int32_t *label_rows,
                        const float *dlog_probability, int64_t D, T *dhidden, int64_t dhidden_row,
                        int64_t tokens, mf_cuda_fault *fault) {
    const int64_t i = blockIdx.x;
    const int32_t row = label_rows[i];
    if (row < 0 || row >= tokens) {
        if (threadIdx.x == 0)
            mf::note_fault(fault, MF_OP_HEAD_GRADIENT, row, i, tokens);
        return;
    }
    const float factor = dlog_probability[i];
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
        dhidden[row * dhidden_row + d] =
            mf::from_f32<T>(factor * mf::as_f32(gradient[i * gradient_row + d]));
}

enum mf_status run_head_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &gradient = call->in[0];   // (L, D)
    const mf_array &label_rows = call->in[1]; // (L)
    const mf_array &dhidden = call->out[0];   // (T, D)
    const size_t width = mf_dtype_bytes((mf_dtype)dhidden.dtype);
    if (dhidden.dim[0] == 0)
        return MF_OK;
    enum mf_status status = mf_cuda_check(
        cudaMemset2DAsync(dhidden.data, (size_t)dhidden.stride[0] * width, 0, (size_t)dhidden.dim[1] * width,
                          (size_t)dhidden.dim[0], backend->stream),
        "head_gradient", error);
    if (status != MF_OK || label_rows.dim[0] == 0)
        return status;
    MF_WITH_TYPE(dhidden.dtype, T,
                 scatter<T><<<(unsigned)label_rows.dim[0], mf::BLOCK, 0, backend->stream>>>(
                     (const T *)gradient.data, gradient.stride[0], (const int32_t *)label_rows.data,
                     (const float *)call->in[2].data, dhidden.dim[1], (T *)dhidden.data, dhidden.stride[0],
                     dhidden.dim[0], backend->fault));
    return mf_cuda_launched(call, error);
}

/* One block: rows come to shared memory together, and one thread adds them in order. */
__global__ void loss(const float *log_probability, const float *coefficients, int64_t L, const mf_step *step,
                     float *out) {
    __shared__ double part[mf::BLOCK];
    double sum = 0;
    for (int64_t first = 0; first < L; first += mf::BLOCK) {
        const int64_t i = first + threadIdx.x;
        part[threadIdx.x] = i < L ? (double)coefficients[i] * log_probability[i] : 0.0;
        __syncthreads();
        if (threadIdx.x == 0)
            for (int k = 0; k < mf::BLOCK; k++)
                sum += part[k];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        out[0] = (float)(-sum * step->inverse_count);
}

enum mf_status run_loss(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    loss<<<1, mf::BLOCK, 0, backend->stream>>>((const float *)call->in[0].data,
                                               (const float *)call->in[1].data, call->in[0].dim[0],
                                               backend->step, (float *)call->out[0].data);
    return mf_cuda_launched(call, error);
}

__global__ void loss_gradient(const float *coefficients, int64_t L, const mf_step *step, float *out) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < L; i += (int64_t)gridDim.x * blockDim.x)
        out[i] = -coefficients[i] * step->inverse_count;
}

enum mf_status run_loss_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const int64_t L = call->in[0].dim[0];
    if (L)
        loss_gradient<<<mf::blocks_for(L, mf::BLOCK), mf::BLOCK, 0, backend->stream>>>(
            (const float *)call->in[0].data, L, backend->step, (float *)call->out[0].data);
    return mf_cuda_launched(call, error);
}

/* A block a row; the lowest of equal columns. */
__global__ void argmax(const float *z, int64_t row, int64_t V, int32_t *tokens) {
    __shared__ float value[mf::BLOCK];
    __shared__ int32_t column[mf::BLOCK];
    const float *from = z + blockIdx.x * row;
    float best = threadIdx.x < V ? from[threadIdx.x] : -INFINITY;
    int32_t at = threadIdx.x < V ? (int32_t)threadIdx.x : 0;
    for (int64_t v = threadIdx.x + blockDim.x; v < V; v += blockDim.x)
        if (from[v] > best) {
            best = from[v];
            at = (int32_t)v;
        }
    value[threadIdx.x] = best;
    column[threadIdx.x] = at;
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int i = 1; i < mf::BLOCK && i < V; i++)
        if (value[i] > value[0] || (value[i] == value[0] && column[i] < column[0])) {
            value[0] = value[i];
            column[0] = column[i];
        }
    tokens[blockIdx.x] = column[0];
}

enum mf_status run_argmax(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &z = call->in[0]; // (S, V) f32
    if (z.dim[0])
        argmax<<<(unsigned)z.dim[0], mf::BLOCK, 0, backend->stream>>>(
            (const float *)z.data, z.stride[0], z.dim[1], (int32_t *)call->out[0].data);
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
const struct mf_kernel mf_cuda_head_weight_gradient[1] = {{run_second_pass, second_workspace, 0}};
const struct mf_kernel mf_cuda_head_bias_gradient[1] = {{run_second_pass, second_workspace, 0}};
const struct mf_kernel mf_cuda_head[1] = {{run_head, head_workspace, 0}};
const struct mf_kernel mf_cuda_head_gradient[1] = {{run_head_gradient, NULL, 0}};
const struct mf_kernel mf_cuda_logits[1] = {{run_logits, logits_workspace, 0}};
const struct mf_kernel mf_cuda_loss[1] = {{run_loss, NULL, 0}};
const struct mf_kernel mf_cuda_loss_gradient[1] = {{run_loss_gradient, NULL, 0}};
const struct mf_kernel mf_cuda_argmax[1] = {{run_argmax, NULL, 0}};
}
