/* The op table's rows, made from ops.def. */
#include "kernels/ops.h"

#include <assert.h>

#include "kernels/op_rules.h"

static const struct mf_op_row rows[MF_OPS] = {
#define MF_OP(NAME, name_, required_, optional_, outputs_, attributes_, shape_, gradient_, workspace_, \
              expansion_, in_place_, flags_, reference_, fast_, cuda_)                                 \
    [MF_OP_##NAME] = {.name = #name_,                                                                  \
                      .required = required_,                                                           \
                      .optional = optional_,                                                           \
                      .outputs = outputs_,                                                             \
                      .flags = flags_,                                                                 \
                      .in_place = in_place_,                                                           \
                      .attribute_bytes = sizeof(struct mf_##attributes_##_attributes),                 \
                      .shape = mf_shape_##shape_,                                                      \
                      .gradient = mf_gradient_##gradient_,                                             \
                      .workspace = mf_workspace_##workspace_,                                          \
                      .expansion = mf_expansion_##expansion_},
#include "kernels/ops.def"
#undef MF_OP
};

const struct mf_op_row *mf_op_row(enum mf_op op) {
    assert(op < MF_OPS);
    return &rows[op];
}
