#include "kernels/gradient.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/gradient_context.h"
#include "kernels/op_rules.h"

bool mf_gradient_is_parameter(const struct mf_gradient_context *context, int32_t id) {
    const struct mf_tensor *tensor = mf_graph_tensor(context->graph, id);
    return (tensor->storage == MF_ADAPTER || tensor->storage == MF_STATE) &&
           (tensor->flags & MF_TENSOR_TRAINABLE) && tensor->slot == context->slot;
}

bool mf_gradient_needed(const struct mf_gradient_context *context, int32_t id) {
    if (id < 0 || id >= context->tensors)
        return false;
    return mf_gradient_is_parameter(context, id) || context->needed[mf_graph_owner(context->graph, id)];
}

void mf_gradient_fail(struct mf_gradient_context *context, const struct mf_node *node, const char *what) {
    mf_builder_fail(&context->builder, MF_ERROR_PROVIDER_UNSUPPORTED, "layer %d, %s: %s has no gradient",
                    node->layer, mf_op_name((enum mf_op)node->op), what);
}

/* `gradient`, in one shape, as a view in the shape of `like`, which has as many elements. */
static int32_t in_shape(struct mf_gradient_context *context, int32_t gradient, int32_t like) {
    struct mf_tensor shape = *mf_graph_tensor(context->graph, like);
    if (gradient < 0 || mf_tensor_same_shape(mf_graph_tensor(context->graph, gradient), &shape))
        return gradient;
    return mf_build_reshape(&context->builder, gradient, shape.rank, shape.dim);
}

/* Is `id` a view of some of the columns of its owner? Elements a token, of both. */
static bool is_columns(const struct mf_gradient_context *context, int32_t id) {
    const struct mf_tensor *view = mf_graph_tensor(context->graph, id);
    const struct mf_tensor *owner = mf_graph_tensor(context->graph, mf_graph_owner(context->graph, id));
    int64_t seen = 1, there = 1;
    for (int i = 0; i < view->rank; i++)
        seen *= view->dim[i].multiplier;
    for (int i = 0; i < owner->rank; i++)
        there *= owner->dim[i].multiplier;
    return seen != there;
}

/* Adds `part`, in the shape of `id`, to the columns of the owner's gradient that `id` views. */
static void add_columns(struct mf_gradient_context *context, int32_t id, int32_t part) {
    const struct mf_tensor view = *mf_graph_tensor(context->graph, id);
    int32_t owner = mf_graph_owner(context->graph, id);
    const int64_t width = mf_graph_tensor(context->graph, owner)->dim[1].multiplier;
    const union mf_attributes attributes = {
        .columns = {.first = (int32_t)view.view_offset, .width = (int32_t)width}};
    int64_t columns = 1;
    for (int i = 1; i < view.rank; i++)
        columns *= view.dim[i].multiplier;
    const struct mf_dim dim[2] = {view.dim[0], mf_dim_const(columns)};
    const int32_t in[] = {mf_build_reshape(&context->builder, part, 2, dim), context->gradient[owner]};
    context->gradient[owner] = mf_emit(&context->builder, MF_OP_ADD_COLUMNS, in, 2, &attributes);
}

int32_t mf_gradient_get(struct mf_gradient_context *context, int32_t id) {
    bool parameter = mf_gradient_is_parameter(context, id);
    int32_t owner = parameter ? id : mf_graph_owner(context->graph, id);
    if (!parameter && is_columns(context, id))
        return -1;
    return in_shape(context, context->gradient[owner], id);
}

void mf_gradient_replace(struct mf_gradient_context *context, int32_t id, int32_t gradient) {
    bool parameter = mf_gradient_is_parameter(context, id);
    int32_t owner = parameter ? id : mf_graph_owner(context->graph, id);
    if (context->builder.status != MF_OK || gradient < 0 || !mf_gradient_needed(context, id))
        return;
    context->parameters += parameter;
    if (!parameter && is_columns(context, id)) {
        add_columns(context, id, gradient);
        return;
    }
    context->gradient[owner] = parameter ? gradient : in_shape(context, gradient, owner);
}

void mf_gradient_add(struct mf_gradient_context *context, int32_t id, int32_t contribution) {
    int32_t so_far;
    if (context->builder.status != MF_OK || !mf_gradient_needed(context, id))
        return;
    so_far = mf_gradient_get(context, id);
    mf_gradient_replace(context, id,
                        so_far < 0 ? contribution : mf_build_add(&context->builder, so_far, contribution));
}

/* What `id` is a copy of; itself when it is none. */
static int32_t master_of(const struct mf_graph *graph, int32_t id) {
    for (int32_t i = 0; i < graph->trains; i++)
        if (graph->trained[i].computed == id)
            return graph->trained[i].parameter;
    return id;
}

int32_t mf_gradient_of_parameter(const struct mf_graph *graph, int32_t parameter) {
    const struct mf_tensor *wanted = mf_graph_tensor(graph, master_of(graph, parameter));
    int32_t bucket = mf_graph_find_bucket(graph, wanted->slot);
    if (bucket < 0)
        return -1;
    for (int32_t i = graph->bucket[bucket].gradient + 1; i < graph->tensors; i++) {
        const struct mf_tensor *tensor = &graph->tensor[i];
        if (tensor->view_of == graph->bucket[bucket].gradient && tensor->view_offset == wanted->view_offset &&
            mf_tensor_same_shape(tensor, wanted) && tensor->version == 0 && tensor->program < 0)
            return i;
    }
    return -1;
}

/* A fused op without a gradient of its own hides parameters: it must have been expanded. */
static void refuse_fused(struct mf_gradient_context *context, const struct mf_program *program) {
    for (int32_t n = 0; n < program->nodes; n++) {
        const struct mf_op_row *row = mf_op_row((enum mf_op)program->node[n].op);
        if (row->expansion && row->gradient == mf_gradient_refuse)
            mf_gradient_fail(context, &program->node[n], "an op that was not expanded");
    }
}

/* Marks what depends on a parameter or a wanted tensor, in the order of the nodes. */
static void mark_needed(struct mf_gradient_context *context, const struct mf_program *program) {
    for (int32_t n = 0; n < program->nodes; n++) {
        const struct mf_node *node = &program->node[n];
        bool needed = false;
        if (mf_op_row((enum mf_op)node->op)->gradient == mf_gradient_stop)
            continue;
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            needed = needed || mf_gradient_needed(context, node->in[i]);
        for (int i = 0; i < MF_NODE_OUTPUTS; i++)
            if (needed && node->out[i] >= 0)
                context->needed[mf_graph_owner(context->graph, node->out[i])] = true;
    }
}

static bool has_gradient(const struct mf_gradient_context *context, const struct mf_node *node) {
    for (int i = 0; i < MF_NODE_OUTPUTS; i++)
        if (node->out[i] >= 0 && context->gradient[mf_graph_owner(context->graph, node->out[i])] != -1)
            return true;
    return false;
}

static bool has_needed_input(const struct mf_gradient_context *context, const struct mf_node *node) {
    for (int i = 0; i < MF_NODE_INPUTS; i++)
        if (mf_gradient_needed(context, node->in[i]))
            return true;
    return false;
}

static void seed(struct mf_gradient_context *context, const struct mf_program *program,
                 const struct mf_gradient_request *request) {
    for (int i = 0; i < request->outputs; i++) {
        int32_t output = request->output[i], gradient = request->output_gradient[i];
        if (gradient >= 0) {
            mf_gradient_add(context, output, gradient);
            continue;
        }
        for (int32_t n = 0; n < program->nodes; n++)
            if (program->node[n].out[0] == output && program->node[n].op == MF_OP_LOSS)
                context->gradient[output] = MF_GRADIENT_ONE;
        if (context->gradient[output] != MF_GRADIENT_ONE)
            mf_builder_fail(&context->builder, MF_ERROR_INTERNAL, "tensor %d is not the output of a loss",
                            (int)output);
    }
}

static void run_backward(struct mf_gradient_context *context, const struct mf_gradient_request *request) {
    struct mf_program *program = context->graph->program[context->builder.program];
    int32_t forward_nodes = program->nodes;
    refuse_fused(context, program);
    mark_needed(context, program);
    seed(context, program, request);
    for (int32_t n = forward_nodes - 1; n >= 0 && context->builder.status == MF_OK; n--) {
        struct mf_node node = program->node[n]; /* a copy: emitting moves the array */
        if (!has_gradient(context, &node) || !has_needed_input(context, &node))
            continue;
        context->builder.layer = node.layer;
        mf_op_row((enum mf_op)node.op)->gradient(context, &node);
    }
}

static bool has_parameters(const struct mf_graph *graph, int16_t slot) {
    for (int32_t i = 0; i < graph->tensors; i++)
        if (graph->tensor[i].storage == MF_ADAPTER && graph->tensor[i].slot == slot)
            return slot >= 0;
    return false;
}

enum mf_status mf_gradient_build_request(struct mf_graph *graph, int32_t program,
                                         const struct mf_gradient_request *request, struct mf_error *error) {
    struct mf_gradient_context context = {.graph = graph, .slot = graph->program[program]->slot};
    enum mf_status status = MF_OK;
    int32_t bucket;
    if (has_parameters(graph, context.slot))
        status = mf_graph_bucket(graph, context.slot, &bucket, error);
    if (status != MF_OK)
        return status;
    context.tensors = graph->tensors;
    context.builder = mf_builder_begin(graph, program);
    context.builder.phase = MF_BACKWARD;
    context.gradient = malloc((size_t)graph->tensors * sizeof *context.gradient);
    context.needed = calloc((size_t)graph->tensors, sizeof *context.needed);
    if (!context.gradient || !context.needed) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the gradient pass");
        goto done;
    }
    memset(context.gradient, 0xff, (size_t)graph->tensors * sizeof *context.gradient);
    for (int i = 0; i < request->wanted_count; i++)
        context.needed[mf_graph_owner(graph, request->wanted[i])] = true;
    run_backward(&context, request);
    for (int i = 0; i < request->wanted_count; i++)
        request->wanted_gradient[i] = mf_gradient_get(&context, request->wanted[i]);
    if (context.parameters == 0 && request->wanted_count == 0)
        mf_builder_fail(&context.builder, MF_ERROR_INTERNAL, "the loss depends on no trainable parameter");
    status = mf_builder_finish(&context.builder, error);
done:
    free(context.gradient);
    free(context.needed);
    return status;
}

enum mf_status mf_gradient_build(struct mf_graph *graph, int32_t program, int32_t loss,
                                 struct mf_error *error) {
    const int32_t one = -1;
    const struct mf_gradient_request request = {.output = &loss, .output_gradient = &one, .outputs = 1};
    return mf_gradient_build_request(graph, program, &request, error);
}
