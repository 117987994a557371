#include "kernels/passes/offload.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/passes/rewrite.h"

/* An activation that waits in host memory. */
struct wait {
    int32_t owner, leaves; /* leaves: the node after which it is copied */
    int32_t wanted;        /* the first node that reads it then */
    int16_t layer;         /* of that node */
    int32_t host;          /* the copy; -1: not yet made */
};

struct offload {
    struct mf_rewrite rewrite;
    struct wait *wait; /* by `wanted` */
    int32_t waits, fetched;
};

static bool in_forward(const struct mf_node *node) {
    return node->phase == MF_FORWARD;
}

/* Fills the uses of each owner: its last in forward and its first after it; -1: none. */
static void find_uses(const struct offload *pass, int32_t *leaves, int32_t *wanted) {
    for (int32_t n = 0; n < pass->rewrite.nodes; n++) {
        const struct mf_node *node = &pass->rewrite.node[n];
        for (int i = 0; i < MF_NODE_INPUTS; i++) {
            const int32_t owner =
                node->in[i] < 0 ? -1 : mf_graph_owner(pass->rewrite.builder.graph, node->in[i]);
            if (owner >= 0 && in_forward(node))
                leaves[owner] = n;
            else if (owner >= 0 && wanted[owner] < 0)
                wanted[owner] = n;
        }
        for (int i = 0; i < MF_NODE_OUTPUTS; i++)
            if (node->out[i] >= 0 && in_forward(node))
                leaves[node->out[i]] = n;
    }
}

static int by_wanted(const void *left, const void *right) {
    const struct wait *a = left, *b = right;
    if (a->wanted != b->wanted)
        return a->wanted < b->wanted ? -1 : 1;
    return (a->owner > b->owner) - (a->owner < b->owner);
}

static void choose(struct offload *pass, const int32_t *leaves, const int32_t *wanted) {
    const struct mf_graph *graph = pass->rewrite.builder.graph;
    int16_t last = 0;
    for (int32_t n = 0; n < pass->rewrite.nodes; n++)
        if (pass->rewrite.node[n].layer > last)
            last = pass->rewrite.node[n].layer;
    for (int32_t i = 0; i < pass->rewrite.tensors; i++) {
        const struct mf_tensor *tensor = mf_graph_tensor(graph, i);
        if (tensor->view_of >= 0 || tensor->storage != MF_ACTIVATION || tensor->flags ||
            tensor->dim[0].symbol != MF_TOKENS || leaves[i] < 0 || wanted[i] < 0)
            continue;
        const int16_t layer = pass->rewrite.node[wanted[i]].layer;
        if (layer >= 0 && layer < last)
            pass->wait[pass->waits++] = (struct wait){
                .owner = i, .leaves = leaves[i], .wanted = wanted[i], .layer = layer, .host = -1};
    }
    qsort(pass->wait, (size_t)pass->waits, sizeof *pass->wait, by_wanted);
}

/* Copies to host memory what node n was the last to use. */
static void offload_after(struct offload *pass, int32_t n) {
    for (int32_t i = 0; i < pass->waits; i++)
        if (pass->wait[i].leaves == n) {
            pass->rewrite.builder.layer = pass->rewrite.node[n].layer;
            pass->wait[i].host =
                mf_emit(&pass->rewrite.builder, MF_OP_OFFLOAD, &pass->wait[i].owner, 1, NULL);
        }
}

/* Brings back what node n wants, and what the layer below its own will want. */
static void fetch_before(struct offload *pass, int32_t n) {
    const struct mf_node *node = &pass->rewrite.node[n];
    while (pass->fetched < pass->waits &&
           (pass->wait[pass->fetched].wanted <= n ||
            (node->layer >= 0 && pass->wait[pass->fetched].layer >= node->layer - 1))) {
        const struct wait *wait = &pass->wait[pass->fetched++];
        pass->rewrite.builder.layer = wait->layer;
        pass->rewrite.stand_in[wait->owner] =
            mf_emit(&pass->rewrite.builder, MF_OP_FETCH, &wait->host, 1, NULL);
    }
}

static void rewrite(struct offload *pass) {
    pass->rewrite.builder.phase = MF_OFFLOAD;
    for (int32_t n = 0; n < pass->rewrite.nodes && pass->rewrite.builder.status == MF_OK; n++) {
        if (!in_forward(&pass->rewrite.node[n]))
            fetch_before(pass, n);
        mf_rewrite_copy(&pass->rewrite, n);
        if (in_forward(&pass->rewrite.node[n]))
            offload_after(pass, n);
    }
}

enum mf_status mf_pass_offload(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    const size_t tensors = (size_t)graph->tensors + 1;
    struct offload pass = {.wait = calloc(tensors, sizeof *pass.wait)};
    int32_t *uses = malloc(2 * tensors * sizeof *uses);
    enum mf_status status = MF_OK;
    if (!pass.wait || !uses) {
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the offload pass");
        goto done;
    }
    memset(uses, 0xff, 2 * tensors * sizeof *uses);
    status = mf_rewrite_begin(graph, id, &pass.rewrite, error);
    if (status != MF_OK)
        goto done;
    find_uses(&pass, uses, uses + tensors);
    choose(&pass, uses, uses + tensors);
    rewrite(&pass);
    status = mf_rewrite_end(&pass.rewrite, error);
done:
    free(pass.wait);
    free(uses);
    return status;
}
