/* What kernels find behind call->backend: one stream, the step on the device, the first fault, cuBLASLt and
 * cuDNN. * Private to kernels/cuda. */
#ifndef MF_KERNELS_CUDA_STATE_H
#define MF_KERNELS_CUDA_STATE_H

#include <cuda_runtime_api.h>

#include "kernels/cuda/backend.h"

/* A bad value in the data, noted by the kernel that met it; the first is kept. */
struct mf_cuda_fault {
    int32_t op; /* enum mf_op + 1; 0: none */
    int32_t value, at, limit;
};

struct mf_cuda_gemm;
struct mf_cuda_fused;
struct mf_cuda_memory_watch;

struct mf_cuda_backend {
    struct mf_backend base;
    struct mf_cuda_device device;
    cudaStream_t stream, copies; /* copies: of offload.c */
    cudaEvent_t copies_may_begin,
        copies_have_ended;              /* marks in the two streams, for one to wait for the other */
    struct mf_step *step;               /* on the device */
    struct mf_step *staged_step;        /* pinned */
    struct mf_cuda_fault *fault;        /* on the device */
    struct mf_cuda_fault *staged_fault; /* pinned */
    struct mf_cuda_gemm *gemm;
    struct mf_cuda_fused *fused;        /* cuDNN's attention; NULL: our own computes it */
    struct mf_cuda_memory_watch *watch; /* NULL: nobody says how much memory this process has */
    char instruction_set[32], library[96];
    int index;
};

static inline struct mf_cuda_backend *mf_cuda_backend_of(const struct mf_kernel_call *call) {
    return (struct mf_cuda_backend *)(uintptr_t)call->backend;
}

/* MF_OK, or MF_ERROR_OUT_OF_MEMORY / MF_ERROR_DEVICE saying `what` and the runtime's words. */
enum mf_status mf_cuda_check(cudaError_t code, const char *what, struct mf_error *error);
/* The status of the launches of a kernel function: its last line. */
enum mf_status mf_cuda_launched(const struct mf_kernel_call *call, struct mf_error *error);

#endif
