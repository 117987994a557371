#include "kernels/passes/columns.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/passes/rewrite.h"

struct columns {
    struct mf_graph *graph;
    const struct mf_program *program;
    int32_t *writer,
        *reads;     /* [tensors] of owners: the node that makes it, nodes that read it or a view of it */
    bool *dropped;  /* [nodes] */
    int32_t *chain; /* [nodes] ADD_COLUMNS nodes, each but the first upon the one before */
    int32_t links;
};

static int32_t owner_of(const struct columns *columns, int32_t id) {
    return mf_graph_owner(columns->graph, id);
}

static void count_uses(struct columns *columns) {
    const struct mf_program *program = columns->program;
    for (int32_t i = 0; i < columns->graph->tensors; i++)
        columns->writer[i] = -1;
    for (int32_t n = 0; n < program->nodes; n++) {
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            if (program->node[n].in[i] >= 0)
                columns->reads[owner_of(columns, program->node[n].in[i])]++;
        for (int i = 0; i < MF_NODE_OUTPUTS; i++)
            if (program->node[n].out[i] >= 0)
                columns->writer[owner_of(columns, program->node[n].out[i])] = n;
    }
}

/* The nodes from `first` on that add to what the one before made, which nobody else reads. */
static void follow(struct columns *columns, int32_t first) {
    const struct mf_program *program = columns->program;
    columns->links = 0;
    columns->chain[columns->links++] = first;
    for (int32_t n = first + 1; n < program->nodes; n++) {
        const int32_t made = program->node[columns->chain[columns->links - 1]].out[0];
        if (columns->reads[made] != 1)
            return;
        if (program->node[n].op == MF_OP_ADD_COLUMNS && program->node[n].in[1] == made)
            columns->chain[columns->links++] = n;
    }
}

/* Elements of a row of an owner. */
static int64_t row_of(const struct mf_tensor *owner) {
    int64_t width = 1;
    for (int i = 1; i < owner->rank; i++)
        width *= owner->dim[i].multiplier;
    return width;
}

/* The shape of `view`, columns of `owner`, when the owner's rows are `row` elements apart and start at column
 * `first`; false: it has none, as its rows are not the owner's. */
static bool move_view(const struct mf_tensor *owner, const struct mf_tensor *view, int64_t row, int64_t first,
                      struct mf_tensor *moved) {
    const int64_t whole = row_of(owner);
    int64_t width = 1;
    *moved = *view;
    if (view->rank < 2 || !mf_dim_equal(view->dim[0], owner->dim[0]) || view->stride[0] != whole)
        return false;
    for (int i = view->rank - 1; i > 0; i--) {
        if (view->stride[i] != width)
            return false;
        width *= view->dim[i].multiplier;
    }
    moved->stride[0] = row;
    moved->view_offset = first + view->view_offset;
    return view->view_offset + width <= whole;
}

/* Walks through `owner` and its views: may all be moved, and with `place` >= 0: moves them to columns of it.
 */
static bool move_all(struct columns *columns, int32_t owner, int64_t row, int64_t first, int32_t place) {
    const struct mf_tensor old = *mf_graph_tensor(columns->graph, owner);
    for (int32_t i = 0; i < columns->graph->tensors; i++) {
        struct mf_tensor *tensor = &columns->graph->tensor[i], moved;
        if (i != owner && tensor->view_of != owner)
            continue;
        if (!move_view(&old, tensor, row, first, &moved))
            return false;
        moved.view_of = place;
        if (place >= 0)
            *tensor = moved;
    }
    return true;
}

/* Is `part` all of a storage of its own, made by a node, or by parts that are written where they belong? */
static bool is_apart(const struct columns *columns, int32_t part) {
    const int32_t owner = owner_of(columns, part), writer = columns->writer[owner];
    const struct mf_tensor *tensor = mf_graph_tensor(columns->graph, owner);
    return tensor->storage == MF_ACTIVATION && tensor->version == 0 &&
           !(tensor->flags & (MF_TENSOR_OUTPUT | MF_TENSOR_HOST)) && writer >= 0 &&
           row_of(tensor) == mf_graph_tensor(columns->graph, part)->dim[1].multiplier &&
           (columns->program->node[writer].op != MF_OP_ADD_COLUMNS || columns->dropped[writer]);
}

/* Do the chain's parts fill what it makes, each column once, and may all be moved there? */
static bool fits(struct columns *columns) {
    const struct mf_program *program = columns->program;
    const int64_t width = program->node[columns->chain[0]].a.columns.width;
    int64_t filled = 0;
    for (int32_t c = 0; c < columns->links; c++) {
        const struct mf_node *node = &program->node[columns->chain[c]];
        const int32_t owner = owner_of(columns, node->in[0]);
        const int64_t first = node->a.columns.first,
                      own = mf_graph_tensor(columns->graph, node->in[0])->dim[1].multiplier;
        filled += own;
        for (int32_t other = 0; other < c; other++) {
            const struct mf_node *before = &program->node[columns->chain[other]];
            const int64_t begin = before->a.columns.first;
            if (owner_of(columns, before->in[0]) == owner ||
                (first < begin + mf_graph_tensor(columns->graph, before->in[0])->dim[1].multiplier &&
                 begin < first + own))
                return false;
        }
        if (!is_apart(columns, node->in[0]) || !move_all(columns, owner, width, first, -1))
            return false;
    }
    return filled == width;
}

static void merge(struct columns *columns) {
    const struct mf_program *program = columns->program;
    const int32_t whole = program->node[columns->chain[columns->links - 1]].out[0];
    for (int32_t c = 0; c < columns->links; c++) {
        const struct mf_node *node = &program->node[columns->chain[c]];
        (void)move_all(columns, owner_of(columns, node->in[0]), node->a.columns.width, node->a.columns.first,
                       whole);
        columns->dropped[columns->chain[c]] = true;
    }
}

/* Chains are looked at in the order of the nodes, so parts that are themselves put together come before what
 * they are parts of; one whose own parts stay apart stays apart. */
static void find_all(struct columns *columns) {
    count_uses(columns);
    for (int32_t n = 0; n < columns->program->nodes; n++) {
        const struct mf_node *node = &columns->program->node[n];
        if (node->op != MF_OP_ADD_COLUMNS || node->in[1] >= 0)
            continue;
        follow(columns, n);
        if (fits(columns))
            merge(columns);
    }
}

enum mf_status mf_pass_columns(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    const size_t tensors = (size_t)graph->tensors + 1, nodes = (size_t)graph->program[id]->nodes + 1;
    struct columns columns = {.graph = graph, .program = graph->program[id]};
    struct mf_rewrite rewrite;
    enum mf_status status = MF_OK;
    columns.writer = calloc(tensors, sizeof *columns.writer);
    columns.reads = calloc(tensors, sizeof *columns.reads);
    columns.dropped = calloc(nodes, sizeof *columns.dropped);
    columns.chain = calloc(nodes, sizeof *columns.chain);
    const bool room = columns.writer && columns.reads && columns.dropped && columns.chain;
    if (!room)
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to rewrite a program");
    if (room)
        status = mf_program_seal(graph, id, error); /* before a tensor is moved */
    if (room && status == MF_OK) {
        find_all(&columns);
        status = mf_rewrite_begin(graph, id, &rewrite, error);
    }
    if (room && status == MF_OK) {
        for (int32_t n = 0; n < rewrite.nodes; n++)
            if (!columns.dropped[n])
                mf_rewrite_copy(&rewrite, n);
        status = mf_rewrite_end(&rewrite, error);
    }
    free(columns.writer);
    free(columns.reads);
    free(columns.dropped);
    free(columns.chain);
    return status;
}
