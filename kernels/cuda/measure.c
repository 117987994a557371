/* What this GPU gives: the rates that the ledger of a step is held against. */
#include <stdlib.h>

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/state.h"

enum { SIDE = 4096, ROUNDS = 10, COPY_BYTES = 512 << 20 };

/* Best of some rounds of `work`, in seconds. */
static enum mf_status best_of(const struct mf_cuda_backend *own, const struct mf_cuda_product *product,
                              char *memory, double *best, struct mf_error *error) {
    cudaEvent_t start = NULL, stop = NULL;
    float milliseconds;
    *best = 1e9;
    enum mf_status status = mf_cuda_check(cudaEventCreate(&start), "making an event", error);
    if (status == MF_OK)
        status = mf_cuda_check(cudaEventCreate(&stop), "making an event", error);
    for (int i = 0; i < ROUNDS && status == MF_OK; i++) {
        cudaError_t code = cudaEventRecord(start, own->stream);
        if (code == cudaSuccess && !product)
            code = cudaMemcpyAsync(memory, memory + COPY_BYTES, COPY_BYTES, cudaMemcpyDeviceToDevice,
                                   own->stream);
        if (product)
            status = mf_cuda_gemm_run(own, product, error);
        if (code == cudaSuccess)
            code = cudaEventRecord(stop, own->stream);
        if (code == cudaSuccess)
            code = cudaEventSynchronize(stop);
        if (code == cudaSuccess)
            code = cudaEventElapsedTime(&milliseconds, start, stop);
        if (status == MF_OK)
            status = mf_cuda_check(code, "measuring", error);
        if (status == MF_OK && milliseconds / 1e3 < *best)
            *best = milliseconds / 1e3;
    }
    if (start)
        (void)cudaEventDestroy(start);
    if (stop)
        (void)cudaEventDestroy(stop);
    return status;
}

enum mf_status mf_cuda_measure(struct mf_backend *backend, enum mf_dtype dtype, struct mf_rates *rates,
                               struct mf_error *error) {
    const struct mf_cuda_backend *own = (const struct mf_cuda_backend *)backend;
    const size_t square = (size_t)SIDE * SIDE * mf_dtype_bytes(dtype);
    char *memory = NULL;
    double product_seconds, copy_seconds;
    *rates = (struct mf_rates){.flop_per_second = 0};
    enum mf_status status =
        mf_cuda_check(cudaMalloc((void **)&memory, 2 * (size_t)COPY_BYTES), "memory to measure with", error);
    /* No zeros: on those a product is faster than on data. */
    if (status == MF_OK)
        status = mf_cuda_check(cudaMemsetAsync(memory, 0x3c, 2 * (size_t)COPY_BYTES, own->stream),
                               "filling device memory", error);
    const struct mf_cuda_product product = {.M = SIDE,
                                            .N = SIDE,
                                            .K = SIDE,
                                            .a = memory,
                                            .a_row = SIDE,
                                            .b = memory + square,
                                            .b_row = SIDE,
                                            .b_transposed = true,
                                            .c = memory + 2 * square,
                                            .c_row = SIDE,
                                            .alpha = 1,
                                            .dtype = (uint8_t)dtype,
                                            .c_dtype = (uint8_t)dtype,
                                            .workspace = memory + 4 * square};
    if (status == MF_OK)
        status = best_of(own, &product, memory, &product_seconds, error);
    if (status == MF_OK)
        status = best_of(own, NULL, memory, &copy_seconds, error);
    if (status == MF_OK)
        *rates = (struct mf_rates){.flop_per_second = 2.0 * SIDE * SIDE * SIDE / product_seconds,
                                   .bytes_per_second = 2.0 * COPY_BYTES / copy_seconds};
    (void)cudaFree(memory);
    return status;
}
