#include "kernels/passes/fold.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/graph_rows.h"
#include "kernels/passes/rewrite.h"

enum role { KEPT, DROPPED, PRODUCT, HIDDEN_GRADIENT, INPUT_GRADIENT };

/* A linear layer with adapters; node numbers and tensors are those before the pass. */
struct site {
    int32_t weight, bias, x, hidden[MF_FOLDED], b[MF_FOLDED], branches;
    struct mf_fold_attributes fold;
    int32_t rank;            /* R: of all branches together */
    int32_t a;               /* the A (R, K) of all; -1: they have one each, or dropout before it */
    int32_t dy, hidden_last; /* in backward; hidden_last: the gradient of all hidden columns */
    int32_t addend;          /* of the input's gradient; -1 */
    int32_t state;           /* holds W and the adapters */
    int32_t whole;           /* the version of it that this program makes */
};

struct fold {
    struct mf_graph *graph;
    int32_t id, granule;
    const struct mf_program *program;
    int32_t *maker, *reader, *reads; /* [tensors] of owners: nodes; how often it or a view of it is read */
    bool *taken;                     /* [tensors] owners that are a part of a site's input */
    uint8_t *role;                   /* [nodes] enum role */
    int32_t *of;                     /* [nodes] the site that the role belongs to */
    struct site *site;
    int32_t sites;
};

static const struct mf_node *node_of(const struct fold *fold, int32_t n) {
    return &fold->program->node[n];
}

static int32_t owner_of(const struct fold *fold, int32_t id) {
    return mf_graph_owner(fold->graph, id);
}

static const struct mf_node *maker_of(const struct fold *fold, int32_t id) {
    const int32_t n = id < 0 ? -1 : fold->maker[owner_of(fold, id)];
    return n < 0 ? NULL : node_of(fold, n);
}

static void count_uses(struct fold *fold) {
    for (int32_t i = 0; i < fold->graph->tensors; i++)
        fold->maker[i] = fold->reader[i] = -1;
    for (int32_t n = 0; n < fold->program->nodes; n++) {
        const struct mf_node *node = node_of(fold, n);
        for (int i = 0; i < MF_NODE_OUTPUTS; i++)
            if (node->out[i] >= 0)
                fold->maker[owner_of(fold, node->out[i])] = n;
        for (int i = 0; i < MF_NODE_INPUTS; i++) {
            if (node->in[i] < 0)
                continue;
            fold->reader[owner_of(fold, node->in[i])] = n;
            fold->reads[owner_of(fold, node->in[i])]++;
        }
    }
}

static bool is_adapter(const struct fold *fold, int32_t id) {
    const struct mf_tensor *tensor = mf_graph_tensor(fold->graph, id);
    return tensor->storage == MF_ADAPTER && tensor->rank == 2 && tensor->version == 0;
}

static int32_t rows_of(const struct fold *fold, int32_t id) {
    return mf_graph_tensor(fold->graph, id)->dim[0].multiplier;
}

static int32_t columns_of(const struct fold *fold, int32_t id) {
    return mf_graph_tensor(fold->graph, id)->dim[1].multiplier;
}

/* An activation that a node of the program made, all of what its owner holds, and that no site has yet. */
static bool is_free(const struct fold *fold, int32_t id) {
    const int32_t owner = owner_of(fold, id);
    const struct mf_tensor *whole = mf_graph_tensor(fold->graph, owner);
    int64_t width = 1;
    for (int i = 1; i < whole->rank; i++)
        width *= whole->dim[i].multiplier;
    return whole->storage == MF_ACTIVATION && fold->maker[owner] >= 0 && !fold->taken[owner] &&
           !(whole->flags & MF_TENSOR_OUTPUT) && mf_graph_tensor(fold->graph, id)->view_offset == 0 &&
           mf_dim_equal(whole->dim[0], mf_graph_tensor(fold->graph, id)->dim[0]) &&
           width == columns_of(fold, id);
}

/* May W lie in state? All views of it are whole rows, or it does already, with this room beside it. */
static bool can_be_placed(const struct fold *fold, int32_t weight, int32_t rank) {
    const struct mf_tensor *tensor = mf_graph_tensor(fold->graph, weight);
    const int32_t K = tensor->dim[1].multiplier;
    if (tensor->flags & MF_TENSOR_PLACED) {
        const struct mf_tensor *state = mf_graph_tensor(fold->graph, tensor->view_of);
        return state->dim[1].multiplier == K + rank;
    }
    if (tensor->view_of >= 0 || tensor->quantized_row)
        return false;
    for (int32_t i = 0; i < fold->graph->tensors; i++) {
        const struct mf_tensor *view = mf_graph_tensor(fold->graph, i);
        if (view->view_of == weight &&
            (view->rank != 2 || view->dim[1].multiplier != K || view->stride[0] != K))
            return false;
    }
    return true;
}

/* The A of all branches, when it multiplies the layer's own input in one product; else -1. */
static int32_t common_a(const struct fold *fold, const struct site *site) {
    const struct mf_node *first = maker_of(fold, site->hidden[0]);
    int32_t at = 0;
    if (!first || first->op != MF_OP_LINEAR || first->in[0] != site->x || !is_adapter(fold, first->in[1]) ||
        first->in[3] >= 0 || first->a.linear.alpha != 1 || rows_of(fold, first->in[1]) != site->rank)
        return -1;
    for (int32_t i = 0; i < site->branches; i++) {
        if (maker_of(fold, site->hidden[i]) != first ||
            mf_graph_tensor(fold->graph, site->hidden[i])->view_offset != at)
            return -1;
        at += columns_of(fold, site->hidden[i]);
    }
    return first->in[1];
}

/* Is node n the product with a weight that sums of branches follow? Fills *site and the last node. */
static bool find_product(const struct fold *fold, int32_t n, struct site *site, int32_t *last) {
    const struct mf_node *node = node_of(fold, n);
    if (node->op != MF_OP_LINEAR || node->in[3] >= 0 || node->a.linear.alpha != 1 || node->a.linear.first)
        return false;
    const struct mf_tensor *weight = mf_graph_tensor(fold->graph, node->in[1]);
    if (weight->storage != MF_WEIGHT || weight->dtype != fold->program->dtype)
        return false;
    *site = (struct site){.weight = node->in[1], .bias = node->in[2], .x = node->in[0], .dy = -1};
    *last = n;
    for (int32_t y = node->out[0]; fold->reads[y] == 1 && site->branches < MF_FOLDED;) {
        const struct mf_node *next = node_of(fold, fold->reader[y]);
        if (next->op != MF_OP_LINEAR || next->in[3] != y || next->in[2] >= 0 ||
            !is_adapter(fold, next->in[1]))
            break;
        const int32_t i = site->branches++;
        site->hidden[i] = next->in[0];
        site->b[i] = next->in[1];
        site->fold.first[i] = next->a.linear.first;
        site->fold.scale[i] = next->a.linear.alpha;
        site->rank += columns_of(fold, next->in[1]);
        *last = fold->reader[y];
        y = next->out[0];
    }
    const bool even = site->rank % fold->granule == 0 && weight->dim[0].multiplier % fold->granule == 0 &&
                      weight->dim[1].multiplier % fold->granule == 0;
    if (site->branches == 0 || !even || !is_free(fold, site->x) ||
        !can_be_placed(fold, site->weight, site->rank))
        return false;
    site->a = common_a(fold, site);
    return true;
}

/* Is node n dh_i = scale_i * dy B_i of a branch of the site? */
static bool is_hidden_gradient(const struct fold *fold, const struct site *site, int32_t n, int32_t i) {
    const struct mf_node *node = n < 0 ? NULL : node_of(fold, n);
    return node && node->op == MF_OP_LINEAR_INPUT_GRADIENT && node->in[0] == site->dy &&
           node->in[1] == site->b[i] && node->in[2] < 0 && node->a.linear.first == site->fold.first[i] &&
           node->a.linear.alpha == site->fold.scale[i];
}

/* The nodes that make the gradient of the site's hidden columns from dy; how many, 0: not as expected. */
static int find_hidden_gradient(const struct fold *fold, const struct site *site, int32_t hidden,
                                int32_t found[2 * MF_FOLDED]) {
    int count = 0;
    int32_t branches = 0, n = fold->maker[owner_of(fold, hidden)];
    if (site->branches == 1 && is_hidden_gradient(fold, site, n, 0)) {
        found[0] = n;
        return 1;
    }
    while (n >= 0 && branches < site->branches && node_of(fold, n)->op == MF_OP_ADD_COLUMNS) {
        const struct mf_node *node = node_of(fold, n);
        int32_t i = 0, at = 0;
        for (; i < site->branches && at != node->a.columns.first; i++)
            at += columns_of(fold, site->hidden[i]);
        const int32_t part = fold->maker[owner_of(fold, node->in[0])];
        if (i == site->branches || fold->reads[owner_of(fold, node->in[0])] != 1 ||
            !is_hidden_gradient(fold, site, part, i))
            return 0;
        found[count++] = n;
        found[count++] = part;
        branches++;
        n = node->in[1] < 0 ? -1 : fold->maker[owner_of(fold, node->in[1])];
    }
    return branches == site->branches && n < 0 ? count : 0;
}

static void assign(struct fold *fold, int32_t n, enum role role) {
    fold->role[n] = (uint8_t)role;
    fold->of[n] = fold->sites;
}

/* One product in the place of the first of them. */
static void assign_hidden_gradient(struct fold *fold, const int32_t *found, int count) {
    int32_t first = found[0];
    for (int i = 0; i < count; i++) {
        assign(fold, found[i], DROPPED);
        first = found[i] < first ? found[i] : first;
    }
    assign(fold, first, HIDDEN_GRADIENT);
}

/* dx = dh A + dy W of the site, if the program has it so. */
static void find_backward(struct fold *fold, struct site *site) {
    int32_t found[2 * MF_FOLDED];
    for (int32_t n = 0; n < fold->program->nodes && site->a >= 0; n++) {
        const struct mf_node *node = node_of(fold, n);
        if (node->op != MF_OP_LINEAR_INPUT_GRADIENT || node->in[1] != site->weight || node->in[2] < 0 ||
            node->a.linear.first || node->a.linear.alpha != 1 || !is_free(fold, node->in[0]))
            continue;
        const int32_t sum = owner_of(fold, node->in[2]), branch = fold->maker[sum];
        const struct mf_node *other = branch < 0 ? NULL : node_of(fold, branch);
        if (fold->reads[sum] != 1 || !other || other->op != MF_OP_LINEAR_INPUT_GRADIENT ||
            other->in[1] != site->a || other->a.linear.first || other->a.linear.alpha != 1)
            continue;
        site->dy = node->in[0];
        const int count = find_hidden_gradient(fold, site, other->in[0], found);
        if (count == 0 || columns_of(fold, site->dy) != rows_of(fold, site->weight)) {
            site->dy = -1;
            continue;
        }
        site->hidden_last = other->in[0];
        site->addend = other->in[2];
        assign_hidden_gradient(fold, found, count);
        assign(fold, branch, DROPPED);
        assign(fold, n, INPUT_GRADIENT);
        fold->taken[owner_of(fold, site->dy)] = true;
        return;
    }
}

static void find_sites(struct fold *fold) {
    count_uses(fold);
    for (int32_t n = 0; n < fold->program->nodes; n++) {
        struct site *site = &fold->site[fold->sites];
        int32_t last;
        if (fold->role[n] != KEPT || !find_product(fold, n, site, &last))
            continue;
        for (int32_t at = n; at != last; at = fold->reader[node_of(fold, at)->out[0]])
            assign(fold, at, DROPPED);
        assign(fold, last, PRODUCT);
        fold->taken[owner_of(fold, site->x)] = true;
        find_backward(fold, site);
        fold->sites++;
    }
}

/* Gives W a place in state with room for the adapters, unless it has one. */
static enum mf_status place(struct mf_graph *graph, struct site *site, struct mf_error *error) {
    const struct mf_tensor weight = *mf_graph_tensor(graph, site->weight);
    const int32_t N = weight.dim[0].multiplier, K = weight.dim[1].multiplier;
    struct mf_tensor state = {.view_of = -1,
                              .program = -1,
                              .slot = -1,
                              .storage = MF_STATE,
                              .dtype = weight.dtype,
                              .rank = 2,
                              .flags = MF_TENSOR_HOLDS_WEIGHT,
                              .dim = {mf_dim_const(N + site->rank), mf_dim_const(K + site->rank)}};
    if (weight.flags & MF_TENSOR_PLACED) {
        site->state = weight.view_of;
        return MF_OK;
    }
    const enum mf_status status = mf_graph_append_tensor(graph, &state, &site->state, error);
    for (int32_t i = 0; i < graph->tensors && status == MF_OK; i++) {
        struct mf_tensor *view = &graph->tensor[i];
        if (i != site->weight && view->view_of != site->weight)
            continue;
        view->view_of = site->state;
        view->view_offset = view->view_offset / K * (K + site->rank);
        view->stride[0] = K + site->rank;
    }
    if (status == MF_OK)
        graph->tensor[site->weight].flags |= MF_TENSOR_PLACED;
    return status;
}

/* ---- the program anew ---- */

/* A part of what FOLD_ADAPTERS made. */
static int32_t part_of(struct mf_rewrite *rewrite, const struct site *site, int32_t row, int32_t column,
                       int32_t rows, int32_t columns) {
    if (rewrite->builder.status != MF_OK)
        return -1;
    struct mf_tensor view = *mf_graph_tensor(rewrite->builder.graph, site->whole);
    view.view_offset = row * view.stride[0] + column;
    view.dim[0] = mf_dim_const(rows);
    view.dim[1] = mf_dim_const(columns);
    view.flags = 0;
    return mf_rewrite_view(rewrite, &view, site->state);
}

/* Emits the site's FOLD_ADAPTERS; what reads W, rows of it or the common A reads its result instead. */
static void fold_weight(struct fold *fold, struct mf_rewrite *rewrite, struct site *site) {
    const struct mf_tensor weight = *mf_graph_tensor(fold->graph, site->weight);
    const int32_t N = weight.dim[0].multiplier, K = weight.dim[1].multiplier;
    const int32_t in[] = {site->state,
                          site->b[0],
                          site->a,
                          site->branches > 1 ? site->b[1] : -1,
                          site->branches > 2 ? site->b[2] : -1,
                          site->branches > 3 ? site->b[3] : -1};
    site->whole =
        mf_emit(&rewrite->builder, MF_OP_FOLD_ADAPTERS, in, 6, &(union mf_attributes){.fold = site->fold});
    for (int32_t i = 0; i < rewrite->tensors; i++) {
        const struct mf_tensor view = *mf_graph_tensor(fold->graph, i);
        if (view.view_of == site->state && view.storage == MF_WEIGHT)
            rewrite->stand_in[i] = part_of(rewrite, site, (int32_t)(view.view_offset / view.stride[0]), 0,
                                           view.dim[0].multiplier, K);
    }
    if (site->a >= 0)
        rewrite->stand_in[site->a] = part_of(rewrite, site, N, 0, site->rank, K);
}

/* y (T, width); y[:, first : first + W] = part, y itself when `to` is -1. */
static int32_t beside(struct mf_rewrite *rewrite, int32_t part, int32_t to, int32_t first, int32_t width) {
    const int32_t in[] = {part, to};
    return mf_emit(&rewrite->builder, MF_OP_ADD_COLUMNS, in, 2,
                   &(union mf_attributes){.columns = {.first = first, .width = width}});
}

static int32_t product(struct fold *fold, struct mf_rewrite *rewrite, const struct site *site) {
    const int32_t N = rows_of(fold, site->weight), K = columns_of(fold, site->weight);
    const int32_t width = K + site->rank;
    int32_t both = beside(rewrite, mf_rewrite_input(rewrite, site->x), -1, 0, width), at = K;
    if (site->a >= 0) {
        const int32_t hidden = owner_of(fold, site->hidden[0]);
        both = beside(rewrite, mf_rewrite_input(rewrite, hidden), both, K, width);
    }
    for (int32_t i = 0; i < site->branches && site->a < 0; i++) {
        both = beside(rewrite, mf_rewrite_input(rewrite, site->hidden[i]), both, at, width);
        at += columns_of(fold, site->b[i]);
    }
    const int32_t in[] = {both, part_of(rewrite, site, 0, 0, N, width), site->bias};
    return mf_emit(&rewrite->builder, MF_OP_LINEAR, in, 3, &(union mf_attributes){.linear = {.alpha = 1}});
}

static int32_t hidden_gradient(struct fold *fold, struct mf_rewrite *rewrite, const struct site *site) {
    const int32_t N = rows_of(fold, site->weight), K = columns_of(fold, site->weight);
    const int32_t in[] = {mf_rewrite_input(rewrite, site->dy), part_of(rewrite, site, 0, K, N, site->rank)};
    return mf_emit(&rewrite->builder, MF_OP_LINEAR_INPUT_GRADIENT, in, 2,
                   &(union mf_attributes){.linear = {.alpha = 1}});
}

static int32_t input_gradient(struct fold *fold, struct mf_rewrite *rewrite, const struct site *site) {
    const int32_t N = rows_of(fold, site->weight), K = columns_of(fold, site->weight);
    const int32_t width = N + site->rank;
    int32_t both = beside(rewrite, mf_rewrite_input(rewrite, site->dy), -1, 0, width);
    both = beside(rewrite, mf_rewrite_input(rewrite, site->hidden_last), both, N, width);
    const int32_t in[] = {both, part_of(rewrite, site, 0, 0, width, K),
                          mf_rewrite_input(rewrite, site->addend)};
    return mf_emit(&rewrite->builder, MF_OP_LINEAR_INPUT_GRADIENT, in, 3,
                   &(union mf_attributes){.linear = {.alpha = 1}});
}

static void rewrite_node(struct fold *fold, struct mf_rewrite *rewrite, int32_t n) {
    const struct mf_node *node = &rewrite->node[n];
    const struct site *site = &fold->site[fold->of[n]];
    rewrite->builder.layer = node->layer;
    rewrite->builder.phase = node->phase;
    switch ((enum role)fold->role[n]) {
    case KEPT:
        mf_rewrite_copy(rewrite, n);
        break;
    case DROPPED:
        break;
    case PRODUCT:
        rewrite->stand_in[node->out[0]] = product(fold, rewrite, site);
        break;
    case HIDDEN_GRADIENT:
        rewrite->stand_in[owner_of(fold, site->hidden_last)] = hidden_gradient(fold, rewrite, site);
        break;
    case INPUT_GRADIENT:
        rewrite->stand_in[node->out[0]] = input_gradient(fold, rewrite, site);
        break;
    }
}

static enum mf_status rewrite_program(struct fold *fold, struct mf_error *error) {
    struct mf_rewrite rewrite;
    enum mf_status status = MF_OK;
    for (int32_t i = 0; i < fold->sites && status == MF_OK; i++)
        status = place(fold->graph, &fold->site[i], error);
    if (status == MF_OK)
        status = mf_rewrite_begin_numeric(fold->graph, fold->id, &rewrite, error);
    if (status != MF_OK)
        return status;
    rewrite.builder.layer = -1;
    rewrite.builder.phase = MF_FORWARD;
    for (int32_t i = 0; i < fold->sites; i++)
        fold_weight(fold, &rewrite, &fold->site[i]);
    for (int32_t n = 0; n < rewrite.nodes; n++)
        rewrite_node(fold, &rewrite, n);
    return mf_rewrite_end(&rewrite, error);
}

enum mf_status mf_pass_fold(struct mf_graph *graph, int32_t id, int32_t granule, struct mf_error *error) {
    const size_t tensors = (size_t)graph->tensors + 1, nodes = (size_t)graph->program[id]->nodes + 1;
    struct fold fold = {.graph = graph, .id = id, .granule = granule, .program = graph->program[id]};
    enum mf_status status = MF_OK;
    fold.maker = calloc(tensors, sizeof *fold.maker);
    fold.reader = calloc(tensors, sizeof *fold.reader);
    fold.reads = calloc(tensors, sizeof *fold.reads);
    fold.taken = calloc(tensors, sizeof *fold.taken);
    fold.role = calloc(nodes, sizeof *fold.role);
    fold.of = calloc(nodes, sizeof *fold.of);
    fold.site = calloc(nodes, sizeof *fold.site);
    const bool room =
        fold.maker && fold.reader && fold.reads && fold.taken && fold.role && fold.of && fold.site;
    if (room)
        find_sites(&fold);
    else
        status = mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to rewrite a program");
    if (room && fold.sites)
        status = rewrite_program(&fold, error);
    free(fold.maker);
    free(fold.reader);
    free(fold.reads);
    free(fold.taken);
    free(fold.role);
    free(fold.of);
    free(fold.site);
    return status;
}
