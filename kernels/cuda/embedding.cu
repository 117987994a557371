#include "kernels/cuda/device.cuh"

namespace {

template <typename T>
__global__ void embedding(const void *table, uint8_t dtype, int64_t V, int64_t D, int64_t table_row,
                          const int32_t *tokens, float scale, T *y, int64_t y_row, mf_cuda_fault *fault) {
    const int64_t t = blockIdx.x;
    const int32_t token = tokens[t];
    const bool known = token >= 0 && token < V;
    if (!known && threadIdx.x == 0)
        mf::note_fault(fault, MF_OP_EMBEDDING, token, t, V);
    for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
        y[t * y_row + d] =
            mf::from_f32<T>(known ? scale * mf::load_any(table, dtype, token * table_row + d) : 0.0f);
}

enum mf_status run_embedding(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &table = call->in[0];  // (V, D)
    const mf_array &tokens = call->in[1]; // (T)
    const mf_array &y = call->out[0];     // (T, D)
    if (tokens.dim[0] == 0)
        return MF_OK;
    MF_WITH_TYPE(y.dtype, T,
                 embedding<T><<<(unsigned)tokens.dim[0], mf::BLOCK, 0, backend->stream>>>(
                     table.data, table.dtype, table.dim[0], table.dim[1], table.stride[0],
                     (const int32_t *)tokens.data, call->node->a.embedding.scale, (T *)y.data, y.stride[0],
                     backend->fault));
    return mf_cuda_launched(call, error);
}

/* A block a token: the first of its kind adds all of them to the token's row, in their order. */
template <typename T>
__global__ void embedding_gradient(const T *dy, int64_t dy_row, int64_t count, const int32_t *tokens, int64_t V,
                                   int64_t D, float scale, float *gradient, int64_t gradient_row,
                                   mf_cuda_fault *fault) {
    const int64_t t = blockIdx.x;
    const int32_t token = tokens[t];
    if (token < 0 || token >= V) {
        if (threadIdx.x == 0)
            mf::note_fault(fault, MF_OP_EMBEDDING_GRADIENT, token, t, V);
        return;
    }
    int earlier = 0;
    for (int64_t i = threadIdx.x; i < t && !earlier; i += blockDim.x)
        earlier = tokens[i] == token;
    if (__syncthreads_or(earlier))
        return;
    float *to = gradient + token * gradient_row;
    for (int64_t i = t; i < count; i++)
        if (tokens[i] == token)
            for (int64_t d = threadIdx.x; d < D; d += blockDim.x)
                to[d] += scale * mf::as_f32(dy[i * dy_row + d]);
}

enum mf_status run_embedding_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &dy = call->in[0];        // (T, D)
    const mf_array &gradient = call->out[0]; // (V, D) f32, holds the sum so far
    if (dy.dim[0] == 0)
        return MF_OK;
    MF_WITH_TYPE(dy.dtype, T,
                 embedding_gradient<T><<<(unsigned)dy.dim[0], mf::BLOCK, 0, backend->stream>>>(
                     (const T *)dy.data, dy.stride[0], dy.dim[0], (const int32_t *)call->in[1].data,
                     gradient.dim[0], gradient.dim[1], call->node->a.embedding.scale, (float *)gradient.data,
                     gradient.stride[0], backend->fault));
    return mf_cuda_launched(call, error);
}

/* cache (C, G, d), rows (T, G, d), slots (T): a block a row of T. */
template <typename T>
__global__ void cache_write(T *cache, int64_t C, int64_t cache_row, int64_t cache_head, const T *from,
                            int64_t from_row, int64_t from_head, int64_t G, int64_t d, const int32_t *slots,
                            mf_cuda_fault *fault) {
    const int64_t t = blockIdx.x;
    const int32_t slot = slots[t];
    if (slot < 0 || slot >= C) {
        if (threadIdx.x == 0)
            mf::note_fault(fault, MF_OP_CACHE_WRITE, slot, t, C);
        return;
    }
    for (int64_t i = threadIdx.x; i < G * d; i += blockDim.x)
        cache[slot * cache_row + i / d * cache_head + i % d] = from[t * from_row + i / d * from_head + i % d];
}

enum mf_status run_cache_write(const struct mf_kernel_call *call, struct mf_error *error) {
    const mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const mf_array &from = call->in[1], &slots = call->in[2], &cache = call->out[0];
    if (from.dim[0] == 0)
        return MF_OK;
    MF_WITH_TYPE(cache.dtype, T,
                 cache_write<T><<<(unsigned)from.dim[0], mf::BLOCK, 0, backend->stream>>>(
                     (T *)cache.data, cache.dim[0], cache.stride[0], cache.stride[1], (const T *)from.data,
                     from.stride[0], from.stride[1], from.dim[1], from.dim[2], (const int32_t *)slots.data,
                     backend->fault));
    return mf_cuda_launched(call, error);
}

} // namespace

extern "C" {
const struct mf_kernel mf_cuda_embedding_gradient[1] = {{run_embedding_gradient, NULL, 0}};
const struct mf_kernel mf_cuda_embedding[1] = {{run_embedding, NULL, 0}};
const struct mf_kernel mf_cuda_cache_write[1] = {{run_cache_write, NULL, 0}};
}
