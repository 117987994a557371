/* The CUDA backend of a build without a CUDA toolkit: it says so. */
#include "kernels/cuda/backend.h"

static const char *const absent = "this build has no CUDA (MODELFORGE_CUDA=OFF, or no toolkit was found)";

int mf_cuda_device_count(const char **reason) {
    if (reason)
        *reason = absent;
    return 0;
}

enum mf_status mf_cuda_device_describe(int index, struct mf_cuda_device *device, struct mf_error *error) {
    (void)index;
    *device = (struct mf_cuda_device){.name = ""};
    return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "there is no GPU to compute on: %s", absent);
}

enum mf_dtype mf_cuda_preferred_dtype(const struct mf_cuda_device *device) {
    (void)device;
    return MF_F32;
}

enum mf_status mf_cuda_measure(struct mf_backend *backend, enum mf_dtype dtype, struct mf_rates *rates,
                               struct mf_error *error) {
    struct mf_cuda_device device;
    (void)backend;
    (void)dtype;
    *rates = (struct mf_rates){.flop_per_second = 0};
    return mf_cuda_device_describe(0, &device, error);
}

enum mf_status mf_cuda_create(int index, struct mf_backend **backend, struct mf_error *error) {
    struct mf_cuda_device device;
    *backend = NULL;
    return mf_cuda_device_describe(index, &device, error);
}
