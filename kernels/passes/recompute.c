#include "kernels/passes/recompute.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/graph_rows.h"

struct recompute {
    struct mf_builder builder;
    const struct mf_node *node; /* the program before the pass */
    int32_t *made;              /* [tensors] forward node of a layer whose out[0] this owner is; -1 */
    int32_t *producer;          /* [tensors] the same, of what is to be computed again; -1 */
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

/* What made the owner of `id`, when that is a forward node `op` of a layer; else NULL. */
static const struct mf_node *maker(const struct recompute *pass, int32_t id, enum mf_op op) {
    const int32_t owner = id < 0 ? -1 : mf_graph_owner(pass->builder.graph, id);
    const int32_t made = owner < 0 ? -1 : pass->made[owner];
    return made >= 0 && pass->node[made].op == op ? &pass->node[made] : NULL;
}

static void compute_owner_again(struct recompute *pass, int32_t id) {
    const int32_t owner = mf_graph_owner(pass->builder.graph, id);
    pass->producer[owner] = pass->made[owner];
}

/* What was put together of columns, with those parts that are linear. */
static void choose_columns(struct recompute *pass, int32_t id) {
    for (const struct mf_node *node; (node = maker(pass, id, MF_OP_ADD_COLUMNS)); id = node->in[1]) {
        compute_owner_again(pass, id);
        if (maker(pass, node->in[0], MF_OP_LINEAR))
            compute_owner_again(pass, node->in[0]);
    }
}

/* A linear layer's result, and the partial results that its branches were added to, or its input's columns.
 */
static void choose_linear(struct recompute *pass, int32_t id) {
    for (const struct mf_node *node; (node = maker(pass, id, MF_OP_LINEAR)); id = node->in[3]) {
        compute_owner_again(pass, id);
        choose_columns(pass, node->in[0]);
    }
}

/* Queries, keys or values: rotated, normed, projected. */
static void choose_projection(struct recompute *pass, int32_t id) {
    static const enum mf_op between[] = {MF_OP_ROPE, MF_OP_RMS_NORM};
    for (size_t i = 0; i < sizeof between / sizeof *between; i++) {
        const struct mf_node *node = maker(pass, id, between[i]);
        if (node) {
            compute_owner_again(pass, id);
            id = node->in[0];
        }
    }
    choose_linear(pass, id);
}

/* What lies beside something that is computed again, as a part of one input, is computed again with it: kept,
 * it would keep the storage of both. */
static void choose_beside(struct recompute *pass, const struct mf_node *node) {
    const struct mf_node *first = node;
    while (first->in[1] >= 0) {
        first = maker(pass, first->in[1], MF_OP_ADD_COLUMNS);
        if (!first)
            return;
    }
    if (pass->producer[mf_graph_owner(pass->builder.graph, first->in[0])] >= 0 &&
        maker(pass, node->in[0], MF_OP_LINEAR))
        compute_owner_again(pass, node->in[0]);
}

static void find_producers(struct recompute *pass, int32_t nodes, enum mf_recompute level) {
    for (int32_t n = 0; n < nodes; n++)
        if (pass->node[n].phase == MF_FORWARD && pass->node[n].layer >= 0)
            pass->made[pass->node[n].out[0]] = n;
    for (int32_t n = 0; n < nodes; n++) {
        const struct mf_node *node = &pass->node[n];
        if (node->phase != MF_FORWARD || node->layer < 0)
            continue;
        if (mf_op_row((enum mf_op)node->op)->flags & MF_OP_CHEAP)
            compute_owner_again(pass, node->out[0]);
        if (node->op == MF_OP_GATED_ACTIVATION && level >= MF_RECOMPUTE_FEED_FORWARD)
            for (int i = 0; i < 2; i++)
                choose_linear(pass, node->in[i]);
        if (node->op == MF_OP_ACTIVATION && level >= MF_RECOMPUTE_FEED_FORWARD)
            choose_linear(pass, node->in[0]);
        if (node->op == MF_OP_ATTENTION && level >= MF_RECOMPUTE_PROJECTIONS)
            for (int i = 0; i < 3; i++)
                choose_projection(pass, node->in[i]);
        if (node->op == MF_OP_ATTENTION && level >= MF_RECOMPUTE_ATTENTION)
            compute_owner_again(pass, node->out[0]);
    }
    for (int32_t n = 0; n < nodes; n++)
        if (pass->node[n].op == MF_OP_ADD_COLUMNS && pass->node[n].phase == MF_FORWARD)
            choose_beside(pass, &pass->node[n]);
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

const char *mf_recompute_name(enum mf_recompute level) {
    static const char *const name[MF_RECOMPUTE_LEVELS] = {
        [MF_RECOMPUTE_NONE] = "none",
        [MF_RECOMPUTE_CHEAP] = "norms and activations",
        [MF_RECOMPUTE_FEED_FORWARD] = "norms, activations, feed-forward projections",
        [MF_RECOMPUTE_PROJECTIONS] = "norms, activations, all projections",
        [MF_RECOMPUTE_ATTENTION] = "norms, activations, all projections, attention"};
    return name[level];
}

enum mf_status mf_pass_recompute(struct mf_graph *graph, int32_t id, enum mf_recompute level,
                                 struct mf_error *error) {
    struct mf_program *program = graph->program[id];
    struct mf_node *old = program->node;
    int32_t nodes = program->nodes;
    const size_t count = (size_t)graph->tensors;
    struct recompute pass = {.builder = mf_builder_begin(graph, id), .node = old, .tensors = graph->tensors};
    enum mf_status status = mf_program_seal(graph, id, error);
    if (status != MF_OK || level == MF_RECOMPUTE_NONE)
        return status;
    int32_t *table = malloc(3 * count * sizeof *table);
    if (!table)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the recompute pass");
    memset(table, 0xff, 3 * count * sizeof *table);
    pass.made = table;
    pass.producer = table + count;
    pass.again = table + 2 * count;
    find_producers(&pass, nodes, level);
    program->node = NULL;
    program->nodes = program->capacity = 0;
    for (int32_t n = 0; n < nodes && pass.builder.status == MF_OK; n++)
        copy_node(&pass, old[n]);
    free(old);
    status = mf_builder_finish(&pass.builder, error);
    free(table);
    return status;
}
