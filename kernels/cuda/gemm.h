/* Matrix products by cuBLASLt, opened at run time. The algorithm of a product is the first that the library's
 * heuristics name for its shape (tokens rounded up), types and alignment, with a workspace of fixed size and
 * no reduction that could run in another order: a pure function of the plan, the device and the library.
 * Where they name none, our own plain kernel multiplies. Private to kernels/cuda. */
#ifndef MF_KERNELS_CUDA_GEMM_H
#define MF_KERNELS_CUDA_GEMM_H

#include "kernels/cuda/state.h"

enum { MF_CUDA_GEMM_WORKSPACE = 32 << 20 };

/* C (M, N) = alpha * A B + beta * C0 + bias, row-major; A (M, K), stored (K, M) when a_transposed; B (K, N),
 * stored (N, K) when b_transposed. Row strides in elements. A and B have one dtype, f32 or bf16; C and C0 are
 * f32 or that dtype. Products are summed in f32. */
struct mf_cuda_product {
    int64_t M, N, K;
    const void *a, *b, *c0; /* c0 NULL: beta is 0; may be c */
    void *c;
    const void *bias; /* (N) of C's dtype; NULL: none */
    int64_t a_row, b_row, c_row, c0_row;
    float alpha;
    uint8_t dtype, c_dtype;
    bool a_transposed, b_transposed;
    void *workspace; /* MF_CUDA_GEMM_WORKSPACE bytes on the device */
};

/* `library`: name and version of cuBLASLt. MF_ERROR_PROVIDER_UNAVAILABLE when it cannot be opened. */
enum mf_status mf_cuda_gemm_create(struct mf_cuda_gemm **gemm, char *library, size_t bytes,
                                   struct mf_error *error);
void mf_cuda_gemm_destroy(struct mf_cuda_gemm *gemm); /* NULL is allowed */

enum mf_status mf_cuda_gemm_run(const struct mf_cuda_backend *backend, const struct mf_cuda_product *product,
                                struct mf_error *error);

/* plain_product.cu: the same by a simple tiled kernel, for any alignment. */
enum mf_status mf_cuda_plain_product(const struct mf_cuda_backend *backend,
                                     const struct mf_cuda_product *product, struct mf_error *error);

#endif
