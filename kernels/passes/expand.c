#include "kernels/passes/expand.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/graph_rows.h"
#include "kernels/op_rules.h"
#include "kernels/registered_ops.h"

enum { MERGED = 8 }; /* segments */

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

/* The segments' A matrices as one, when they lie one behind the other and all read the same input; -1: they
 * do not. */
static int32_t merged_a(struct mf_builder *builder, const struct mf_segment *segment, int32_t segments) {
    struct mf_graph *graph = builder->graph;
    const bool train = graph->program[builder->program]->purpose == MF_TRAIN;
    int32_t bucket, merged = -1;
    for (int32_t i = 0; i < segments; i++)
        if (segment[i].lora_a < 0 || (segment[i].dropout > 0 && train))
            return -1;
    if (segments < 2 || builder->status != MF_OK)
        return -1;
    builder->status =
        mf_graph_bucket(graph, graph->program[builder->program]->slot, &bucket, &builder->error);
    if (builder->status != MF_OK)
        return -1;
    struct mf_tensor whole = *mf_graph_tensor(graph, segment[0].lora_a);
    for (int32_t i = 1; i < segments; i++) {
        const struct mf_tensor *next = mf_graph_tensor(graph, segment[i].lora_a);
        if (next->view_offset != whole.view_offset + mf_tensor_elements(&whole, NULL) ||
            !mf_dim_equal(next->dim[0], mf_graph_tensor(graph, segment[0].lora_a)->dim[0]))
            return -1;
        whole.dim[0].multiplier += next->dim[0].multiplier;
    }
    builder->status = mf_graph_parameters_view(graph, &whole, &merged, &builder->error);
    return merged;
}

/* y' = y; y'[:, segment i] += scale * (x Aᵀ)[:, i] B_iᵀ, A those of all segments together. */
static int32_t add_branches(struct mf_builder *builder, int32_t x, int32_t y, int32_t a,
                            const struct mf_segment *segment, int32_t segments) {
    const int32_t down[] = {x, a};
    const int32_t hidden =
        mf_emit(builder, MF_OP_LINEAR, down, 2, &(union mf_attributes){.linear = {.alpha = 1}});
    int32_t first = 0;
    for (int32_t i = 0; i < segments && builder->status == MF_OK; i++) {
        const int32_t rank = mf_graph_tensor(builder->graph, segment[i].lora_a)->dim[0].multiplier;
        const int32_t up[] = {mf_build_columns(builder, hidden, first, rank), segment[i].lora_b, -1, y};
        y = mf_emit(builder, MF_OP_LINEAR, up, 4,
                    &(union mf_attributes){.linear = {.alpha = segment[i].scale, .first = segment[i].first}});
        first += rank;
    }
    return y;
}

int32_t mf_expansion_adapted_linear(struct mf_builder *builder, const struct mf_node *node) {
    int32_t y = mf_emit(builder, MF_OP_LINEAR, node->in, 3, &(union mf_attributes){.linear = {.alpha = 1}});
    struct mf_segment together[MERGED];
    const int32_t segments = node->a.adapted_linear.segments;
    int32_t merged = -1;
    if (segments <= MERGED) {
        memcpy(together, builder->graph->segment + node->a.adapted_linear.segment,
               (size_t)segments * sizeof *together);
        merged = merged_a(builder, together, segments);
    }
    if (merged >= 0)
        return add_branches(builder, node->in[0], y, merged, together, segments);
    for (int32_t i = 0; i < segments; i++) {
        struct mf_segment segment = builder->graph->segment[node->a.adapted_linear.segment + i];
        if (segment.lora_a >= 0)
            y = add_branch(builder, node->in[0], y, segment);
    }
    return y;
}

/* What stands for the node is as its first output was: then the node that made it may write that. */
static void take_place(struct mf_builder *builder, const struct mf_node *node, int32_t stand_in) {
    struct mf_program *program = builder->graph->program[builder->program];
    char is[96], was[96];
    if (builder->status != MF_OK)
        return;
    const struct mf_tensor *old = mf_graph_tensor(builder->graph, node->out[0]);
    if (!program->nodes || program->node[program->nodes - 1].out[0] != stand_in) {
        mf_builder_fail(builder, MF_ERROR_PROVIDER_UNSUPPORTED,
                        "what stands for a %s is not the first output of the last node",
                        mf_op_name(node->op));
        return;
    }
    const struct mf_tensor *new = mf_graph_tensor(builder->graph, stand_in);
    if (new->dtype != old->dtype || new->storage != old->storage || !mf_tensor_same_shape(new, old)) {
        mf_builder_fail(builder, MF_ERROR_PROVIDER_UNSUPPORTED, "what stands for a %s is %s, not %s",
                        mf_op_name(node->op), mf_tensor_describe(new, is, sizeof is),
                        mf_tensor_describe(old, was, sizeof was));
        return;
    }
    program->node[program->nodes - 1].out[0] = node->out[0];
}

enum mf_status mf_pass_replace(struct mf_graph *graph, int32_t id, mf_node_replacement *replacement,
                               void *user, struct mf_error *error) {
    struct mf_program *program = graph->program[id];
    struct mf_node *old = program->node;
    const int32_t nodes = program->nodes;
    struct mf_builder builder = mf_builder_begin(graph, id);
    program->node = NULL;
    program->nodes = program->capacity = 0;
    for (int32_t n = 0; n < nodes && builder.status == MF_OK; n++) {
        builder.layer = old[n].layer;
        builder.phase = old[n].phase;
        const int32_t kept = program->nodes, stand_in = replacement(user, &builder, &old[n]);
        if (builder.status == MF_OK && stand_in < 0 && program->nodes == kept)
            builder.status = mf_program_append(graph, id, &old[n], &builder.error);
        else /* the rest of the program knows the old tensor */
            take_place(&builder, &old[n], stand_in);
    }
    free(old);
    return mf_builder_finish(&builder, error);
}

static bool is_expanded(const struct mf_builder *builder, const struct mf_node *node) {
    const struct mf_op_row *row = mf_op_row((enum mf_op)node->op);
    if (!row->expansion || node->op < MF_OPS)
        return row->expansion;
    const bool train = builder->graph->program[builder->program]->purpose == MF_TRAIN;
    return builder->graph->expand_registered || !mf_registered_kernel((enum mf_op)node->op) ||
           (train && row->gradient == mf_gradient_refuse);
}

static int32_t expansion(void *user, struct mf_builder *builder, const struct mf_node *node) {
    (void)user;
    return is_expanded(builder, node) ? mf_op_row((enum mf_op)node->op)->expansion(builder, node) : -1;
}

enum mf_status mf_pass_expand(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    return mf_pass_replace(graph, id, expansion, NULL, error);
}
