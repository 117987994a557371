#include "kernels/passes/dequantize.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/passes/rewrite.h"

struct dequantize {
    struct mf_rewrite rewrite; /* stand_in: of the weights, what they were last dequantised to */
    int32_t *forward;          /* [table] the node that dequantised the weight in forward; -1 */
    bool *later;               /* [table] it was dequantised again after forward */
};

/* Puts the weight of row `row` into stand_in, for a node in `phase` of `layer`. */
static void emit(struct dequantize *pass, int32_t row, uint8_t phase, int16_t layer) {
    struct mf_builder *builder = &pass->rewrite.builder;
    struct mf_graph *graph = builder->graph;
    builder->status = mf_graph_keep_quantized(graph, row, &builder->error);
    if (builder->status != MF_OK)
        return;
    const struct mf_quantized_weight *quantized = &graph->quantized[row];
    const struct mf_tensor *weight = mf_graph_tensor(graph, quantized->weight);
    if (weight->dtype != graph->program[builder->program]->dtype) {
        mf_builder_fail(builder, MF_ERROR_INTERNAL, "%s is %s, and would be dequantised to %s", weight->name,
                        mf_dtype_name((enum mf_dtype)weight->dtype),
                        mf_dtype_name((enum mf_dtype)graph->program[builder->program]->dtype));
        return;
    }
    union mf_attributes attributes = {.dequantize = {.quantization = weight->quantization,
                                                     .nested = weight->nested,
                                                     .columns = weight->dim[1].multiplier}};
    memcpy(attributes.dequantize.rows, quantized->rows, sizeof quantized->rows);
    const int32_t in[] = {quantized->codes, quantized->scales, quantized->scale_codes},
                  owner = quantized->weight;
    const bool forward = phase == MF_FORWARD;
    builder->layer = layer;
    builder->phase = forward ? MF_FORWARD : MF_RECOMPUTE;
    builder->twin = forward ? -1 : pass->forward[row];
    if (forward)
        pass->forward[row] = graph->program[builder->program]->nodes;
    pass->later[row] = !forward;
    pass->rewrite.stand_in[owner] = mf_emit(builder, MF_OP_DEQUANTIZE, in, 3, &attributes);
    builder->twin = -1;
}

static void provide(struct dequantize *pass, const struct mf_node *node) {
    const struct mf_graph *graph = pass->rewrite.builder.graph;
    for (int i = 0; i < MF_NODE_INPUTS && pass->rewrite.builder.status == MF_OK; i++) {
        const int32_t owner = node->in[i] < 0 ? -1 : mf_graph_owner(graph, node->in[i]);
        const int32_t row = owner < 0 ? -1 : mf_graph_tensor(graph, owner)->quantized_row - 1;
        if (row < 0 || graph->quantized[row].weight != owner)
            continue;
        if (node->phase == MF_FORWARD ? pass->forward[row] < 0 : !pass->later[row])
            emit(pass, row, node->phase, node->layer);
    }
}

enum mf_status mf_pass_dequantize(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    const size_t rows = (size_t)graph->quantizeds;
    struct dequantize pass = {.forward = NULL};
    enum mf_status status = mf_program_seal(graph, id, error);
    if (rows == 0 || status != MF_OK)
        return status;
    pass.forward = malloc(rows * sizeof *pass.forward);
    pass.later = calloc(rows, sizeof *pass.later);
    if (!pass.forward || !pass.later) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the dequantize pass");
        goto done;
    }
    memset(pass.forward, 0xff, rows * sizeof *pass.forward);
    status = mf_rewrite_begin(graph, id, &pass.rewrite, error);
    if (status != MF_OK)
        goto done;
    for (int32_t n = 0; n < pass.rewrite.nodes && pass.rewrite.builder.status == MF_OK; n++) {
        provide(&pass, &pass.rewrite.node[n]);
        mf_rewrite_copy(&pass.rewrite, n);
    }
    status = mf_rewrite_end(&pass.rewrite, error);
done:
    free(pass.forward);
    free(pass.later);
    return status;
}
