#include "kernels/executor.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels/kernel_call.h"
#include "kernels/residency.h"

struct mf_executor {
    const struct mf_graph *graph;
    const struct mf_plan *plan;
    struct mf_backend *backend;
    struct mf_executor_options options;
    mf_executor_trace *trace; /* NULL: none */
    void *trace_user;
    char *arena, *host; /* host: what is offloaded; NULL: nothing is */
    size_t arena_bytes;
    struct mf_residency *residency; /* of a backend with memory of its own: instead of arena and host */
    void **base; /* [tensors] of owners: where their storage is; NULL: a weight that is not bound, or none */
    size_t prepared_bytes; /* of the backend's copies of weights */
    bool prepared;
    void *
        *joined; /* [tensors] weights bound in parts, of a backend without memory of its own; NULL: none is */
    size_t *placed; /* [tensors] bytes of a weight within state that were bound; NULL: none were */
};

static enum mf_status check_kernels(const struct mf_executor *executor, struct mf_error *error) {
    for (int32_t p = 0; p < executor->graph->programs; p++) {
        const struct mf_program *program = executor->graph->program[p];
        for (int32_t n = 0; n < program->nodes; n++) {
            enum mf_op op = (enum mf_op)program->node[n].op;
            const struct mf_kernel *kernel =
                executor->backend->find(executor->backend, op, (enum mf_dtype)program->dtype);
            if (!kernel || !kernel->function)
                return mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED,
                                    "backend %s has no kernel for the op %s", executor->backend->name,
                                    mf_op_name(op));
            if ((kernel->flags & MF_KERNEL_NONDETERMINISTIC) && !executor->options.allow_nondeterministic)
                return mf_error_set(
                    error, MF_ERROR_PROVIDER_UNSUPPORTED,
                    "the op %s of backend %s is not deterministic; set deterministic to false to allow it",
                    mf_op_name(op), executor->backend->name);
        }
    }
    return MF_OK;
}

static enum mf_status allocate(struct mf_executor *executor, struct mf_error *error) {
    executor->arena_bytes = executor->plan->arena_bytes ? executor->plan->arena_bytes : MF_PLAN_ALIGNMENT;
    executor->base = calloc((size_t)executor->plan->tensors, sizeof *executor->base);
    if (!executor->base)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for an executor");
    if (executor->backend->memory) {
        if (executor->plan->host_bytes && !executor->backend->memory->allocate_host)
            return mf_error_set(error, MF_ERROR_PROVIDER_UNSUPPORTED, "backend %s offloads nothing",
                                executor->backend->name);
        return mf_residency_create(executor->graph, executor->plan, executor->backend, &executor->residency,
                                   error);
    }
    executor->arena =
        mmap(NULL, executor->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (executor->arena == MAP_FAILED) {
        executor->arena = NULL;
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY,
                            "the plan needs %zu bytes, which cannot be had now", executor->arena_bytes);
    }
    madvise(executor->arena, executor->arena_bytes, MADV_HUGEPAGE); /* only speed depends on it */
    if (executor->plan->host_bytes) {
        executor->host = mmap(NULL, executor->plan->host_bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (executor->host == MAP_FAILED) {
            executor->host = NULL;
            return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY,
                                "the plan offloads %zu bytes, which cannot be had now",
                                executor->plan->host_bytes);
        }
    }
    for (int32_t i = 0; i < executor->plan->tensors; i++)
        if (executor->plan->offset[i] >= 0)
            executor->base[i] =
                (executor->graph->tensor[i].flags & MF_TENSOR_HOST ? executor->host : executor->arena) +
                executor->plan->offset[i];
    return MF_OK;
}

enum mf_status mf_executor_create(const struct mf_graph *graph, const struct mf_plan *plan,
                                  struct mf_backend *backend, const struct mf_executor_options *options,
                                  struct mf_executor **result, struct mf_error *error) {
    struct mf_executor *executor = calloc(1, sizeof *executor);
    enum mf_status status;
    *result = NULL;
    if (!executor)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for an executor");
    assert(plan->graph == graph && plan->tensors == graph->tensors);
    executor->graph = graph;
    executor->plan = plan;
    executor->backend = backend;
    if (options)
        executor->options = *options;
    status = check_kernels(executor, error);
    if (status == MF_OK)
        status = allocate(executor, error);
    if (status == MF_OK)
        *result = executor;
    else
        mf_executor_destroy(executor);
    return status;
}

void mf_executor_destroy(struct mf_executor *executor) {
    if (!executor)
        return;
    if (executor->arena)
        munmap(executor->arena, executor->arena_bytes);
    if (executor->host)
        munmap(executor->host, executor->plan->host_bytes);
    mf_residency_destroy(executor->residency);
    for (int32_t i = 0; executor->joined && i < executor->plan->tensors; i++)
        free(executor->joined[i]);
    free(executor->joined);
    free(executor->placed);
    free(executor->base);
    free(executor);
}

size_t mf_executor_bytes(const struct mf_executor *executor, int32_t id) {
    const struct mf_tensor *tensor = mf_graph_tensor(executor->graph, id);
    return (size_t)mf_tensor_elements(tensor, executor->plan->persistent_bound) *
           mf_dtype_bytes((enum mf_dtype)tensor->dtype);
}

/* Copies rows of a weight to where they lie in the state that holds it. */
static enum mf_status place_rows(struct mf_executor *executor, int32_t id, size_t first, const void *data,
                                 size_t bytes, struct mf_error *error) {
    const struct mf_tensor *tensor = mf_graph_tensor(executor->graph, id);
    const size_t width = mf_dtype_bytes((enum mf_dtype)tensor->dtype);
    const size_t row = (size_t)tensor->stride[0] * width, dense = (size_t)tensor->dim[1].multiplier * width;
    if (first % dense || bytes % dense)
        return mf_error_set(error, MF_ERROR_INTERNAL, "%s: is bound by whole rows of %zu bytes only",
                            tensor->name, dense);
    if (!executor->placed)
        executor->placed = calloc((size_t)executor->plan->tensors, sizeof *executor->placed);
    if (!executor->placed)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the weight %s", tensor->name);
    executor->placed[id] = first == 0 ? bytes : executor->placed[id] + bytes;
    const size_t at = (size_t)tensor->view_offset * width + first / dense * row;
    if (executor->residency)
        return mf_residency_write_rows(executor->residency, tensor->view_of, at, row, data, dense,
                                       bytes / dense, error);
    for (size_t i = 0; i < bytes / dense; i++)
        memcpy((char *)executor->base[tensor->view_of] + at + i * row, (const char *)data + i * dense, dense);
    return MF_OK;
}

/* A weight within state is read as a part of that: its node does not show that it is missing. */
static enum mf_status check_placed(const struct mf_executor *executor, struct mf_error *error) {
    for (int32_t id = 0; id < executor->plan->tensors; id++) {
        const struct mf_tensor *tensor = mf_graph_tensor(executor->graph, id);
        if ((tensor->flags & MF_TENSOR_PLACED) &&
            (!executor->placed || executor->placed[id] != mf_executor_bytes(executor, id)))
            return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "%s: the model has no such weight",
                                tensor->name);
    }
    return MF_OK;
}

enum mf_status mf_executor_bind_weight(struct mf_executor *executor, int32_t id, const void *data,
                                       size_t bytes, struct mf_error *error) {
    const struct mf_tensor *tensor = mf_graph_tensor(executor->graph, id);
    size_t wanted = mf_executor_bytes(executor, id);
    if (!mf_tensor_is_bound(tensor))
        return mf_error_set(error, MF_ERROR_INTERNAL, "tensor %d is no weight of its own", (int)id);
    if (bytes != wanted)
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "%s: has %zu bytes, the model needs %zu",
                            tensor->name, bytes, wanted);
    if ((uintptr_t)data % mf_dtype_bytes((enum mf_dtype)tensor->dtype))
        return mf_error_set(error, MF_ERROR_BAD_WEIGHTS, "%s: is not aligned to its elements", tensor->name);
    if (tensor->flags & MF_TENSOR_PLACED)
        return place_rows(executor, id, 0, data, bytes, error);
    executor->prepared = false;
    if (executor->residency)
        return mf_executor_reads(executor, id)
                   ? mf_residency_write_weight(executor->residency, id, 0, data, bytes, error)
                   : MF_OK;
    executor->base[id] = (void *)data; /* kernels only read weights: they are never an output */
    return MF_OK;
}

bool mf_executor_reads(const struct mf_executor *executor, int32_t weight) {
    return executor->plan->read[mf_graph_owner(executor->graph, weight)];
}

bool mf_executor_copies_weights(const struct mf_executor *executor) {
    return executor->residency != NULL;
}

/* Memory of the executor's own for a weight that comes in parts. */
static enum mf_status join(struct mf_executor *executor, int32_t id, size_t bytes, struct mf_error *error) {
    if (!executor->joined)
        executor->joined = calloc((size_t)executor->plan->tensors, sizeof *executor->joined);
    if (executor->joined && !executor->joined[id])
        executor->joined[id] = aligned_alloc(MF_PLAN_ALIGNMENT, (bytes + MF_PLAN_ALIGNMENT - 1) /
                                                                    MF_PLAN_ALIGNMENT * MF_PLAN_ALIGNMENT);
    if (!executor->joined || !executor->joined[id])
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for the weight %s",
                            mf_graph_tensor(executor->graph, id)->name);
    executor->base[id] = executor->joined[id];
    return MF_OK;
}

enum mf_status mf_executor_bind_weight_part(struct mf_executor *executor, int32_t id, size_t first,
                                            const void *data, size_t bytes, struct mf_error *error) {
    const struct mf_tensor *tensor = mf_graph_tensor(executor->graph, id);
    const size_t wanted = mf_executor_bytes(executor, id);
    if (!mf_tensor_is_bound(tensor))
        return mf_error_set(error, MF_ERROR_INTERNAL, "tensor %d is no weight of its own", (int)id);
    if (first > wanted || bytes > wanted - first)
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "%s: has %zu bytes or more, the model needs %zu",
                            tensor->name, first + bytes, wanted);
    executor->prepared = false;
    if (!mf_executor_reads(executor, id))
        return MF_OK;
    if (tensor->flags & MF_TENSOR_PLACED)
        return place_rows(executor, id, first, data, bytes, error);
    if (executor->residency)
        return mf_residency_write_weight(executor->residency, id, first, data, bytes, error);
    const enum mf_status status = join(executor, id, wanted, error);
    if (status == MF_OK)
        memcpy((char *)executor->base[id] + first, data, bytes);
    return status;
}

/* Where `id` lies in the storage of its owner, which is at `base`. */
static void *within(const struct mf_executor *executor, int32_t id, char *base) {
    const struct mf_tensor *tensor = mf_graph_tensor(executor->graph, id);
    return base ? base + tensor->view_offset * (int64_t)mf_dtype_bytes((enum mf_dtype)tensor->dtype) : NULL;
}

/* Where kernels find `id`. */
static void *address(const struct mf_executor *executor, int32_t id) {
    const int32_t owner = mf_graph_owner(executor->graph, id);
    return within(executor, id,
                  executor->residency ? mf_residency_device(executor->residency, owner)
                                      : executor->base[owner]);
}

void *mf_executor_data(struct mf_executor *executor, int32_t id) {
    const int32_t owner = mf_graph_owner(executor->graph, id);
    const bool shadowed =
        executor->residency && mf_graph_tensor(executor->graph, owner)->storage != MF_WEIGHT;
    return within(executor, id,
                  shadowed ? mf_residency_host(executor->residency, owner) : executor->base[owner]);
}

void mf_executor_round_copies(struct mf_executor *executor) {
    for (int32_t i = 0; i < executor->graph->trains; i++) {
        const struct mf_trained *trained = &executor->graph->trained[i];
        if (trained->computed == trained->parameter)
            continue;
        const struct mf_tensor *tensor = mf_graph_tensor(executor->graph, trained->computed);
        const float *master = mf_executor_data(executor, trained->parameter);
        uint16_t *copy = mf_executor_data(executor, trained->computed);
        const int64_t elements = mf_tensor_elements(tensor, executor->plan->persistent_bound);
        assert(tensor->dtype == MF_BF16);
        for (int64_t e = 0; e < elements; e++)
            copy[e] = mf_f32_to_bf16(master[e]);
    }
}

struct data_visit {
    const struct mf_executor *executor;
    bool weights_only;
    int32_t unbound; /* a weight without data; -1 */
    bool any_weight;
};

static void set_data(void *user, struct mf_array *array) {
    struct data_visit *visit = user;
    const struct mf_tensor *tensor = mf_graph_tensor(visit->executor->graph, array->tensor);
    bool weight = tensor->storage == MF_WEIGHT;
    array->data = weight || !visit->weights_only ? address(visit->executor, array->tensor) : NULL;
    visit->any_weight = visit->any_weight || weight;
    if (weight && !array->data)
        visit->unbound = mf_graph_owner(visit->executor->graph, array->tensor);
}

static enum mf_status prepare_node(struct mf_executor *executor, const struct mf_program *program,
                                   const struct mf_node *node, size_t *bytes, struct mf_error *error) {
    struct mf_step step = {.inverse_count = 1};
    struct mf_kernel_call call = {.backend = executor->backend, .step = &step, .bound = program->bound};
    struct data_visit visit = {.executor = executor, .weights_only = true, .unbound = -1};
    memcpy(step.value, program->bound, sizeof step.value);
    mf_kernel_call_fill(executor->graph, node, program->bound, &call);
    mf_kernel_call_visit(&call, set_data, &visit);
    if (visit.unbound >= 0)
        return mf_error_set(error, MF_ERROR_WEIGHT_MISMATCH, "%s: the model has no such weight",
                            mf_graph_tensor(executor->graph, visit.unbound)->name);
    if (!visit.any_weight || !executor->backend->prepare)
        return MF_OK;
    return executor->backend->prepare(executor->backend, &call, bytes, error);
}

enum mf_status mf_executor_prepare(struct mf_executor *executor, struct mf_error *error) {
    const enum mf_status placed = check_placed(executor, error);
    if (placed != MF_OK)
        return placed;
    executor->prepared_bytes = 0;
    for (int32_t p = 0; p < executor->graph->programs; p++) {
        const struct mf_program *program = executor->graph->program[p];
        for (int32_t n = 0; n < program->nodes; n++) {
            enum mf_status status =
                prepare_node(executor, program, &program->node[n], &executor->prepared_bytes, error);
            if (status != MF_OK)
                return status;
        }
    }
    executor->prepared = true;
    return MF_OK;
}

size_t mf_executor_prepared_bytes(const struct mf_executor *executor) {
    return executor->prepared_bytes;
}

void mf_executor_set_trace(struct mf_executor *executor, mf_executor_trace *trace, void *user) {
    executor->trace = trace;
    executor->trace_user = user;
}

/* The step as kernels see it: derived sizes filled in, all sizes within the program's bounds. */
static enum mf_status check_step(const struct mf_program *program, const struct mf_step *step,
                                 struct mf_step *checked, struct mf_error *error) {
    *checked = *step;
    checked->value[MF_CONST] = 1;
    checked->value[MF_OFFSETS] = step->value[MF_SEQUENCES] + 1;
    for (int i = 1; i < MF_SYMBOLS; i++)
        if (program->bound[i] > 0 && (checked->value[i] < 0 || checked->value[i] > program->bound[i]))
            return mf_error_set(error, MF_ERROR_INTERNAL, "%s program: %d %s are not within 0 .. %d",
                                mf_purpose_name((enum mf_purpose)program->purpose), (int)checked->value[i],
                                mf_symbol_name((enum mf_symbol)i), (int)program->bound[i]);
    return MF_OK;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static enum mf_status run_node(struct mf_executor *executor, const struct mf_program *program, int32_t index,
                               const struct mf_step *step, struct mf_error *error) {
    const struct mf_node *node = &program->node[index];
    struct mf_kernel_call call = {.backend = executor->backend, .step = step, .bound = program->bound};
    struct data_visit visit = {.executor = executor, .unbound = -1};
    double start = executor->trace ? seconds_now() : 0;
    enum mf_status status;
    mf_kernel_call_fill(executor->graph, node, step->value, &call);
    mf_kernel_call_visit(&call, set_data, &visit);
    status = executor->backend->find(executor->backend, (enum mf_op)node->op, (enum mf_dtype)program->dtype)
                 ->function(&call, error);
    if (status != MF_OK)
        return mf_error_prefix(error, "%s program, node %d, layer %d, %s",
                               mf_purpose_name((enum mf_purpose)program->purpose), (int)index, node->layer,
                               mf_op_name((enum mf_op)node->op));
    if (executor->trace && executor->residency)
        status = executor->backend->memory->finish(executor->backend, error); /* times are of one node */
    if (executor->trace)
        executor->trace(executor->trace_user, executor->graph, program->id, index, step->value,
                        seconds_now() - start);
    return status;
}

enum mf_status mf_executor_run(struct mf_executor *executor, int32_t id, const struct mf_step *step,
                               struct mf_error *error) {
    const struct mf_program *program;
    struct mf_step checked;
    enum mf_status status;
    assert(id >= 0 && id < executor->graph->programs);
    program = executor->graph->program[id];
    if (!executor->prepared)
        return mf_error_set(error, MF_ERROR_INTERNAL, "the executor was not prepared");
    status = check_step(program, step, &checked, error);
    if (status != MF_OK)
        return status;
    if (executor->residency)
        status = mf_residency_begin(executor->residency, &checked, executor->options.poison, error);
    if (executor->options.poison && executor->host)
        memset(executor->host, 0xff, executor->plan->host_bytes);
    if (executor->options.poison && executor->arena)
        memset(executor->arena + executor->plan->persistent_bytes, 0xff, executor->plan->program_bytes);
    for (int32_t n = 0; n < program->nodes && status == MF_OK; n++)
        status = run_node(executor, program, n, &checked, error);
    if (executor->residency) { /* also after an error: nothing may still run when the caller goes on */
        struct mf_error late;
        const enum mf_status finished = mf_residency_finish(executor->residency, &late);
        if (status == MF_OK && finished != MF_OK) {
            status = finished;
            *error = late;
            (void)mf_error_prefix(error, "%s program", mf_purpose_name((enum mf_purpose)program->purpose));
        }
    }
    return status;
}
