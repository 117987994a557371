/* The CUDA backend: the same programs on an NVIDIA GPU. cuBLASLt for matrix products, chosen by heuristic
 * order and never by timing; own kernels for the rest. No kernel uses float atomics, so that a run repeats
 * bit for bit.
 *
 * A program built with it starts on a machine without GPU, driver or cuBLASLt, and says by
 * MF_ERROR_PROVIDER_UNAVAILABLE what is missing: the CUDA runtime is linked statically, cuBLASLt is opened
 * when the backend is made. Built without a toolkit (MODELFORGE_CUDA=OFF), the functions here say that. */
#ifndef MF_KERNELS_CUDA_BACKEND_H
#define MF_KERNELS_CUDA_BACKEND_H

#include "kernels/kernel.h"
#include "kernels/ledger.h"

struct mf_cuda_device {
    char name[256];      /* "NVIDIA H100 80GB HBM3" */
    char uuid[48];       /* "GPU-..." as the driver's tools print it */
    size_t memory_bytes; /* all of it, free or not */
    int32_t capability;  /* 90: compute capability 9.0 */
    int32_t multiprocessors;
};

/* How many GPUs this process can use; 0 where there is no driver. *reason (may be NULL) says why it is 0;
 * static. */
int mf_cuda_device_count(const char **reason);
/* MF_ERROR_PROVIDER_UNAVAILABLE when there is no such device. */
enum mf_status mf_cuda_device_describe(int index, struct mf_cuda_device *device, struct mf_error *error);
/* The activations' dtype that is fastest there: MF_BF16 where its tensor cores multiply it, else MF_F32. */
enum mf_dtype mf_cuda_preferred_dtype(const struct mf_cuda_device *device);

/* The caller destroys *backend (mf_backend_destroy) after every executor that uses it. One thread at a time.
 */
enum mf_status mf_cuda_create(int index, struct mf_backend **backend, struct mf_error *error);

/* Measures for less than a second what this GPU gives: a large product in `dtype` and a copy that no cache
 * holds, with memory of its own for that time. */
enum mf_status mf_cuda_measure(struct mf_backend *backend, enum mf_dtype dtype, struct mf_rates *rates,
                               struct mf_error *error);

#endif
