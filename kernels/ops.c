/* The op table's rows, made from ops.def. */
#include "kernels/ops.h"

#include <string.h>

#include "kernels/op_rules.h"
#include "kernels/registered_ops.h"

/* The fields of struct mf_<attributes>_attributes, each 4 bytes wide. */
#define FIELDS(attributes, ...)                                                                 \
    static const struct mf_attribute_name attributes##_fields[] = {__VA_ARGS__, {NULL, false}}; \
    _Static_assert(sizeof attributes##_fields / sizeof(struct mf_attribute_name) - 1 ==         \
                       sizeof(struct mf_##attributes##_attributes) / 4,                         \
                   "a name for each field")
static const struct mf_attribute_name none_fields[] = {{NULL, false}};
FIELDS(embedding, {"scale", false});
FIELDS(norm, {"epsilon", false}, {"variant", true});
FIELDS(layer_norm, {"epsilon", false});
FIELDS(linear, {"alpha", false}, {"first", true});
FIELDS(adapted_linear, {"segment", true}, {"segments", true});
FIELDS(fold, {"first_0", true}, {"first_1", true}, {"first_2", true}, {"first_3", true}, {"scale_0", false},
       {"scale_1", false}, {"scale_2", false}, {"scale_3", false});
FIELDS(dequantize, {"quantization", true}, {"nested", true}, {"rows_0", true}, {"rows_1", true},
       {"rows_2", true}, {"columns", true});
FIELDS(dropout, {"rate", false}, {"stream", true});
FIELDS(columns, {"first", true}, {"width", true});
FIELDS(rows, {"first", true});
FIELDS(rope_table, {"factor", false});
FIELDS(rope, {"inverse", true});
FIELDS(attention, {"scale", false}, {"soft_cap", false}, {"window", true}, {"causal", true});
FIELDS(gated, {"activation", true});
FIELDS(head, {"logit_scale", false}, {"soft_cap", false}, {"chunk_rows", true}, {"with_gradient", true});
FIELDS(adamw, {"beta1", false}, {"beta2", false}, {"epsilon", false}, {"weight_decay", false});
FIELDS(sgd, {"weight_decay", false});

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
                      .attribute = attributes_##_fields,                                               \
                      .shape = mf_shape_##shape_,                                                      \
                      .gradient = mf_gradient_##gradient_,                                             \
                      .workspace = mf_workspace_##workspace_,                                          \
                      .expansion = mf_expansion_##expansion_},
#include "kernels/ops.def"
#undef MF_OP
};

const struct mf_op_row *mf_op_row(enum mf_op op) {
    if (op >= MF_OPS)
        return mf_registered_row(op);
    return &rows[op];
}

int32_t mf_op_find(const char *name) {
    for (int32_t op = 0; op < MF_OPS; op++)
        if (!strcmp(rows[op].name, name))
            return op;
    return mf_registered_find(name);
}
