#include "kernels/cuda/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "kernels/cuda/fused_attention.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/memory_watch.h"
#include "kernels/cuda/state.h"

static const struct mf_kernel *const cuda_kernels[MF_OPS] = {
#define MF_OP(NAME, name, required, optional, outputs, attributes, shape, gradient, workspace, expansion, \
              in_place, flags, reference, fast, cuda)                                                     \
    [MF_OP_##NAME] = cuda,
#include "kernels/ops.def"
#undef MF_OP
};

/* Everything was planned, so it is others that have it: the job can be tried again. */
static enum mf_status out_of_memory(const char *what, struct mf_error *error) {
    size_t left = 0, all = 0;
    (void)cudaGetLastError();
    if (cudaMemGetInfo(&left, &all) != cudaSuccess)
        left = all = 0;
    return mf_error_set(
        error, MF_ERROR_OUT_OF_MEMORY,
        "CUDA: %s: not enough memory on the GPU now, %zu MiB of %zu are free; the run itself keeps to "
        "its plan, so other processes have the rest: try again when they have ended, or with less "
        "memory_budget_gib",
        what, left >> 20, all >> 20);
}

enum mf_status mf_cuda_check(cudaError_t code, const char *what, struct mf_error *error) {
    if (code == cudaSuccess)
        return MF_OK;
    if (code == cudaErrorMemoryAllocation)
        return out_of_memory(what, error);
    return mf_error_set(error, MF_ERROR_DEVICE, "CUDA: %s: %s (%s)", what, cudaGetErrorString(code),
                        cudaGetErrorName(code));
}

enum mf_status mf_cuda_launched(const struct mf_kernel_call *call, struct mf_error *error) {
    return mf_cuda_check(cudaGetLastError(), mf_op_name((enum mf_op)call->node->op), error);
}

/* ---- devices
 * ------------------------------------------------------------------------------------------------ */

int mf_cuda_device_count(const char **reason) {
    int count = 0;
    const cudaError_t code = cudaGetDeviceCount(&count);
    (void)cudaGetLastError(); /* it is kept otherwise, and blamed on the next call */
    if (reason)
        *reason = code == cudaSuccess ? "no GPU is visible" : cudaGetErrorString(code);
    return code == cudaSuccess ? count : 0;
}

static void format_uuid(const cudaUUID_t *uuid, char text[48]) {
    int length = snprintf(text, 48, "GPU-");
    for (int i = 0; i < 16; i++)
        length += snprintf(text + length, (size_t)(48 - length), "%s%02x",
                           i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                           (unsigned)(unsigned char)uuid->bytes[i]);
}

enum mf_status mf_cuda_device_describe(int index, struct mf_cuda_device *device, struct mf_error *error) {
    struct cudaDeviceProp properties;
    const char *reason;
    const int count = mf_cuda_device_count(&reason);
    memset(device, 0, sizeof *device);
    if (count == 0)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "there is no GPU to compute on: %s",
                            reason);
    if (index < 0 || index >= count)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "there is no GPU %d: this process sees %d",
                            index, count);
    const enum mf_status status =
        mf_cuda_check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties", error);
    if (status != MF_OK)
        return status;
    (void)snprintf(device->name, sizeof device->name, "%s", properties.name);
    format_uuid(&properties.uuid, device->uuid);
    device->memory_bytes = properties.totalGlobalMem;
    device->capability = properties.major * 10 + properties.minor;
    device->multiprocessors = properties.multiProcessorCount;
    return MF_OK;
}

enum mf_dtype mf_cuda_preferred_dtype(const struct mf_cuda_device *device) {
    return device->capability >= 80 ? MF_BF16 : MF_F32;
}

/* ---- memory
 * ------------------------------------------------------------------------------------------------- */

static enum mf_status cuda_allocate(struct mf_backend *backend, size_t bytes, void **address,
                                    struct mf_error *error) {
    char what[64];
    (void)backend;
    (void)snprintf(what, sizeof what, "%zu bytes of device memory", bytes);
    return mf_cuda_check(cudaMalloc(address, bytes), what, error);
}

static void cuda_release(struct mf_backend *backend, void *address) {
    (void)backend;
    if (address)
        (void)cudaFree(address);
}

static enum mf_status cuda_allocate_host(struct mf_backend *backend, size_t bytes, void **address,
                                         struct mf_error *error) {
    char what[64];
    (void)backend;
    (void)snprintf(what, sizeof what, "%zu bytes of pinned host memory", bytes);
    return mf_cuda_check(cudaMallocHost(address, bytes), what, error);
}

static void cuda_release_host(struct mf_backend *backend, void *address) {
    (void)backend;
    if (address)
        (void)cudaFreeHost(address);
}

static enum mf_status cuda_write(struct mf_backend *backend, void *to, const void *from, size_t bytes,
                                 struct mf_error *error) {
    const struct mf_cuda_backend *own = (const struct mf_cuda_backend *)backend;
    /* From pageable memory: `from` has been staged when the call returns. */
    return mf_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, own->stream),
                         "copying to the device", error);
}

static enum mf_status cuda_write_rows(struct mf_backend *backend, void *to, size_t to_row, const void *from,
                                      size_t bytes, size_t rows, struct mf_error *error) {
    const struct mf_cuda_backend *own = (const struct mf_cuda_backend *)backend;
    return mf_cuda_check(
        cudaMemcpy2DAsync(to, to_row, from, bytes, bytes, rows, cudaMemcpyHostToDevice, own->stream),
        "copying to the device", error);
}

static enum mf_status cuda_read(struct mf_backend *backend, void *to, const void *from, size_t bytes,
                                struct mf_error *error) {
    const struct mf_cuda_backend *own = (const struct mf_cuda_backend *)backend;
    const enum mf_status status =
        mf_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, own->stream),
                      "copying from the device", error);
    return status == MF_OK
               ? mf_cuda_check(cudaStreamSynchronize(own->stream), "copying from the device", error)
               : status;
}

static enum mf_status cuda_fill(struct mf_backend *backend, void *to, uint8_t byte, size_t bytes,
                                struct mf_error *error) {
    const struct mf_cuda_backend *own = (const struct mf_cuda_backend *)backend;
    return mf_cuda_check(cudaMemsetAsync(to, byte, bytes, own->stream), "filling device memory", error);
}

static enum mf_status cuda_begin(struct mf_backend *backend, const struct mf_step *step,
                                 struct mf_error *error) {
    const struct mf_cuda_backend *own = (const struct mf_cuda_backend *)backend;
    *own->staged_step = *step; /* the last run has finished: nothing reads it any more */
    return mf_cuda_check(
        cudaMemcpyAsync(own->step, own->staged_step, sizeof *step, cudaMemcpyHostToDevice, own->stream),
        "copying the step to the device", error);
}

static enum mf_status report_fault(const struct mf_cuda_backend *own, struct mf_error *error) {
    const struct mf_cuda_fault fault = *own->staged_fault;
    if (fault.op == 0)
        return MF_OK;
    const enum mf_status status = mf_cuda_check(
        cudaMemsetAsync(own->fault, 0, sizeof *own->fault, own->stream), "clearing a fault", error);
    if (status != MF_OK)
        return status;
    return mf_error_set(error, MF_ERROR_INTERNAL, "%s: %d at %d is not in 0..%d",
                        mf_op_name((enum mf_op)(fault.op - 1)), (int)fault.value, (int)fault.at,
                        (int)fault.limit - 1);
}

static enum mf_status cuda_finish(struct mf_backend *backend, struct mf_error *error) {
    const struct mf_cuda_backend *own = (const struct mf_cuda_backend *)backend;
    enum mf_status status = mf_cuda_check(cudaMemcpyAsync(own->staged_fault, own->fault, sizeof *own->fault,
                                                          cudaMemcpyDeviceToHost, own->stream),
                                          "copying from the device", error);
    if (status == MF_OK)
        status = mf_cuda_check(cudaStreamSynchronize(own->stream), "waiting for the device", error);
    if (status == MF_OK) /* of a run that an error ended before its AWAIT */
        status = mf_cuda_check(cudaStreamSynchronize(own->copies), "waiting for the device", error);
    return status == MF_OK ? report_fault(own, error) : status;
}

static struct mf_memory_use cuda_use(const struct mf_backend *backend) {
    return mf_cuda_memory_watch_read(((const struct mf_cuda_backend *)backend)->watch);
}

static const struct mf_backend_memory cuda_memory = {.allocate = cuda_allocate,
                                                     .release = cuda_release,
                                                     .allocate_host = cuda_allocate_host,
                                                     .release_host = cuda_release_host,
                                                     .write = cuda_write,
                                                     .write_rows = cuda_write_rows,
                                                     .read = cuda_read,
                                                     .fill = cuda_fill,
                                                     .begin = cuda_begin,
                                                     .use = cuda_use,
                                                     .finish = cuda_finish};

/* ---- the backend
 * -------------------------------------------------------------------------------------------- */

static const struct mf_kernel *cuda_find(const struct mf_backend *backend, enum mf_op op,
                                         enum mf_dtype dtype) {
    (void)backend;
    return op < MF_OPS && (dtype == MF_F32 || dtype == MF_BF16) ? cuda_kernels[op] : NULL;
}

static void cuda_destroy(struct mf_backend *backend) {
    struct mf_cuda_backend *own = (struct mf_cuda_backend *)backend;
    mf_cuda_gemm_destroy(own->gemm);
    mf_cuda_fused_destroy(own->fused);
    mf_cuda_memory_watch_destroy(own->watch);
    (void)cudaFree(own->step);
    (void)cudaFree(own->fault);
    (void)cudaFreeHost(own->staged_step);
    (void)cudaFreeHost(own->staged_fault);
    if (own->stream)
        (void)cudaStreamDestroy(own->stream);
    if (own->copies)
        (void)cudaStreamDestroy(own->copies);
    if (own->copies_may_begin)
        (void)cudaEventDestroy(own->copies_may_begin);
    if (own->copies_have_ended)
        (void)cudaEventDestroy(own->copies_have_ended);
    free(own);
}

static enum mf_status make_parts(struct mf_cuda_backend *own, struct mf_error *error) {
    enum mf_status status = mf_cuda_check(cudaSetDevice(own->index), "cudaSetDevice", error);
    if (status == MF_OK)
        status = mf_cuda_check(cudaStreamCreateWithFlags(&own->stream, cudaStreamNonBlocking),
                               "making a stream", error);
    if (status == MF_OK)
        status = mf_cuda_check(cudaStreamCreateWithFlags(&own->copies, cudaStreamNonBlocking),
                               "making a stream", error);
    if (status == MF_OK)
        status = mf_cuda_check(cudaEventCreateWithFlags(&own->copies_may_begin, cudaEventDisableTiming),
                               "making an event", error);
    if (status == MF_OK)
        status = mf_cuda_check(cudaEventCreateWithFlags(&own->copies_have_ended, cudaEventDisableTiming),
                               "making an event", error);
    if (status == MF_OK)
        status =
            mf_cuda_check(cudaMalloc((void **)&own->step, sizeof *own->step), "memory for a step", error);
    if (status == MF_OK)
        status =
            mf_cuda_check(cudaMalloc((void **)&own->fault, sizeof *own->fault), "memory for a fault", error);
    if (status == MF_OK)
        status = mf_cuda_check(cudaMemsetAsync(own->fault, 0, sizeof *own->fault, own->stream),
                               "clearing a fault", error);
    if (status == MF_OK)
        status = mf_cuda_check(cudaMallocHost((void **)&own->staged_step, sizeof *own->staged_step),
                               "pinned memory for a step", error);
    if (status == MF_OK)
        status = mf_cuda_check(cudaMallocHost((void **)&own->staged_fault, sizeof *own->staged_fault),
                               "pinned memory for a fault", error);
    if (status == MF_OK)
        status = mf_cuda_gemm_create(&own->gemm, own->library, sizeof own->library, error);
    return status;
}

/* Which cuDNN computes attention belongs to the numeric plan as the rest does; why none does, to the log. */
static void make_fused_attention(struct mf_cuda_backend *own) {
    char reason[256] = "";
    own->fused = mf_cuda_fused_create(own, reason, sizeof reason);
    const size_t length = strlen(own->library), version = own->fused ? mf_cuda_fused_version(own->fused) : 0;
    (void)snprintf(own->library + length, sizeof own->library - length, ", cudnn %zu", version);
    if (!own->fused)
        mf_log_info("our own kernels compute attention, not cuDNN", MF_LOG_TEXT("reason", reason));
}

enum mf_status mf_cuda_create(int index, struct mf_backend **backend, struct mf_error *error) {
    *backend = NULL;
    struct mf_cuda_backend *own = calloc(1, sizeof *own);
    if (!own)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the CUDA backend");
    own->index = index;
    enum mf_status status = mf_cuda_device_describe(index, &own->device, error);
    if (status == MF_OK)
        own->watch = mf_cuda_memory_watch_create(own->device.uuid);
    if (status == MF_OK)
        status = make_parts(own, error);
    if (status != MF_OK) {
        cuda_destroy(&own->base);
        return status;
    }
    make_fused_attention(own);
    (void)snprintf(own->instruction_set, sizeof own->instruction_set, "sm_%d x %d",
                   (int)own->device.capability, (int)own->device.multiprocessors);
    own->base = (struct mf_backend){.name = "cuda",
                                    .instruction_set = own->instruction_set,
                                    .threads = 1,
                                    .library = own->library,
                                    .find = cuda_find,
                                    .flop_per_byte = 200,
                                    .bytes_per_host_byte = 60, /* 3 TB/s of its own, 50 GB/s over PCIe 5 */
                                    .head_chunk_rows = 1024,
                                    .dequantizes = true,
                                    .converts_adapters = true,
                                    .fold_granule = 8, /* rows of 16 bytes in bf16 */
                                    .memory = &cuda_memory,
                                    .memory_bytes = own->device.memory_bytes,
                                    .destroy = cuda_destroy};
    *backend = &own->base;
    return MF_OK;
}
