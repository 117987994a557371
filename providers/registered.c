#include "providers/registered.h"

#include "kernels/gradient_context.h"
#include "kernels/registered_ops.h"
#include "providers/builder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)MF_NUMBER_I32 == MF_I32, "dtypes");
_Static_assert((int)MF_TENSOR_RANK == MF_RANK && (int)MF_OP_INPUTS == MF_NODE_INPUTS &&
                   (int)MF_OP_OUTPUTS == MF_NODE_OUTPUTS && (int)MF_OP_ATTRIBUTES == MF_REGISTERED_VALUES,
               "limits");

/* A definition, as far as the plug-in's header knew it. */
struct own {
    struct mf_op_definition definition;
    struct mf_attribute_name attribute[MF_OP_ATTRIBUTES + 1];
};

static const struct mf_op_definition *definition_of(uint16_t op) {
    return &((const struct own *)mf_registered_state(op))->definition;
}

/* ---- the columns of the op table ---- */

static enum mf_status set_output(const struct mf_graph *graph, const struct mf_node *node, uint32_t inputs,
                                 const struct mf_op_shape *wanted, struct mf_output_shape *output,
                                 struct mf_error *error) {
    output->dtype = (uint8_t)wanted->number;
    output->rank = (uint8_t)wanted->rank;
    bool whole = wanted->number <= MF_NUMBER_I32 && wanted->rank >= 1 && wanted->rank <= MF_TENSOR_RANK;
    for (uint32_t i = 0; whole && i < wanted->rank; i++) {
        if (i == 0 && wanted->dim[0] == MF_ROWS_VARY) {
            whole = wanted->rows_of >= 0 && (uint32_t)wanted->rows_of < inputs;
            if (whole)
                output->dim[0] = mf_graph_tensor(graph, node->in[wanted->rows_of])->dim[0];
            continue;
        }
        whole = wanted->dim[i] >= 1 && wanted->dim[i] <= INT32_MAX;
        output->dim[i] = mf_dim_const(wanted->dim[i]);
    }
    return whole ? MF_OK
                 : mf_error_set(
                       error, MF_ERROR_PROVIDER_UNSUPPORTED,
                       "its shape() gave an output that cannot be: number %u, rank %u, dim[0] %lld, rows "
                       "of input %d",
                       wanted->number, wanted->rank, (long long)wanted->dim[0], (int)wanted->rows_of);
}

static enum mf_status shape(const struct mf_graph *graph, const struct mf_node *node, enum mf_dtype dtype,
                            struct mf_output_shape output[MF_NODE_OUTPUTS], struct mf_error *error) {
    const struct mf_op_definition *definition = definition_of(node->op);
    struct mf_op_shape in[MF_NODE_INPUTS], out[MF_NODE_OUTPUTS];
    struct mf_told_node told;
    struct mf_error why = {0};
    (void)dtype;
    memset(out, 0, sizeof out);
    for (uint32_t i = 0; i < definition->inputs; i++)
        mf_tell_shape(mf_graph_tensor(graph, node->in[i]), &in[i]);
    mf_tell_node(node, &told);
    if (definition->shape(definition->state, &told.node, in, out, &why))
        return mf_error_set(error, why.status == MF_OK ? MF_ERROR_PROVIDER_UNSUPPORTED : why.status, "%s",
                            *why.message ? why.message : "its shape() failed without saying why");
    enum mf_status status = MF_OK;
    for (uint32_t i = 0; i < definition->outputs && status == MF_OK; i++)
        status = set_output(graph, node, definition->inputs, &out[i], &output[i], error);
    return status;
}

static void tell_array(const struct mf_array *array, struct mf_op_array *out) {
    *out = (struct mf_op_array){.data = array->data, .number = array->dtype, .rank = array->rank};
    memcpy(out->dim, array->dim, sizeof out->dim);
    memcpy(out->stride, array->stride, sizeof out->stride);
}

static enum mf_status compute(const struct mf_kernel_call *call, struct mf_error *error) {
    const struct mf_op_definition *definition = definition_of(call->node->op);
    struct mf_op_array in[MF_NODE_INPUTS], out[MF_NODE_OUTPUTS];
    for (uint32_t i = 0; i < definition->inputs; i++)
        tell_array(&call->in[i], &in[i]);
    for (uint32_t i = 0; i < definition->outputs; i++)
        tell_array(&call->out[i], &out[i]);
    const struct mf_op_call own = {.size = sizeof own,
                                   .inputs = definition->inputs,
                                   .outputs = definition->outputs,
                                   .in = in,
                                   .out = out,
                                   .attribute = call->node->a.registered.value,
                                   .state = definition->state};
    struct mf_error why = {0};
    if (!definition->compute(&own, &why))
        return MF_OK;
    return mf_error_set(error, why.status == MF_OK ? MF_ERROR_PROVIDER_UNAVAILABLE : why.status, "%s",
                        *why.message ? why.message : "its kernel failed without saying why");
}

static void gradient(struct mf_gradient_context *context, const struct mf_node *node) {
    const struct mf_op_definition *definition = definition_of(node->op);
    int32_t of_output[MF_NODE_OUTPUTS], of_input[MF_NODE_INPUTS];
    struct mf_program_builder builder = {.builder = &context->builder};
    struct mf_told_node told;
    struct mf_error why = {0};
    memset(of_output, 0xff, sizeof of_output);
    memset(of_input, 0xff, sizeof of_input);
    for (uint32_t i = 0; i < definition->inputs; i++)
        if (mf_gradient_is_parameter(context, node->in[i])) {
            mf_gradient_fail(context, node, "a trained weight that it reads");
            return;
        }
    for (uint32_t i = 0; i < definition->outputs; i++)
        of_output[i] = mf_gradient_get(context, node->out[i]);
    mf_tell_node(node, &told);
    const int status =
        definition->gradient(definition->state, &builder, &told.node, of_output, of_input, &why);
    mf_builder_take_failure(&context->builder, status, &why, definition->name);
    for (uint32_t i = 0; i < definition->inputs && context->builder.status == MF_OK; i++)
        if (of_input[i] >= 0)
            mf_gradient_add(context, node->in[i], of_input[i]);
}

static int32_t expansion(struct mf_builder *builder, const struct mf_node *node) {
    const struct mf_op_definition *definition = definition_of(node->op);
    struct mf_program_builder own = {.builder = builder};
    struct mf_told_node told;
    struct mf_error why = {0};
    mf_tell_node(node, &told);
    const int32_t result = definition->expand(definition->state, &own, &told.node, &why);
    if (result < 0)
        mf_builder_take_failure(builder, -1, &why, definition->name);
    return result;
}

/* ---- registering ---- */

static enum mf_status refuse(const struct mf_op_definition *definition, const char *why,
                             struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "the op '%.64s' cannot be registered: %s",
                        definition->name ? definition->name : "(NULL)", why);
}

static enum mf_status check(const struct mf_op_definition *definition, struct mf_error *error) {
    if (definition->size < offsetof(struct mf_op_definition, expand) + sizeof definition->expand)
        return mf_error_set(
            error, MF_ERROR_PROVIDER_UNAVAILABLE,
            "an op cannot be registered: its struct mf_op_definition has %u bytes, fewer than the "
            "%zu of the ABI",
            definition->size, sizeof *definition);
    if (!definition->name || !definition->shape)
        return refuse(definition, "it lacks its name or shape()", error);
    if (definition->inputs < 1 || definition->inputs > MF_OP_INPUTS || definition->outputs < 1 ||
        definition->outputs > MF_OP_OUTPUTS)
        return refuse(definition, "it is to have 1 to 8 inputs and 1 to 4 outputs", error);
    if (!definition->compute && !definition->expand)
        return refuse(definition, "it has neither compute() nor expand()", error);
    if (definition->expand && definition->outputs != 1)
        return refuse(definition, "only ops with one output expand", error);
    if (definition->flags & ~(uint32_t)MF_OP_IS_NOT_DETERMINISTIC)
        return refuse(definition, "it has a flag that this version does not know", error);
    for (int i = 0; definition->attribute && definition->attribute[i]; i++)
        if (i == MF_OP_ATTRIBUTES)
            return refuse(definition, "it has more than 4 attributes", error);
    return MF_OK;
}

/* The same op, asked for again: by the table that its definition lies in. */
static bool is_again(const struct mf_op_definition *definition) {
    const int32_t op = mf_registered_find(definition->name);
    return op >= 0 && !memcmp(definition_of((uint16_t)op), definition, sizeof *definition);
}

enum mf_status mf_registered_add(const struct mf_op_definition *definition, struct mf_error *error) {
    enum mf_status status = check(definition, error);
    if (status != MF_OK || is_again(definition))
        return status;
    struct own *own =
        calloc(1, sizeof *own); /* for good: programs may be built as long as the process lives */
    if (!own)
        return mf_error_errno(error, ENOMEM, "the op '%s'", definition->name);
    own->definition = *definition;
    for (int i = 0; definition->attribute && definition->attribute[i]; i++)
        own->attribute[i].name = definition->attribute[i];
    const bool random = definition->flags & MF_OP_IS_NOT_DETERMINISTIC;
    const struct mf_registered_op op = {.row = {.name = definition->name,
                                                .required = (uint8_t)definition->inputs,
                                                .outputs = (uint8_t)definition->outputs,
                                                .in_place = -1,
                                                .attribute_bytes = sizeof(struct mf_registered_attributes),
                                                .attribute = own->attribute,
                                                .shape = shape,
                                                .gradient = definition->gradient ? gradient : NULL,
                                                .expansion = definition->expand ? expansion : NULL},
                                        .kernel = {.function = definition->compute ? compute : NULL,
                                                   .flags = random ? MF_KERNEL_NONDETERMINISTIC : 0},
                                        .state = own};
    int32_t number;
    status = mf_register_op(&op, &number, error);
    if (status != MF_OK)
        free(own);
    return status;
}
