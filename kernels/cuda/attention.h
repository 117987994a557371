/* Variable-length attention as its kernels see it. attention.cu: any dtype and head size up to 256, a warp a
 * row; attention_tensor.cu: bf16 on tensor cores for heads of 64 and 128. Private to kernels/cuda. */
#ifndef MF_KERNELS_CUDA_ATTENTION_H
#define MF_KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/state.h"

/* Letters, sequences and masks: kernels/ops.def. Rows are `_row` elements apart, heads `_head`. */
struct mf_cuda_heads {
    const void *q, *k, *v;                      // (T, H, d), (C, G, d), (C, G, d)
    const void *y, *dy;                         // (T, H, d); the gradients read them
    const int32_t *query_offsets, *key_offsets; // (S + 1)
    const int32_t *key_lengths;                 // (S) or NULL
    const float *lse, *delta;                   // (T, H), rows H apart; the gradients read them
    int64_t q_row, q_head, k_row, k_head, v_row, v_head, y_row, y_head, dy_row, dy_head;
    int32_t T, C, H, G, d, S;
    float scale, soft_cap;
    int32_t window, causal;
};

struct mf_cuda_heads_out {
    void *data;
    int64_t row, head;
};

/* Can the tensor-core kernels compute this? `packed`: all rows and heads begin at multiples of 16 bytes. */
static inline bool mf_cuda_attention_on_tensor_cores(const struct mf_cuda_backend *backend, uint8_t dtype,
                                                     int32_t d, bool packed) {
    return backend->device.capability >= 80 && dtype == MF_BF16 && (d == 64 || d == 128) && packed;
}

/* y and lse of all rows that belong to a sequence. */
enum mf_status mf_cuda_attention_tensor(const struct mf_cuda_backend *backend,
                                        const struct mf_cuda_heads *attention, struct mf_cuda_heads_out y,
                                        float *lse, struct mf_error *error);
/* dq, dk, dv of all rows that belong to a sequence; attention->delta is ready. */
enum mf_status mf_cuda_attention_gradient_tensor(const struct mf_cuda_backend *backend,
                                                 const struct mf_cuda_heads *attention,
                                                 struct mf_cuda_heads_out dq, struct mf_cuda_heads_out dk,
                                                 struct mf_cuda_heads_out dv, struct mf_error *error);

#endif
