/* Matrix products through oneDNN: C (M, N) = [C +] alpha * (A (M, K) · B (K, N) + bias (N)), f32 or bf16 in,
 * f32 accumulation.
 *
 * A constant B (a frozen weight) is packed once into the layout that oneDNN's kernels want; one that changes
 * every step is used as it lies. Primitives are kept by shape, so M may differ from call to call: a new M
 * costs about 0.3 ms once. The result is a pure function of the operands, the shape and the number of OpenMP
 * threads. Private to kernels/cpu. */
#ifndef MF_KERNELS_CPU_GEMM_H
#define MF_KERNELS_CPU_GEMM_H

#include "common/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mf_gemm; /* primitives and their engine; one caller at a time */

enum mf_status mf_gemm_create(struct mf_gemm **gemm, struct mf_error *error);
void mf_gemm_destroy(struct mf_gemm *gemm); /* NULL is allowed */

/* True when oneDNN multiplies bf16 faster than f32 here: avx512_bf16 or AMX. */
bool mf_gemm_bf16_is_fast(void);
/* True when a product with a plain right-hand side has the bits of the one with it packed: oneDNN's kernels
 * for AVX-512 copy what is not packed into the same blocks; its older ones add in another order. */
bool mf_gemm_plain_is_as_packed(void);
/* "onednn 2.6.3"; lives for ever. */
const char *mf_gemm_library(void);

/* The right-hand side. */
struct mf_operand {
    const void *data;
    int64_t K, N;
    int64_t k_stride,
        n_stride; /* as it lies, in elements: (N, 1) plain, (1, K) the transpose of a plain (N, K) */
    bool bf16;
    bool packed; /* data was written by mf_gemm_pack; the strides mean nothing */
};

/* Bytes of the packed form of a (K, N) right-hand side; 0 when oneDNN refuses the shape. */
size_t mf_gemm_packed_bytes(struct mf_gemm *gemm, int64_t K, int64_t N, bool bf16);

/* Packs `from` as f32 or bf16 into `memory` (mf_gemm_packed_bytes, aligned to 64, owned by the caller) and
 * describes the result in *to. */
enum mf_status mf_gemm_pack(struct mf_gemm *gemm, const struct mf_operand *from, bool bf16, void *memory,
                            struct mf_operand *to, struct mf_error *error);

struct mf_product {
    int64_t M;
    const void *a;           /* (M, K), of b's dtype */
    int64_t a_row, a_column; /* strides in elements, one of them 1 */
    const struct mf_operand *b;
    const float *bias; /* (N); NULL: none */
    void *c;           /* (M, N), rows c_row elements apart; f32, or bf16 when a and b are */
    int64_t c_row;
    bool c_bf16;
    bool accumulate; /* add to what c holds; the sum is rounded once */
    float alpha;
};

/* M = 0 does nothing. */
enum mf_status mf_gemm_run(struct mf_gemm *gemm, const struct mf_product *product, struct mf_error *error);

#endif
