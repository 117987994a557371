#include "kernels/passes/cast.h"

#include "kernels/passes/rewrite.h"

/* Does `node` multiply by a part of a bucket, in[1]? */
static bool reads_adapter(const struct mf_graph *graph, const struct mf_node *node) {
    if (node->op != MF_OP_LINEAR && node->op != MF_OP_LINEAR_INPUT_GRADIENT)
        return false;
    const struct mf_tensor *weight = mf_graph_tensor(graph, node->in[1]);
    return weight->storage == MF_ADAPTER && weight->view_of >= 0 && weight->version == 0;
}

/* `parameter`, a view of its bucket, as a view of what the bucket was cast to. */
static int32_t cast_view(struct mf_rewrite *rewrite, int32_t parameter, int32_t cast) {
    struct mf_tensor view = *mf_graph_tensor(rewrite->builder.graph, parameter);
    const struct mf_tensor *whole = mf_graph_tensor(rewrite->builder.graph, cast);
    view.dtype = whole->dtype;
    view.storage = whole->storage;
    view.program = whole->program;
    view.flags = 0;
    view.slot = -1;
    return mf_rewrite_view(rewrite, &view, cast);
}

enum mf_status mf_pass_cast(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    struct mf_program *program = graph->program[id];
    int32_t bucket = -1;
    struct mf_rewrite rewrite;
    if (program->dtype == MF_F32)
        return MF_OK;
    for (int32_t n = 0; n < program->nodes && bucket < 0; n++)
        if (reads_adapter(graph, &program->node[n]))
            bucket = mf_graph_owner(graph, program->node[n].in[1]);
    if (bucket < 0)
        return MF_OK;
    enum mf_status status = mf_rewrite_begin(graph, id, &rewrite, error);
    if (status != MF_OK)
        return status;
    rewrite.builder.layer = -1;
    rewrite.builder.phase = MF_FORWARD;
    const int32_t cast = mf_emit(&rewrite.builder, MF_OP_CAST, &bucket, 1, NULL);
    for (int32_t n = 0; n < rewrite.nodes; n++) {
        mf_rewrite_copy(&rewrite, n);
        struct mf_node *copy = program->nodes > 0 ? &program->node[program->nodes - 1] : NULL;
        if (rewrite.builder.status != MF_OK || !reads_adapter(graph, copy) ||
            mf_graph_owner(graph, copy->in[1]) != bucket)
            continue;
        const int32_t view = cast_view(&rewrite, copy->in[1], cast);
        if (view >= 0)
            copy->in[1] = view;
    }
    return mf_rewrite_end(&rewrite, error);
}
