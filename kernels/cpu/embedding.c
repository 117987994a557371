/* The gradient of an embedding: rows scattered into the table's. */
#include "kernels/cpu/fast.h"
#include "kernels/cpu/rows.h"

/* Threads share the columns, so that each sum has one owner and the order of the rows. */
static enum mf_status embedding_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *dy = &call->in[0];        // (T, D)
    const int32_t *tokens = call->in[1].data;        // (T)
    const struct mf_array *gradient = &call->out[0]; // (V, D) f32, holds the sum so far
    const float scale = call->node->a.embedding.scale;
    int64_t T = dy->dim[0], D = dy->dim[1], V = gradient->dim[0];
    for (int64_t t = 0; t < T; t++)
        if (tokens[t] < 0 || tokens[t] >= V)
            return mf_error_set(error, MF_ERROR_INTERNAL,
                                "embedding_gradient: token %d at %lld is not in the vocabulary of %lld",
                                tokens[t], (long long)t, (long long)V);
#pragma omp parallel for schedule(static)
    for (int64_t start = 0; start < D; start += MF_COLUMNS) {
        const int64_t n = D - start < MF_COLUMNS ? D - start : MF_COLUMNS;
        float value[MF_COLUMNS];
        for (int64_t t = 0; t < T; t++) {
            float *to = (float *)gradient->data + tokens[t] * gradient->stride[0] + start;
            mf_load(dy, t * dy->stride[0] + start, value, n);
#pragma omp simd
            for (int64_t i = 0; i < n; i++)
                to[i] += scale * value[i];
        }
    }
    return MF_OK;
}
const struct mf_kernel mf_fast_embedding_gradient[1] = {{.function = embedding_gradient}};
