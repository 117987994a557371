/* The two CPU backends. `reference` is the oracle: naive f32 kernels with sums in double, one function an op,
 * used to check everything else. `cpu` is the fast path: oneDNN for matrix products, vectorised kernels for
 * the rest; it takes the reference kernel for an op that it has none for. */
#ifndef MF_KERNELS_CPU_BACKEND_H
#define MF_KERNELS_CPU_BACKEND_H

#include "kernels/kernel.h"
#include "kernels/ledger.h"

/* The caller destroys *backend (mf_backend_destroy) after every executor that uses it. */
enum mf_status mf_cpu_reference_create(struct mf_backend **backend, struct mf_error *error);

struct mf_cpu_options {
    int32_t threads; /* 0: as many as OpenMP would use (OMP_NUM_THREADS, affinity) */
    const char
        *instruction_set; /* "sse", "avx2", "avx512" for our own kernels; NULL: the widest that runs here */
};

/* `options` NULL: defaults. The number of threads is set for the whole process and belongs to the result:
 * other numbers round differently. One thread may run it at a time. Frozen weights are kept a second time
 * (and, where gradients flow through them, a third time) in oneDNN's layout; those bytes are counted by
 * prepare. */
enum mf_status mf_cpu_create(const struct mf_cpu_options *options, struct mf_backend **backend,
                             struct mf_error *error);

/* Measures for about a fifth of a second what this machine gives: a large product in `dtype` and a copy that
 * no cache holds. The reference backend: MF_ERROR_PROVIDER_UNSUPPORTED. */
enum mf_status mf_cpu_measure(struct mf_backend *backend, enum mf_dtype dtype, struct mf_rates *rates,
                              struct mf_error *error);

/* The reference kernel of `op`; NULL: none. */
const struct mf_kernel *mf_reference_kernel(enum mf_op op);

/* The activations' dtype that is fastest here: MF_BF16 where the processor multiplies it, else MF_F32. */
enum mf_dtype mf_cpu_preferred_dtype(void);

#endif
