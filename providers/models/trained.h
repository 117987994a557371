/* Weights of a model that a slot trains as a whole, instead of or beside adapters (kernels/graph.h). */
#ifndef MF_PROVIDERS_MODELS_TRAINED_H
#define MF_PROVIDERS_MODELS_TRAINED_H

#include "providers/models/model.h"

/* All weights, named as on disk; before the slot's first program. What Transformers' Trainer does not decay
 * (biases, norms) is not decayed; the table of tokens keeps its moments in 32 bits, as there. */
enum mf_status mf_model_train_all(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                                  struct mf_error *error);

/* The weights and biases of the modules that PEFT's modules_to_save means: those whose name ends with one of
 * the texts. They are named as PEFT names them on disk, "base_model.model.<weight>". What shares a weight
 * with them (a tied head with the table of tokens) goes on with the model's own. A module that is trained
 * whole is taken out of chosen[mf_model_module_count], which says where adapters go. Before the slot's first
 * program and its adapters. MF_ERROR_INVALID_FIELD names a text that matches nothing, with the modules that
 * there are; MF_ERROR_CONFLICTING_FIELDS a module whose weights are quantised. */
enum mf_status mf_model_train_modules(const struct mf_model *model, struct mf_graph *graph, int16_t slot,
                                      const char *const *modules, size_t count, bool *chosen,
                                      struct mf_error *error);

/* Gives what the slot trains whole the model's own values. */
enum mf_status mf_model_load_trained(const struct mf_model *model, const struct mf_graph *graph, int16_t slot,
                                     struct mf_executor *executor, struct mf_error *error);

#endif
