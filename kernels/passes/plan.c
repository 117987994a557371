#include "kernels/passes/plan.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/graph_rows.h"
#include "kernels/kernel_call.h"
#include "kernels/passes/plan_record.h"

enum { WORKSPACE_ROW = 64 }; /* bytes: a dimension is an int32_t */

static size_t aligned(size_t bytes) {
    return (bytes + MF_PLAN_ALIGNMENT - 1) / MF_PLAN_ALIGNMENT * MF_PLAN_ALIGNMENT;
}

static bool in_program_region(const struct mf_tensor *tensor) {
    return tensor->view_of < 0 && (tensor->storage == MF_ACTIVATION || tensor->storage == MF_WORKSPACE);
}

static bool in_host_region(const struct mf_tensor *tensor) {
    return tensor->flags & MF_TENSOR_HOST;
}

/* Bytes of an owner under `bound`; false when they cannot be counted. */
static bool owner_bytes(const struct mf_tensor *tensor, const int32_t *bound, size_t *bytes) {
    int64_t elements = mf_tensor_elements(tensor, bound);
    if (elements < 0 || elements > INT64_MAX / 16)
        return false;
    *bytes = aligned((size_t)elements * mf_dtype_bytes((enum mf_dtype)tensor->dtype));
    return true;
}

static enum mf_status too_large(struct mf_error *error) {
    return mf_error_set(error, MF_ERROR_PLAN_TOO_LARGE, "a tensor of the plan is larger than any memory");
}

/* Refuses an op without a kernel and asks each kernel for its workspace, which becomes a tensor of the plan.
 */
static enum mf_status add_backend_workspaces(struct mf_graph *graph, struct mf_program *program,
                                             const struct mf_backend *backend, struct mf_error *error) {
    struct mf_step step = {.inverse_count = 1};
    enum mf_status status = MF_OK;
    memcpy(step.value, program->bound, sizeof step.value);
    for (int32_t n = 0; n < program->nodes && status == MF_OK; n++) {
        struct mf_node *node = &program->node[n];
        const struct mf_kernel *kernel =
            backend->find(backend, (enum mf_op)node->op, (enum mf_dtype)program->dtype);
        struct mf_kernel_call call = {.backend = backend, .step = &step, .bound = program->bound};
        struct mf_tensor tensor = {
            .view_of = -1, .slot = -1, .storage = MF_WORKSPACE, .dtype = MF_U8, .rank = 2};
        size_t bytes;
        if (!kernel || !kernel->function)
            return mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED,
                                "backend %s has no %s kernel for the op %s of the %s program", backend->name,
                                mf_dtype_name((enum mf_dtype)program->dtype),
                                mf_op_name((enum mf_op)node->op),
                                mf_purpose_name((enum mf_purpose)program->purpose));
        if (!kernel->workspace_bytes)
            continue;
        mf_kernel_call_fill(graph, node, program->bound, &call);
        bytes = kernel->workspace_bytes(&call);
        bytes = (bytes + WORKSPACE_ROW - 1) / WORKSPACE_ROW;
        if (bytes > INT32_MAX)
            return too_large(error);
        tensor.program = program->id;
        tensor.dim[0] = mf_dim_const((int64_t)bytes);
        tensor.dim[1] = mf_dim_const(WORKSPACE_ROW);
        if (bytes)
            status = mf_graph_append_tensor(graph, &tensor, &node->workspace[1], error);
    }
    return status;
}

static void use(struct mf_plan *plan, int32_t id, int32_t node) {
    int32_t owner = id < 0 ? -1 : mf_graph_owner(plan->graph, id);
    if (owner < 0 || !in_program_region(mf_graph_tensor(plan->graph, owner)))
        return;
    if (plan->lifetime[owner].first < 0)
        plan->lifetime[owner].first = node;
    plan->lifetime[owner].last = node;
}

static void find_lifetimes(struct mf_plan *plan, const struct mf_program *program) {
    for (int32_t n = 0; n < program->nodes; n++) {
        const struct mf_node *node = &program->node[n];
        for (int i = 0; i < MF_NODE_INPUTS; i++)
            use(plan, node->in[i], n);
        for (int i = 0; i < MF_NODE_OUTPUTS; i++)
            use(plan, node->out[i], n);
        for (int i = 0; i < MF_NODE_WORKSPACES; i++)
            use(plan, node->workspace[i], n);
    }
    for (int32_t i = 0; i < plan->tensors; i++)
        if (plan->graph->tensor[i].program == program->id &&
            (plan->graph->tensor[i].flags & MF_TENSOR_OUTPUT) && plan->lifetime[i].first >= 0)
            plan->lifetime[i].last = program->nodes - 1;
}

/* May out[0] of node n take over the storage of the op's in_place input? */
static bool can_share(const struct mf_plan *plan, const struct mf_node *node, int32_t n) {
    int index = mf_op_row((enum mf_op)node->op)->in_place;
    if (index < 0 || node->in[index] < 0 || node->out[0] < 0)
        return false;
    const struct mf_tensor *in = mf_graph_tensor(plan->graph, node->in[index]);
    const struct mf_tensor *out = mf_graph_tensor(plan->graph, node->out[0]);
    int32_t owner = mf_graph_owner(plan->graph, in->id);
    const struct mf_tensor *storage = mf_graph_tensor(plan->graph, owner);
    if (!in_program_region(storage) || !in_program_region(out) || (storage->flags & MF_TENSOR_OUTPUT) ||
        plan->lifetime[owner].last != n || in->dtype != out->dtype || !mf_tensor_same_shape(in, out) ||
        in->view_offset != 0 || in_host_region(storage) != in_host_region(out))
        return false;
    /* A view must cover its owner, element by element at the same place. */
    if (!mf_tensor_is_contiguous(in) ||
        mf_tensor_elements(in, plan->graph->program[out->program]->bound) !=
            mf_tensor_elements(storage, plan->graph->program[out->program]->bound))
        return false;
    for (int i = 0; i < MF_NODE_INPUTS; i++)
        if (i != index && node->in[i] >= 0 && mf_graph_owner(plan->graph, node->in[i]) == owner)
            return false;
    return true;
}

static void share_in_place(struct mf_plan *plan, const struct mf_program *program) {
    for (int32_t n = 0; n < program->nodes; n++) {
        const struct mf_node *node = &program->node[n];
        if (!can_share(plan, node, n))
            continue;
        int32_t owner = mf_graph_owner(plan->graph, node->in[mf_op_row((enum mf_op)node->op)->in_place]);
        int32_t root = plan->shares[owner] < 0 ? owner : plan->shares[owner];
        plan->shares[node->out[0]] = root;
    }
}

/* Storage to be placed: an owner and what takes it over in place. */
struct mf_block {
    size_t bytes, offset;
    int32_t owner, first, last;
};

static int by_size(const void *left, const void *right) {
    const struct mf_block *a = left, *b = right;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? 1 : -1;
    if (a->first != b->first)
        return a->first < b->first ? -1 : 1;
    return a->owner < b->owner ? -1 : 1;
}

/* Inserts `block` into placed[0..count), kept by offset: into the smallest gap between blocks that live at
 * the same time that holds it, the first of equals; behind them all when there is none. */
static void place(struct mf_block *placed, size_t count, struct mf_block block) {
    size_t end = 0, best = SIZE_MAX, best_gap = SIZE_MAX, at;
    for (size_t i = 0; i < count; i++) {
        if (placed[i].last < block.first || placed[i].first > block.last)
            continue;
        if (placed[i].offset >= end + block.bytes && placed[i].offset - end < best_gap) {
            best_gap = placed[i].offset - end;
            best = end;
        }
        if (placed[i].offset + placed[i].bytes > end)
            end = placed[i].offset + placed[i].bytes;
    }
    block.offset = best == SIZE_MAX ? end : best;
    at = count;
    while (at > 0 && placed[at - 1].offset > block.offset) {
        placed[at] = placed[at - 1];
        at--;
    }
    placed[at] = block;
}

/* One block for every owner of the program, in host memory or not, that is no taker of another's storage. */
static enum mf_status collect_blocks(const struct mf_plan *plan, const struct mf_program *program, bool host,
                                     struct mf_block *block, size_t *count, struct mf_error *error) {
    int32_t *index = malloc((size_t)plan->tensors * sizeof *index);
    enum mf_status status = MF_OK;
    *count = 0;
    if (!index)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to plan");
    for (int32_t i = 0; i < plan->tensors && status == MF_OK; i++) {
        const struct mf_tensor *tensor = &plan->graph->tensor[i];
        index[i] = -1;
        if (tensor->program != program->id || plan->lifetime[i].first < 0 || plan->shares[i] >= 0 ||
            in_host_region(tensor) != host)
            continue;
        index[i] = (int32_t)*count;
        block[*count] =
            (struct mf_block){.owner = i, .first = plan->lifetime[i].first, .last = plan->lifetime[i].last};
        if (!owner_bytes(tensor, program->bound, &block[(*count)++].bytes))
            status = too_large(error);
    }
    for (int32_t i = 0; i < plan->tensors && status == MF_OK; i++) {
        const struct mf_tensor *tensor = &plan->graph->tensor[i];
        int32_t root =
            tensor->program == program->id && in_host_region(tensor) == host ? plan->shares[i] : -1;
        if (root >= 0 && block[index[root]].last < plan->lifetime[i].last)
            block[index[root]].last = plan->lifetime[i].last;
    }
    free(index);
    return status;
}

/* Places the blocks in turn and tells each owner where it lies, from `start` on; returns the bytes they take.
 */
static size_t place_blocks(struct mf_plan *plan, const struct mf_block *block, struct mf_block *placed,
                           size_t count, size_t start) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        place(placed, i, block[i]);
    for (size_t i = 0; i < count; i++) {
        plan->offset[placed[i].owner] = (int64_t)(start + placed[i].offset);
        if (placed[i].offset + placed[i].bytes > bytes)
            bytes = placed[i].offset + placed[i].bytes;
    }
    return bytes;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static enum mf_status place_program(struct mf_plan *plan, struct mf_program *program,
                                    struct mf_error *error) {
    struct mf_block *block = calloc((size_t)plan->tensors + 1, sizeof *block);
    struct mf_block *placed = calloc((size_t)plan->tensors + 1, sizeof *placed);
    size_t count = 0;
    enum mf_status status = MF_OK;
    if (!block || !placed) {
        free(block);
        free(placed);
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to plan");
    }
    for (int host = 0; host < 2 && status == MF_OK; host++) {
        status = collect_blocks(plan, program, host, block, &count, error);
        if (status != MF_OK)
            break;
        qsort(block, count, sizeof *block, by_size);
        if (host)
            program->host_bytes = place_blocks(plan, block, placed, count, 0);
        else
            program->arena_bytes = place_blocks(plan, block, placed, count, plan->persistent_bytes);
    }
    if (status == MF_OK) {
        plan->program_bytes = larger(plan->program_bytes, program->arena_bytes);
        plan->host_bytes = larger(plan->host_bytes, program->host_bytes);
        for (int32_t i = 0; i < plan->tensors; i++)
            if (plan->graph->tensor[i].program == program->id && plan->shares[i] >= 0)
                plan->offset[i] = plan->offset[plan->shares[i]];
    }
    free(block);
    free(placed);
    return status;
}

/* Which weights there are programs for: not those that are kept in another form. */
static void find_read(struct mf_plan *plan) {
    for (int32_t p = 0; p < plan->graph->programs; p++)
        for (int32_t n = 0; n < plan->graph->program[p]->nodes; n++)
            for (int i = 0; i < MF_NODE_INPUTS; i++) {
                const int32_t id = plan->graph->program[p]->node[n].in[i];
                const int32_t owner = id < 0 ? -1 : mf_graph_owner(plan->graph, id);
                const struct mf_tensor *tensor = owner < 0 ? NULL : mf_graph_tensor(plan->graph, owner);
                if (tensor && (tensor->storage == MF_WEIGHT || (tensor->flags & MF_TENSOR_HOLDS_WEIGHT)))
                    plan->read[owner] = true;
            }
}

static enum mf_status place_persistent(struct mf_plan *plan, struct mf_error *error) {
    for (int32_t i = 0; i < plan->tensors; i++) {
        const struct mf_tensor *tensor = &plan->graph->tensor[i];
        size_t bytes;
        if (tensor->view_of >= 0 || tensor->storage >= MF_ACTIVATION ||
            (tensor->storage == MF_WEIGHT && !plan->read[i]))
            continue;
        if (!owner_bytes(tensor, plan->persistent_bound, &bytes))
            return too_large(error);
        plan->storage_bytes[tensor->flags & MF_TENSOR_HOLDS_WEIGHT ? MF_WEIGHT : tensor->storage] += bytes;
        if (tensor->storage == MF_WEIGHT) {
            plan->weight_bytes += bytes;
            continue;
        }
        plan->offset[i] = (int64_t)plan->persistent_bytes;
        plan->persistent_bytes += bytes;
    }
    return MF_OK;
}

static void find_bounds(struct mf_plan *plan) {
    for (int32_t p = 0; p < plan->graph->programs; p++)
        for (int i = 0; i < MF_SYMBOLS; i++)
            if (plan->graph->program[p]->bound[i] > plan->persistent_bound[i])
                plan->persistent_bound[i] = plan->graph->program[p]->bound[i];
}

/* Every symbol that a program's tensors carry must have a bound: a forgotten one would plan no memory. */
static enum mf_status demand_bounds(const struct mf_graph *graph, const struct mf_program *program,
                                    struct mf_error *error) {
    for (int32_t n = 0; n < program->nodes; n++)
        for (int i = 0; i < MF_NODE_OUTPUTS; i++) {
            int32_t id = program->node[n].out[i];
            uint8_t symbol = id < 0 ? MF_CONST : mf_graph_tensor(graph, id)->dim[0].symbol;
            if (symbol != MF_CONST && program->bound[symbol] < 1)
                return mf_error_set(error, MF_ERROR_INTERNAL, "the %s program has no bound for %s",
                                    mf_purpose_name((enum mf_purpose)program->purpose),
                                    mf_symbol_name((enum mf_symbol)symbol));
        }
    return MF_OK;
}

static enum mf_status allocate(struct mf_plan *plan, struct mf_error *error) {
    size_t tensors = (size_t)plan->graph->tensors;
    plan->tensors = plan->graph->tensors;
    plan->offset = malloc(tensors * sizeof *plan->offset);
    plan->lifetime = malloc(tensors * sizeof *plan->lifetime);
    plan->shares = malloc(tensors * sizeof *plan->shares);
    plan->read = calloc(tensors, sizeof *plan->read);
    if (!plan->offset || !plan->lifetime || !plan->shares || !plan->read)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to plan");
    memset(plan->offset, 0xff, tensors * sizeof *plan->offset);
    memset(plan->lifetime, 0xff, tensors * sizeof *plan->lifetime);
    memset(plan->shares, 0xff, tensors * sizeof *plan->shares);
    return MF_OK;
}

static enum mf_status lay_out(struct mf_plan *plan, struct mf_graph *graph, struct mf_error *error) {
    find_read(plan);
    enum mf_status status = place_persistent(plan, error);
    for (int32_t p = 0; p < graph->programs && status == MF_OK; p++) {
        find_lifetimes(plan, graph->program[p]);
        share_in_place(plan, graph->program[p]);
        status = place_program(plan, graph->program[p], error);
        if (status == MF_OK)
            status = mf_program_seal(graph, p, error);
    }
    plan->arena_bytes = plan->persistent_bytes + plan->program_bytes;
    return status;
}

static int by_copy(const void *left, const void *right) {
    const struct mf_weight_copy *a = left, *b = right;
    if (a->tensor != b->tensor)
        return a->tensor < b->tensor ? -1 : 1;
    return (a->form > b->form) - (a->form < b->form);
}

/* Counts what the backend will keep of the weights that it repacks. */
static enum mf_status count_copies(struct mf_plan *plan, const struct mf_backend *backend,
                                   struct mf_error *error) {
    const struct mf_graph *graph = plan->graph;
    struct mf_weight_copy *copy;
    size_t most = 1, count = 0;
    if (!backend->weight_copies)
        return MF_OK;
    for (int32_t p = 0; p < graph->programs; p++)
        most += MF_WEIGHT_COPIES * (size_t)graph->program[p]->nodes;
    copy = calloc(most, sizeof *copy);
    if (!copy)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to plan");
    for (int32_t p = 0; p < graph->programs; p++)
        for (int32_t n = 0; n < graph->program[p]->nodes; n++) {
            struct mf_kernel_call call = {.backend = backend, .bound = graph->program[p]->bound};
            mf_kernel_call_fill(graph, &graph->program[p]->node[n], graph->program[p]->bound, &call);
            const int found = backend->weight_copies(backend, &call, copy + count);
            for (int i = 0, first = (int)count; i < found; i++)
                if (graph->tensor[copy[first + i].tensor].storage == MF_WEIGHT)
                    copy[count++] = copy[first + i];
        }
    qsort(copy, count, sizeof *copy, by_copy);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || by_copy(&copy[i - 1], &copy[i]) != 0)
            plan->copy_bytes += copy[i].bytes;
    free(copy);
    return MF_OK;
}

size_t mf_plan_bytes(const struct mf_plan *plan) {
    return plan->weight_bytes + plan->copy_bytes + plan->arena_bytes +
           (plan->host_apart ? 0 : plan->host_bytes);
}

enum mf_status mf_plan_create(struct mf_graph *graph, const struct mf_backend *backend, size_t budget_bytes,
                              struct mf_plan **result, struct mf_error *error) {
    struct mf_plan *plan = calloc(1, sizeof *plan);
    enum mf_status status = MF_OK;
    *result = NULL;
    if (!plan)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory to plan");
    plan->graph = graph;
    plan->host_apart = backend->bytes_per_host_byte > 0;
    for (int32_t p = 0; p < graph->programs && status == MF_OK; p++) {
        status = demand_bounds(graph, graph->program[p], error);
        if (status == MF_OK)
            status = mf_program_check(graph, p, error);
        if (status == MF_OK)
            status = add_backend_workspaces(graph, graph->program[p], backend, error);
    }
    find_bounds(plan);
    if (status == MF_OK)
        status = allocate(plan, error);
    if (status == MF_OK)
        status = lay_out(plan, graph, error);
    if (status == MF_OK)
        status = count_copies(plan, backend, error);
    if (status == MF_OK && budget_bytes && mf_plan_bytes(plan) > budget_bytes)
        status = mf_error_set(error, MF_ERROR_PLAN_TOO_LARGE, "the plan needs %zu bytes, %zu are allowed",
                              mf_plan_bytes(plan), budget_bytes);
    if (status == MF_OK)
        status = mf_plan_write_record(plan, backend, error);
    if (status == MF_OK) {
        graph->planned = true;
        *result = plan;
    } else {
        mf_plan_destroy(plan);
    }
    return status;
}

void mf_plan_destroy(struct mf_plan *plan) {
    if (!plan)
        return;
    free(plan->offset);
    free(plan->lifetime);
    free(plan->shares);
    free(plan->read);
    free(plan->record);
    free(plan);
}

static double mebibytes(size_t bytes) {
    return (double)bytes / (1 << 20);
}

void mf_plan_print(const struct mf_plan *plan, FILE *file) {
    static const struct {
        enum mf_storage storage;
        const char *name;
    } kinds[] = {{MF_ADAPTER, "parameters"},
                 {MF_GRADIENT, "gradients"},
                 {MF_OPTIMIZER, "optimizer"},
                 {MF_STATE, "state"},
                 {MF_INPUT, "inputs"}};
    fprintf(file, "managed %.1f MiB = weights %.1f", mebibytes(mf_plan_bytes(plan)),
            mebibytes(plan->weight_bytes));
    if (plan->copy_bytes)
        fprintf(file, " + copies of weights %.1f", mebibytes(plan->copy_bytes));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (plan->storage_bytes[kinds[i].storage])
            fprintf(file, " + %s %.1f", kinds[i].name, mebibytes(plan->storage_bytes[kinds[i].storage]));
    fprintf(file, " + programs %.1f (", mebibytes(plan->program_bytes));
    for (int32_t p = 0; p < plan->graph->programs; p++)
        fprintf(file, "%s%s %.1f", p ? ", " : "",
                mf_purpose_name((enum mf_purpose)plan->graph->program[p]->purpose),
                mebibytes(plan->graph->program[p]->arena_bytes));
    fputs(")", file);
    if (plan->host_bytes)
        fprintf(file, "%s %.1f", plan->host_apart ? "; in host memory" : " + offloaded",
                mebibytes(plan->host_bytes));
    fputc('\n', file);
}
