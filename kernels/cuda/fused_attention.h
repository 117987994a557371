/* Attention within sequences by cuDNN's fused kernels: bf16, at most 128 columns a head, no soft cap, every
 * sum in one order. attention_cudnn.cpp, or fused_attention_absent.c where cuDNN's headers are not. Private
 * to kernels/cuda. */
#ifndef MF_KERNELS_CUDA_FUSED_ATTENTION_H
#define MF_KERNELS_CUDA_FUSED_ATTENTION_H

#include "kernels/cuda/attention.h"

struct mf_cuda_fused; /* a handle and the plans made so far; of one backend, used by one thread */

/* NULL on GPUs without bf16 products, and where cuDNN or its NVRTC cannot be opened; `reason` then says why.
 */
struct mf_cuda_fused *mf_cuda_fused_create(const struct mf_cuda_backend *backend, char *reason, size_t bytes);
size_t mf_cuda_fused_version(const struct mf_cuda_fused *fused); /* 91900: cuDNN 9.19.0 */
void mf_cuda_fused_destroy(struct mf_cuda_fused *fused);         /* NULL is allowed */

/* Greatest sizes of a program, to which a plan is made; a run may have less of each. */
struct mf_cuda_fused_bound {
    int32_t tokens, sequences, longest; /* longest: tokens of one sequence */
};

/* Offsets and lengths as cuDNN reads them, made by the caller at the start of `workspace` (attention.cu). */
enum {
    MF_CUDA_FUSED_QUERY,
    MF_CUDA_FUSED_KEY,
    MF_CUDA_FUSED_VALUE,
    MF_CUDA_FUSED_OUT,
    MF_CUDA_FUSED_OUT_SLOPE,
    MF_CUDA_FUSED_QUERY_SLOPE,
    MF_CUDA_FUSED_KEY_SLOPE,
    MF_CUDA_FUSED_VALUE_SLOPE,
    MF_CUDA_FUSED_LSE,
    MF_CUDA_FUSED_OFFSETS
};

/* Row strides in the order of the enum above, in elements; those that a forward pass lacks are 0. */
struct mf_cuda_fused_rows {
    int64_t row[MF_CUDA_FUSED_OFFSETS], head[MF_CUDA_FUSED_OFFSETS];
};

/* Bytes of workspace for offsets, lengths and cuDNN; 0: it cannot compute this, or not in the room that the
 * device gives it (a sixteenth). The plan is kept. */
size_t mf_cuda_fused_workspace(struct mf_cuda_fused *fused, const struct mf_cuda_heads *attention,
                               const struct mf_cuda_fused_rows *rows, const struct mf_cuda_fused_bound *bound,
                               bool gradient);
/* The same as the address of offsets[i] (sequences + 1, i64) and of the lengths (sequences, i32) in
 * `workspace`. */
int64_t *mf_cuda_fused_offsets(void *workspace, const struct mf_cuda_fused_bound *bound, int index);
int32_t *mf_cuda_fused_lengths(void *workspace, const struct mf_cuda_fused_bound *bound);

/* y and lse; or dq, dk, dv, when these are given. The plan was made by mf_cuda_fused_workspace. */
enum mf_status mf_cuda_fused_run(struct mf_cuda_fused *fused, const struct mf_cuda_heads *attention,
                                 const struct mf_cuda_fused_rows *rows,
                                 const struct mf_cuda_fused_bound *bound, void *y, float *lse, void *dq,
                                 void *dk, void *dv, void *workspace, struct mf_error *error);

#endif
