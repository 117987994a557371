#include "kernels/passes/memory.h"

#include "kernels/cost.h"
#include "kernels/passes/chunk.h"
#include "kernels/passes/dequantize.h"
#include "kernels/passes/offload.h"

enum mf_status mf_pass_memory(struct mf_graph *graph, int32_t program, const struct mf_memory_choice *choice,
                              struct mf_error *error) {
    enum mf_status status = mf_pass_recompute(graph, program, choice->recompute, error);
    if (status == MF_OK && choice->chunk)
        status = mf_pass_chunk(graph, program, error);
    if (status == MF_OK && choice->offload)
        status = mf_pass_offload(graph, program, error);
    if (status == MF_OK && choice->quantized)
        status = mf_pass_dequantize(graph, program, error);
    return status;
}

double mf_memory_cost(const struct mf_graph *graph, int32_t id, const struct mf_backend *backend) {
    const struct mf_program *program = graph->program[id];
    int32_t value[MF_SYMBOLS];
    double cost = 0;
    memcpy(value, program->bound, sizeof value);
    value[MF_SEQUENCES] = 1; /* attention over the longest row costs most */
    for (int32_t n = 0; n < program->nodes; n++) {
        const struct mf_node *node = &program->node[n];
        const struct mf_cost one = mf_node_cost(graph, node, value);
        cost += node->phase == MF_OFFLOAD ? one.bytes / 2 * backend->bytes_per_host_byte
                                          : mf_cost_in_bytes(one, backend->flop_per_byte);
    }
    return cost;
}

char *mf_memory_describe(const struct mf_memory_choice *choice, char *text, size_t bytes) {
    const bool recompute = choice->recompute != MF_RECOMPUTE_NONE;
    snprintf(text, bytes, "%s%s%s%s%s", recompute ? "recompute " : "keep all",
             recompute ? mf_recompute_name(choice->recompute) : "",
             choice->chunk ? "; feed-forward by stretches of tokens" : "",
             choice->offload ? "; in host memory" : "",
             choice->quantized ? "; weights dequantised where they are used" : "");
    return text;
}
