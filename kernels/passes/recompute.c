#include "kernels/passes/recompute.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/graph_rows.h"

struct recompute {
    struct mf_builder builder;
    const struct mf_node *node; /* the program before the pass */
    int32_t *producer;          /* [tensors] forward node whose out[0] this owner is, when it is cheap; -1 */
    int32_t *again;             /* [tensors] the twin's output for this owner; -1: not computed again yet */
    int32_t tensors;
};

static int32_t input_again(struct recompute *pass, int32_t id);

/* Emits the twin of the forward node `index`, and before it those of its inputs; returns its out[0]. */
static int32_t compute_again(struct recompute *pass, int32_t index) {
    struct mf_node node = pass->node[index];
    int32_t in[MF_NODE_INPUTS];
    const struct mf_op_row *row = mf_op_row((enum mf_op)node.op);
    for (int i = 0; i < MF_NODE_INPUTS; i++)
        in[i] = input_again(pass, node.in[i]);
    pass->builder.layer = node.layer;
    pass->builder.phase = MF_RECOMPUTE;
    pass->builder.twin = index;
    return mf_emit(&pass->builder, (enum mf_op)node.op, in, row->required + row->optional, &node.a);
}

/* What stands for tensor `id` in backward: itself, or the same view of a twin's output. */
static int32_t input_again(struct recompute *pass, int32_t id) {
    struct mf_graph *graph = pass->builder.graph;
    struct mf_tensor view;
    int32_t owner;
    if (id < 0 || id >= pass->tensors || pass->builder.status != MF_OK)
        return id;
    owner = mf_graph_owner(graph, id);
    if (pass->producer[owner] < 0)
        return id;
    if (pass->again[owner] < 0)
        pass->again[owner] = compute_again(pass, pass->producer[owner]);
    if (owner == id || pass->builder.status != MF_OK)
        return pass->again[owner];
    view = *mf_graph_tensor(graph, id);
    view.view_of = pass->again[owner];
    pass->builder.status = mf_graph_append_tensor(graph, &view, &id, &pass->builder.error);
    return id;
}

static void find_producers(struct recompute *pass, int32_t nodes) {
    for (int32_t n = 0; n < nodes; n++) {
        const struct mf_node *node = &pass->node[n];
        if (node->phase == MF_FORWARD && node->layer >= 0 &&
            (mf_op_row((enum mf_op)node->op)->flags & MF_OP_CHEAP))
            pass->producer[node->out[0]] = n;
    }
}

/* Appends a node of the old program; a backward node reads twins. */
static void copy_node(struct recompute *pass, struct mf_node node) {
    if (node.phase == MF_BACKWARD)
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            node.in[i] = input_again(pass, node.in[i]);
    if (pass->builder.status == MF_OK)
        pass->builder.status =
            mf_program_append(pass->builder.graph, pass->builder.program, &node, &pass->builder.error);
}

enum mf_status mf_pass_recompute(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    struct mf_program *program = graph->program[id];
    struct mf_node *old = program->node;
    int32_t nodes = program->nodes;
    size_t bytes = (size_t)graph->tensors * sizeof(int32_t);
    struct recompute pass = {.builder = mf_builder_begin(graph, id), .node = old, .tensors = graph->tensors};
    enum mf_status status;
    pass.producer = malloc(bytes);
    pass.again = malloc(bytes);
    if (!pass.producer || !pass.again) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the recompute pass");
        goto done;
    }
    memset(pass.producer, 0xff, bytes);
    memset(pass.again, 0xff, bytes);
    find_producers(&pass, nodes);
    program->node = NULL;
    program->nodes = program->capacity = 0;
    for (int32_t n = 0; n < nodes && pass.builder.status == MF_OK; n++)
        copy_node(&pass, old[n]);
    free(old);
    status = mf_builder_finish(&pass.builder, error);
done:
    free(pass.producer);
    free(pass.again);
    return status;
}
