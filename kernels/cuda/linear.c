/* Linear layers and their gradients. A weight of another dtype than the activations' (an adapter's f32
 * master) is converted into the node's workspace first. Products are of all rows at once, not of blocks of
 * MF_ROW_BLOCK: the algorithm, and so the bits of a row, depend on how many there are (the backend's
 * rows_alone is false). Letters as in ops.def. */
#include "kernels/cuda/convert.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/kernels.h"

static size_t aligned(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

/* Bytes of the weight in the activations' dtype; 0: it is used as it lies. */
static size_t converted_bytes(const struct mf_kernel_call *call) {
    const struct mf_array *weight = &call->in[1];
    const uint8_t dtype = call->in[0].dtype;
    return weight->dtype == dtype
               ? 0
               : aligned((size_t)mf_array_elements(weight) * mf_dtype_bytes((enum mf_dtype)dtype));
}

/* Workspace: of cuBLASLt, the converted weight, the bias times alpha. */
static size_t linear_workspace(const struct mf_kernel_call *call) {
    const bool bias = call->node->op == MF_OP_LINEAR && call->in[2].tensor >= 0;
    return MF_CUDA_GEMM_WORKSPACE + converted_bytes(call) +
           (bias ? aligned((size_t)call->in[2].dim[0] * sizeof(float)) : 0);
}

static size_t product_workspace(const struct mf_kernel_call *call) {
    (void)call;
    return MF_CUDA_GEMM_WORKSPACE;
}

static const void *column(const struct mf_array *array, int64_t first) {
    return (const char *)array->data + (size_t)first * mf_dtype_bytes((enum mf_dtype)array->dtype);
}

/* Sets product->b to the weight in the activations' dtype. */
static enum mf_status take_weight(const struct mf_kernel_call *call, struct mf_cuda_product *product,
                                  struct mf_error *error) {
    const struct mf_array *weight = &call->in[1]; // (N, K)
    product->b = weight->data;
    product->b_row = weight->stride[0];
    if (weight->dtype == product->dtype)
        return MF_OK;
    void *copy = (char *)call->workspace[1].data + MF_CUDA_GEMM_WORKSPACE;
    product->b = copy;
    product->b_row = weight->dim[1];
    return mf_cuda_convert(mf_cuda_backend_of(call), weight, weight->dim[0], weight->dim[1], 1, copy,
                           weight->dim[1], product->dtype, error);
}

/* The product adds to `addend`, or writes; where it covers part of `out` only, the rest is copied first. */
static enum mf_status add_to(const struct mf_kernel_call *call, const struct mf_array *addend,
                             const struct mf_array *out, int64_t first, struct mf_cuda_product *product,
                             struct mf_error *error) {
    const struct mf_cuda_backend *backend = mf_cuda_backend_of(call);
    product->c = (void *)(uintptr_t)column(out, first);
    product->c_row = out->stride[0];
    product->c_dtype = out->dtype;
    if (!addend->data)
        return MF_OK;
    product->c0 = column(addend, first);
    product->c0_row = addend->stride[0];
    if (addend->data == out->data || product->N == out->dim[1])
        return MF_OK;
    const size_t width = mf_dtype_bytes((enum mf_dtype)out->dtype);
    product->c0 = product->c;
    product->c0_row = product->c_row;
    if (out->dim[0] == 0)
        return MF_OK;
    return mf_cuda_check(cudaMemcpy2DAsync(out->data, (size_t)out->stride[0] * width, addend->data,
                                           (size_t)addend->stride[0] * width, (size_t)out->dim[1] * width,
                                           (size_t)out->dim[0], cudaMemcpyDeviceToDevice, backend->stream),
                         "copying an addend", error);
}

static enum mf_status linear(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_cuda_backend *backend = mf_cuda_backend_of(call);
    const struct mf_array *x = &call->in[0];      // (T, K); weight (N, K): in[1]
    const struct mf_array *bias = &call->in[2];   // (N) or none
    const struct mf_array *addend = &call->in[3]; // (T, M) or none
    const struct mf_array *y = &call->out[0];     // (T, M), may be addend
    const struct mf_linear_attributes *a = &call->node->a.linear;
    struct mf_cuda_product product = {.M = x->dim[0],
                                      .N = call->in[1].dim[0],
                                      .K = x->dim[1],
                                      .a = x->data,
                                      .a_row = x->stride[0],
                                      .b_transposed = true,
                                      .alpha = a->alpha,
                                      .dtype = x->dtype,
                                      .workspace = call->workspace[1].data};
    enum mf_status status = take_weight(call, &product, error);
    if (status == MF_OK)
        status = add_to(call, addend, y, a->first, &product, error);
    if (status == MF_OK && bias->data) {
        void *scaled = (char *)call->workspace[1].data + MF_CUDA_GEMM_WORKSPACE + converted_bytes(call);
        const struct mf_array row = {.data = bias->data, .dtype = bias->dtype};
        product.bias = scaled;
        status =
            mf_cuda_convert(backend, &row, 1, bias->dim[0], a->alpha, scaled, bias->dim[0], y->dtype, error);
    }
    return status == MF_OK ? mf_cuda_gemm_run(backend, &product, error) : status;
}
const struct mf_kernel mf_cuda_linear[1] = {{.function = linear, .workspace_bytes = linear_workspace}};

static enum mf_status linear_input_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *dy = &call->in[0];     // (T, M); weight (N, K): in[1]
    const struct mf_array *addend = &call->in[2]; // (T, K) or none
    const struct mf_array *dx = &call->out[0];    // (T, K), may be addend
    const struct mf_linear_attributes *a = &call->node->a.linear;
    struct mf_cuda_product product = {.M = dy->dim[0],
                                      .N = call->in[1].dim[1],
                                      .K = call->in[1].dim[0],
                                      .a = column(dy, a->first),
                                      .a_row = dy->stride[0],
                                      .alpha = a->alpha,
                                      .dtype = dy->dtype,
                                      .workspace = call->workspace[1].data};
    enum mf_status status = take_weight(call, &product, error);
    if (status == MF_OK)
        status = add_to(call, addend, dx, 0, &product, error);
    return status == MF_OK ? mf_cuda_gemm_run(mf_cuda_backend_of(call), &product, error) : status;
}
const struct mf_kernel mf_cuda_linear_input_gradient[1] = {
    {.function = linear_input_gradient, .workspace_bytes = linear_workspace}};

static enum mf_status linear_weight_gradient(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_array *x = &call->in[0];         // (T, K)
    const struct mf_array *dy = &call->in[1];        // (T, M)
    const struct mf_array *gradient = &call->out[0]; // (N, K) f32, holds the sum so far
    const struct mf_linear_attributes *a = &call->node->a.linear;
    const struct mf_cuda_product product = {.M = gradient->dim[0],
                                            .N = gradient->dim[1],
                                            .K = x->dim[0],
                                            .a = column(dy, a->first),
                                            .a_row = dy->stride[0],
                                            .a_transposed = true,
                                            .b = x->data,
                                            .b_row = x->stride[0],
                                            .c = gradient->data,
                                            .c_row = gradient->stride[0],
                                            .c0 = gradient->data,
                                            .c0_row = gradient->stride[0],
                                            .alpha = a->alpha,
                                            .dtype = x->dtype,
                                            .c_dtype = MF_F32,
                                            .workspace = call->workspace[1].data};
    return mf_cuda_gemm_run(mf_cuda_backend_of(call), &product, error);
}
const struct mf_kernel mf_cuda_linear_weight_gradient[1] = {
    {.function = linear_weight_gradient, .workspace_bytes = product_workspace}};
