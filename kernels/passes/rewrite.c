#include "kernels/passes/rewrite.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/graph_rows.h"

static enum mf_status take(struct mf_graph *graph, int32_t id, struct mf_rewrite *rewrite,
                           struct mf_error *error) {
    struct mf_program *program = graph->program[id];
    const size_t entries = (size_t)graph->tensors + (size_t)program->nodes;
    *rewrite = (struct mf_rewrite){
        .builder = mf_builder_begin(graph, id), .nodes = program->nodes, .tensors = graph->tensors};
    rewrite->stand_in = malloc((entries + 1) * sizeof *rewrite->stand_in);
    if (!rewrite->stand_in)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to rewrite a program");
    memset(rewrite->stand_in, 0xff, entries * sizeof *rewrite->stand_in);
    rewrite->place = rewrite->stand_in + graph->tensors;
    rewrite->node = program->node;
    program->node = NULL;
    program->nodes = program->capacity = 0;
    return MF_OK;
}

enum mf_status mf_rewrite_begin(struct mf_graph *graph, int32_t id, struct mf_rewrite *rewrite,
                                struct mf_error *error) {
    const enum mf_status status = mf_program_seal(graph, id, error);
    return status == MF_OK ? take(graph, id, rewrite, error) : status;
}

enum mf_status mf_rewrite_begin_numeric(struct mf_graph *graph, int32_t id, struct mf_rewrite *rewrite,
                                        struct mf_error *error) {
    return graph->program[id]->sealed
               ? mf_error_set(error, MF_ERROR_INTERNAL, "the program is sealed: its results are settled")
               : take(graph, id, rewrite, error);
}

enum mf_status mf_rewrite_end(struct mf_rewrite *rewrite, struct mf_error *error) {
    free(rewrite->node);
    free(rewrite->stand_in);
    rewrite->node = NULL;
    rewrite->stand_in = NULL;
    return mf_builder_finish(&rewrite->builder, error);
}

int32_t mf_rewrite_view(struct mf_rewrite *rewrite, struct mf_tensor *view, int32_t owner) {
    int32_t id = -1;
    if (rewrite->builder.status != MF_OK)
        return -1;
    view->view_of = owner;
    view->name = NULL;
    rewrite->builder.status =
        mf_graph_append_tensor(rewrite->builder.graph, view, &id, &rewrite->builder.error);
    return id;
}

int32_t mf_rewrite_input(struct mf_rewrite *rewrite, int32_t id) {
    if (id < 0 || rewrite->stand_in[id] >= 0)
        return id < 0 ? -1 : rewrite->stand_in[id];
    const int32_t owner = mf_graph_owner(rewrite->builder.graph, id);
    struct mf_tensor view = *mf_graph_tensor(rewrite->builder.graph, id);
    if (rewrite->stand_in[owner] < 0)
        return id;
    const struct mf_tensor *whole = mf_graph_tensor(rewrite->builder.graph, rewrite->stand_in[owner]);
    view.storage = whole->storage; /* a weight's stand-in is an activation */
    view.program = whole->program;
    view.quantization = whole->quantization;
    return mf_rewrite_view(rewrite, &view, rewrite->stand_in[owner]);
}

void mf_rewrite_copy(struct mf_rewrite *rewrite, int32_t n) {
    struct mf_builder *builder = &rewrite->builder;
    struct mf_node node = rewrite->node[n];
    for (int i = 0; i < MF_NODE_INPUTS; i++)
        node.in[i] = mf_rewrite_input(rewrite, node.in[i]);
    if (node.twin >= 0)
        node.twin = rewrite->place[node.twin];
    rewrite->place[n] = builder->graph->program[builder->program]->nodes;
    if (builder->status == MF_OK)
        builder->status = mf_program_append(builder->graph, builder->program, &node, &builder->error);
}
