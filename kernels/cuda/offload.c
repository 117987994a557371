/* Copies between the arena and pinned host memory, in the order of the nodes. */
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/state.h"

static enum mf_status copy(const struct mf_kernel_call *call, enum cudaMemcpyKind kind,
                           struct mf_error *error) {
    const struct mf_array *x = &call->in[0], *y = &call->out[0]; // owners: contiguous
    const size_t bytes = (size_t)mf_array_elements(x) * mf_dtype_bytes((enum mf_dtype)x->dtype);
    if (bytes == 0)
        return MF_OK;
    return mf_cuda_check(cudaMemcpyAsync(y->data, x->data, bytes, kind, mf_cuda_backend_of(call)->stream),
                         mf_op_name((enum mf_op)call->node->op), error);
}

static enum mf_status offload(const struct mf_kernel_call *call, struct mf_error *error) {
    return copy(call, cudaMemcpyDeviceToHost, error);
}
const struct mf_kernel mf_cuda_offload[1] = {{.function = offload}};

static enum mf_status fetch(const struct mf_kernel_call *call, struct mf_error *error) {
    return copy(call, cudaMemcpyHostToDevice, error);
}
const struct mf_kernel mf_cuda_fetch[1] = {{.function = fetch}};
