/* The builder: one way to make a node, and a thin typed function for each op that models are written with. */
#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "kernels/graph.h"
#include "kernels/graph_rows.h"

struct mf_builder mf_builder_begin(struct mf_graph *graph, int32_t program) {
    return (struct mf_builder){
        .graph = graph, .program = program, .layer = -1, .phase = MF_FORWARD, .twin = -1};
}

void mf_builder_fail(struct mf_builder *builder, enum mf_status status, const char *format, ...) {
    char message[512];
    va_list arguments;
    if (builder->status != MF_OK)
        return;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    builder->status = mf_error_set(&builder->error, status, "%s", message);
}

enum mf_status mf_builder_finish(struct mf_builder *builder, struct mf_error *error) {
    if (builder->status != MF_OK) {
        if (error)
            *error = builder->error;
        return builder->status;
    }
    return mf_program_check(builder->graph, builder->program, error);
}

static enum mf_status prefix_error(struct mf_builder *builder, enum mf_op op) {
    const char *purpose =
        mf_purpose_name((enum mf_purpose)builder->graph->program[builder->program]->purpose);
    if (builder->layer >= 0)
        return mf_error_prefix(&builder->error, "%s program, layer %d, %s", purpose, builder->layer,
                               mf_op_name(op));
    return mf_error_prefix(&builder->error, "%s program, %s", purpose, mf_op_name(op));
}

/* A new activation, or the next version of the state that the op writes. */
static enum mf_status make_output(struct mf_builder *builder, const struct mf_node *node,
                                  const struct mf_output_shape *shape, int32_t *id) {
    struct mf_tensor tensor = {
        .view_of = -1, .slot = -1, .storage = MF_ACTIVATION, .dtype = shape->dtype, .rank = shape->rank};
    if (shape->writes >= 0) {
        tensor = *mf_graph_tensor(builder->graph, node->in[shape->writes]);
        if (tensor.view_of < 0)
            tensor.view_of = tensor.id;
        tensor.version++;
        tensor.name = NULL;
    } else {
        memcpy(tensor.dim, shape->dim, sizeof tensor.dim);
        tensor.flags = shape->flags;
    }
    tensor.program = builder->program;
    return mf_graph_append_tensor(builder->graph, &tensor, id, &builder->error);
}

static enum mf_status make_workspace(struct mf_builder *builder, struct mf_node *node) {
    const struct mf_op_row *row = mf_op_row((enum mf_op)node->op);
    struct mf_tensor tensor = {.view_of = -1, .slot = -1, .storage = MF_WORKSPACE, .dtype = MF_F32};
    if (!row->workspace)
        return MF_OK;
    tensor.program = builder->program;
    tensor.rank = (uint8_t)row->workspace(builder->graph, node, tensor.dim);
    return mf_graph_append_tensor(builder->graph, &tensor, &node->workspace[0], &builder->error);
}

/* Fills the node's inputs after checking their number and that the required ones are there. */
static enum mf_status set_inputs(struct mf_builder *builder, struct mf_node *node, const int32_t *in,
                                 int inputs) {
    const struct mf_op_row *row = mf_op_row((enum mf_op)node->op);
    if (inputs < row->required || inputs > row->required + row->optional)
        return mf_error_set(&builder->error, MF_ERROR_INTERNAL, "has %d inputs, takes %d to %d", inputs,
                            row->required, row->required + row->optional);
    for (int i = 0; i < inputs; i++) {
        if (in[i] >= builder->graph->tensors || (in[i] < 0 && i < row->required))
            return mf_error_set(&builder->error, MF_ERROR_INTERNAL, "input %d is no tensor", i);
        node->in[i] = in[i] < 0 ? -1 : in[i];
    }
    return MF_OK;
}

int32_t mf_emit(struct mf_builder *builder, enum mf_op op, const int32_t *in, int inputs,
                const union mf_attributes *attributes) {
    const struct mf_op_row *row = mf_op_row(op);
    struct mf_output_shape shape[MF_NODE_OUTPUTS] = {
        {.writes = -1}, {.writes = -1}, {.writes = -1}, {.writes = -1}};
    struct mf_node node;
    if (builder->status != MF_OK)
        return -1;
    memset(&node, 0, sizeof node);
    memset(node.in, 0xff, sizeof node.in);
    memset(node.out, 0xff, sizeof node.out);
    memset(node.workspace, 0xff, sizeof node.workspace);
    node.op = (uint16_t)op;
    node.layer = builder->layer;
    node.phase = builder->phase;
    node.twin = builder->twin;
    if (attributes)
        memcpy(&node.a, attributes, row->attribute_bytes);
    builder->status = set_inputs(builder, &node, in, inputs);
    if (builder->status == MF_OK)
        builder->status =
            row->shape(builder->graph, &node, (enum mf_dtype)builder->graph->program[builder->program]->dtype,
                       shape, &builder->error);
    for (int i = 0; i < row->outputs && builder->status == MF_OK; i++)
        if (shape[i].rank)
            builder->status = make_output(builder, &node, &shape[i], &node.out[i]);
    if (builder->status == MF_OK)
        builder->status = make_workspace(builder, &node);
    if (builder->status == MF_OK)
        builder->status = mf_program_append(builder->graph, builder->program, &node, &builder->error);
    if (builder->status == MF_OK)
        return node.out[0];
    prefix_error(builder, op);
    return -1;
}

int32_t mf_builder_output(const struct mf_builder *builder, int index) {
    const struct mf_program *program = builder->graph->program[builder->program];
    if (builder->status != MF_OK || program->nodes == 0)
        return -1;
    return program->node[program->nodes - 1].out[index];
}

/* Appends a view made by changing *view, a copy of the row of the tensor that is viewed. */
static int32_t append_view(struct mf_builder *builder, struct mf_tensor *view) {
    int32_t id = -1;
    if (view->view_of < 0)
        view->view_of = view->id;
    view->name = NULL;
    builder->status = mf_graph_append_tensor(builder->graph, view, &id, &builder->error);
    return id;
}

/* Copies the row of `x`; false when the builder has failed or x is no tensor. */
static bool begin_view(struct mf_builder *builder, int32_t x, struct mf_tensor *view) {
    if (builder->status != MF_OK)
        return false;
    if (x < 0 || x >= builder->graph->tensors) {
        mf_builder_fail(builder, MF_ERROR_INTERNAL, "a view of no tensor");
        return false;
    }
    *view = *mf_graph_tensor(builder->graph, x);
    return true;
}

/* Merges a run of constant dimensions so that shapes of equal size compare equal: {symbol, product of
 * multipliers}. */
static struct mf_dim whole_size(const struct mf_tensor *tensor) {
    struct mf_dim size = mf_dim_const(1);
    for (int i = 0; i < tensor->rank; i++) {
        const int32_t multiplier = size.multiplier * tensor->dim[i].multiplier;
        if (tensor->dim[i].symbol != MF_CONST)
            size = tensor->dim[i];
        size.multiplier = multiplier;
    }
    return size;
}

int32_t mf_build_reshape(struct mf_builder *builder, int32_t x, int rank, const struct mf_dim *dim) {
    struct mf_tensor view, old;
    char from[96], to[96];
    if (!begin_view(builder, x, &view))
        return -1;
    old = view;
    view.rank = (uint8_t)rank;
    memcpy(view.dim, dim, (size_t)rank * sizeof *dim);
    mf_tensor_set_contiguous(&view);
    if (!mf_tensor_is_contiguous(&old) || !mf_dim_equal(whole_size(&view), whole_size(&old))) {
        mf_builder_fail(builder, MF_ERROR_INTERNAL, "%s cannot be reshaped to %s",
                        mf_tensor_describe(&old, from, sizeof from),
                        mf_tensor_describe(&view, to, sizeof to));
        return -1;
    }
    return append_view(builder, &view);
}

int32_t mf_build_columns(struct mf_builder *builder, int32_t x, int32_t first, int32_t width) {
    struct mf_tensor view;
    if (!begin_view(builder, x, &view))
        return -1;
    if (view.rank != 2 || first < 0 || width < 1 || first > view.dim[1].multiplier - width) {
        mf_builder_fail(builder, MF_ERROR_INTERNAL, "columns %d .. %d are not part of tensor %d", (int)first,
                        (int)(first + width), (int)x);
        return -1;
    }
    view.view_offset += first;
    view.dim[1] = mf_dim_const(width);
    return append_view(builder, &view);
}

int32_t mf_build_heads(struct mf_builder *builder, int32_t x, int32_t heads) {
    struct mf_tensor view;
    if (!begin_view(builder, x, &view))
        return -1;
    if (view.rank != 2 || heads < 1 || view.dim[1].multiplier % heads) {
        mf_builder_fail(builder, MF_ERROR_INTERNAL, "tensor %d cannot be split into %d heads", (int)x,
                        (int)heads);
        return -1;
    }
    view.rank = 3;
    view.dim[2] = mf_dim_const(view.dim[1].multiplier / heads);
    view.dim[1] = mf_dim_const(heads);
    view.stride[1] = view.dim[2].multiplier;
    view.stride[2] = 1;
    return append_view(builder, &view);
}

int32_t mf_build_head_rows(struct mf_builder *builder, int32_t x, int32_t heads) {
    struct mf_tensor view;
    if (!begin_view(builder, x, &view))
        return -1;
    if (view.rank != 2 || heads < 1 || view.dim[1].multiplier % heads) {
        mf_builder_fail(builder, MF_ERROR_INTERNAL, "tensor %d cannot be split into %d heads", (int)x,
                        (int)heads);
        return -1;
    }
    struct mf_dim dim[2] = {mf_dim_symbol((enum mf_symbol)view.dim[0].symbol, view.dim[0].multiplier * heads),
                            mf_dim_const(view.dim[1].multiplier / heads)};
    return mf_build_reshape(builder, x, 2, dim);
}

int32_t mf_build_merge_heads(struct mf_builder *builder, int32_t x, int32_t heads) {
    struct mf_tensor view;
    if (!begin_view(builder, x, &view))
        return -1;
    if (view.rank == 3 && view.dim[1].multiplier == heads) {
        struct mf_dim dim[2] = {view.dim[0], mf_dim_const((int64_t)heads * view.dim[2].multiplier)};
        return mf_build_reshape(builder, x, 2, dim);
    }
    if (view.rank == 2 && heads > 0 && view.dim[0].multiplier % heads == 0) {
        struct mf_dim dim[2] = {
            mf_dim_symbol((enum mf_symbol)view.dim[0].symbol, view.dim[0].multiplier / heads),
            mf_dim_const((int64_t)heads * view.dim[1].multiplier)};
        return mf_build_reshape(builder, x, 2, dim);
    }
    mf_builder_fail(builder, MF_ERROR_INTERNAL, "tensor %d does not have %d heads to merge", (int)x,
                    (int)heads);
    return -1;
}
