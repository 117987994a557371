/* LoRA adapters as PEFT keeps them: a folder with adapter_config.json and adapter_model.safetensors, whose
 * tensors are named base_model.model.<module>.lora_A.weight (r, K) and .lora_B.weight (N, r); and, of modules
 * that were trained whole (modules_to_save), base_model.model.<module>.weight and .bias. */
#ifndef MF_WORKER_TRAINER_ADAPTER_H
#define MF_WORKER_TRAINER_ADAPTER_H

#include "common/digest.h"
#include "common/error.h"
#include "kernels/executor.h"
#include "kernels/graph.h"
#include "providers/export.h"
#include "providers/models/model.h"

#include <stdbool.h>
#include <stdint.h>

struct mf_adapter_settings {
    int32_t rank;
    double alpha;
    double dropout; /* on the branch's input, in training */
    bool rslora;    /* scale alpha / sqrt(rank) instead of alpha / rank */
};

double mf_adapter_scale(const struct mf_adapter_settings *settings);

/* Puts an adapter on each chosen module (chosen[mf_model_module_count]); before the slot's first program. */
enum mf_status mf_adapter_add(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                              const bool *chosen, const struct mf_adapter_settings *settings,
                              struct mf_error *error);

/* PEFT's initial values: B zero, A uniform in ±1/√K. Element (i, j) of A is word j % 4 of kernels/random.h's
 * generator with key mf_random_key(seed, MF_RANDOM_OUTSIDE_STEPS) and counter (j / 4, i, 0, the module's
 * random stream), as ((2 · word + 1) / 2^32 − 1) / √K in double, rounded to f32. */
void mf_adapter_initialize(const struct mf_graph *graph, int16_t slot, struct mf_executor *executor,
                           uint64_t seed);

/* Writes the folder so that either all of it or nothing stands there: a temporary folder beside it, then
 * rename; what stood there before is replaced. `base_model` is recorded as base_model_name_or_path; tokenizer
 * files of `tokenizer_folder` (NULL: none) are copied beside the adapter. */
enum mf_status mf_adapter_save(const char *folder, const struct mf_graph *graph, int16_t slot,
                               struct mf_executor *executor, const struct mf_adapter_settings *settings,
                               const char *base_model, const char *tokenizer_folder, struct mf_error *error);

/* An adapter folder opened for reading. */
struct mf_adapter_file;

/* Reads the configuration and the weights' header, and refuses by name what is more than LoRA on linear
 * modules and modules_to_save (use_dora, bias, alpha_pattern, fan_in_fan_out ...). MF_ERROR_MODEL_NOT_FOUND,
 * MF_ERROR_MODEL_INCOMPLETE, MF_ERROR_ADAPTER_MISMATCH, MF_ERROR_BAD_WEIGHTS. Freed with mf_adapter_close().
 */
enum mf_status mf_adapter_open(const char *folder, struct mf_adapter_file **out, struct mf_error *error);
void mf_adapter_close(struct mf_adapter_file *file); /* NULL is fine */
const struct mf_adapter_settings *mf_adapter_file_settings(const struct mf_adapter_file *file);
/* base_model_name_or_path, "" where the file does not say; the file's. */
const char *mf_adapter_file_base(const struct mf_adapter_file *file);
/* Of what is attached from now on. */
void mf_adapter_file_set_dropout(struct mf_adapter_file *file, double dropout);
/* sha256 of adapter_model.safetensors. */
enum mf_status mf_adapter_file_digest(const struct mf_adapter_file *file, char digest[MF_SHA256_TEXT_BYTES],
                                      struct mf_error *error);

/* Puts the file's adapters on the model's modules, and what it holds of whole ones in their place, each with
 * its own rank (they may differ only where nothing is saved again), before the slot's first program; then,
 * once there is an executor, copies the values. A module that the model lacks or a shape that does not fit is
 * MF_ERROR_ADAPTER_MISMATCH. */
enum mf_status mf_adapter_attach(const struct mf_adapter_file *file, const struct mf_model *model,
                                 struct mf_graph *graph, int16_t slot, struct mf_error *error);
enum mf_status mf_adapter_load(const struct mf_adapter_file *file, const struct mf_graph *graph,
                               struct mf_executor *executor, struct mf_error *error);

/* What was trained as what the model's weights get of it, for merging. */
struct mf_adapter_deltas {
    struct mf_weight_delta *delta;
    size_t count;
    struct mf_weight_value *value; /* weights that were trained whole */
    size_t whole;
    bool untie_head;
    float *values; /* of a file's tensors; NULL: borrowed */
    char *names;
};

/* Whether what the slot trains whole makes head and table of tokens two, where a model ties them. */
bool mf_adapter_unties_head(const struct mf_graph *graph, int16_t slot);
/* Those of a slot: values and names are borrowed from executor and graph. Destroyed also on failure. */
enum mf_status mf_adapter_deltas(const struct mf_graph *graph, int16_t slot, struct mf_executor *executor,
                                 struct mf_adapter_deltas *deltas, struct mf_error *error);
/* Those of a file, as f32; MF_ERROR_ADAPTER_MISMATCH names a tensor without its other half. */
enum mf_status mf_adapter_file_deltas(const struct mf_adapter_file *file, struct mf_adapter_deltas *deltas,
                                      struct mf_error *error);
void mf_adapter_deltas_destroy(struct mf_adapter_deltas *deltas); /* a zeroed one too */

#endif
