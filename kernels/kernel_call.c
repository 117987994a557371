#include "kernels/kernel_call.h"

#include <string.h>

static void fill_array(const struct mf_graph *graph, int32_t id, const int32_t *value,
                       struct mf_array *array) {
    memset(array, 0, sizeof *array);
    array->tensor = id;
    for (int i = 0; i < MF_RANK; i++)
        array->dim[i] = 1;
    if (id < 0)
        return;
    const struct mf_tensor *tensor = mf_graph_tensor(graph, id);
    array->dtype = tensor->dtype;
    array->rank = tensor->rank;
    for (int i = 0; i < tensor->rank; i++) {
        array->dim[i] = mf_dim_value(tensor->dim[i], value);
        array->stride[i] = tensor->stride[i];
    }
}

void mf_kernel_call_fill(const struct mf_graph *graph, const struct mf_node *node, const int32_t *value,
                         struct mf_kernel_call *call) {
    call->node = node;
    for (int i = 0; i < MF_NODE_INPUTS; i++)
        fill_array(graph, node->in[i], value, &call->in[i]);
    for (int i = 0; i < MF_NODE_OUTPUTS; i++)
        fill_array(graph, node->out[i], value, &call->out[i]);
    for (int i = 0; i < MF_NODE_WORKSPACES; i++)
        fill_array(graph, node->workspace[i], value, &call->workspace[i]);
}

static void visit_all(struct mf_array *array, int count, mf_array_visitor *visit, void *user) {
    for (int i = 0; i < count; i++)
        if (array[i].tensor >= 0)
            visit(user, &array[i]);
}

void mf_kernel_call_visit(struct mf_kernel_call *call, mf_array_visitor *visit, void *user) {
    visit_all(call->in, MF_NODE_INPUTS, visit, user);
    visit_all(call->out, MF_NODE_OUTPUTS, visit, user);
    visit_all(call->workspace, MF_NODE_WORKSPACES, visit, user);
}
