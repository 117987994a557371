/* The CUDA kernels, by the names that the op table uses. Formulas, shapes and in-place rules:
 * kernels/ops.def. All compute in f32 whatever the storage and give each output element one owner, which sums
 * in a fixed order. */
#ifndef MF_KERNELS_CUDA_KERNELS_H
#define MF_KERNELS_CUDA_KERNELS_H

#include "kernels/kernel.h"

/* embedding.cu */
extern const struct mf_kernel mf_cuda_embedding[1], mf_cuda_embedding_gradient[1], mf_cuda_cache_write[1];
/* column_sums.cu */
extern const struct mf_kernel mf_cuda_linear_bias_gradient[1], mf_cuda_rms_norm_weight_gradient[1],
    mf_cuda_layer_norm_weight_gradient[1];
/* normalization.cu */
extern const struct mf_kernel mf_cuda_rms_norm[1], mf_cuda_rms_norm_gradient[1];
/* layer_norm.cu */
extern const struct mf_kernel mf_cuda_layer_norm[1], mf_cuda_layer_norm_gradient[1];
/* activation.cu */
extern const struct mf_kernel mf_cuda_activation[1], mf_cuda_activation_gradient[1];
/* linear.c */
extern const struct mf_kernel mf_cuda_linear[1], mf_cuda_linear_input_gradient[1],
    mf_cuda_linear_weight_gradient[1];
/* dequantize.cu */
extern const struct mf_kernel mf_cuda_dequantize[1];
/* offload.c */
extern const struct mf_kernel mf_cuda_offload[1], mf_cuda_fetch[1], mf_cuda_await[1];
/* elementwise.cu */
extern const struct mf_kernel mf_cuda_dropout[1], mf_cuda_add[1], mf_cuda_add_columns[1], mf_cuda_zero[1],
    mf_cuda_set_rows[1], mf_cuda_cast[1], mf_cuda_round_copy[1], mf_cuda_fold_adapters[1];
extern const struct mf_kernel mf_cuda_gated_activation[1], mf_cuda_gated_activation_gradient[1];
/* rope.cu */
extern const struct mf_kernel mf_cuda_rope_table[1], mf_cuda_rope[1];
/* attention.cu */
extern const struct mf_kernel mf_cuda_attention[1], mf_cuda_attention_gradient[1];
/* head.cu */
extern const struct mf_kernel mf_cuda_head[1], mf_cuda_head_gradient[1], mf_cuda_logits[1],
    mf_cuda_head_weight_gradient[1], mf_cuda_head_bias_gradient[1];
extern const struct mf_kernel mf_cuda_loss[1], mf_cuda_loss_gradient[1], mf_cuda_argmax[1];
/* optimizer.cu */
extern const struct mf_kernel mf_cuda_gradient_norm[1], mf_cuda_adamw[1], mf_cuda_adamw_8bit[1],
    mf_cuda_sgd[1];

#endif
