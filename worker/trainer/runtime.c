#include "worker/trainer/runtime.h"

#include "kernels/cpu/backend.h"
#include "kernels/cuda/backend.h"
#include "providers/made_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The memory of this machine, or the limit of the control group that it is in. */
static int64_t machine_memory(void) {
    static const char *const limits[] = {"/sys/fs/cgroup/memory.max",
                                         "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    int64_t least = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        FILE *file = fopen(limits[i], "re");
        char text[64] = "";
        if (file && fgets(text, sizeof text, file)) {
            const long long limit = strtoll(text, NULL, 10); /* "max" is 0: no limit */
            if (limit > 0 && limit < least)
                least = limit;
        }
        if (file)
            fclose(file);
    }
    return least;
}

enum mf_status mf_device_choice_parse(const char *text, enum mf_device_choice *choice,
                                      struct mf_error *error) {
    *choice = MF_ON_AUTO;
    if (!strcmp(text, "cpu"))
        *choice = MF_ON_CPU;
    else if (!strcmp(text, "cuda") || !strcmp(text, "gpu"))
        *choice = MF_ON_CUDA;
    else if (strcmp(text, "auto") != 0)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD, "device: '%s' is not auto, cpu or cuda", text);
    return MF_OK;
}

bool mf_device_choice_is_cuda(enum mf_device_choice choice) {
    return choice == MF_ON_CUDA || (choice == MF_ON_AUTO && mf_cuda_device_count(NULL) > 0);
}

/* The GPU of "cuda:N", else the first one, and -1 where `map` is not known. "balanced" is for models that are
 * shared among GPUs. */
static int index_of(const char *map) {
    char *end;
    if (!map || !strcmp(map, "auto") || !strcmp(map, "cpu"))
        return 0;
    if (strncmp(map, "cuda:", 5) != 0)
        return -1;
    const long index = strtol(map + 5, &end, 10);
    return end == map + 5 || *end || index < 0 || index > 4096 ? -1 : (int)index;
}

static enum mf_status choose_gpu(const struct mf_runtime_options *options, struct mf_runtime *runtime,
                                 struct mf_error *error) {
    const char *reason = NULL;
    const int there = mf_cuda_device_count(&reason);
    runtime->device_index = index_of(options->device_map);
    if (runtime->device_index < 0)
        return mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD,
                            "device_map: '%s' is not supported: this version trains on one GPU; use auto or "
                            "cuda:N",
                            options->device_map);
    if (there > 0 && runtime->device_index >= there)
        return mf_error_set(error, MF_ERROR_INVALID_FIELD,
                            "device_map: there is no %s: this process has %d GPU%s, cuda:0%s",
                            options->device_map, there, there > 1 ? "s" : "", there > 1 ? " and on" : "");
    if (!there && options->device_map && strncmp(options->device_map, "cuda", 4) == 0)
        return mf_error_set(error, MF_ERROR_PROVIDER_UNAVAILABLE, "device_map: there is no %s: %s",
                            options->device_map, reason ? reason : "no GPU was found");
    return MF_OK;
}

enum mf_status mf_device_choice_check(enum mf_device_choice choice, const char *device_map, int64_t gpus,
                                      double min_gpu_memory_gib, struct mf_error *error) {
    const double gib = 1.0 / (1 << 30);
    struct mf_cuda_device gpu;
    if (gpus > 1)
        return mf_error_set(error, MF_ERROR_UNSUPPORTED_FIELD,
                            "gpus: %lld is refused by this provider: it trains on one GPU; leave it at 1",
                            (long long)gpus);
    if (min_gpu_memory_gib <= 0)
        return MF_OK;
    if (!mf_device_choice_is_cuda(choice) || mf_cuda_device_count(NULL) == 0)
        return mf_error_set(
            error, MF_ERROR_UNPLACEABLE,
            "min_gpu_memory_gib: the job wants a GPU of at least %.6g GiB, and there is no GPU here",
            min_gpu_memory_gib);
    const int index = index_of(device_map);
    enum mf_status status = mf_cuda_device_describe(index < 0 ? 0 : index, &gpu, error);
    if (status == MF_OK && (double)gpu.memory_bytes * gib < min_gpu_memory_gib)
        status = mf_error_set(error, MF_ERROR_UNPLACEABLE,
                              "min_gpu_memory_gib: the job wants a GPU of at least %.6g GiB; %s has %.1f",
                              min_gpu_memory_gib, gpu.name, (double)gpu.memory_bytes * gib);
    return status;
}

/* Which device, and the dtype that is fastest there. */
static enum mf_status choose_device(const struct mf_runtime_options *options, struct mf_runtime *runtime,
                                    enum mf_dtype *preferred, struct mf_error *error) {
    struct mf_cuda_device gpu;
    runtime->device = (struct mf_device){.size = sizeof runtime->device, .kind = MF_DEVICE_CPU};
    *preferred = options->reference ? MF_F32 : mf_cpu_preferred_dtype();
    if (options->reference && options->device == MF_ON_CUDA)
        return mf_error_set(
            error, MF_ERROR_INVALID_FIELD,
            "the oracle's kernels run on the CPU only: leave out the reference or the device");
    enum mf_status status = choose_gpu(options, runtime, error);
    if (status != MF_OK || options->reference || !mf_device_choice_is_cuda(options->device))
        return status;
    status = mf_cuda_device_describe(runtime->device_index, &gpu, error);
    if (status != MF_OK)
        return status;
    runtime->device.kind = MF_DEVICE_CUDA;
    runtime->memory_bytes = (int64_t)gpu.memory_bytes;
    *preferred = mf_cuda_preferred_dtype(&gpu);
    return MF_OK;
}

static enum mf_status open_backend(const struct mf_runtime_options *options, struct mf_runtime *runtime,
                                   struct mf_error *error) {
    if (runtime->device.kind == MF_DEVICE_CUDA)
        return mf_cuda_create(runtime->device_index, &runtime->backend, error);
    return options->reference ? mf_cpu_reference_create(&runtime->backend, error)
                              : mf_cpu_create(NULL, &runtime->backend, error);
}

static enum mf_status make_graph(struct mf_runtime *runtime, struct mf_error *error) {
    const enum mf_status status = mf_graph_create(&runtime->graph, error);
    if (status != MF_OK)
        return status;
    runtime->graph->head_chunk_rows = runtime->backend->head_chunk_rows;
    runtime->graph->expand_registered = runtime->reference || runtime->backend->memory;
    return MF_OK;
}

/* What the provider gives. */
static enum mf_status load(const struct mf_runtime_options *options, enum mf_dtype preferred,
                           struct mf_runtime *runtime, struct mf_error *error) {
    static const char *const no_settings[] = {NULL};
    const struct mf_model_reference asked = {
        .size = sizeof asked, .model_id = options->model, .revision = options->revision};
    struct mf_model_reference reference = {.size = sizeof reference};
    const bool bf16 =
        options->compute == MF_COMPUTE_BF16 || (options->compute == MF_COMPUTE_AUTO && preferred == MF_BF16);
    const struct mf_load_options wanted = {
        .size = sizeof wanted,
        .model_class = MF_MODEL_CAUSAL_LM,
        .quantization = (uint32_t)options->quantization,
        .nested = options->nested_quantization,
        .compute_dtype = bf16 ? MF_NUMBER_BF16 : MF_NUMBER_F32,
        .reference = &reference,
        .device_map = options->device_map ? options->device_map : "auto",
        .provider_config = options->provider_config ? options->provider_config : no_settings};
    enum mf_status status =
        mf_provider_validate_model_access(runtime->provider, runtime->context, &asked, error);
    if (status == MF_OK)
        status = mf_model_locate(runtime->context, &asked, &runtime->location, error);
    reference.model_id = runtime->location.folder; /* from here on a path, and always the same */
    if (status == MF_OK)
        status = mf_provider_load_model(runtime->provider, runtime->context, &wanted, &runtime->model, error);
    if (status == MF_OK)
        status = mf_provider_load_tokenizer(runtime->provider, runtime->context, &reference,
                                            &runtime->tokenizer, error);
    return status;
}

static enum mf_status open_parts(const struct mf_runtime_options *options, struct mf_runtime *runtime,
                                 struct mf_error *error) {
    enum mf_dtype preferred = MF_F32;
    /* A library is tried in a child process: before the driver of a GPU is in this one. */
    enum mf_status status = mf_provider_find(options->provider, &runtime->provider, error);
    if (status == MF_OK)
        status = choose_device(options, runtime, &preferred, error);
    if (status == MF_OK)
        status = load(options, preferred, runtime, error);
    if (runtime->context == &runtime->own_context) /* mapped, and nobody else asks for these files: not even a
                                                      signal leaves them behind */
        mf_made_folders_remove(runtime->context);
    if (status == MF_OK)
        status = mf_tokenizer_set_embeddings(runtime->tokenizer,
                                             mf_model_architecture(runtime->model)->vocabulary, error);
    if (status == MF_OK)
        status = open_backend(options, runtime, error);
    return status == MF_OK ? make_graph(runtime, error) : status;
}

enum mf_status mf_runtime_open(const struct mf_runtime_options *options, struct mf_runtime *runtime,
                               struct mf_error *error) {
    *runtime = (struct mf_runtime){.memory_bytes = machine_memory(), .reference = options->reference};
    runtime->context = options->context ? options->context : &runtime->own_context;
    enum mf_status status = open_parts(options, runtime, error);
    if (status != MF_OK)
        mf_runtime_close(runtime);
    return status;
}

static void drop_programs(struct mf_runtime *runtime) {
    mf_executor_destroy(runtime->executor);
    mf_plan_destroy(runtime->plan);
    mf_graph_destroy(runtime->graph);
    runtime->executor = NULL;
    runtime->plan = NULL;
    runtime->graph = NULL;
}

void mf_runtime_close(struct mf_runtime *runtime) {
    drop_programs(runtime);
    mf_backend_destroy(runtime->backend);
    mf_model_close(runtime->model);
    mf_tokenizer_close(runtime->tokenizer);
    mf_model_location_free(&runtime->location);
    mf_made_folders_remove(runtime->context);
    *runtime = (struct mf_runtime){0};
}

enum mf_status mf_runtime_discard(struct mf_runtime *runtime, struct mf_error *error) {
    drop_programs(runtime);
    return make_graph(runtime, error);
}

size_t mf_runtime_budget(const struct mf_runtime *runtime) {
    return (size_t)(runtime->device.kind == MF_DEVICE_CUDA ? runtime->memory_bytes / 10 * 9
                                                           : runtime->memory_bytes / 5 * 4);
}

enum mf_status mf_runtime_plan(struct mf_runtime *runtime, struct mf_error *error) {
    return mf_plan_create(runtime->graph, runtime->backend, 0, &runtime->plan, error);
}

enum mf_status mf_runtime_realize(struct mf_runtime *runtime, struct mf_error *error) {
    enum mf_status status = MF_OK;
    if (!runtime->plan)
        status = mf_plan_create(runtime->graph, runtime->backend, mf_runtime_budget(runtime), &runtime->plan,
                                error);
    if (status == MF_OK)
        status = mf_executor_create(runtime->graph, runtime->plan, runtime->backend, NULL, &runtime->executor,
                                    error);
    if (status == MF_OK)
        status = mf_model_bind(runtime->model, runtime->context, runtime->graph, runtime->executor, error);
    if (status == MF_OK)
        status = mf_executor_prepare(runtime->executor, error);
    return status;
}

int64_t mf_runtime_managed_bytes(const struct mf_runtime *runtime) {
    return runtime->plan ? (int64_t)mf_plan_bytes(runtime->plan) : 0;
}
