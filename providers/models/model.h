/* A model = programs + weights + policy. A provider opens it (provider.h: load_model); the trainer asks it
 * for its modules, lets it build programs on a graph, and binds its weights to the graph's weight tensors. */
#ifndef MF_PROVIDERS_MODELS_MODEL_H
#define MF_PROVIDERS_MODELS_MODEL_H

#include "common/error.h"
#include "kernels/executor.h"
#include "kernels/graph.h"
#include "providers/models/architecture.h"
#include "providers/provider.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mf_stored_tensor; /* weights/safetensors.h */

/* One linear module as Hugging Face stores it: y = x W^T (+ b), W (output_features, input_features). */
struct mf_model_module {
    const char *name;   /* "model.layers.0.self_attn.q_proj" */
    const char *suffix; /* "q_proj": what target_modules names */
    int32_t layer;      /* -1 for the head */
    int64_t input_features, output_features;
    bool head; /* lm_head: not part of "all-linear" */
};

struct mf_model_options {
    const char *folder;
    enum mf_dtype compute_dtype;       /* MF_F32 or MF_BF16: of weights and activations */
    enum mf_quantization quantization; /* of the linear modules but the head */
    bool nested_quantization;          /* 4 bits: the scales are quantised too */
    bool fuse;                         /* queries, keys and values are one product, gate and up are one */
    struct mf_source *source; /* source.h: what a provider builds itself, the model's from then on, or
                                 destroyed after a failure; NULL: nothing */
};

/* Reads description and weight headers of a Hugging Face folder and checks one against the other: every
 * weight that the architecture needs is there with the right shape and a floating dtype, and nothing is there
 * that it does not know (MF_ERROR_WEIGHT_MISMATCH names it). Weight data stay on disk, memory-mapped.
 * *out is freed with mf_model_close. */
enum mf_status mf_model_open(const struct mf_model_options *options, struct mf_model **out,
                             struct mf_error *error);
void mf_model_close(struct mf_model *model); /* NULL is fine; not before graphs bound to it are done */

const struct mf_architecture *mf_model_architecture(const struct mf_model *model);
const char *mf_model_folder(const struct mf_model *model);
enum mf_dtype mf_model_compute_dtype(const struct mf_model *model);
/* Which values the linear modules but the head have: those of this quantised form of their weights. */
enum mf_quantization mf_model_quantization(const struct mf_model *model, bool *nested);
/* Were its weights loaded to be multiplied by in as few products as they allow? */
bool mf_model_fuses(const struct mf_model *model);
int64_t mf_model_parameters(const struct mf_model *model); /* a tied head counts once */

/* A weight as it lies in the files, the model's; NULL: there is none of that name. */
const struct mf_stored_tensor *mf_model_stored(const struct mf_model *model, const char *name);
/* Has `weight` the values of a quantised form? */
bool mf_model_is_quantized(const struct mf_model *model, const char *weight);

struct mf_decoder_weight;
/* All weights that the programs read and that are on disk (decoder.h); freed by the caller. */
enum mf_status mf_model_weights(const struct mf_model *model, struct mf_decoder_weight **weight,
                                size_t *count, struct mf_error *error);
/* Does a provider build its programs? Then nothing is known of them but their modules and weights. */
bool mf_model_is_built(const struct mf_model *model);

size_t mf_model_module_count(const struct mf_model *model);
/* In the order of the forward pass. */
const struct mf_model_module *mf_model_module(const struct mf_model *model, size_t index);

/* Which modules PEFT's target_modules means. `targets` NULL or {"all-linear"}: every linear module but the
 * head; else a module is chosen when its name equals a target or ends with "." and the target.
 * chosen[mf_model_module_count]; MF_ERROR_INVALID_FIELD names a target that matches nothing, with those that
 * there are. */
enum mf_status mf_model_choose_modules(const struct mf_model *model, const char *const *targets, size_t count,
                                       bool *chosen, struct mf_error *error);

/* LoRA of rank `rank` on the chosen modules of `graph`, in slot `slot`, in the order of the modules. Before
 * the first program of the slot is built. Parameters are named as PEFT names them on disk (kernels/graph.h).
 */
enum mf_status mf_model_add_adapters(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                                     const bool *chosen, int32_t rank, float scale, float dropout,
                                     struct mf_error *error);

/* Says that no row will have more than `tokens` tokens, before mf_model_bind: rotary positions of some models
 * depend on it (rope.h). Without it no row is longer than the positions that the model was made for. */
void mf_model_set_longest_row(struct mf_model *model, int32_t tokens);

/* Tensor ids of a program that a model built; -1: it has no such output. */
struct mf_model_program {
    int32_t program;         /* its id in the graph */
    int32_t log_probability; /* (L) f32: train, evaluate, score */
    int32_t loss;            /* (1) f32: train, evaluate */
    int32_t logits;          /* (S, V) f32: prefill, decode; of the last token of each sequence */
    int32_t next_token;      /* (S) i32: prefill, decode; the greedy choice */
};

/* Builds the forward pass of a program and runs the provider's passes over it; the trainer sets its bounds
 * (mf_program_set_bound) and, for MF_TRAIN, differentiates `loss`. Purposes and the common inputs they read:
 *   MF_TRAIN, MF_EVALUATE   TOKENS POSITIONS OFFSETS LABEL_ROWS LABELS COEFFICIENTS; MF_TRAIN with dropout:
 * ROWS MF_SCORE                the same without COEFFICIENTS MF_PREFILL, MF_DECODE   TOKENS POSITIONS OFFSETS
 * LAST_ROWS CACHE_SLOTS CACHE_OFFSETS CACHE_LENGTHS Keys and values of MF_PREFILL and MF_DECODE lie in one
 * cache shared by both. Slot -1: without adapters. */
enum mf_status mf_model_build(const struct mf_model *model, struct mf_graph *graph, enum mf_purpose purpose,
                              int16_t slot, struct mf_model_program *out, struct mf_error *error);

/* Binds every weight of `graph` that this model named. Data come from the mapped files; what cannot be used
 * as it lies there (another dtype than the graph's, misaligned) is converted once and kept by the model,
 * unless the executor copies it. Of a quantised model each module's weight is quantised as it would be in the
 * computing dtype; where programs dequantise it that is what is kept, else it is dequantised to that dtype
 * and only this is kept: memory never holds more than what is kept and the parts of one module. The model
 * must outlive the executor. `context` may be NULL: asked for cancellation between tensors. */
enum mf_status mf_model_bind(struct mf_model *model, struct mf_provider_context *context,
                             const struct mf_graph *graph, struct mf_executor *executor,
                             struct mf_error *error);

#endif
