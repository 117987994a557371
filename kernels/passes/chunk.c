#include "kernels/passes/chunk.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/kernel.h"
#include "kernels/passes/rewrite.h"

/* More stretches save little more memory and make the plan long. */
enum { MOST_STRETCHES = 8 };

/* Rows [first, first + most) of the token stream. */
struct stretch {
    int32_t first, most;
};

struct chunk {
    struct mf_rewrite rewrite; /* stand_in: while a region is made, its results so far */
    int32_t *last_use; /* [tensors] of owners: the last node that reads them; `nodes`: the host does */
    int32_t *part;     /* [tensors] of owners that the region makes: this stretch's; -1 */
};

/* ---- where to cut
 * -------------------------------------------------------------------------------------------------- */

static const struct mf_tensor *tensor_of(const struct chunk *pass, int32_t id) {
    return mf_graph_tensor(pass->rewrite.builder.graph, id);
}

/* Elements of a tensor a token; 0: it has no row for each token. */
static int64_t width(const struct chunk *pass, int32_t id) {
    const struct mf_tensor *tensor = tensor_of(pass, id);
    int64_t elements = 1;
    if (tensor->dim[0].symbol != MF_TOKENS)
        return 0;
    for (int i = 0; i < tensor->rank; i++)
        elements *= tensor->dim[i].multiplier;
    return elements;
}

/* Can the node be computed for a stretch of tokens? A gradient that was added to before in this program must
 * not be: its sums would come in another order. */
static bool goes_by_rows(const struct chunk *pass, const struct mf_node *node) {
    const struct mf_op_row *row = mf_op_row((enum mf_op)node->op);
    if (!(row->flags & MF_OP_BY_ROWS) || node->layer < 0)
        return false;
    for (int i = 0; i < MF_NODE_INPUTS; i++) {
        const struct mf_tensor *tensor = node->in[i] < 0 ? NULL : tensor_of(pass, node->in[i]);
        if (tensor && (tensor->version > 0 ||
                       (tensor->dim[0].symbol != MF_CONST && tensor->dim[0].symbol != MF_TOKENS)))
            return false;
    }
    return true;
}

static bool touches(const struct chunk *pass, const struct mf_node *node, int64_t wide) {
    for (int i = 0; i < MF_NODE_INPUTS; i++)
        if (node->in[i] >= 0 && width(pass, node->in[i]) >= wide)
            return true;
    for (int i = 0; i < MF_NODE_OUTPUTS; i++)
        if (node->out[i] >= 0 && width(pass, node->out[i]) >= wide)
            return true;
    return false;
}

/* The width of the activations between the feed-forward projections; 0: there are none. */
static int64_t feed_forward_width(const struct chunk *pass) {
    for (int32_t n = 0; n < pass->rewrite.nodes; n++)
        if (pass->rewrite.node[n].op == MF_OP_GATED_ACTIVATION ||
            pass->rewrite.node[n].op == MF_OP_ACTIVATION)
            return width(pass, pass->rewrite.node[n].out[0]);
    return 0;
}

/* The first wide region at or after node `from`: [*from, returned); none: both `nodes`. */
static int32_t find_region(const struct chunk *pass, int64_t wide, int32_t *from) {
    int32_t start = *from;
    while (start < pass->rewrite.nodes && !(goes_by_rows(pass, &pass->rewrite.node[start]) &&
                                            touches(pass, &pass->rewrite.node[start], wide)))
        start++;
    int32_t end = start;
    for (int32_t n = start;
         n < pass->rewrite.nodes && goes_by_rows(pass, &pass->rewrite.node[n]) &&
         pass->rewrite.node[n].layer == pass->rewrite.node[start].layer &&
         (pass->rewrite.node[n].phase == MF_FORWARD) == (pass->rewrite.node[start].phase == MF_FORWARD);
         n++)
        if (touches(pass, &pass->rewrite.node[n], wide))
            end = n + 1;
    *from = start;
    return end;
}

static void find_last_uses(struct chunk *pass) {
    for (int32_t n = 0; n < pass->rewrite.nodes; n++)
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            if (pass->rewrite.node[n].in[i] >= 0)
                pass->last_use[mf_graph_owner(pass->rewrite.builder.graph, pass->rewrite.node[n].in[i])] = n;
    for (int32_t i = 0; i < pass->rewrite.tensors; i++)
        if (pass->rewrite.builder.graph->tensor[i].flags & MF_TENSOR_OUTPUT)
            pass->last_use[i] = pass->rewrite.nodes;
}

/* The rows of `id` that belong to the stretch. */
static int32_t rows_of(struct chunk *pass, int32_t id, struct stretch stretch) {
    if (id < 0 || tensor_of(pass, id)->dim[0].symbol == MF_CONST)
        return mf_rewrite_input(&pass->rewrite, id);
    const int32_t owner = mf_graph_owner(pass->rewrite.builder.graph, id);
    struct mf_tensor view = *tensor_of(pass, id);
    view.dim[0].first = stretch.first;
    view.dim[0].most = stretch.most;
    if (pass->part[owner] >= 0) /* starts with the stretch's first row */
        return id == owner ? pass->part[owner] : mf_rewrite_view(&pass->rewrite, &view, pass->part[owner]);
    view.view_offset += (int64_t)stretch.first * view.dim[0].multiplier * view.stride[0];
    return mf_rewrite_view(&pass->rewrite, &view,
                           pass->rewrite.stand_in[owner] < 0 ? owner : pass->rewrite.stand_in[owner]);
}

/* ---- making the program
 * ---------------------------------------------------------------------------------------------- */

/* Adds a stretch's part to what the rest of the program reads. */
static void put_together(struct chunk *pass, int32_t id, struct stretch stretch) {
    const int32_t in[] = {pass->part[id], pass->rewrite.stand_in[id]};
    const union mf_attributes attributes = {
        .rows = {.first = stretch.first * tensor_of(pass, id)->dim[0].multiplier}};
    pass->rewrite.stand_in[id] = mf_emit(&pass->rewrite.builder, MF_OP_SET_ROWS, in, 2, &attributes);
}

static void emit_part(struct chunk *pass, const struct mf_node *node, struct stretch stretch, int32_t end) {
    const struct mf_op_row *row = mf_op_row((enum mf_op)node->op);
    const bool writes_state = row->flags & MF_OP_WRITES_STATE;
    int32_t in[MF_NODE_INPUTS], out[MF_NODE_OUTPUTS];
    for (int i = 0; i < MF_NODE_INPUTS; i++)
        in[i] = rows_of(pass, node->in[i], stretch);
    if (writes_state && pass->rewrite.stand_in[node->out[0]] >= 0) /* goes on where the last stretch ended */
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            if (node->in[i] >= 0 && tensor_of(pass, node->in[i])->storage == MF_GRADIENT)
                in[i] = pass->rewrite.stand_in[node->out[0]];
    pass->rewrite.builder.layer = node->layer;
    pass->rewrite.builder.phase = node->phase;
    mf_emit(&pass->rewrite.builder, (enum mf_op)node->op, in, row->required + row->optional, &node->a);
    for (int i = 0; i < MF_NODE_OUTPUTS; i++)
        out[i] = mf_builder_output(&pass->rewrite.builder, i);
    for (int i = 0; i < MF_NODE_OUTPUTS && pass->rewrite.builder.status == MF_OK; i++) {
        if (node->out[i] < 0)
            continue;
        if (writes_state) {
            pass->rewrite.stand_in[node->out[i]] = out[i];
            continue;
        }
        pass->part[node->out[i]] = out[i];
        if (pass->last_use[node->out[i]] >= end)
            put_together(pass, node->out[i], stretch);
    }
}

static void emit_region(struct chunk *pass, int32_t from, int32_t end, int32_t rows) {
    const int32_t bound =
        pass->rewrite.builder.graph->program[pass->rewrite.builder.program]->bound[MF_TOKENS];
    for (int32_t first = 0; first < bound && pass->rewrite.builder.status == MF_OK; first += rows)
        for (int32_t n = from; n < end && pass->rewrite.builder.status == MF_OK; n++)
            emit_part(pass, &pass->rewrite.node[n], (struct stretch){first, rows}, end);
    for (int32_t n = from; n < end; n++)
        for (int i = 0; i < MF_NODE_OUTPUTS; i++)
            if (pass->rewrite.node[n].out[i] >= 0)
                pass->part[pass->rewrite.node[n].out[i]] = -1;
}

static void rewrite(struct chunk *pass, int32_t rows) {
    const int64_t wide = feed_forward_width(pass);
    int32_t from = wide ? 0 : pass->rewrite.nodes;
    int32_t end = find_region(pass, wide, &from);
    find_last_uses(pass);
    for (int32_t n = 0; n < pass->rewrite.nodes && pass->rewrite.builder.status == MF_OK;) {
        if (n < from) {
            mf_rewrite_copy(&pass->rewrite, n++);
            continue;
        }
        emit_region(pass, from, end, rows);
        n = from = end;
        end = find_region(pass, wide, &from);
    }
}

enum mf_status mf_pass_chunk(struct mf_graph *graph, int32_t id, struct mf_error *error) {
    const size_t tensors = (size_t)graph->tensors;
    const int32_t blocks = (graph->program[id]->bound[MF_TOKENS] + MF_ROW_BLOCK - 1) / MF_ROW_BLOCK;
    struct chunk pass;
    if (blocks < 2)
        return mf_program_seal(graph, id, error);
    int32_t *table = malloc(2 * tensors * sizeof *table);
    if (!table)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the chunk pass");
    memset(table, 0xff, 2 * tensors * sizeof *table);
    pass.last_use = table;
    pass.part = table + tensors;
    enum mf_status status = mf_rewrite_begin(graph, id, &pass.rewrite, error);
    if (status == MF_OK) {
        rewrite(&pass, (blocks + MOST_STRETCHES - 1) / MOST_STRETCHES * MF_ROW_BLOCK);
        status = mf_rewrite_end(&pass.rewrite, error);
    }
    free(table);
    return status;
}
