/* A model that can run here: provider, model, tokenizer and backend, then the programs planned and bound.
 *
 *     mf_runtime_open                 checks access, maps weights, opens the tokenizer, starts the backend
 *     mf_graph_*, mf_model_build ...  on runtime->graph
 *     mf_runtime_realize              plan, executor, weights bound: programs can run
 *     mf_runtime_discard              back to an empty graph, for another attempt at a plan
 */
#ifndef MF_WORKER_TRAINER_RUNTIME_H
#define MF_WORKER_TRAINER_RUNTIME_H

#include "common/error.h"
#include "kernels/executor.h"
#include "kernels/graph.h"
#include "kernels/passes/plan.h"
#include "providers/locate.h"
#include "providers/models/model.h"
#include "providers/registry.h"
#include "providers/tokenizer/tokenizer.h"
#include "worker/trainer/adapter.h"

#include <stdbool.h>
#include <stddef.h>

enum mf_compute { MF_COMPUTE_AUTO, MF_COMPUTE_F32, MF_COMPUTE_BF16 };

/* AUTO: the first GPU where there is one, else the CPU. */
enum mf_device_choice { MF_ON_AUTO, MF_ON_CPU, MF_ON_CUDA };

struct mf_runtime_options {
    const char *provider;                /* by name */
    const char *model;                   /* a Hugging Face folder, or an id on a hub */
    const char *revision;                /* of a hub's model; NULL: the default */
    enum mf_device_choice device;        /* what it is computed on */
    enum mf_compute compute;             /* AUTO: bf16 where the device multiplies it, else f32 */
    enum mf_quantization quantization;   /* of the linear modules but the head */
    bool nested_quantization;            /* 4 bits: the scales are quantised too */
    const char *device_map;              /* "auto", "balanced" (refused) or "cuda:N": which GPU; NULL: auto */
    const char *const *provider_config;  /* pairs of name and value, then NULL; NULL: none */
    bool reference;                      /* the oracle's kernels, on the CPU, instead of the fast ones */
    struct mf_provider_context *context; /* borrowed; asked for cancellation */
};

struct mf_runtime {
    const struct mf_provider *provider;
    struct mf_provider_context *context;
    struct mf_provider_context own_context; /* where no other one was given */
    struct mf_model_location location;      /* of the model's files */
    struct mf_model *model;
    struct mf_tokenizer *tokenizer;
    struct mf_backend *backend;
    struct mf_graph *graph;
    struct mf_plan *plan;
    struct mf_executor *executor;
    struct mf_device device; /* as providers are told */
    bool reference;          /* the oracle's kernels */
    int device_index;        /* which GPU, of those that this process has */
    int64_t memory_bytes;    /* of the GPU, or of this machine or control group, what is the less */
};

/* "auto", "cpu", "cuda" or "gpu", as requests and the command line say it; else MF_ERROR_INVALID_FIELD. */
enum mf_status mf_device_choice_parse(const char *text, enum mf_device_choice *choice,
                                      struct mf_error *error);
/* Is the first GPU what `choice` means here? */
bool mf_device_choice_is_cuda(enum mf_device_choice choice);

/* Whether the device that `choice` means here is what a request asks for: MF_ERROR_UNSUPPORTED_FIELD for more
 * GPUs than the one that a job is trained on, MF_ERROR_UNPLACEABLE for a GPU that is not there or is smaller
 * than `min_gpu_memory_gib` (0: any). */
enum mf_status mf_device_choice_check(enum mf_device_choice choice, const char *device_map, int64_t gpus,
                                      double min_gpu_memory_gib, struct mf_error *error);

/* On failure *runtime needs no closing. */
enum mf_status mf_runtime_open(const struct mf_runtime_options *options, struct mf_runtime *runtime,
                               struct mf_error *error);
void mf_runtime_close(struct mf_runtime *runtime); /* a zeroed one too */

/* Plans the graph, whatever it takes; discard it to try another one. */
enum mf_status mf_runtime_plan(struct mf_runtime *runtime, struct mf_error *error);
/* Plans the graph where that is not done, and fails with MF_ERROR_PLAN_TOO_LARGE when the plan takes more
 * than mf_runtime_budget; then makes the executor and binds the weights. */
enum mf_status mf_runtime_realize(struct mf_runtime *runtime, struct mf_error *error);
enum mf_status mf_runtime_discard(struct mf_runtime *runtime, struct mf_error *error);

/* What a plan may take, weights and all: 80% of the machine's memory, 90% of a GPU's. A function of the
 * device, not of what is free. */
size_t mf_runtime_budget(const struct mf_runtime *runtime);

/* Bytes that the plan manages: mf_plan_bytes; 0 without a plan. */
int64_t mf_runtime_managed_bytes(const struct mf_runtime *runtime);

#endif
