/* The fast CPU kernels. Their sources are compiled once for each instruction set with MF_CPU_ISA_NAME; the
 * names here, which the op table uses, stand for the variant that is being compiled. Formulas, shapes and
 * in-place rules: kernels/ops.def. All compute in f32 whatever the storage, share rows out among OpenMP
 * threads so that each output element has one owner, and sum in an order that does not depend on timing. */
#ifndef MF_KERNELS_CPU_FAST_H
#define MF_KERNELS_CPU_FAST_H

#include "kernels/kernel.h"

#define MF_ISA_JOIN_(name, isa) name##_##isa
#define MF_ISA_JOIN(name, isa)  MF_ISA_JOIN_(name, isa)
#define MF_ISA(name)            MF_ISA_JOIN(name, MF_CPU_ISA_NAME)

#define mf_fast_rms_norm                   MF_ISA(mf_fast_rms_norm)
#define mf_fast_rms_norm_gradient          MF_ISA(mf_fast_rms_norm_gradient)
#define mf_fast_layer_norm                 MF_ISA(mf_fast_layer_norm)
#define mf_fast_layer_norm_gradient        MF_ISA(mf_fast_layer_norm_gradient)
#define mf_fast_layer_norm_weight_gradient MF_ISA(mf_fast_layer_norm_weight_gradient)
#define mf_fast_linear                     MF_ISA(mf_fast_linear)
#define mf_fast_linear_input_gradient      MF_ISA(mf_fast_linear_input_gradient)
#define mf_fast_linear_weight_gradient     MF_ISA(mf_fast_linear_weight_gradient)
#define mf_fast_embedding_gradient         MF_ISA(mf_fast_embedding_gradient)
#define mf_fast_rms_norm_weight_gradient   MF_ISA(mf_fast_rms_norm_weight_gradient)
#define mf_fast_linear_bias_gradient       MF_ISA(mf_fast_linear_bias_gradient)
#define mf_fast_head_weight_gradient       MF_ISA(mf_fast_head_weight_gradient)
#define mf_fast_head_bias_gradient         MF_ISA(mf_fast_head_bias_gradient)
#define mf_fast_round_copy                 MF_ISA(mf_fast_round_copy)
#define mf_fast_dropout                    MF_ISA(mf_fast_dropout)
#define mf_fast_add                        MF_ISA(mf_fast_add)
#define mf_fast_add_columns                MF_ISA(mf_fast_add_columns)
#define mf_fast_rope                       MF_ISA(mf_fast_rope)
#define mf_fast_attention                  MF_ISA(mf_fast_attention)
#define mf_fast_attention_gradient         MF_ISA(mf_fast_attention_gradient)
#define mf_fast_gated_activation           MF_ISA(mf_fast_gated_activation)
#define mf_fast_gated_activation_gradient  MF_ISA(mf_fast_gated_activation_gradient)
#define mf_fast_activation                 MF_ISA(mf_fast_activation)
#define mf_fast_activation_gradient        MF_ISA(mf_fast_activation_gradient)
#define mf_fast_head                       MF_ISA(mf_fast_head)
#define mf_fast_head_gradient              MF_ISA(mf_fast_head_gradient)
#define mf_fast_logits                     MF_ISA(mf_fast_logits)
#define mf_fast_adamw                      MF_ISA(mf_fast_adamw)
#define mf_fast_adamw_8bit                 MF_ISA(mf_fast_adamw_8bit)
#define mf_fast_sgd                        MF_ISA(mf_fast_sgd)

extern const struct mf_kernel mf_fast_rms_norm[1], mf_fast_rms_norm_gradient[1],
    mf_fast_rms_norm_weight_gradient[1], mf_fast_embedding_gradient[1];
extern const struct mf_kernel mf_fast_layer_norm[1], mf_fast_layer_norm_gradient[1],
    mf_fast_layer_norm_weight_gradient[1];
extern const struct mf_kernel mf_fast_linear[1], mf_fast_linear_input_gradient[1],
    mf_fast_linear_weight_gradient[1], mf_fast_linear_bias_gradient[1];
extern const struct mf_kernel mf_fast_dropout[1], mf_fast_add[1], mf_fast_add_columns[1], mf_fast_rope[1];
extern const struct mf_kernel mf_fast_attention[1], mf_fast_attention_gradient[1];
extern const struct mf_kernel mf_fast_gated_activation[1], mf_fast_gated_activation_gradient[1];
extern const struct mf_kernel mf_fast_activation[1], mf_fast_activation_gradient[1];
extern const struct mf_kernel mf_fast_head[1], mf_fast_head_gradient[1], mf_fast_head_weight_gradient[1],
    mf_fast_head_bias_gradient[1], mf_fast_logits[1];
extern const struct mf_kernel mf_fast_adamw[1], mf_fast_adamw_8bit[1], mf_fast_sgd[1], mf_fast_round_copy[1];

#endif
