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
    int32_t awaited;  /* of those that were fetched: so many may be read */
    int32_t *leaving; /* what is being copied to host memory, not yet awaited */
    int32_t leaving_count;
    int16_t leaving_layer; /* of all of them */
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

/* From here on the copies of id[count] have ended. */
static void await(struct offload *pass, const int32_t *id, int32_t count, int16_t layer) {
    pass->rewrite.builder.layer = layer;
    for (int32_t first = 0; first < count; first += MF_NODE_INPUTS) {
        const int32_t most = count - first < MF_NODE_INPUTS ? count - first : MF_NODE_INPUTS;
        mf_emit(&pass->rewrite.builder, MF_OP_AWAIT, id + first, (int)most, NULL);
    }
}

static void await_leaving(struct offload *pass) {
    if (pass->leaving_count > 0)
        await(pass, pass->leaving, pass->leaving_count, pass->leaving_layer);
    pass->leaving_count = 0;
}

/* Copies to host memory what node n was the last to use: beside the work of a layer, since those of the layer
 * before are waited for first. */
static void offload_after(struct offload *pass, int32_t n) {
    const int16_t layer = pass->rewrite.node[n].layer;
    for (int32_t i = 0; i < pass->waits; i++)
        if (pass->wait[i].leaves == n) {
            const int32_t id = mf_rewrite_input(&pass->rewrite, pass->wait[i].owner);
            if (pass->leaving_layer != layer)
                await_leaving(pass);
            pass->leaving_layer = layer;
            pass->rewrite.builder.layer = layer;
            pass->wait[i].host = mf_emit(&pass->rewrite.builder, MF_OP_OFFLOAD, &id, 1, NULL);
            pass->leaving[pass->leaving_count++] = id;
        }
}

/* Lets all later nodes read what was fetched. */
static void await_fetched(struct offload *pass, int16_t layer) {
    const int32_t first = pass->awaited;
    for (; pass->awaited < pass->fetched; pass->awaited++)
        pass->leaving[pass->awaited - first] = pass->rewrite.stand_in[pass->wait[pass->awaited].owner];
    await(pass, pass->leaving, pass->awaited - first, layer);
}

/* Does node n want the next one, or will the layer below its own? */
static bool is_due(const struct offload *pass, int32_t n) {
    const struct mf_node *node = &pass->rewrite.node[n];
    return pass->fetched < pass->waits &&
           (pass->wait[pass->fetched].wanted <= n ||
            (node->layer >= 0 && pass->wait[pass->fetched].layer >= node->layer - 1));
}

/* Brings back what is due. What came before that is waited for first: it has had the work of a layer. */
static void fetch_before(struct offload *pass, int32_t n) {
    const int16_t layer = pass->rewrite.node[n].layer;
    await_leaving(pass);
    if (is_due(pass, n))
        await_fetched(pass, layer);
    while (is_due(pass, n)) {
        const struct wait *wait = &pass->wait[pass->fetched++];
        pass->rewrite.builder.layer = wait->layer;
        pass->rewrite.stand_in[wait->owner] =
            mf_emit(&pass->rewrite.builder, MF_OP_FETCH, &wait->host, 1, NULL);
    }
    if (pass->awaited < pass->fetched && pass->wait[pass->awaited].wanted <= n)
        await_fetched(pass, layer);
}

static void rewrite(struct offload *pass) {
    pass->rewrite.builder.phase = MF_OFFLOAD;
    for (int32_t n = 0; n < pass->rewrite.nodes && pass->rewrite.builder.status == MF_OK; n++) {
        if (pass->rewrite.node[n].layer < 0) /* the head needs the room */
            await_leaving(pass);
        if (!in_forward(&pass->rewrite.node[n]))
            fetch_before(pass, n);
        mf_rewrite_copy(&pass->rewrite, n);
        if (in_forward(&pass->rewrite.node[n]))
            offload_after(pass, n);
    }
}

enum mf_status mf_pass_offload(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    const size_t tensors = (size_t)graph->tensors + 1;
    struct offload pass = {.wait = calloc(tensors, sizeof *pass.wait),
                           .leaving = malloc(tensors * sizeof *pass.leaving)};
    int32_t *uses = malloc(2 * tensors * sizeof *uses);
    enum mf_status status = MF_OK;
    if (!pass.wait || !pass.leaving || !uses) {
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
    free(pass.leaving);
    free(uses);
    return status;
}
