#include "kernels/residency.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Of an owner's host copy. */
enum state { STALE, FRESH, TOUCHED };

struct mf_residency {
    const struct mf_graph *graph;
    const struct mf_plan *plan;
    struct mf_backend *backend;
    char *arena, *weights;  /* on the device */
    char *shadow;           /* of the arena, on the host */
    char *offloaded;        /* the plan's host region, pinned; NULL: nothing is offloaded */
    int64_t *weight_offset; /* [tensors] bytes from `weights`; -1: no weight that owns storage */
    uint8_t *written;       /* [tensors] a weight that is on the device */
    uint8_t *state;         /* [tensors] enum state of owners in the arena */
    size_t shadow_bytes;
    enum mf_status failed; /* of a copy to the host */
    struct mf_error error;
};

static size_t aligned(size_t bytes) {
    return (bytes + MF_PLAN_ALIGNMENT - 1) / MF_PLAN_ALIGNMENT * MF_PLAN_ALIGNMENT;
}

/* At the plan's bounds: those of the program that owns it, or the greatest of all. */
static size_t owner_bytes(const struct mf_residency *residency, int32_t owner) {
    const struct mf_tensor *tensor = mf_graph_tensor(residency->graph, owner);
    const int32_t *bound = tensor->program >= 0 ? residency->graph->program[tensor->program]->bound
                                                : residency->plan->persistent_bound;
    return (size_t)mf_tensor_elements(tensor, bound) * mf_dtype_bytes((enum mf_dtype)tensor->dtype);
}

static enum mf_status allocate(struct mf_residency *residency, struct mf_error *error) {
    const struct mf_backend_memory *memory = residency->backend->memory;
    const size_t tensors = (size_t)residency->plan->tensors;
    size_t weight_bytes = 0;
    residency->weight_offset = malloc(tensors * sizeof *residency->weight_offset);
    residency->written = calloc(tensors, 1);
    residency->state = calloc(tensors, 1);
    if (!residency->weight_offset || !residency->written || !residency->state)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for an executor");
    for (int32_t i = 0; i < residency->plan->tensors; i++) {
        const struct mf_tensor *tensor = mf_graph_tensor(residency->graph, i);
        residency->weight_offset[i] = -1;
        if (tensor->view_of >= 0)
            continue;
        if (tensor->storage == MF_WEIGHT) {
            if (!residency->plan->read[i])
                continue;
            residency->weight_offset[i] = (int64_t)weight_bytes;
            weight_bytes += aligned(owner_bytes(residency, i));
        } else if (tensor->storage < MF_ACTIVATION) {
            residency->state[i] = FRESH; /* zero on both sides */
        }
    }
    residency->shadow_bytes = residency->plan->arena_bytes ? residency->plan->arena_bytes : MF_PLAN_ALIGNMENT;
    residency->shadow = mmap(NULL, residency->shadow_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (residency->shadow == MAP_FAILED) {
        residency->shadow = NULL;
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no address space for an executor");
    }
    enum mf_status status =
        memory->allocate(residency->backend, residency->shadow_bytes, (void **)&residency->arena, error);
    if (status == MF_OK && weight_bytes)
        status = memory->allocate(residency->backend, weight_bytes, (void **)&residency->weights, error);
    if (status == MF_OK && residency->plan->host_bytes)
        status = memory->allocate_host(residency->backend, residency->plan->host_bytes,
                                       (void **)&residency->offloaded, error);
    if (status == MF_OK)
        status = memory->fill(residency->backend, residency->arena, 0, residency->shadow_bytes, error);
    return status;
}

enum mf_status mf_residency_create(const struct mf_graph *graph, const struct mf_plan *plan,
                                   struct mf_backend *backend, struct mf_residency **result,
                                   struct mf_error *error) {
    struct mf_residency *residency = calloc(1, sizeof *residency);
    *result = NULL;
    if (!residency)
        return mf_error_set(error, MF_ERROR_OUT_OF_MEMORY, "no memory for an executor");
    residency->graph = graph;
    residency->plan = plan;
    residency->backend = backend;
    enum mf_status status = allocate(residency, error);
    if (status == MF_OK)
        *result = residency;
    else
        mf_residency_destroy(residency);
    return status;
}

void mf_residency_destroy(struct mf_residency *residency) {
    if (!residency)
        return;
    residency->backend->memory->release(residency->backend, residency->arena);
    residency->backend->memory->release(residency->backend, residency->weights);
    if (residency->offloaded)
        residency->backend->memory->release_host(residency->backend, residency->offloaded);
    if (residency->shadow)
        munmap(residency->shadow, residency->shadow_bytes);
    free(residency->weight_offset);
    free(residency->written);
    free(residency->state);
    free(residency);
}

void *mf_residency_device(const struct mf_residency *residency, int32_t owner) {
    if (residency->weight_offset[owner] >= 0)
        return residency->written[owner] ? residency->weights + residency->weight_offset[owner] : NULL;
    if (residency->plan->offset[owner] < 0)
        return NULL;
    return (mf_graph_tensor(residency->graph, owner)->flags & MF_TENSOR_HOST ? residency->offloaded
                                                                             : residency->arena) +
           residency->plan->offset[owner];
}

enum mf_status mf_residency_write_weight(struct mf_residency *residency, int32_t owner, size_t first,
                                         const void *data, size_t bytes, struct mf_error *error) {
    residency->written[owner] = 1;
    return residency->backend->memory->write(
        residency->backend, (char *)mf_residency_device(residency, owner) + first, data, bytes, error);
}

enum mf_status mf_residency_write_rows(struct mf_residency *residency, int32_t owner, size_t first,
                                       size_t row, const void *data, size_t bytes, size_t rows,
                                       struct mf_error *error) {
    residency->state[owner] = STALE;
    return residency->backend->memory->write_rows(residency->backend,
                                                  (char *)mf_residency_device(residency, owner) + first, row,
                                                  data, bytes, rows, error);
}

void *mf_residency_host(struct mf_residency *residency, int32_t owner) {
    const size_t bytes = owner_bytes(residency, owner);
    if (residency->plan->offset[owner] < 0)
        return NULL;
    char *host = residency->shadow + residency->plan->offset[owner];
    if (residency->state[owner] == STALE) {
        struct mf_error error;
        const enum mf_status status = residency->backend->memory->read(
            residency->backend, host, residency->arena + residency->plan->offset[owner], bytes, &error);
        if (status != MF_OK) {
            memset(host, 0xff, bytes);
            residency->failed = status;
            residency->error = error;
        }
    }
    residency->state[owner] =
        mf_graph_tensor(residency->graph, owner)->storage < MF_ACTIVATION ? TOUCHED : FRESH;
    return host;
}

enum mf_status mf_residency_begin(struct mf_residency *residency, const struct mf_step *step, bool poison,
                                  struct mf_error *error) {
    const struct mf_backend_memory *memory = residency->backend->memory;
    const struct mf_plan *plan = residency->plan;
    enum mf_status status = residency->failed;
    if (status != MF_OK && error)
        *error = residency->error;
    for (int32_t i = 0; i < plan->tensors && status == MF_OK; i++) {
        if (residency->state[i] != TOUCHED)
            continue;
        status = memory->write(residency->backend, residency->arena + plan->offset[i],
                               residency->shadow + plan->offset[i], owner_bytes(residency, i), error);
        residency->state[i] = FRESH;
    }
    if (status == MF_OK && poison && plan->program_bytes)
        status = memory->fill(residency->backend, residency->arena + plan->persistent_bytes, 0xff,
                              plan->program_bytes, error);
    if (status == MF_OK && poison && residency->offloaded)
        memset(residency->offloaded, 0xff, plan->host_bytes);
    return status == MF_OK ? memory->begin(residency->backend, step, error) : status;
}

enum mf_status mf_residency_finish(struct mf_residency *residency, struct mf_error *error) {
    for (int32_t i = 0; i < residency->plan->tensors; i++)
        if (mf_graph_tensor(residency->graph, i)->storage != MF_INPUT) /* which no op writes */
            residency->state[i] = STALE;
    return residency->backend->memory->finish(residency->backend, error);
}
