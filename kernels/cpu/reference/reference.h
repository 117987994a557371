/* The oracle: one naive kernel an op. Formulas, shapes and in-place rules stand in kernels/ops.def; letters
 * as there. Each kernel is an array of one so that the op table can name it as a pointer. */
#ifndef MF_KERNELS_CPU_REFERENCE_H
#define MF_KERNELS_CPU_REFERENCE_H

#include "kernels/kernel.h"

extern const struct mf_kernel mf_reference_embedding[1], mf_reference_embedding_gradient[1];
extern const struct mf_kernel mf_reference_rms_norm[1], mf_reference_rms_norm_gradient[1],
    mf_reference_rms_norm_weight_gradient[1];
extern const struct mf_kernel mf_reference_layer_norm[1], mf_reference_layer_norm_gradient[1],
    mf_reference_layer_norm_weight_gradient[1];
extern const struct mf_kernel mf_reference_linear[1], mf_reference_linear_input_gradient[1],
    mf_reference_linear_weight_gradient[1], mf_reference_linear_bias_gradient[1];
extern const struct mf_kernel mf_reference_dropout[1], mf_reference_add[1], mf_reference_add_columns[1],
    mf_reference_set_rows[1], mf_reference_copy[1], mf_reference_cast[1], mf_reference_await[1],
    mf_reference_dequantize[1], mf_reference_fold_adapters[1];
extern const struct mf_kernel mf_reference_rope_table[1], mf_reference_rope[1];
extern const struct mf_kernel mf_reference_attention[1], mf_reference_attention_gradient[1];
extern const struct mf_kernel mf_reference_gated_activation[1], mf_reference_gated_activation_gradient[1];
extern const struct mf_kernel mf_reference_activation[1], mf_reference_activation_gradient[1];
extern const struct mf_kernel mf_reference_head[1], mf_reference_head_gradient[1],
    mf_reference_head_weight_gradient[1], mf_reference_head_bias_gradient[1], mf_reference_logits[1];
extern const struct mf_kernel mf_reference_loss[1], mf_reference_loss_gradient[1], mf_reference_argmax[1];
extern const struct mf_kernel mf_reference_cache_write[1];
extern const struct mf_kernel mf_reference_gradient_norm[1], mf_reference_adamw[1],
    mf_reference_adamw_8bit[1], mf_reference_sgd[1], mf_reference_round_copy[1], mf_reference_zero[1];

#endif
