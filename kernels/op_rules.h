/* Private to kernels/: the functions that ops.def names. `none` of a column is a null pointer. */
#ifndef MF_KERNELS_OP_RULES_H
#define MF_KERNELS_OP_RULES_H

#include "kernels/graph.h"

typedef enum mf_status mf_shape_rule(const struct mf_graph *graph, const struct mf_node *node,
                                     enum mf_dtype dtype, struct mf_output_shape output[MF_NODE_OUTPUTS],
                                     struct mf_error *error);
typedef void mf_gradient_rule(struct mf_gradient_context *context, const struct mf_node *node);
typedef int mf_workspace_rule(const struct mf_graph *graph, const struct mf_node *node,
                              struct mf_dim dim[MF_RANK]);
typedef int32_t mf_expansion_rule(struct mf_builder *builder, const struct mf_node *node);

#define mf_workspace_none NULL
#define mf_expansion_none NULL

/* op_shapes.c. One declaration an op: most ops share no rule. */
#define MF_OP(NAME, name, required, optional, outputs, attributes, shape, ...) mf_shape_rule mf_shape_##shape;
#include "kernels/ops.def"
#undef MF_OP
mf_workspace_rule mf_workspace_attention_gradient, mf_workspace_head;

/* gradient_rules.c */
#define MF_OP(NAME, name, required, optional, outputs, attributes, shape, gradient, ...) \
    mf_gradient_rule mf_gradient_##gradient;
#include "kernels/ops.def"
#undef MF_OP

/* passes/expand.c */
mf_expansion_rule mf_expansion_adapted_linear;

#endif
