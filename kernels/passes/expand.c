#include "kernels/passes/expand.h"

#include <stdlib.h>

#include "kernels/graph_rows.h"
#include "kernels/op_rules.h"

/* y' = y; y'[:, segment] += scale * dropout(x) Aᵀ Bᵀ */
static int32_t add_branch(struct mf_builder *builder, int32_t x, int32_t y, struct mf_segment segment) {
    const struct mf_graph *graph = builder->graph;
    int32_t hidden, branch = x;
    if (segment.dropout > 0 && graph->program[builder->program]->purpose == MF_TRAIN) {
        const int32_t in[] = {x, graph->input[MF_INPUT_ROWS], graph->input[MF_INPUT_POSITIONS]};
        branch = mf_emit(
            builder, MF_OP_DROPOUT, in, 3,
            &(union mf_attributes){.dropout = {.rate = segment.dropout, .stream = segment.random_stream}});
    }
    const int32_t down[] = {branch, segment.lora_a};
    hidden = mf_emit(builder, MF_OP_LINEAR, down, 2, &(union mf_attributes){.linear = {.alpha = 1}});
    const int32_t up[] = {hidden, segment.lora_b, -1, y};
    return mf_emit(builder, MF_OP_LINEAR, up, 4,
                   &(union mf_attributes){.linear = {.alpha = segment.scale, .first = segment.first}});
}

int32_t mf_expansion_adapted_linear(struct mf_builder *builder, const struct mf_node *node) {
    int32_t y = mf_emit(builder, MF_OP_LINEAR, node->in, 3, &(union mf_attributes){.linear = {.alpha = 1}});
    for (int32_t i = 0; i < node->a.adapted_linear.segments; i++) {
        struct mf_segment segment = builder->graph->segment[node->a.adapted_linear.segment + i];
        if (segment.lora_a >= 0)
            y = add_branch(builder, node->in[0], y, segment);
    }
    return y;
}

enum mf_status mf_pass_expand(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    struct mf_program *program = graph->program[id];
    struct mf_node *old = program->node;
    int32_t nodes = program->nodes;
    struct mf_builder builder = mf_builder_begin(graph, id);
    program->node = NULL;
    program->nodes = program->capacity = 0;
    for (int32_t n = 0; n < nodes && builder.status == MF_OK; n++) {
        const struct mf_op_row *row = mf_op_row((enum mf_op)old[n].op);
        builder.layer = old[n].layer;
        builder.phase = old[n].phase;
        if (!row->expansion) {
            builder.status = mf_program_append(graph, id, &old[n], &builder.error);
            continue;
        }
        /* The last node writes the tensor that the rest of the program knows. */
        if (row->expansion(&builder, &old[n]) >= 0 && program->node)
            program->node[program->nodes - 1].out[0] = old[n].out[0];
    }
    free(old);
    return mf_builder_finish(&builder, error);
}
