#include "kernels/passes/residual.h"

#include <stdlib.h>

struct uses {
    int32_t *writer, *reads; /* [tensors] of owners: the node that makes it, -1: none; nodes that read it */
};

static void count(const struct mf_graph *graph, const struct mf_program *program, const struct uses *uses) {
    for (int32_t i = 0; i < graph->tensors; i++)
        uses->writer[i] = -1;
    for (int32_t n = 0; n < program->nodes; n++) {
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            if (program->node[n].in[i] >= 0)
                uses->reads[mf_graph_owner(graph, program->node[n].in[i])]++;
        for (int i = 0; i < MF_NODE_OUTPUTS; i++)
            if (program->node[n].out[i] >= 0)
                uses->writer[mf_graph_owner(graph, program->node[n].out[i])] = n;
    }
}

/* The linear layer that makes operand `i` of the ADD `n` and can take the other as its addend; -1: there is
 * none. */
static int32_t find_layer(const struct mf_graph *graph, const struct mf_program *program,
                          const struct uses *uses, int32_t n, int i) {
    const int32_t y = program->node[n].in[i], other = program->node[n].in[1 - i];
    const int32_t layer = uses->writer[mf_graph_owner(graph, y)];
    if (layer < 0 || uses->reads[y] != 1 || program->node[layer].out[0] != y)
        return -1;
    const struct mf_node *node = &program->node[layer];
    const bool linear = node->op == MF_OP_LINEAR || node->op == MF_OP_ADAPTED_LINEAR;
    return linear && node->in[3] < 0 && uses->writer[mf_graph_owner(graph, other)] < layer ? layer : -1;
}

static bool fold(const struct mf_graph *graph, struct mf_program *program, const struct uses *uses,
                 int32_t n) {
    for (int i = 1; i >= 0; i--) {
        const int32_t layer = find_layer(graph, program, uses, n, i);
        if (layer < 0)
            continue;
        program->node[layer].in[3] = program->node[n].in[1 - i];
        program->node[layer].out[0] = program->node[n].out[0];
        return true;
    }
    return false;
}

enum mf_status mf_pass_residual(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    struct mf_program *program = graph->program[id];
    const size_t tensors = (size_t)graph->tensors + 1;
    const struct uses uses = {calloc(tensors, sizeof *uses.writer), calloc(tensors, sizeof *uses.reads)};
    bool *gone = calloc((size_t)program->nodes + 1, sizeof *gone);
    int32_t kept = 0;
    if (uses.writer && uses.reads && gone) {
        count(graph, program, &uses);
        for (int32_t n = 0; n < program->nodes; n++)
            gone[n] = program->node[n].op == MF_OP_ADD && fold(graph, program, &uses, n);
        for (int32_t n = 0; n < program->nodes; n++)
            if (!gone[n])
                program->node[kept++] = program->node[n];
        program->nodes = kept;
    }
    const enum mf_status status =
        uses.writer && uses.reads && gone
            ? MF_OK
            : mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to rewrite a program");
    free(uses.writer);
    free(uses.reads);
    free(gone);
    return status == MF_OK ? mf_program_check(graph, id, error) : status;
}
