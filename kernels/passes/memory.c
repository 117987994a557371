#include "kernels/passes/memory.h"

#include "kernels/cost.h"

enum mf_status mf_pass_memory(struct mf_graph *graph, int32_t program, const struct mf_memory_choice *choice,
                              struct mf_error *error) {
    return mf_pass_recompute(graph, program, choice->recompute, error);
}

double mf_memory_cost(const struct mf_graph *graph, int32_t id, const struct mf_backend *backend) {
    const struct mf_program *program = graph->program[id];
    int32_t value[MF_SYMBOLS];
    double cost = 0;
    memcpy(value, program->bound, sizeof value);
    value[MF_SEQUENCES] = 1; /* attention over the longest row costs most */
    for (int32_t n = 0; n < program->nodes; n++) {
        const struct mf_node *node = &program->node[n];
        if (node->phase == MF_RECOMPUTE)
            cost += mf_cost_in_bytes(mf_node_cost(graph, node, value), backend->flop_per_byte);
    }
    return cost;
}

char *mf_memory_describe(const struct mf_memory_choice *choice, char *text, size_t bytes) {
    if (choice->recompute == MF_RECOMPUTE_NONE)
        snprintf(text, bytes, "keep all");
    else
        snprintf(text, bytes, "recompute %s", mf_recompute_name(choice->recompute));
    return text;
}
