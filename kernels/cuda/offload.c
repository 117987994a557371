/* Copies between the arena and pinned host memory, on a stream of their own. Each begins when the ops before
 * it have ended, so that what it reads is there and what it writes is free; the ops after an AWAIT begin when
 * the copies before it have ended. */
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/state.h"

/* What is queued on `after` from now on waits for what was queued on `before`. */
static enum mf_status order(cudaStream_t before, cudaStream_t after, cudaEvent_t event,
                            struct mf_error *error) {
    const enum mf_status status = mf_cuda_check(cudaEventRecord(event, before), "marking a stream", error);
    return status == MF_OK ? mf_cuda_check(cudaStreamWaitEvent(after, event, 0), "ordering streams", error)
                           : status;
}

static enum mf_status copy(const struct mf_kernel_call *call, enum cudaMemcpyKind kind,
                           struct mf_error *error) {
    const struct mf_cuda_backend *own = mf_cuda_backend_of(call);
    const struct mf_array *x = &call->in[0], *y = &call->out[0]; // owners: contiguous
    const size_t bytes = (size_t)mf_array_elements(x) * mf_dtype_bytes((enum mf_dtype)x->dtype);
    if (bytes == 0)
        return MF_OK;
    const enum mf_status status = order(own->stream, own->copies, own->copies_may_begin, error);
    return status == MF_OK ? mf_cuda_check(cudaMemcpyAsync(y->data, x->data, bytes, kind, own->copies),
                                           mf_op_name((enum mf_op)call->node->op), error)
                           : status;
}

static enum mf_status offload(const struct mf_kernel_call *call, struct mf_error *error) {
    return copy(call, cudaMemcpyDeviceToHost, error);
}
const struct mf_kernel mf_cuda_offload[1] = {{.function = offload}};

static enum mf_status fetch(const struct mf_kernel_call *call, struct mf_error *error) {
    return copy(call, cudaMemcpyHostToDevice, error);
}
const struct mf_kernel mf_cuda_fetch[1] = {{.function = fetch}};

static enum mf_status await(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_cuda_backend *own = mf_cuda_backend_of(call);
    return order(own->copies, own->stream, own->copies_have_ended, error);
}
const struct mf_kernel mf_cuda_await[1] = {{.function = await}};
