/* What the fast kernels find behind call->backend: oneDNN and the frozen weights in its layout. Private to
 * kernels/cpu. */
#ifndef MF_KERNELS_CPU_FAST_BACKEND_H
#define MF_KERNELS_CPU_FAST_BACKEND_H

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/instruction_set.h"

/* A weight (N, K) as a right-hand side: FORWARD its transpose (K, N) for x Wᵀ, GRADIENT itself (N, K) for dy
 * W. */
enum mf_weight_form { MF_FORM_FORWARD, MF_FORM_GRADIENT, MF_FORMS };

struct mf_packed_weight {
    const void *source; /* what was packed; another address means that another weight was bound */
    void *memory;
    struct mf_operand operand;
};

struct mf_fast_backend {
    struct mf_backend base;
    struct mf_gemm *gemm;
    struct mf_instruction_set instructions;
    char instruction_name[32];
    /* By tensor id, form and dtype (f32, bf16). */
    struct mf_packed_weight (*packed)[MF_FORMS][2];
    int32_t tensors;
};

static inline const struct mf_fast_backend *mf_fast_backend_of(const struct mf_kernel_call *call) {
    return (const struct mf_fast_backend *)call->backend;
}

/* The packed form of `weight` for activations of `dtype`; NULL: it was not prepared (trainable, or no
 * weight). */
const struct mf_operand *mf_packed_weight_find(const struct mf_fast_backend *backend,
                                               const struct mf_array *weight, enum mf_weight_form form,
                                               enum mf_dtype dtype);

/* Packs `weight` once; adds the bytes it took to *bytes. */
enum mf_status mf_packed_weight_prepare(struct mf_fast_backend *backend, const struct mf_array *weight,
                                        enum mf_weight_form form, enum mf_dtype dtype, size_t *bytes,
                                        struct mf_error *error);
void mf_packed_weights_destroy(struct mf_fast_backend *backend);

#endif
