#include "kernels/cpu/array.h"
#include "kernels/cpu/fast_backend.h"
#include <stdlib.h>

const struct mf_operand *mf_packed_weight_find(const struct mf_fast_backend *backend,
                                               const struct mf_array *weight, enum mf_weight_form form,
                                               enum mf_dtype dtype) {
    if (weight->tensor < 0 || weight->tensor >= backend->tensors)
        return NULL;
    const struct mf_packed_weight *found = &backend->packed[weight->tensor][form][dtype == MF_BF16];
    return found->memory && found->source == weight->data ? &found->operand : NULL;
}

static enum mf_status make_room(struct mf_fast_backend *backend, int32_t tensor, struct mf_error *error) {
    if (tensor < backend->tensors)
        return MF_OK;
    int32_t wanted = tensor < 256 ? 512 : tensor * 2;
    void *grown = realloc(backend->packed, (size_t)wanted * sizeof *backend->packed);
    if (!grown)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for a table of %d weights", wanted);
    backend->packed = grown;
    memset(backend->packed + backend->tensors, 0,
           (size_t)(wanted - backend->tensors) * sizeof *backend->packed);
    backend->tensors = wanted;
    return MF_OK;
}

/* oneDNN cannot read every dtype: an f16 weight is made f32 first. *copy is the caller's to free; NULL: none.
 */
static enum mf_status readable(const struct mf_array *weight, struct mf_operand *operand, float **copy,
                               struct mf_error *error) {
    int64_t N = weight->dim[0], K = weight->dim[1];
    *operand = (struct mf_operand){.data = weight->data,
                                   .K = N,
                                   .N = K,
                                   .k_stride = weight->stride[0],
                                   .n_stride = 1,
                                   .bf16 = weight->dtype == MF_BF16};
    *copy = NULL;
    if (weight->dtype != MF_F16)
        return MF_OK;
    *copy = malloc((size_t)(N * K) * sizeof **copy);
    if (!*copy)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to convert a weight of %zu elements",
                            (size_t)(N * K));
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k++)
            (*copy)[n * K + k] = mf_array_get(weight, n * weight->stride[0] + k);
    operand->data = *copy;
    operand->k_stride = K;
    return MF_OK;
}

enum mf_status mf_packed_weight_prepare(struct mf_fast_backend *backend, const struct mf_array *weight,
                                        enum mf_weight_form form, enum mf_dtype dtype, size_t *bytes,
                                        struct mf_error *error) {
    enum mf_status status = make_room(backend, weight->tensor, error);
    if (status != MF_OK || mf_packed_weight_find(backend, weight, form, dtype))
        return status;
    struct mf_packed_weight *packed = &backend->packed[weight->tensor][form][dtype == MF_BF16];
    struct mf_operand plain;
    float *copy = NULL;
    status = readable(weight, &plain, &copy, error);
    if (status != MF_OK)
        return status;
    if (form == MF_FORM_FORWARD) {
        int64_t N = plain.K, stride = plain.k_stride;
        plain.K = plain.N;
        plain.N = N;
        plain.k_stride = 1;
        plain.n_stride = stride;
    }
    size_t size = mf_gemm_packed_bytes(backend->gemm, plain.K, plain.N, dtype == MF_BF16);
    free(packed->memory); /* of a weight that was bound before */
    packed->memory = aligned_alloc(64, (size + 63) / 64 * 64);
    packed->source = weight->data;
    if (packed->memory)
        status =
            mf_gemm_pack(backend->gemm, &plain, dtype == MF_BF16, packed->memory, &packed->operand, error);
    else
        status =
            mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for %zu bytes of packed weights", size);
    if (status != MF_OK) {
        free(packed->memory);
        packed->memory = NULL;
    } else {
        *bytes += size;
    }
    free(copy);
    return status;
}

void mf_packed_weights_destroy(struct mf_fast_backend *backend) {
    for (int32_t t = 0; t < backend->tensors; t++)
        for (int form = 0; form < MF_FORMS; form++)
            for (int bf16 = 0; bf16 < 2; bf16++)
                free(backend->packed[t][form][bf16].memory);
    free(backend->packed);
}
