#include "kernels/cost.h"

/* Elements of a tensor; 0 for none. */
static double elements(const struct mf_graph *graph, int32_t id, const int32_t *value) {
    return id < 0 ? 0 : (double)mf_tensor_elements(mf_graph_tensor(graph, id), value);
}

static double bytes(const struct mf_graph *graph, int32_t id, const int32_t *value) {
    return id < 0 ? 0
                  : elements(graph, id, value) *
                        (double)mf_dtype_bytes((enum mf_dtype)mf_graph_tensor(graph, id)->dtype);
}

static double rows(const struct mf_graph *graph, int32_t id, const int32_t *value) {
    return (double)mf_dim_value(mf_graph_tensor(graph, id)->dim[0], value);
}

/* Products q kᵀ and p v of every query with the keys that it sees: half of them where it is causal. */
static double attention(const struct mf_graph *graph, const struct mf_node *node, const int32_t *value,
                        int products) {
    const double sequences = value[MF_SEQUENCES] > 0 ? value[MF_SEQUENCES] : 1;
    double keys = rows(graph, node->in[1], value) / sequences;
    if (node->a.attention.causal)
        keys /= 2;
    if (node->a.attention.window > 0 && keys > node->a.attention.window)
        keys = node->a.attention.window;
    return 2 * products * elements(graph, node->in[0], value) * keys;
}

static double flop(const struct mf_graph *graph, const struct mf_node *node, const int32_t *value) {
    switch ((enum mf_op)node->op) {
    case MF_OP_LINEAR:
    case MF_OP_ADAPTED_LINEAR:
    case MF_OP_LINEAR_INPUT_GRADIENT: /* every row times the weight */
        return 2 * rows(graph, node->in[0], value) * elements(graph, node->in[1], value);
    case MF_OP_LINEAR_WEIGHT_GRADIENT:
        return 2 * rows(graph, node->in[0], value) * elements(graph, node->in[2], value);
    case MF_OP_HEAD:
        return (node->a.head.with_gradient ? 4 : 2) * rows(graph, node->in[2], value) *
               elements(graph, node->in[1], value);
    case MF_OP_HEAD_WEIGHT_GRADIENT: /* the logits again, and their gradient times the hidden states */
        return 4 * rows(graph, node->in[2], value) * elements(graph, node->in[1], value);
    case MF_OP_HEAD_BIAS_GRADIENT:
    case MF_OP_LOGITS:
        return 2 * rows(graph, node->in[2], value) * elements(graph, node->in[1], value);
    case MF_OP_ATTENTION:
        return attention(graph, node, value, 2);
    case MF_OP_ATTENTION_GRADIENT: /* q kᵀ again, and the gradients of q, k, v and p */
        return attention(graph, node, value, 5);
    default:
        return 0;
    }
}

/* An op that gathers or scatters rows moves as much as the rows are, not the whole table: the tensor that
 * tells how much; -1: input `input` is no table. */
static int32_t rows_of_table(const struct mf_node *node, int input) {
    if (node->op == MF_OP_EMBEDDING && input == 0)
        return node->out[0];
    return node->op == MF_OP_EMBEDDING_GRADIENT && input == 2 ? node->in[0] : -1;
}

struct mf_cost mf_node_cost(const struct mf_graph *graph, const struct mf_node *node, const int32_t *value) {
    struct mf_cost cost = {.flop = flop(graph, node, value)};
    if (node->op == MF_OP_FOLD_ADAPTERS) { /* only the adapters move */
        const double width =
            (double)mf_dtype_bytes((enum mf_dtype)mf_graph_tensor(graph, node->in[0])->dtype);
        for (int i = 1; i < MF_NODE_INPUTS; i++)
            cost.bytes += bytes(graph, node->in[i], value) + elements(graph, node->in[i], value) * width;
        return cost;
    }
    for (int i = 0; i < MF_NODE_INPUTS; i++) {
        const int32_t moved = rows_of_table(node, i);
        cost.bytes += bytes(graph, moved < 0 ? node->in[i] : moved, value);
    }
    for (int i = 0; i < MF_NODE_OUTPUTS; i++)
        cost.bytes += bytes(graph, node->op == MF_OP_EMBEDDING_GRADIENT ? node->in[0] : node->out[i], value) *
                      (node->out[i] >= 0);
    return cost;
}

double mf_cost_in_bytes(struct mf_cost cost, double flop_per_byte) {
    const double product = cost.flop / flop_per_byte;
    return product > cost.bytes ? product : cost.bytes;
}
