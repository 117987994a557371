/* Compiled without cuDNN's headers: our own kernels compute attention. */
#include "kernels/cuda/fused_attention.h"

#include <stdio.h>

struct mf_cuda_fused *mf_cuda_fused_create(const struct mf_cuda_backend *backend, char *reason,
                                           size_t bytes) {
    (void)backend;
    (void)snprintf(reason, bytes, "it was compiled without the headers of cuDNN, cudnn-frontend and NVRTC");
    return NULL;
}

size_t mf_cuda_fused_version(const struct mf_cuda_fused *fused) {
    (void)fused;
    return 0;
}

void mf_cuda_fused_destroy(struct mf_cuda_fused *fused) {
    (void)fused;
}

size_t mf_cuda_fused_workspace(struct mf_cuda_fused *fused, const struct mf_cuda_heads *attention,
                               const struct mf_cuda_fused_rows *rows, const struct mf_cuda_fused_bound *bound,
                               bool gradient) {
    (void)fused, (void)attention, (void)rows, (void)bound, (void)gradient;
    return 0;
}

int64_t *mf_cuda_fused_offsets(void *workspace, const struct mf_cuda_fused_bound *bound, int index) {
    (void)bound, (void)index;
    return workspace;
}

int32_t *mf_cuda_fused_lengths(void *workspace, const struct mf_cuda_fused_bound *bound) {
    (void)bound;
    return workspace;
}

enum mf_status mf_cuda_fused_run(struct mf_cuda_fused *fused, const struct mf_cuda_heads *attention,
                                 const struct mf_cuda_fused_rows *rows,
                                 const struct mf_cuda_fused_bound *bound, void *y, float *lse, void *dq,
                                 void *dk, void *dv, void *workspace, struct mf_error *error) {
    (void)fused, (void)attention, (void)rows, (void)bound, (void)y, (void)lse, (void)dq, (void)dk, (void)dv;
    (void)workspace;
    return mf_error_set(error, MF_ERROR_INTERNAL, "attention was not planned for cuDNN");
}
