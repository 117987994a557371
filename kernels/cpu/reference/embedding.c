#include "kernels/cpu/array.h"
#include "kernels/cpu/reference/reference.h"

static enum mf_status embedding(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *table = &call->in[0];  // (V, D)
    const struct mf_array *tokens = &call->in[1]; // (T)
    const struct mf_array *y = &call->out[0];     // (T, D)
    float scale = call->node->a.embedding.scale;
    int64_t V = table->dim[0], D = table->dim[1];
    for (int64_t t = 0; t < tokens->dim[0]; t++) {
        int32_t token = mf_array_integer(tokens, t);
        if (token < 0 || token >= V)
            return mf_error_set(error, MF_ERROR_INTERNAL,
                                "embedding: token %d at %lld is not in the vocabulary of %lld", token,
                                (long long)t, (long long)V);
        for (int64_t d = 0; d < D; d++)
            mf_array_set(y, t * y->stride[0] + d, scale * mf_array_get(table, token * table->stride[0] + d));
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_embedding[1] = {{.function = embedding}};

static enum mf_status embedding_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *dy = &call->in[0];        // (T, D)
    const struct mf_array *tokens = &call->in[1];    // (T)
    const struct mf_array *gradient = &call->out[0]; // (V, D) f32, holds the sum so far
    float scale = call->node->a.embedding.scale;
    for (int64_t t = 0; t < tokens->dim[0]; t++) {
        int32_t token = mf_array_integer(tokens, t);
        if (token < 0 || token >= gradient->dim[0])
            return mf_error_set(error, MF_ERROR_INTERNAL,
                                "embedding_gradient: token %d at %lld is not in the vocabulary of %lld",
                                token, (long long)t, (long long)gradient->dim[0]);
        float *to = (float *)gradient->data + token * gradient->stride[0];
        for (int64_t d = 0; d < dy->dim[1]; d++)
            to[d] += scale * mf_array_get(dy, t * dy->stride[0] + d);
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_embedding_gradient[1] = {{.function = embedding_gradient}};

/* cache (C, G, d), rows (T, G, d), slots (T) */
static enum mf_status cache_write(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *rows = &call->in[1], *slots = &call->in[2], *cache = &call->out[0];
    for (int64_t t = 0; t < rows->dim[0]; t++) {
        int32_t slot = mf_array_integer(slots, t);
        if (slot < 0 || slot >= cache->dim[0])
            return mf_error_set(error, MF_ERROR_INTERNAL,
                                "cache_write: slot %d is not in the cache of %lld rows", slot,
                                (long long)cache->dim[0]);
        for (int64_t g = 0; g < rows->dim[1]; g++)
            for (int64_t d = 0; d < rows->dim[2]; d++)
                mf_array_set(cache, slot * cache->stride[0] + g * cache->stride[1] + d,
                             mf_array_get(rows, t * rows->stride[0] + g * rows->stride[1] + d));
    }
    return MF_OK;
}
const struct mf_kernel mf_reference_cache_write[1] = {{.function = cache_write}};
